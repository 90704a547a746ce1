//! A node that is told to stop hands over and finishes first, and waits for nobody who is going, too.

use std::sync::Arc;

use drover_client::Client;
use drover_testkit::Cluster;
use drover_testkit::cluster::{Node, PATIENCE};
use drover_testkit::ledger::Ledger;
use drover_testkit::workload::Load;
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_under_load_costs_clients_no_error() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let ledger = Arc::new(Ledger::new());
    let stop = CancellationToken::new();
    let rows = (0u64..).map(|n| {
        let letter = char::from(b'a' + u8::try_from(n * 7 % 26).unwrap());
        (format!("{letter}{n:08}").into(), "value".into())
    });
    let load = Load { rows, on_row: Arc::new(|_, _| {}) };
    let rolling = async {
        for node in cluster.nodes() {
            let status = node.terminate(PATIENCE).await.unwrap();
            assert!(status.success(), "node {} ended with {status}", node.id());
            node.start().unwrap();
            cluster.wait_ready(PATIENCE).await.unwrap();
        }
        stop.cancel();
    };
    tokio::join!(load.run(vec![client; 16], &ledger, &stop), rolling);
    let (acknowledged, refused, unknown) = ledger.tally();
    assert!(acknowledged > 100, "only {acknowledged} writes");
    assert_eq!((refused, unknown), (0, 0));
    ledger.audit(&cluster.all_rows(cluster.node_ids()[0]).await.unwrap()).assert_clean();
    cluster.assert_replicas_equal().await.unwrap();
    cluster.assert_quiet_logs(&[]);
}

/// Lets the leaderships be where every node has some: group 1 on node 1, group 2 on node 2 and so on.
async fn spread_leaders(cluster: &Cluster) {
    for (group, node) in cluster.groups().into_iter().zip(cluster.node_ids().into_iter().cycle()) {
        cluster.lead(group, node, PATIENCE).await.unwrap();
    }
}

/// Stops these nodes at the same time. Each ends well.
async fn terminate_together(nodes: &[Node]) {
    let ends = futures::future::join_all(nodes.iter().map(|node| node.terminate(PATIENCE))).await;
    for (node, end) in nodes.iter().zip(ends) {
        let status = end.unwrap();
        assert!(status.success(), "node {} ended with {status}", node.id());
    }
}

/// What a leader says that has waited in vain for its successor.
const WAITED: &str = "did not take over";

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_stop_all_at_once_wait_for_nobody_to_take_over() {
    let cluster = Cluster::builder().start().await.unwrap();
    for _ in 0..3 {
        spread_leaders(&cluster).await;
        terminate_together(cluster.nodes()).await;
        for node in cluster.nodes() {
            assert!(!node.log().contains(WAITED), "node {} has waited for a node that was going", node.id());
        }
        cluster.nodes().iter().for_each(|node| node.start().unwrap());
        cluster.wait_ready(PATIENCE).await.unwrap();
    }
    cluster.assert_quiet_logs(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_nodes_two_stop_together_and_hand_over_to_those_that_stay() {
    let cluster = Cluster::builder().nodes(5).start().await.unwrap();
    spread_leaders(&cluster).await;
    let (going, staying) = cluster.nodes().split_at(2);
    terminate_together(going).await;
    for node in going {
        let log = node.log();
        assert!(!log.contains(WAITED), "node {} has waited for a node that was going", node.id());
        assert!(!log.contains("nobody is there"), "node {} has found no node that stays", node.id());
    }
    for group in cluster.groups() {
        let leader = cluster.leader(group, PATIENCE).await.unwrap();
        assert!(staying.iter().any(|node| node.id() == leader), "{leader} leads group {group}");
    }
    cluster.assert_quiet_logs(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_the_node_that_was_named_while_clients_write() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let ledger = Arc::new(Ledger::new());
    let stop = CancellationToken::new();
    let rows = (0u64..).map(|n| (format!("k{n:08}").into(), "value".into()));
    let load = Load { rows, on_row: Arc::new(|_, _| {}) };
    let group = drover_keys::GroupId(2);
    let moving = async {
        let admin = Client::connect(cluster.endpoints()).await.unwrap();
        let mut term = 0;
        for to in cluster.node_ids().into_iter().cycle().take(30) {
            // Under way again, so that there are entries in flight when the leadership moves.
            let before = ledger.tally().0;
            while ledger.tally().0 < before + 20 {
                tokio::task::yield_now().await;
            }
            // With an entry on its way the named node would not have the whole log, and would ignore the request.
            let leadership = admin.transfer_leader(group, to).await.unwrap();
            assert_eq!(leadership.leader, to);
            assert!(leadership.term >= term);
            term = leadership.term;
        }
        stop.cancel();
    };
    tokio::join!(load.run(vec![client; 16], &ledger, &stop), moving);
    let (acknowledged, refused, unknown) = ledger.tally();
    assert!(acknowledged > 100, "only {acknowledged} writes");
    assert_eq!((refused, unknown), (0, 0));
    ledger.audit(&cluster.all_rows(cluster.node_ids()[0]).await.unwrap()).assert_clean();
}
