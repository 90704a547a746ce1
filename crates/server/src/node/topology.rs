//! What this node knows of where nodes and replicas are.

use std::sync::Arc;

use drover_catalog::Topology;
use drover_coordinator::GroupDirectory;
use drover_keys::NodeId;
use drover_seams::blocking;
use drover_transport::PeerPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::datadir::DataDir;

/// The newest topology that this node has heard of. It only rises; the address book and the directory of groups follow it.
pub struct TopologyCache {
    newest: watch::Sender<Arc<Topology>>,
    directory: Arc<GroupDirectory>,
    peers: Arc<PeerPool>,
    /// The nodes that the address book knew before there was a topology.
    configured: Vec<NodeId>,
}

impl TopologyCache {
    /// Knows nothing yet, except that `peers` was given the addresses of `configured`.
    pub fn new(directory: Arc<GroupDirectory>, peers: Arc<PeerPool>, configured: Vec<NodeId>) -> Arc<Self> {
        Arc::new(Self { newest: watch::Sender::default(), directory, peers, configured })
    }

    /// The newest topology.
    pub fn current(&self) -> Arc<Topology> {
        Arc::clone(&self.newest.borrow())
    }

    /// The newest topology, as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Topology>> {
        self.newest.subscribe()
    }

    /// Goes on to a newer topology; an older one is left alone. Must be called inside a tokio runtime.
    pub fn follow(&self, next: Topology) {
        self.newest.send_if_modified(|newest| {
            if next.revision <= newest.revision {
                return false;
            }
            for (node, addresses) in &next.nodes {
                self.peers.set_address(*node, &addresses.address);
            }
            let before: Vec<NodeId> = match newest.revision {
                0 => self.configured.clone(),
                _ => newest.nodes.keys().copied().collect(),
            };
            for gone in before.into_iter().filter(|node| !next.nodes.contains_key(node)) {
                self.peers.remove(gone);
            }
            for group in next.groups.values() {
                self.directory.set_members(group.id, group.replicas.keys().copied().collect());
            }
            *newest = Arc::new(next);
            true
        });
    }
}

/// Notes where the nodes are whenever that changes, until `stop`: all those that the configuration names may be gone when this
/// node starts the next time.
pub async fn remember(mut newest: watch::Receiver<Arc<Topology>>, data: Arc<DataDir>, stop: CancellationToken) {
    let mut noted = data.known_nodes();
    loop {
        let known = Arc::clone(&newest.borrow_and_update());
        let addresses: Vec<String> = known.nodes.values().map(|node| node.address.clone()).collect();
        if known.revision > 0 && addresses != noted {
            let (data, copy) = (Arc::clone(&data), addresses.clone());
            match blocking::aside(move || data.note_nodes(&copy)).await {
                Ok(Ok(())) => noted = addresses,
                Ok(Err(error)) => tracing::warn!(%error, "the addresses of the nodes are not noted"),
                Err(error) => tracing::warn!(%error, "the addresses of the nodes are not noted"),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}
