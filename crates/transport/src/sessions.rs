use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use parking_lot::Mutex;
use tonic::metadata::{MetadataMap, MetadataValue};

/// Metadata key under which a session travels.
pub(crate) const SESSION_KEY: &str = "drover-session-bin";

/// Sessions that are kept for one peer. A peer has one connection; a few more may be dying.
const PER_PEER: usize = 4;

/// The handshakes that this node has accepted.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_session: HashMap<Bytes, NodeId>,
    by_node: HashMap<NodeId, VecDeque<Bytes>>,
}

impl Sessions {
    /// A new session for a peer. The oldest of too many ends.
    pub(crate) fn open(&self, node: NodeId) -> Bytes {
        let session = Bytes::copy_from_slice(&rand::random::<[u8; 16]>());
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mine = inner.by_node.entry(node).or_default();
        mine.push_back(session.clone());
        if mine.len() > PER_PEER
            && let Some(oldest) = mine.pop_front()
        {
            inner.by_session.remove(&oldest);
        }
        inner.by_session.insert(session.clone(), node);
        session
    }

    /// The peer whose session a call carries.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if it carries none that is known; definite.
    pub(crate) fn check(&self, metadata: &MetadataMap) -> Result<NodeId, Error> {
        let session = metadata.get_bin(SESSION_KEY).and_then(|value| value.to_bytes().ok());
        let node = session.and_then(|session| self.inner.lock().by_session.get(&session).copied());
        node.ok_or_else(|| {
            Error::definite(
                Reason::FailedPrecondition,
                "the connection has no handshake that this node knows; nothing was changed; connect again",
            )
        })
    }
}

/// Puts a session into the metadata of a call.
pub(crate) fn attach(metadata: &mut MetadataMap, session: &Bytes) {
    metadata.insert_bin(SESSION_KEY, MetadataValue::from_bytes(session));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sessions: &Sessions, session: &Bytes) -> Option<NodeId> {
        let mut metadata = MetadataMap::new();
        attach(&mut metadata, session);
        sessions.check(&metadata).ok()
    }

    #[test]
    fn a_session_stands_for_its_peer_until_newer_ones_push_it_out() {
        let sessions = Sessions::default();
        let first = sessions.open(NodeId(2));
        let other = sessions.open(NodeId(3));
        assert_eq!(check(&sessions, &first), Some(NodeId(2)));
        for _ in 0..PER_PEER {
            let newer = sessions.open(NodeId(2));
            assert_eq!(check(&sessions, &newer), Some(NodeId(2)));
        }
        assert_eq!(check(&sessions, &first), None);
        assert_eq!(check(&sessions, &other), Some(NodeId(3)));
        assert!(sessions.check(&MetadataMap::new()).is_err());
        assert_eq!(check(&sessions, &Bytes::from_static(b"made up")), None);
    }
}
