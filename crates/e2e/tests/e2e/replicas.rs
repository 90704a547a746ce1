//! Nodes that join and leave, and replicas that are added and removed, while clients write.

use std::collections::BTreeSet;
use std::sync::Arc;

use drover_client::{Client, GroupId, NewNode, NodeId, Reason, ReplicaState};
use drover_guards::CrashPoint;
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::ledger::Ledger;
use drover_testkit::nemesis::{Fault, strike};
use drover_testkit::wait::wait_until;
use drover_testkit::workload::Load;
use drover_wire::proto::v1::WatchTopologyRequest;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use drover_wire::status_to_error;
use tokio_util::sync::CancellationToken;

const ME: &str = "test";

/// The nodes whose replicas vote, once no change of the group is under way.
async fn settled(client: &Client, group: GroupId) -> Vec<u64> {
    wait_until(&format!("the change of group {group} to end"), PATIENCE, || async {
        let groups = client.groups().await.map_err(|error| error.to_string())?;
        let info = groups.into_iter().find(|info| info.group_id == group.0).ok_or("it is not listed")?;
        match info.replicas.iter().all(|replica| replica.state() == ReplicaState::Active && replica.votes) {
            true => Ok(info.replicas.iter().map(|replica| replica.node_id).collect()),
            false => Err(format!("{info:?}")),
        }
    })
    .await
    .unwrap()
}

async fn add(client: &Client, group: GroupId, node: NodeId) {
    client.add_replica(group, node, ME).await.unwrap();
    assert!(settled(client, group).await.contains(&node.0));
}

async fn remove(client: &Client, group: GroupId, nodes: &[NodeId]) {
    client.remove_replicas(group, nodes, ME).await.unwrap();
    let left = settled(client, group).await;
    assert!(nodes.iter().all(|node| !left.contains(&node.0)), "{left:?}");
}

fn rows() -> impl Iterator<Item = (bytes::Bytes, bytes::Bytes)> + Send {
    (0u64..).map(|n| {
        let letter = char::from(b'a' + u8::try_from(n * 7 % 26).unwrap());
        (format!("{letter}{n:08}").into(), "value".into())
    })
}

/// Waits until nothing is left on a node of a group's replica.
async fn no_data_left(cluster: &Cluster, node: NodeId, group: GroupId) {
    let path = cluster.node(node).data_dir().join("groups").join(group.to_string());
    wait_until(&format!("{} to be removed", path.display()), PATIENCE, || async {
        if path.exists() { Err("it is there") } else { Ok(()) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_from_three_nodes_to_five_and_back_under_traffic() {
    let mut cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let ledger = Arc::new(Ledger::new());
    let stop = CancellationToken::new();
    let load = Load { rows: rows(), on_row: Arc::new(|_, _| {}) };
    let written = Arc::clone(&ledger);
    let ended = stop.clone();
    let loading = tokio::spawn(async move { load.run(vec![client; 8], &written, &ended).await });

    let joined = [cluster.join().await.unwrap(), cluster.join().await.unwrap()];
    assert_eq!(joined, [NodeId(4), NodeId(5)]);
    let admin = cluster.client().await.unwrap();
    for group in cluster.groups() {
        for node in joined {
            add(&admin, group, node).await;
        }
    }
    cluster.assert_replicas_equal().await.unwrap();
    // The two with which the cluster began, the leaders among them.
    let leaving = [NodeId(1), NodeId(2)];
    for group in cluster.groups() {
        remove(&admin, group, &leaving).await;
        for node in leaving {
            no_data_left(&cluster, node, group).await;
        }
    }
    for node in leaving {
        admin.remove_node(node, ME).await.unwrap();
        let status = cluster.node(node).wait_exit(PATIENCE).await.unwrap();
        assert!(!status.success());
        let log = cluster.node(node).log();
        assert!(log.contains("was removed from the cluster"), "{log}");
    }
    // Some more rows by those that are left.
    let before = ledger.tally().0;
    wait_until("further rows", PATIENCE, || async {
        if ledger.tally().0 > before + 100 { Ok(()) } else { Err("not yet") }
    })
    .await
    .unwrap();
    stop.cancel();
    loading.await.unwrap();
    let (acknowledged, refused, unknown) = ledger.tally();
    assert!(acknowledged > 500, "only {acknowledged} writes");
    assert_eq!((refused, unknown), (0, 0));
    ledger.audit(&cluster.all_rows(NodeId(3)).await.unwrap()).assert_clean();
    cluster.assert_replicas_equal().await.unwrap();
    for group in cluster.groups() {
        assert_eq!(settled(&admin, group).await, [3, 4, 5]);
    }
    // All of it survives.
    cluster.kill_all().unwrap();
    for node in [3, 4, 5].map(NodeId) {
        cluster.node(node).start().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    ledger.audit(&cluster.all_rows(NodeId(5)).await.unwrap()).assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_was_wiped_is_replaced_by_a_new_one_and_nothing_is_lost() {
    let mut cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let ledger = Arc::new(Ledger::new());
    let load = Load { rows: rows().take(300), on_row: Arc::new(|_, _| {}) };
    load.run(vec![client.clone(); 4], &ledger, &CancellationToken::new()).await;
    cluster.node(NodeId(3)).kill().unwrap();
    std::fs::remove_dir_all(cluster.node(NodeId(3)).data_dir()).unwrap();

    let new = cluster.join().await.unwrap();
    for group in cluster.groups() {
        add(&client, group, new).await;
        remove(&client, group, &[NodeId(3)]).await;
        assert_eq!(settled(&client, group).await, [1, 2, 4]);
    }
    client.remove_node(NodeId(3), ME).await.unwrap();
    ledger.audit(&cluster.all_rows(new).await.unwrap()).assert_clean();
    cluster.assert_replicas_equal().await.unwrap();
    // Its number stays gone.
    cluster.node(NodeId(3)).start().unwrap();
    assert!(!cluster.node(NodeId(3)).wait_exit(PATIENCE).await.unwrap().success());
    // The group does without another node, so the new one votes.
    cluster.node(NodeId(1)).kill().unwrap();
    client.put("zz", "v").await.unwrap();
}

/// A reason, and a part of what it is explained with.
async fn assert_refused<T: std::fmt::Debug>(
    call: impl Future<Output = Result<T, drover_client::Error>>,
    reason: Reason,
    part: &str,
) {
    let error = call.await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (reason, false), "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_would_hurt_are_refused_and_change_nothing() {
    let mut cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let new = cluster.join().await.unwrap();
    let (group, n) = (GroupId(2), NodeId);
    let before = client.groups().await.unwrap();
    let failed = Reason::FailedPrecondition;
    assert_refused(client.remove_replicas(group, &[n(1), n(2)], ME), failed, "a majority").await;
    assert_refused(client.remove_replicas(group, &[n(1), n(2), n(3)], ME), failed, "no replica left").await;
    assert_refused(client.remove_replicas(group, &[], ME), Reason::InvalidArgument, "no node was named").await;
    assert_refused(client.remove_replicas(group, &[new], ME), failed, "holds no replica").await;
    assert_refused(client.remove_replicas(group, &[n(9)], ME), failed, "holds no replica").await;
    assert_refused(client.remove_replicas(GroupId(9), &[n(1)], ME), Reason::UnknownGroup, "no group 9").await;
    assert_refused(client.add_replica(GroupId(9), new, ME), Reason::UnknownGroup, "no group 9").await;
    assert_refused(client.add_replica(group, n(9), ME), Reason::UnknownNode, "no node 9").await;
    assert_refused(client.add_replica(group, n(1), ME), failed, "already holds").await;
    client.drain_node(new, true, ME).await.unwrap();
    assert_refused(client.add_replica(group, new, ME), failed, "draining").await;
    client.drain_node(new, false, ME).await.unwrap();
    let stray = |capabilities| NewNode {
        store: [9; 16],
        grpc_address: "127.0.0.1:1".to_owned(),
        admin_address: String::new(),
        version: (env!("CARGO_PKG_VERSION_MAJOR").parse().unwrap(), env!("CARGO_PKG_VERSION_MINOR").parse().unwrap()),
        capabilities,
    };
    let huge = vec!["x".repeat(10 << 20)];
    assert_refused(client.register_node(&stray(huge), ME), Reason::InvalidArgument, "64 are allowed").await;
    let taken = NewNode { grpc_address: cluster.node(n(1)).grpc_address(), ..stray(Vec::new()) };
    assert_refused(client.register_node(&taken, ME), Reason::WrongNode, "is the address of node 1").await;
    let old = NewNode { version: (0, 0), ..stray(Vec::new()) };
    assert_refused(client.register_node(&old, ME), failed, "Upgrade the node").await;
    assert_eq!(client.groups().await.unwrap(), before);
    assert_eq!(client.nodes().await.unwrap().len(), 4);

    // A replica that cannot catch up is called off, and nothing of it stays.
    cluster.node(new).stop().unwrap();
    client.add_replica(group, new, ME).await.unwrap();
    assert_refused(client.add_replica(group, new, ME), failed, "already holds").await;
    assert_refused(client.remove_replicas(group, &[n(1)], ME), failed, "node 4 is joining").await;
    client.put("k", "v").await.unwrap();
    remove(&client, group, &[new]).await;
    cluster.node(new).resume().unwrap();
    no_data_left(&cluster, new, group).await;
    // It may come again, as another replica.
    add(&client, group, new).await;
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_under_a_number_that_is_taken_or_into_another_cluster_is_told_so() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let stranger = Cluster::builder().nodes(1).data_groups(1).prepare().unwrap();
    let node = stranger.node(NodeId(1));
    let original: toml::Table = std::fs::read_to_string(node.config_path()).unwrap().parse().unwrap();
    let text = std::fs::read_to_string(cluster.node(NodeId(1)).config_path()).unwrap();
    let theirs = text.parse::<toml::Table>().unwrap()["cluster"]["id"].as_str().unwrap().to_owned();
    let join = |cluster_id: &str| {
        let mut table = original.clone();
        table.remove("bootstrap");
        let joined = table["cluster"].as_table_mut().unwrap();
        joined.insert("id".to_owned(), cluster_id.into());
        joined.insert("join".to_owned(), cluster.endpoints().join(",").into());
        std::fs::write(node.config_path(), table.to_string()).unwrap();
    };
    let said = async |part: &str| {
        let from = node.log().len();
        node.start().unwrap();
        assert!(!node.wait_exit(PATIENCE).await.unwrap().success());
        let log = node.log()[from..].to_owned();
        assert!(log.contains(part), "{log}");
    };
    let ours = original["cluster"]["id"].as_str().unwrap().to_owned();
    join(&ours);
    said("WRONG_CLUSTER").await;
    // What this cluster knows is not told to nodes of another: they would give up what they shall keep.
    let address = format!("http://{}", cluster.node(NodeId(1)).grpc_address());
    let mut client = ClusterClient::connect(address).await.unwrap();
    let request = WatchTopologyRequest { known_revision: 0, cluster_id: ours.clone() };
    let refused = client.watch_topology(request).await.unwrap_err();
    assert_eq!(status_to_error(&refused).reason, Reason::WrongCluster);
    // The directory is one of its own cluster now.
    join(&theirs);
    said("it belongs to cluster").await;
    std::fs::remove_dir_all(node.data_dir()).unwrap();
    // A new directory under a number that is taken.
    said("must join under a new id").await;
    assert_eq!(cluster.client().await.unwrap().nodes().await.unwrap().len(), 3);
}

/// Adds and removes replicas of all groups without end, one after the other, until `stop`; how many changes came to their end.
async fn keep_changing(client: &Client, groups: &[GroupId], nodes: u64, stop: &CancellationToken) -> usize {
    let mut changes = 0;
    for round in 0.. {
        let group = groups[round % groups.len()];
        let members = settled(client, group).await;
        let absent = (1..=nodes).find(|node| !members.contains(node));
        // The catalog may be between two leaders, and a live node may count as silent for a moment: the next round tries
        // again. What was decided goes on in any case.
        let decided = match absent {
            Some(node) => client.add_replica(group, NodeId(node), ME).await,
            None => client.remove_replicas(group, &[NodeId(members[round / groups.len() % members.len()])], ME).await,
        };
        match decided {
            Ok(_) => changes += 1,
            Err(error) => {
                let known =
                    [Reason::FailedPrecondition, Reason::TimeoutIndefinite, Reason::Timeout, Reason::Unavailable];
                assert!(known.contains(&error.reason), "{error}");
            }
        }
        if stop.is_cancelled() {
            return changes;
        }
    }
    unreachable!("the rounds have no end")
}

#[tokio::test(flavor = "multi_thread")]
async fn members_change_while_nodes_are_killed_and_nothing_is_lost() {
    // Short logs, so that replicas that come or were away get snapshots.
    let builder = Cluster::builder().data_groups(2).set("raft.log_retention_entries", 50);
    let builder = builder.set("raft.snapshot_entries", 200).set("raft.purge_batch_entries", 1);
    let mut cluster = builder.set("storage.flush_interval_ms", 300).start().await.unwrap();
    cluster.join().await.unwrap();
    let ledger = Arc::new(Ledger::new());
    let (stop, admin) = (CancellationToken::new(), cluster.client().await.unwrap());
    let load = Load { rows: rows(), on_row: Arc::new(|_, _| {}) };
    let clients = vec![cluster.client().await.unwrap(); 8];
    let groups = cluster.groups();
    let faults =
        [Fault::KillAny, Fault::KillLeader, Fault::KillAny, Fault::KillLeader, Fault::StopLeader, Fault::KillAny];
    let nemesis = async {
        let struck = strike(&cluster, &groups, &faults, 7, 300, || ledger.tally().0).await;
        stop.cancel();
        struck.unwrap();
    };
    let (_, (), changes) =
        tokio::join!(load.run(clients, &ledger, &stop), nemesis, keep_changing(&admin, &groups, 4, &stop));
    cluster.wait_ready(PATIENCE).await.unwrap();
    assert!(changes > 6, "only {changes} changes");
    for group in cluster.groups() {
        settled(&admin, group).await;
    }
    for node in cluster.node_ids() {
        ledger.audit(&cluster.all_rows(node).await.unwrap()).assert_clean();
    }
    cluster.assert_replicas_equal().await.unwrap();
}

/// A node hangs while its replica is removed and a new one is wanted in its place. When it goes on it holds the old replica
/// still, with a log that would do. It must not become the new one: the node is about to remove it.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_a_node_that_hung_does_not_take_the_place_of_the_one_that_follows_it() {
    let mut cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let (group, new) = (GroupId(2), cluster.join().await.unwrap());
    add(&client, group, new).await;
    client.put("k", "v").await.unwrap();
    cluster.node(new).stop().unwrap();
    remove(&client, group, &[new]).await;
    client.add_replica(group, new, ME).await.unwrap();
    client.put("k", "w").await.unwrap();
    cluster.node(new).resume().unwrap();
    assert_eq!(settled(&client, group).await, [1, 2, 3, 4]);
    cluster.assert_replicas_equal().await.unwrap();
    let status = cluster.node_status(new).await.unwrap();
    let replica = status.replicas.iter().find(|replica| replica.group_id == group.0).unwrap();
    assert_eq!(replica.error, "");
    let log = cluster.node(new).log();
    assert!(log.contains("the group goes on without the replica here") && !log.contains("a replica is lost"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_finds_the_cluster_again_when_all_nodes_that_its_configuration_names_are_gone() {
    let mut cluster = Cluster::builder().nodes(1).data_groups(1).start().await.unwrap();
    let (first, second) = (NodeId(1), cluster.join().await.unwrap());
    // Holds nothing, and was told of the first node alone.
    let third = cluster.join().await.unwrap();
    let path = cluster.node(third).config_path().to_owned();
    let mut table: toml::Table = std::fs::read_to_string(&path).unwrap().parse().unwrap();
    let only_first = cluster.node(first).grpc_address();
    table["cluster"].as_table_mut().unwrap().insert("join".to_owned(), only_first.into());
    std::fs::write(&path, table.to_string()).unwrap();
    let client = cluster.client().await.unwrap();
    client.put("k", "v").await.unwrap();
    for group in cluster.groups() {
        add(&client, group, second).await;
        remove(&client, group, &[first]).await;
    }
    client.remove_node(first, ME).await.unwrap();
    cluster.node(first).wait_exit(PATIENCE).await.unwrap();
    cluster.node(third).restart().unwrap();
    cluster.node(third).wait_ready(PATIENCE).await.unwrap();
    assert_eq!(cluster.client_of(third).await.unwrap().get("k").await.unwrap().unwrap().value, "v");
}

/// The only founder of a cluster that has grown loses its disk. With an empty directory and its old configuration it could
/// found everything a second time, all by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_founder_whose_disk_was_wiped_does_not_found_a_second_cluster() {
    let mut cluster = Cluster::builder().nodes(1).data_groups(1).start().await.unwrap();
    let (founder, second, third) = (NodeId(1), cluster.join().await.unwrap(), cluster.join().await.unwrap());
    let client = cluster.client().await.unwrap();
    for group in cluster.groups() {
        add(&client, group, second).await;
        add(&client, group, third).await;
    }
    client.put("k", "v").await.unwrap();
    let wiped = cluster.node(founder);
    wiped.kill().unwrap();
    std::fs::remove_dir_all(wiped.data_dir()).unwrap();
    wiped.start().unwrap();
    assert!(!wiped.wait_exit(PATIENCE).await.unwrap().success());
    let log = wiped.log();
    assert!(log.contains("it must join under a new id"), "{log}");
    assert!(!log[log.rfind("new_directory=true").unwrap()..].contains("leads the group"), "{log}");
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_removed_while_its_node_was_down_is_gone_soon_after_the_node_is_back() {
    let mut cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let new = cluster.join().await.unwrap();
    for group in cluster.groups() {
        add(&client, group, new).await;
    }
    cluster.node(new).kill().unwrap();
    for group in cluster.groups() {
        remove(&client, group, &[new]).await;
    }
    cluster.node(new).start().unwrap();
    for group in cluster.groups() {
        no_data_left(&cluster, new, group).await;
    }
    cluster.node(new).wait_ready(PATIENCE).await.unwrap();
    let log = cluster.node(new).log();
    assert!(!log.contains("it is not removed yet"), "{log}");
    // And again, as others.
    for group in cluster.groups() {
        add(&client, group, new).await;
    }
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_crashes_between_two_steps_of_a_change_of_its_replicas_comes_to_the_same_end() {
    let mut cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let (group, new) = (GroupId(2), cluster.join().await.unwrap());
    let crashes = |point| {
        let node = cluster.node(new);
        node.crash_at(point);
        node.kill().unwrap();
        node.start().unwrap();
        node.wait_ready(PATIENCE)
    };
    let ended = async |point: &str| {
        let node = cluster.node(new);
        node.wait_crash(point.parse().unwrap(), PATIENCE).await.unwrap();
        node.crash_at(None);
        node.start().unwrap();
        node.wait_ready(PATIENCE).await.unwrap();
    };
    let coming = ["replica.clear.store", "replica.add.cleared", "replica.add.recorded", "replica.add.opened"];
    let going = ["replica.remove.recorded", "replica.clear.store", "replica.remove.cleared", "replica.remove.recorded"];
    // The other points are those of `txn_crashes.rs` and `move_crashes.rs`.
    let places: BTreeSet<String> = CrashPoint::all().map(|point| point.to_string()).collect();
    let places = places.iter().filter(|point| point.starts_with("replica.")).map(String::as_str);
    assert_eq!(coming.into_iter().chain(going).collect::<BTreeSet<_>>(), places.collect());
    for (round, (coming, going)) in coming.into_iter().zip(going).enumerate() {
        client.put(format!("k{round}"), "v").await.unwrap();
        crashes(Some(coming)).await.unwrap();
        client.add_replica(group, new, ME).await.unwrap();
        ended(coming).await;
        assert_eq!(settled(&client, group).await, [1, 2, 3, 4], "{coming}");
        cluster.assert_replicas_equal().await.unwrap();

        crashes(Some(going)).await.unwrap();
        client.remove_replicas(group, &[new], ME).await.unwrap();
        ended(going).await;
        assert_eq!(settled(&client, group).await, [1, 2, 3], "{going}");
        no_data_left(&cluster, new, group).await;
    }
    cluster.assert_replicas_equal().await.unwrap();
}

/// The configuration of the first nodes names them as the replicas of everything, and the routes as they were then.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_default_group_has_moved_away_the_first_nodes_start_again_from_the_catalog_and_not_from_their_configuration()
 {
    let mut cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let joined = [cluster.join().await.unwrap(), cluster.join().await.unwrap(), cluster.join().await.unwrap()];
    for node in joined {
        add(&client, GroupId::DEFAULT, node).await;
    }
    remove(&client, GroupId::DEFAULT, &[NodeId(1)]).await;
    remove(&client, GroupId::DEFAULT, &[NodeId(2), NodeId(3)]).await;
    let routes = client.routes().await.unwrap();
    let last = routes.routes.last().unwrap();
    let (version, route) = (routes.version, drover_client::RouteId(last.route_id));
    client.split_route(version, route, [&last.start[..], b"zz"].concat(), ME).await.unwrap();
    client.put("k", "v").await.unwrap();

    cluster.kill_all().unwrap();
    // First those that could believe that there is no cluster yet.
    for node in cluster.node_ids() {
        cluster.node(node).start().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    for node in cluster.node_ids() {
        let client = cluster.client_of(node).await.unwrap();
        wait_until("the routes to be those of the catalog", PATIENCE, || async {
            let known = client.routes().await.map_err(|error| error.to_string())?;
            match known.version.0 == version.0 + 1 && known.routes.len() == routes.routes.len() + 1 {
                true => Ok(()),
                false => Err(format!("{known:?}")),
            }
        })
        .await
        .unwrap();
        assert_eq!(client.get("k").await.unwrap().unwrap().value, "v", "{node}");
        assert_eq!(settled(&client, GroupId::DEFAULT).await, [4, 5, 6]);
        assert_eq!(settled(&client, GroupId(2)).await, [1, 2, 3]);
    }
    client.put("k", "w").await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
}
