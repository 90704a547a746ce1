//! Who connects while a node hangs.

use std::time::Duration;

use drover_client::Client;
use drover_keys::NodeId;
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;

/// Less than nodes and clients wait for one that is silent.
const SHORT: Duration = Duration::from_millis(900);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_does_not_hold_up_who_connects() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    // Node 1 leads nothing that clients write to, so it has to be asked where node 2 is.
    for group in cluster.groups() {
        cluster.lead(group, NodeId(2), PATIENCE).await.unwrap();
    }
    cluster.client_of(NodeId(1)).await.unwrap().put("k", "v").await.unwrap();
    cluster.node(NodeId(3)).stop().unwrap();
    for endpoints in [vec![cluster.node(NodeId(1)).grpc_address()], cluster.endpoints()] {
        let connecting = Client::builder().endpoints(endpoints).connect_timeout(SHORT).deadline(PATIENCE).connect();
        let client = connecting.await.unwrap();
        assert_eq!(client.get("k").await.unwrap().unwrap().value, "v");
        client.put("k", "v").await.unwrap();
    }
    cluster.node(NodeId(3)).resume().unwrap();
}
