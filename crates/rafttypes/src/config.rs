use openraft::RaftTypeConfig;

use crate::{ApplyReply, CommandBytes};

openraft::declare_raft_types!(
    /// Types of every Raft group.
    pub TypeConfig:
        D = CommandBytes,
        R = ApplyReply,
        NodeId = u64,
        Node = openraft::impls::BasicNode,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// A node as the membership of a group names it.
pub type Node = openraft::impls::BasicNode;
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
