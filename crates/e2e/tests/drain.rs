//! A node that is told to stop hands over and finishes first.

#![allow(clippy::unwrap_used)]

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
