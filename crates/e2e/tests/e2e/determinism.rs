//! Replicas agree although everything that apply must not look at differs between their nodes.

use std::time::Duration;

use drover_client::{Client, CompatAction, End, Interval, NodeId, RouteId, Settled, WriteKind, WriteOptions};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use futures::{StreamExt, TryStreamExt};

/// The nodes differ in their clocks, by hours; in limits, retention and sizes; in how often they flush and what they keep of the
/// log; and in what they know of the routes, since one of them has no replica of the default group. Every kind of command
/// of a user goes through, with leaders on each of them.
#[tokio::test(flavor = "multi_thread")]
async fn h24_replicas_agree_although_configuration_clock_and_route_cache_of_their_nodes_differ() {
    const HOUR_MS: i64 = 3_600_000;
    let (one, two, three) = (NodeId(1), NodeId(2), NodeId(3));
    let mut cluster = Cluster::builder()
        .data_groups(2)
        .set_on(one, "limits.scan_rows", 7)
        .set_on(one, "storage.gc_retention_ms", "30s")
        .set_on(two, "storage.flush_interval_ms", 200)
        .set_on(two, "raft.snapshot_entries", 100)
        .set_on(two, "raft.log_retention_entries", 10)
        .set_on(two, "raft.purge_batch_entries", 1)
        .set_on(two, "limits.key_bytes", 300)
        .set_on(three, "storage.write_buffer_bytes", 1 << 20)
        .set_on(three, "oracle.max_clock_step_ms", "2h")
        .set_on(three, "limits.value_bytes", 100_000)
        .prepare()
        .unwrap();
    for (node, shift) in [(one, 0), (two, 5 * HOUR_MS), (three, -7 * HOUR_MS)] {
        cluster.node(node).shift_clock(shift);
    }
    cluster.start_all(PATIENCE).await.unwrap();
    // Follows the routes of another node, and so is behind it.
    let four = cluster.join().await.unwrap();
    let client = cluster.client().await.unwrap();
    for group in cluster.data_groups() {
        client.add_replica(group, four, "test").await.unwrap();
    }
    for (round, leader) in [one, two, three, one].into_iter().enumerate() {
        for group in cluster.groups() {
            lead(&client, group, leader).await;
        }
        commands(&client, round).await;
        settles_and_deletes(&client, round).await;
        changes_of_the_cluster(&client, round, four).await;
    }
    cluster.assert_replicas_equal().await.unwrap();
    for group in cluster.data_groups() {
        let voters = cluster.compare_digests(one, group).await.unwrap();
        assert_eq!(voters.digests.len(), 4, "{voters:?}");
    }
}

async fn lead(client: &Client, group: drover_client::GroupId, leader: NodeId) {
    drover_testkit::wait::wait_until(&format!("node {leader} to lead group {group}"), PATIENCE, || async {
        client.transfer_leader(group, leader).await.map_err(|error| error.to_string())
    })
    .await
    .unwrap();
}

async fn commands(client: &Client, round: usize) {
    let key = |n: usize| format!("{}{n:04}", char::from(b'a' + u8::try_from(n % 26).unwrap()));
    let puts = futures::stream::iter(0..200).map(async |n| match n % 3 {
        0 => client.put_ttl(key(n), format!("{round}"), Duration::from_secs(1 + n as u64 % 2)).await,
        _ => client.put(key(n), format!("{round}")).await,
    });
    puts.buffer_unordered(8).try_for_each(|_| std::future::ready(Ok(()))).await.unwrap();
    for n in (0..200).step_by(9) {
        client.delete(key(n)).await.unwrap();
        let expect = drover_client::Expectation::Absent;
        client
            .compare_and_set(key(n), expect, drover_client::Update::Put { value: "again".into(), ttl_ms: None })
            .await
            .unwrap();
    }
    let routes = client.routes().await.unwrap();
    let route = routes.routes[round % routes.routes.len()].clone();
    let at = [route.start.as_ref(), format!("{round}").as_bytes()].concat();
    client.split_route(routes.version, RouteId(route.route_id), at, "test").await.unwrap();
}

/// Named writes whose outcome is asked for, some of which were never sent, and deletes of whole ranges.
async fn settles_and_deletes(client: &Client, round: usize) {
    for n in 0..20 {
        let (key, name) = (format!("s{n:04}"), client.new_idempotency());
        let sent = n % 2 == 0;
        if sent {
            let kind = WriteKind::Put { key: key.clone().into(), value: format!("{round}").into(), ttl_ms: None };
            let options = WriteOptions { idempotency: Some(name.clone()), ..WriteOptions::default() };
            client.write(kind, options).await.unwrap();
        }
        let settled = client.settle(key, &name).await.unwrap();
        assert_eq!(matches!(settled, Settled::Applied { .. }), sent, "{settled:?}");
    }
    let letter = |n: usize| char::from(b'c' + u8::try_from(n).unwrap()).to_string();
    // Over the boundaries of routes, and of groups.
    let interval = Interval::new(letter(round), End::Key(letter(round + 14).into())).unwrap();
    let deleted = client.delete_range(interval.clone(), |_| {}).await.unwrap();
    assert!(deleted.deleted > 20, "{deleted:?}");
    assert_eq!(client.count(interval, None).await.unwrap(), 0);
}

/// What an operator does, but for replicas and splits, which are above.
async fn changes_of_the_cluster(client: &Client, round: usize, node: NodeId) {
    let known = async || client.compat(CompatAction::Freeze, "test").await.map_err(|error| error.to_string());
    drover_testkit::wait::wait_until("a version of the cluster that can be frozen", PATIENCE, known).await.unwrap();
    for action in [CompatAction::Freeze, CompatAction::Show, CompatAction::Unfreeze, CompatAction::Unfreeze] {
        client.compat(action, "test").await.unwrap();
    }
    let drains = round.is_multiple_of(2);
    assert!(client.drain_node(node, drains, "test").await.unwrap());
    assert!(!client.drain_node(node, drains, "test").await.unwrap());
    let unknown = client.remove_node(NodeId(99), "test").await.unwrap_err();
    assert!(!unknown.is_unknown(), "{unknown}");
}
