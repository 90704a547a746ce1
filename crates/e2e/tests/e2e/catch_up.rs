//! Replicas that missed what has been purged from the log get a snapshot.

use drover_client::Client;
use drover_keys::NodeId;
use drover_testkit::Cluster;
use drover_testkit::cluster::{ClusterBuilder, PATIENCE};
use drover_testkit::wait::wait_until;
use futures::{StreamExt, TryStreamExt};

/// Keeps next to nothing of the log.
fn forgetful() -> ClusterBuilder {
    let builder = Cluster::builder().data_groups(1).set("raft.log_retention_entries", 10);
    builder.set("raft.snapshot_entries", 100).set("raft.purge_batch_entries", 1).set("storage.flush_interval_ms", 200)
}

async fn write(client: &Client, round: u64, count: u64) {
    let puts = futures::stream::iter(0..count).map(|n| client.put(format!("{round}/{n:06}"), vec![b'x'; 200]));
    puts.buffer_unordered(16).try_for_each(|_| std::future::ready(Ok(()))).await.unwrap();
}

/// Writes until the leader of the data group has purged its log past `index`.
async fn write_past(cluster: &Cluster, client: &Client, index: u64) {
    let group = cluster.data_groups()[0];
    let mut round = 0;
    let what = format!("the log to be purged past {index}");
    wait_until(&what, PATIENCE, async || {
        round += 1;
        write(client, round, 200).await;
        let leader = cluster.leader(group, PATIENCE).await.map_err(|e| e.to_string())?;
        let status = cluster.node_status(leader).await.map_err(|e| e.to_string())?;
        let replica = status.replicas.iter().find(|replica| replica.group_id == group.0);
        let purged = replica.map_or(0, |replica| replica.purged_index);
        if purged > index { Ok(()) } else { Err(format!("purged up to {purged}")) }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_too_long_catches_up_by_snapshot() {
    let cluster = forgetful().start().await.unwrap();
    let client = cluster.client().await.unwrap();
    let group = cluster.data_groups()[0];
    write(&client, 0, 50).await;
    let lagging = cluster.node(NodeId(3));
    let status = cluster.node_status(lagging.id()).await.unwrap();
    let last = status.replicas.iter().find(|r| r.group_id == group.0).unwrap().last_log_index;
    lagging.kill().unwrap();
    write_past(&cluster, &client, last).await;
    lagging.start().unwrap();
    lagging.wait_ready(PATIENCE).await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_empty_catches_up_by_snapshot() {
    let cluster = forgetful().prepare().unwrap();
    for id in [1, 2] {
        cluster.node(NodeId(id)).start().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = cluster.client_of(NodeId(1)).await.unwrap();
    write_past(&cluster, &client, 100).await;
    cluster.node(NodeId(3)).start().unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_while_it_receives_a_snapshot_still_catches_up() {
    let cluster = forgetful().prepare().unwrap();
    for id in [1, 2] {
        cluster.node(NodeId(id)).start().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = cluster.client_of(NodeId(1)).await.unwrap();
    write_past(&cluster, &client, 100).await;
    let late = cluster.node(NodeId(3));
    // Killed at many different moments of its first minute of life.
    for pause_ms in [20, 60, 120, 240, 480, 960] {
        late.start().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        late.kill().unwrap();
    }
    late.start().unwrap();
    late.wait_ready(PATIENCE).await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
}
