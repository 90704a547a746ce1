//! What this node knows of where nodes and replicas are.

use std::sync::Arc;

use drover_catalog::Topology;
use drover_coordinator::GroupDirectory;
use drover_keys::NodeId;
use drover_transport::PeerPool;
use tokio::sync::watch;

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
