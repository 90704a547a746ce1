//! Learns routes, leaders and the addresses of nodes.

use std::sync::{Arc, Weak};
use std::time::Duration;

use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::{GetNodeStatusRequest, GetStatusRequest, Route};
use futures::future::join_all;
use tokio::sync::Notify;
use tonic::{Code, Status};

use crate::ClientBuilder;
use crate::drive::Inner;
use crate::node::Node;
use crate::routes::all_routes;
use crate::session::describe;
use crate::topology::Topology;

/// Routes are read again after this time even if nothing seems wrong.
const INTERVAL: Duration = Duration::from_secs(30);
/// Least time between two readings, however much goes wrong.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);
/// Longest wait for one node's answer.
const CALL_TIMEOUT_MS: u32 = 2_000;
const CALL_TIMEOUT: Duration = Duration::from_millis(CALL_TIMEOUT_MS as u64);

/// How long a client that is being made waits for each thing that it can do without: who its endpoints are, and which nodes there
/// are besides. A node that hangs answers neither, and a cluster that has one takes its time to tell of the others.
const FIRST_PATIENCE: Duration = Duration::from_millis(100);

/// Reads routes from the first node that answers, and what can be had at once besides. Also says whether that was all.
///
/// # Errors
/// `UNAVAILABLE`, definite, if no node answers.
pub(crate) async fn learn_at_once(known: &[Arc<Node>], settings: &ClientBuilder) -> Result<(Topology, bool), Error> {
    let identified = tokio::time::timeout(FIRST_PATIENCE, identify(known));
    let (routes, identified) = tokio::join!(first_routes(known), identified);
    let topology = Topology::new(known.to_vec(), &routes?);
    if !needs_others(&topology, settings) {
        return Ok((topology, identified.is_ok()));
    }
    match tokio::time::timeout(FIRST_PATIENCE, with_advertised(known, settings.connect_timeout)).await {
        Ok(nodes) => Ok((topology.with_nodes(nodes), identified.is_ok())),
        Err(_) => Ok((topology, false)),
    }
}

/// Learns everything again.
///
/// # Errors
/// `UNAVAILABLE`, definite, if no node answers; then nothing has changed.
async fn learn(inner: &Inner) -> Result<(), Error> {
    let known = inner.topology.load_full();
    let routes = first_routes(known.nodes()).await?;
    // In use before nodes that hang are waited for.
    let topology = Arc::new(Topology::new(known.nodes().to_vec(), &routes));
    inner.topology.store(Arc::clone(&topology));
    identify(topology.nodes()).await;
    let named = topology.with_nodes(topology.nodes().to_vec());
    let nodes = match needs_others(&named, &inner.settings) {
        true => with_advertised(named.nodes(), inner.settings.connect_timeout).await,
        false => named.nodes().to_vec(),
    };
    inner.topology.store(Arc::new(topology.with_nodes(nodes)));
    Ok(())
}

/// Whether there are leaders among nodes whose address is not known, and they may be asked.
fn needs_others(topology: &Topology, settings: &ClientBuilder) -> bool {
    !settings.only_endpoints && !topology.knows_all_leaders()
}

/// Learns again whenever something hints at a change, until the client is gone.
pub(crate) async fn keep_learning(inner: Weak<Inner>, hints: Arc<Notify>) {
    loop {
        // An interval without hints is as good a reason to look as a hint.
        let _ = tokio::time::timeout(INTERVAL, hints.notified()).await;
        let Some(inner) = inner.upgrade() else { return };
        if let Err(error) = learn(&inner).await {
            tracing::debug!(%error, "routes cannot be read; the last ones stay");
        }
        drop(inner);
        tokio::time::sleep(LEAST_INTERVAL).await;
    }
}

async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded("no answer in time")),
    }
}

/// Asks all nodes at once; the first answer counts. A server without the `Distribution` service has no routes to tell.
async fn first_routes(nodes: &[Arc<Node>]) -> Result<Vec<Route>, Error> {
    let asked = nodes.iter().map(|node| {
        Box::pin(async move {
            match bounded(all_routes(node, false, CALL_TIMEOUT_MS)).await {
                Ok(routes) => Ok(routes.routes),
                Err(status) if status.code() == Code::Unimplemented => Ok(Vec::new()),
                Err(status) => Err(format!("{}: {}", node.address(), describe(&status))),
            }
        })
    });
    let mut asked: Vec<_> = asked.collect();
    let mut failures = Vec::new();
    while !asked.is_empty() {
        let (result, _, rest) = futures::future::select_all(asked).await;
        match result {
            Ok(routes) => return Ok(routes),
            Err(failure) => failures.push(failure),
        }
        asked = rest;
    }
    let message = format!("no endpoint answers ({}); nothing was sent or changed", failures.join("; "));
    Err(Error::definite(Reason::Unavailable, message))
}

/// Asks each node that has not said so yet who it is.
async fn identify(nodes: &[Arc<Node>]) {
    let nameless = nodes.iter().filter(|node| node.id().is_none());
    join_all(nameless.map(|node| async move {
        if let Ok(response) = bounded(node.cluster().get_node_status(GetNodeStatusRequest {})).await
            && let Some(status) = response.into_inner().node
        {
            node.set_id(NodeId(status.node_id));
        }
    }))
    .await;
}

/// The known nodes, and those that the cluster knows besides, at the addresses they advertise.
async fn with_advertised(known: &[Arc<Node>], connect_timeout: Duration) -> Vec<Arc<Node>> {
    let mut nodes = known.to_vec();
    for node in known.iter().filter(|node| !node.is_resting()) {
        let Ok(status) = bounded(node.cluster().get_status(GetStatusRequest {})).await else { continue };
        for found in status.into_inner().nodes {
            let id = NodeId(found.node_id);
            if nodes.iter().any(|node| node.id() == Some(id)) {
                continue;
            }
            match Node::new(&found.grpc_address, Some(id), connect_timeout) {
                Ok(node) => nodes.push(node),
                Err(error) => tracing::warn!(node = %id, %error, "the cluster advertises an address that is none"),
            }
        }
        break;
    }
    nodes
}
