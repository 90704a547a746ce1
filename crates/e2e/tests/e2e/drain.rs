//! A node that is told to stop hands over and finishes first.

use std::sync::Arc;

use drover_client::Client;
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
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
