//! Keys of the records family: outcomes of operations, filed under the route key of the operation so that they move
//! with its range.
//!
//! ```text
//! shard (8, BE) | memcomparable(route_key) | kind (1) | name
//! ```
//!
//! The name is last and there are no versions behind it, so it needs no escape.

use bytes::Bytes;
use drover_keys::{DecodeError, ShardId, memcomparable, shard_prefix};

const SHARD_BYTES: usize = 8;

/// What a record is about; one byte on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// The first outcome of an operation with an idempotency key; the name is that key. Byte 1.
    Idempotency,
    /// What became of a transaction, under its primary; the name is its id. Byte 2.
    TxnOutcome,
    /// What a participant remembers of a transaction, under its first key there; the name is its id. Byte 3.
    TxnMarker,
}

impl RecordKind {
    fn tag(self) -> u8 {
        match self {
            RecordKind::Idempotency => 1,
            RecordKind::TxnOutcome => 2,
            RecordKind::TxnMarker => 3,
        }
    }

    fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(RecordKind::Idempotency),
            2 => Some(RecordKind::TxnOutcome),
            3 => Some(RecordKind::TxnMarker),
            _ => None,
        }
    }
}

/// One record, as scans give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRow {
    /// Whose route key the record is filed under.
    pub route_key: Bytes,
    /// What it is about.
    pub kind: RecordKind,
    /// Tells apart records of one kind under one route key.
    pub name: Bytes,
    /// Opaque to the store.
    pub value: Bytes,
}

impl RecordRow {
    /// Where it stands.
    pub fn place(&self) -> RecordPlace {
        RecordPlace { route_key: self.route_key.clone(), kind: self.kind, name: self.name.clone() }
    }
}

/// Where a record stands among those of its shard, which are in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordPlace {
    /// Whose route key the record is filed under.
    pub route_key: Bytes,
    /// What it is about.
    pub kind: RecordKind,
    /// Its name.
    pub name: Bytes,
}

/// The bytes a record is stored under.
pub(crate) fn record_key(shard: ShardId, route_key: &[u8], kind: RecordKind, name: &[u8]) -> Vec<u8> {
    let mut out = shard_prefix(shard, route_key);
    out.reserve_exact(1 + name.len());
    out.push(kind.tag());
    out.extend_from_slice(name);
    out
}

/// Route key, kind and name of a stored record.
pub(crate) fn decode_record_key(bytes: &[u8]) -> Result<(Vec<u8>, RecordKind, &[u8]), DecodeError> {
    let truncated = |field| DecodeError::Truncated { field, at: bytes.len() };
    let rest = bytes.get(SHARD_BYTES..).ok_or(truncated("shard"))?;
    let (route_key, used) = memcomparable::decode(rest)?;
    let (&tag, name) = rest[used..].split_first().ok_or(truncated("record kind"))?;
    let at = SHARD_BYTES + used;
    let kind = RecordKind::from_tag(tag).ok_or(DecodeError::Invalid { field: "record kind", at, found: tag })?;
    Ok((route_key, kind, name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let key = record_key(ShardId(0x0203), b"a\0b", RecordKind::Idempotency, b"n\0");
        assert_eq!(key, b"\0\0\0\0\0\0\x02\x03a\0\xffb\0\x01\x01n\0");
        for (kind, byte) in [(RecordKind::Idempotency, 1), (RecordKind::TxnOutcome, 2), (RecordKind::TxnMarker, 3)] {
            assert_eq!(record_key(ShardId(0), b"", kind, b"")[10], byte);
        }
    }

    #[test]
    fn unknown_kinds_and_cut_keys_are_refused() {
        for bad in [&b""[..], b"\0\0\0\0\0\0\0\x01", b"\0\0\0\0\0\0\0\x01a\0\x01", b"\0\0\0\0\0\0\0\x01a\0\x01\x09n"] {
            assert!(decode_record_key(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(shard: u64, route_key: Vec<u8>, tag in 1u8..=3, name: Vec<u8>) {
            let kind = RecordKind::from_tag(tag).unwrap();
            let key = record_key(ShardId(shard), &route_key, kind, &name);
            prop_assert_eq!(decode_record_key(&key).unwrap(), (route_key, kind, name.as_slice()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode_record_key(&bytes);
        }
    }
}
