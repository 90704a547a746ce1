//! `drover.storage.v1.AppliedState`: how far the log has been applied, written with the effects.

use std::sync::Arc;

use bytes::Bytes;
use drover_keys::GroupId;
use drover_rafttypes::{
    LogId, SnapshotMeta, StoredMembership, decode_log_id, decode_stored_membership, encode_log_id,
    encode_stored_membership,
};
use drover_wire::proto::storage::v1 as pb;
use prost::Message;

use crate::ApplyError;

/// A membership and its stored bytes, shared: every batch writes it, and hardly any changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedMembership(Arc<(StoredMembership, Bytes)>);

impl SharedMembership {
    /// The membership.
    pub fn stored(&self) -> &StoredMembership {
        &self.0.0
    }

    fn bytes(&self) -> Bytes {
        self.0.1.clone()
    }
}

impl From<StoredMembership> for SharedMembership {
    fn from(membership: StoredMembership) -> Self {
        let bytes = encode_stored_membership(&membership).encode_to_vec().into();
        Self(Arc::new((membership, bytes)))
    }
}

/// How far the log of a group has been applied, and the membership at that point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Whose state it is.
    pub group: GroupId,
    /// The last applied entry; `None` if there was none.
    pub log_id: Option<LogId>,
    /// The last applied membership.
    pub membership: SharedMembership,
}

impl Applied {
    /// Of a group of which nothing has been applied.
    pub fn nothing(group: GroupId) -> Self {
        Self { group, log_id: None, membership: StoredMembership::default().into() }
    }

    /// The description of a snapshot of this state.
    pub fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.log_id, last_membership: self.membership.stored().clone() }
    }

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        pb::AppliedState {
            applied: self.log_id.as_ref().map(encode_log_id),
            membership: self.membership.bytes(),
            group_id: self.group.0,
        }
        .encode_to_vec()
    }

    /// Reads stored bytes of `group`; without bytes nothing has been applied.
    ///
    /// # Errors
    /// [`ApplyError::Corrupt`] if the bytes are no such state, or another group's.
    pub fn decode(group: GroupId, bytes: Option<&[u8]>) -> Result<Self, ApplyError> {
        let Some(bytes) = bytes else { return Ok(Self::nothing(group)) };
        let corrupt = |why: String| ApplyError::Corrupt { what: "applied state", why };
        let message = pb::AppliedState::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
        if message.group_id != group.0 {
            return Err(corrupt(format!("it belongs to group {}, not to group {group}", message.group_id)));
        }
        let membership = pb::StoredMembership::decode(message.membership).map_err(|e| corrupt(e.to_string()))?;
        let membership = decode_stored_membership(&membership).map_err(|e| corrupt(e.to_string()))?;
        Ok(Self { group, log_id: message.applied.as_ref().map(decode_log_id), membership: membership.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied() -> Applied {
        let log_id = decode_log_id(&pb::LogId { term: 2, index: 9 });
        Applied { group: GroupId(7), log_id: Some(log_id), membership: StoredMembership::default().into() }
    }

    #[test]
    fn golden_bytes() {
        let golden = [0x0a, 4, 8, 2, 16, 9, 0x12, 2, 0x12, 0, 0x18, 7];
        assert_eq!(applied().encode(), golden);
        assert_eq!(Applied::decode(GroupId(7), Some(&golden)).unwrap(), applied());
        assert_eq!(Applied::decode(GroupId(7), None).unwrap(), Applied::nothing(GroupId(7)));
    }

    #[test]
    fn the_state_of_another_group_is_refused() {
        let error = Applied::decode(GroupId(8), Some(&applied().encode())).unwrap_err();
        assert!(error.to_string().contains("belongs to group 7"), "{error}");
        assert!(Applied::decode(GroupId(7), Some(b"\xff\xff")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn every_position_round_trips_and_arbitrary_bytes_never_panic(
            group in 1u64..u64::MAX, term: u64, index: u64, bytes: Vec<u8>,
        ) {
            let log_id = Some(decode_log_id(&pb::LogId { term, index }));
            let applied = Applied { group: GroupId(group), log_id, membership: StoredMembership::default().into() };
            let decoded = Applied::decode(GroupId(group), Some(&applied.encode())).unwrap();
            proptest::prop_assert_eq!(decoded, applied);
            let _ = Applied::decode(GroupId(group), Some(&bytes));
        }
    }
}
