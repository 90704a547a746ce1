//! Nodes that join and leave, and replicas that are added and removed, while clients write.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use drover_client::{Client, GroupId, NodeId, ReplicaState};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::ledger::Ledger;
use drover_testkit::wait::wait_until;
use drover_testkit::workload::Load;
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
