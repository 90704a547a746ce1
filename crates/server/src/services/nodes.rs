use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_keys::{ClusterId, NodeId};
use drover_seams::net;
use drover_wire::proto::v1;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use parking_lot::Mutex;
use tonic::Response;
use tonic::transport::{Channel, Endpoint};

use crate::node::NodeView;

/// How long another node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// The nodes of the cluster as clients see them: where they are, and how each says it is.
pub struct Nodes {
    cluster: ClusterId,
    view: NodeView,
    /// Where the nodes of the configuration are, for as long as the catalog is not known.
    configured: BTreeMap<NodeId, String>,
    /// By address.
    clients: Mutex<BTreeMap<String, ClusterClient<Channel>>>,
}

impl Nodes {
    /// `configured` are the gRPC addresses of the other nodes of this node's configuration.
    pub fn new(
        cluster: ClusterId,
        view: NodeView,
        configured: impl IntoIterator<Item = (NodeId, String)>,
    ) -> Arc<Self> {
        let configured = configured.into_iter().collect();
        Arc::new(Self { cluster, view, configured, clients: Mutex::default() })
    }

    /// This node.
    pub fn view(&self) -> &NodeView {
        &self.view
    }

    /// Where the other nodes are.
    pub fn others(&self) -> BTreeMap<NodeId, String> {
        let topology = self.view.topology.current();
        let mut others = match topology.revision {
            0 => self.configured.clone(),
            _ => topology.nodes.iter().map(|(node, addresses)| (*node, addresses.address.clone())).collect(),
        };
        others.remove(&self.view.node);
        self.clients.lock().retain(|address, _| others.values().any(|other| other == address));
        others
    }

    /// The client of the node at `address`.
    ///
    /// # Errors
    /// If that cannot be an address.
    pub fn client(&self, address: &str) -> Result<ClusterClient<Channel>, String> {
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(address) {
            return Ok(client.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
        let client = ClusterClient::new(net::connect_lazy(endpoint.connect_timeout(STATUS_TIMEOUT)));
        clients.insert(address.to_owned(), client.clone());
        Ok(client)
    }

    /// How every node is, by number.
    pub async fn all(&self) -> Vec<v1::NodeStatus> {
        let others = self.others();
        let asked = others.iter().map(|(node, address)| self.ask(*node, address));
        let mut nodes = futures::future::join_all(asked).await;
        nodes.push(self.view.status());
        nodes.sort_by_key(|node| node.node_id);
        nodes
    }

    /// How these nodes are, in their order.
    pub async fn some(&self, nodes: &[NodeId]) -> Vec<v1::NodeStatus> {
        let others = self.others();
        let asked = nodes.iter().map(|node| {
            let address = others.get(node);
            async move {
                match address {
                    Some(address) => self.ask(*node, address).await,
                    None if *node == self.view.node => self.view.status(),
                    None => unknown(*node, "", "its address is not known".to_owned()),
                }
            }
        });
        futures::future::join_all(asked).await
    }

    async fn ask(&self, node: NodeId, address: &str) -> v1::NodeStatus {
        let mut client = match self.client(address) {
            Ok(client) => client,
            Err(error) => return unknown(node, address, error),
        };
        let asked = tokio::time::timeout(STATUS_TIMEOUT, client.get_node_status(v1::GetNodeStatusRequest {})).await;
        match asked.map(|answer| answer.map(Response::into_inner)) {
            Ok(Ok(v1::GetNodeStatusResponse { cluster_id, .. })) if cluster_id != self.cluster.to_string() => {
                unknown(node, address, format!("it belongs to another cluster ({cluster_id})"))
            }
            Ok(Ok(answer)) => answer.node.unwrap_or_else(|| unknown(node, address, "the answer is empty".to_owned())),
            Ok(Err(status)) => unknown(node, address, status.message().to_owned()),
            Err(_) => unknown(node, address, format!("no answer within {} s", STATUS_TIMEOUT.as_secs())),
        }
    }
}

/// What is told of a node that did not answer.
fn unknown(node: NodeId, address: &str, error: String) -> v1::NodeStatus {
    v1::NodeStatus { node_id: node.0, grpc_address: address.to_owned(), error, ..Default::default() }
}
