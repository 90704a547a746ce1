use drover_keys::ReplicaId;
use openraft::RaftTypeConfig;

use crate::{ApplyReply, CommandBytes};

openraft::declare_raft_types!(
    /// Types of every Raft group.
    pub TypeConfig:
        D = CommandBytes,
        R = ApplyReply,
        NodeId = u64,
        Node = Node,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// A member of a group as its membership names it.
///
/// Raft must never take a replica that came later for the one that a node held before: the later one knows nothing of what
/// the other has voted and acknowledged. So a member is named with the number of the replica, and every message to it is, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Where the node is.
    pub addr: String,
    /// Number of the replica within the group.
    pub replica: ReplicaId,
}

impl Node {
    /// The replica with this number, at this address.
    pub fn new(addr: impl Into<String>, replica: ReplicaId) -> Self {
        Self { addr: addr.into(), replica }
    }
}

/// `(term, index)`.
pub type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A vote.
pub type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A log entry.
pub type Entry = <TypeConfig as RaftTypeConfig>::Entry;
/// What a log entry holds.
pub type Payload = <TypeConfig as RaftTypeConfig>::Payload;
/// Voters and learners.
pub type Membership = openraft::Membership<u64, Node>;
/// A membership and the log id it was set at.
pub type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
/// Sends the answer of one entry to whoever proposed it.
pub type Responder = openraft::storage::ApplyResponder<TypeConfig>;
