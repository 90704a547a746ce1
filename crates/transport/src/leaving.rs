use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use drover_keys::NodeId;
use tokio::sync::watch;

/// Which nodes are being stopped, as far as this one was told.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    here: AtomicBool,
    peers: watch::Sender<BTreeSet<NodeId>>,
}

impl Leaving {
    /// This node is being stopped, for good.
    pub(crate) fn leave(&self) {
        self.here.store(true, Ordering::SeqCst);
    }

    /// Whether this node is being stopped.
    pub(crate) fn here(&self) -> bool {
        self.here.load(Ordering::SeqCst)
    }

    /// A peer has said that it is being stopped.
    pub(crate) fn left(&self, node: NodeId) {
        self.peers.send_if_modified(|peers| peers.insert(node));
    }

    /// A peer is there, perhaps as another process than before.
    pub(crate) fn returned(&self, node: NodeId) {
        self.peers.send_if_modified(|peers| peers.remove(&node));
    }

    /// The peers that are being stopped, as that changes.
    pub(crate) fn peers(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.peers.subscribe()
    }
}
