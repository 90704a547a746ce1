//! openraft's structures to prost and back.

use std::collections::{BTreeMap, BTreeSet};

use drover_wire::proto::storage::v1 as pb;
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;

use crate::{CommandBytes, Entry, LogId, Membership, Node, Payload, SnapshotMeta, StoredMembership, Vote};
use drover_keys::ReplicaId;

/// Why bytes or messages are not one of openraft's structures. They are corrupt or come from a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// A field that is always set is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The voters and members contradict each other.
    #[error("membership is inconsistent: {0}")]
    Membership(String),
}

/// A log id as a message.
pub fn encode_log_id(log_id: &LogId) -> pb::LogId {
    pb::LogId { term: *log_id.leader_id, index: log_id.index }
}

/// A log id from a message.
pub fn decode_log_id(message: &pb::LogId) -> LogId {
    let leader = LeaderId { term: message.term, voted_for: 0 }.to_committed();
    LogId { leader_id: leader, index: message.index }
}

/// A vote as a message.
pub fn encode_vote(vote: &Vote) -> pb::Vote {
    pb::Vote { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
}

/// A vote from a message.
pub fn decode_vote(message: &pb::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: message.term, voted_for: message.node_id }, committed: message.committed }
}

/// A membership as a message.
pub fn encode_membership(membership: &Membership) -> pb::Membership {
    let configs = membership.get_joint_config().iter();
    pb::Membership {
        configs: configs.map(|set| pb::NodeSet { node_ids: set.iter().copied().collect() }).collect(),
        members: membership
            .nodes()
            .map(|(id, node)| pb::Member { node_id: *id, address: node.addr.clone(), replica_id: node.replica.0 })
            .collect(),
    }
}

/// A membership from a message.
///
/// # Errors
/// If a voter is not a member or a set of voters is empty.
pub fn decode_membership(message: &pb::Membership) -> Result<Membership, CodecError> {
    if message.configs.is_empty() && message.members.is_empty() {
        return Ok(Membership::default());
    }
    let configs: Vec<BTreeSet<u64>> =
        message.configs.iter().map(|set| set.node_ids.iter().copied().collect()).collect();
    let members: BTreeMap<u64, Node> =
        message.members.iter().map(|m| (m.node_id, Node::new(m.address.clone(), ReplicaId(m.replica_id)))).collect();
    Membership::new(configs, members).map_err(|e| CodecError::Membership(e.to_string()))
}

/// A stored membership as a message.
pub fn encode_stored_membership(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(encode_log_id),
        membership: Some(encode_membership(stored.membership())),
    }
}

/// A stored membership from a message.
///
/// # Errors
/// If the membership is missing or inconsistent.
pub fn decode_stored_membership(message: &pb::StoredMembership) -> Result<StoredMembership, CodecError> {
    let membership = message.membership.as_ref().ok_or(CodecError::Missing("membership"))?;
    Ok(StoredMembership::new(message.log_id.as_ref().map(decode_log_id), decode_membership(membership)?))
}

/// A snapshot's description as a message.
pub fn encode_snapshot_meta(meta: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(encode_log_id),
        last_membership: Some(encode_stored_membership(&meta.last_membership)),
    }
}

/// A snapshot's description from a message.
///
/// # Errors
/// If the membership is missing or inconsistent.
pub fn decode_snapshot_meta(message: &pb::SnapshotMeta) -> Result<SnapshotMeta, CodecError> {
    let membership = message.last_membership.as_ref().ok_or(CodecError::Missing("last_membership"))?;
    Ok(SnapshotMeta {
        last_log_id: message.last_log_id.as_ref().map(decode_log_id),
        last_membership: decode_stored_membership(membership)?,
    })
}

/// An entry as a message. The command's bytes are shared, not copied.
pub fn encode_entry(entry: &Entry) -> pb::RaftEntry {
    let payload = match &entry.payload {
        Payload::Blank => pb::raft_entry::Payload::Blank(pb::Blank {}),
        Payload::Normal(command) => pb::raft_entry::Payload::Command(command.0.clone()),
        Payload::Membership(membership) => pb::raft_entry::Payload::Membership(encode_membership(membership)),
    };
    pb::RaftEntry { log_id: Some(encode_log_id(&entry.log_id)), payload: Some(payload) }
}

/// An entry from a message.
///
/// # Errors
/// If a part is missing or the membership inconsistent.
pub fn decode_entry(message: pb::RaftEntry) -> Result<Entry, CodecError> {
    let log_id = decode_log_id(message.log_id.as_ref().ok_or(CodecError::Missing("log_id"))?);
    let payload = match message.payload.ok_or(CodecError::Missing("payload"))? {
        pb::raft_entry::Payload::Blank(pb::Blank {}) => Payload::Blank,
        pb::raft_entry::Payload::Command(bytes) => Payload::Normal(CommandBytes(bytes)),
        pb::raft_entry::Payload::Membership(membership) => Payload::Membership(decode_membership(&membership)?),
    };
    Ok(Entry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn log_id(term: u64, index: u64) -> LogId {
        decode_log_id(&pb::LogId { term, index })
    }

    fn joint() -> Membership {
        let nodes: BTreeMap<u64, Node> =
            [1, 2, 3].map(|id| (id, Node::new(format!("127.0.0.1:{id}"), ReplicaId(id + 6)))).into();
        Membership::new(vec![[1, 2].into(), [2].into()], nodes).unwrap()
    }

    /// The bytes of [`joint`].
    fn joint_bytes() -> Vec<u8> {
        let member = |id: u8| [&[0x12, 17, 8, id, 0x12, 11][..], b"127.0.0.1:", &[b'0' + id, 24, id + 6]].concat();
        [&[0x0a, 4, 0x0a, 2, 1, 2, 0x0a, 3, 0x0a, 1, 2][..], &member(1), &member(2), &member(3)].concat()
    }

    #[test]
    fn entries_round_trip_and_keep_their_bytes() {
        let id = [0x0a, 4, 8, 2, 16, 9];
        let membership = joint_bytes();
        let golden: [(Payload, Vec<u8>); 3] = [
            (Payload::Blank, vec![0x12, 0]),
            (Payload::Normal(CommandBytes("ab".into())), vec![0x1a, 2, b'a', b'b']),
            (Payload::Membership(joint()), [&[0x22, membership.len() as u8][..], &membership].concat()),
        ];
        for (payload, bytes) in golden {
            let entry = Entry { log_id: log_id(2, 9), payload };
            let encoded = encode_entry(&entry).encode_to_vec();
            assert_eq!(encoded, [&id[..], &bytes].concat());
            let decoded = decode_entry(pb::RaftEntry::decode(&encoded[..]).unwrap()).unwrap();
            assert_eq!(decoded.log_id, entry.log_id);
            assert_eq!(decoded.payload, entry.payload);
        }
    }

    #[test]
    fn votes_memberships_and_snapshot_descriptions_round_trip() {
        let vote = Vote { leader_id: LeaderId { term: 7, voted_for: 3 }, committed: true };
        assert_eq!(encode_vote(&vote).encode_to_vec(), [8, 7, 16, 3, 24, 1]);
        assert_eq!(decode_vote(&encode_vote(&vote)), vote);
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(3, 4)),
            last_membership: StoredMembership::new(Some(log_id(1, 2)), joint()),
        };
        let membership = joint_bytes();
        let stored = [&[0x0a, 4, 8, 1, 16, 2, 0x12, membership.len() as u8][..], &membership].concat();
        let golden = [&[0x0a, 4, 8, 3, 16, 4, 0x12, stored.len() as u8][..], &stored].concat();
        assert_eq!(encode_snapshot_meta(&meta).encode_to_vec(), golden);
        assert_eq!(decode_snapshot_meta(&encode_snapshot_meta(&meta)).unwrap(), meta);
        let empty = StoredMembership::default();
        assert_eq!(decode_stored_membership(&encode_stored_membership(&empty)).unwrap(), empty);
    }

    #[test]
    fn a_voter_that_is_no_member_is_refused() {
        let bad = pb::Membership {
            configs: vec![pb::NodeSet { node_ids: vec![5] }],
            members: vec![pb::Member { node_id: 1, ..pb::Member::default() }],
        };
        assert!(matches!(decode_membership(&bad), Err(CodecError::Membership(_))));
        assert!(matches!(decode_entry(pb::RaftEntry::default()), Err(CodecError::Missing(_))));
    }

    fn any_log_id() -> impl Strategy<Value = LogId> {
        any::<(u64, u64)>().prop_map(|(term, index)| log_id(term, index))
    }

    /// One set of voters or two, and learners besides.
    fn any_membership() -> impl Strategy<Value = Membership> {
        let nodes = proptest::collection::btree_map(1u64..50, ("[a-z0-9:.]{0,20}", any::<u64>()), 1..8);
        (nodes, any::<[u64; 2]>(), any::<bool>()).prop_map(|(nodes, masks, joint)| {
            let voters = |mask: u64| {
                let chosen: BTreeSet<u64> = nodes.keys().copied().filter(|id| mask >> (id % 64) & 1 == 1).collect();
                if chosen.is_empty() { nodes.keys().copied().take(1).collect() } else { chosen }
            };
            let configs = if joint { vec![voters(masks[0]), voters(masks[1])] } else { vec![voters(masks[0])] };
            let nodes: BTreeMap<u64, Node> =
                nodes.iter().map(|(id, (address, replica))| (*id, Node::new(address, ReplicaId(*replica)))).collect();
            Membership::new(configs, nodes).unwrap()
        })
    }

    proptest! {
        #[test]
        fn everything_of_raft_round_trips(
            id in any_log_id(),
            snapshot in proptest::option::of(any_log_id()),
            membership in any_membership(),
            command: Vec<u8>,
            (term, voted_for, committed) in any::<(u64, u64, bool)>(),
        ) {
            let vote = Vote { leader_id: LeaderId { term, voted_for }, committed };
            prop_assert_eq!(decode_vote(&encode_vote(&vote)), vote);
            let last_membership = StoredMembership::new(Some(id), membership.clone());
            let meta = SnapshotMeta { last_log_id: snapshot, last_membership };
            let bytes = encode_snapshot_meta(&meta).encode_to_vec();
            prop_assert_eq!(decode_snapshot_meta(&pb::SnapshotMeta::decode(&bytes[..]).unwrap()).unwrap(), meta);
            let payloads =
                [Payload::Blank, Payload::Normal(CommandBytes(command.into())), Payload::Membership(membership)];
            for payload in payloads {
                let bytes = encode_entry(&Entry { log_id: id, payload: payload.clone() }).encode_to_vec();
                let entry = decode_entry(pb::RaftEntry::decode(&bytes[..]).unwrap()).unwrap();
                prop_assert_eq!((entry.log_id, entry.payload), (id, payload));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(entry) = pb::RaftEntry::decode(&bytes[..]) {
                let _ = decode_entry(entry);
            }
            if let Ok(meta) = pb::SnapshotMeta::decode(&bytes[..]) {
                let _ = decode_snapshot_meta(&meta);
            }
        }
    }
}
