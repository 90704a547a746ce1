//! What a node with a full disk does about its leaderships: it hands them to nodes that have space, so that writes go on.
//!
//! Another full node would be no better, and each new leader has to write before it serves. So the others are asked how they
//! are, and without a majority that has space the groups stay where they are: they refuse writes and serve reads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use drover_catalog::Topology;
use drover_keys::{ClusterId, NodeId};
use drover_seams::net;
use drover_wire::proto::v1;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::replicas::{Replicas, Successors};
use crate::disk::DiskState;

/// Between two attempts. One may fail, and a full node may win an election.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the others may take to say how they are.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long handing over may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Hands leaderships over for as long as the disk is full, until `stop`.
pub async fn relieve(replicas: Arc<Replicas>, mut disk: watch::Receiver<DiskState>, stop: CancellationToken) {
    let relieving = async {
        while disk.wait_for(|state| state.full).await.is_ok() {
            if replicas.leads() {
                let followed = replicas.followed();
                let roomy = with_space(&followed.topology.current(), followed.cluster).await;
                replicas.hand_over(Successors::WithSpace(&roomy), HAND_OVER_TIMEOUT).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = relieving => {}
    }
}

/// The nodes that say that they have space.
async fn with_space(topology: &Topology, cluster: ClusterId) -> BTreeSet<NodeId> {
    let asked = topology.nodes.iter().map(|(node, addresses)| async move {
        let asking = async {
            let mut client = ClusterClient::new(net::connect_to(&addresses.address).await.ok()?);
            client.get_node_status(v1::GetNodeStatusRequest {}).await.ok()
        };
        let answer = tokio::time::timeout(ASK_TIMEOUT, asking).await.ok().flatten()?.into_inner();
        takes_writes(&answer, *node, cluster).then_some(*node)
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// Whether what was asked is this node of this cluster, and would take writes.
fn takes_writes(answer: &v1::GetNodeStatusResponse, node: NodeId, cluster: ClusterId) -> bool {
    let status = answer.node.as_ref();
    answer.cluster_id == cluster.to_string()
        && status.is_some_and(|status| status.node_id == node.0 && !status.disk_full && !status.draining)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_node_that_is_the_one_asked_and_not_full_itself_takes_writes() {
        let (node, cluster) = (NodeId(2), ClusterId([7; 16]));
        let status = v1::NodeStatus { node_id: 2, ..Default::default() };
        let answer = |cluster: ClusterId, node| v1::GetNodeStatusResponse { cluster_id: cluster.to_string(), node };
        let table = [
            (answer(cluster, Some(status.clone())), true),
            (answer(cluster, Some(v1::NodeStatus { disk_full: true, ..status.clone() })), false),
            (answer(cluster, Some(v1::NodeStatus { draining: true, ..status.clone() })), false),
            (answer(cluster, Some(v1::NodeStatus { node_id: 3, ..status.clone() })), false),
            (answer(ClusterId([8; 16]), Some(status)), false),
            (answer(cluster, None), false),
        ];
        for (answer, expect) in table {
            assert_eq!(takes_writes(&answer, node, cluster), expect, "{answer:?}");
        }
    }
}
