use std::fmt;

use drover_keys::NodeId;
use drover_kv::{Error, Reason};

/// Whether a failed call can have reached the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It has not and will not.
    NotSent,
    /// It may have.
    Unknown,
}

/// Why a call to a peer has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("call to node {node} failed: {message}")]
pub struct CallError {
    /// The peer.
    pub node: NodeId,
    /// Whether the peer can have seen it.
    pub sent: Sent,
    /// What to tell a caller.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}

impl CallError {
    pub(crate) fn not_sent(node: NodeId, reason: Reason, message: impl fmt::Display) -> Self {
        Self { node, sent: Sent::NotSent, reason, message: message.to_string() }
    }

    pub(crate) fn unknown(node: NodeId, reason: Reason, message: impl fmt::Display) -> Self {
        Self { node, sent: Sent::Unknown, reason, message: message.to_string() }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error.sent {
            Sent::NotSent => Error::definite(error.reason, format!("{error}; nothing was changed")),
            Sent::Unknown => Error::unknown(error.reason, format!("{error}; the operation may have been applied")),
        }
    }
}

/// Why a group's Raft could not answer: it has stopped. The sentence goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EndpointError(pub String);

impl EndpointError {
    pub(crate) fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}
