//! The physical form of a row's key.

use bytes::Bytes;

use crate::{DecodeError, KeyFamily, LogicalKey, ShardId, memcomparable};

/// Bytes of the version stamp at the end of a data key.
const STAMP_BYTES: usize = 8;
/// Bytes of the shard at the front.
const SHARD_BYTES: usize = 8;

/// A decoded data key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Physical keyspace.
    pub shard: ShardId,
    /// What the row is called.
    pub key: LogicalKey,
    /// Commit timestamp as a bare number (its meaning is `drover-hlc`'s).
    pub commit_ts: u64,
}

impl DataKey {
    /// The bytes under which this version is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = key_prefix(self.shard, &self.key);
        out.extend_from_slice(&(!self.commit_ts).to_be_bytes());
        out
    }

    /// Reads a data key.
    ///
    /// # Errors
    /// If the bytes are not exactly one data key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (prefix, commit_ts) = split_versioned_key(bytes)?;
        let (shard, rest) = prefix
            .split_first_chunk::<SHARD_BYTES>()
            .ok_or(DecodeError::Truncated { field: "shard", at: prefix.len() })?;
        let (route_key, used) = memcomparable::decode(rest)?;
        let family = *rest.get(used).ok_or(DecodeError::Truncated { field: "family", at: prefix.len() })?;
        let tail = &rest[used + 1..];
        let suffix = match KeyFamily(family) {
            KeyFamily::PLAIN if tail.is_empty() => Bytes::new(),
            KeyFamily::PLAIN => return Err(DecodeError::Trailing { field: "plain key", count: tail.len() }),
            _ => {
                let (suffix, used) = memcomparable::decode(tail)?;
                if used != tail.len() {
                    return Err(DecodeError::Trailing { field: "suffix", count: tail.len() - used });
                }
                suffix.into()
            }
        };
        Ok(Self {
            shard: ShardId(u64::from_be_bytes(*shard)),
            key: LogicalKey { route_key: route_key.into(), family: KeyFamily(family), suffix },
            commit_ts,
        })
    }
}

/// The bytes that all versions of `key` in `shard` start with, and no other key's versions do.
pub fn key_prefix(shard: ShardId, key: &LogicalKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(SHARD_BYTES + key.route_key.len() + key.suffix.len() + 5 + STAMP_BYTES);
    out.extend_from_slice(&shard.0.to_be_bytes());
    memcomparable::encode_into(&key.route_key, &mut out);
    out.push(key.family.0);
    if key.family != KeyFamily::PLAIN {
        memcomparable::encode_into(&key.suffix, &mut out);
    }
    out
}

/// The least physical key of any row of `shard` whose route key is at or above `route_key`, in every column family
/// that is keyed by `shard | memcomparable(route_key)`.
pub fn shard_prefix(shard: ShardId, route_key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(SHARD_BYTES + route_key.len() + 2);
    out.extend_from_slice(&shard.0.to_be_bytes());
    memcomparable::encode_into(route_key, &mut out);
    out
}

/// The least physical key above every row of `shard`; `None` for the highest shard id.
pub fn shard_end(shard: ShardId) -> Option<Vec<u8>> {
    shard.0.checked_add(1).map(|next| next.to_be_bytes().to_vec())
}

/// Splits a data key into the part that all versions of its row share, and the commit timestamp.
///
/// # Errors
/// If there is no room for a version stamp.
pub fn split_versioned_key(bytes: &[u8]) -> Result<(&[u8], u64), DecodeError> {
    let (prefix, stamp) = bytes
        .split_last_chunk::<STAMP_BYTES>()
        .ok_or(DecodeError::Truncated { field: "version stamp", at: bytes.len() })?;
    Ok((prefix, !u64::from_be_bytes(*stamp)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let key = DataKey { shard: ShardId(0x0102), key: LogicalKey::plain("a\0b"), commit_ts: 1 };
        assert_eq!(
            key.encode(),
            [
                &[0, 0, 0, 0, 0, 0, 1, 2][..],
                &[b'a', 0, 0xff, b'b', 0, 1],
                &[0],
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
            ]
            .concat()
        );
        let record = DataKey {
            shard: ShardId(1),
            key: LogicalKey { route_key: "k".into(), family: KeyFamily(3), suffix: "s".into() },
            commit_ts: u64::MAX,
        };
        assert_eq!(record.encode(), [&[0, 0, 0, 0, 0, 0, 0, 1][..], b"k\0\x01", &[3], b"s\0\x01", &[0; 8]].concat());
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()], 0..6)
    }

    fn data_key() -> impl Strategy<Value = DataKey> {
        (0u64..3, part(), 0u8..3, part(), prop_oneof![0u64..4, any::<u64>()]).prop_map(
            |(shard, key, family, suffix, ts)| {
                let suffix = if family == 0 { Vec::new() } else { suffix };
                DataKey {
                    shard: ShardId(shard),
                    key: LogicalKey { route_key: key.into(), family: KeyFamily(family), suffix: suffix.into() },
                    commit_ts: ts,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips(key in data_key()) {
            prop_assert_eq!(DataKey::decode(&key.encode()).unwrap(), key);
        }

        #[test]
        fn bytes_sort_by_shard_then_key_then_newest_first(a in data_key(), b in data_key()) {
            let logical = (a.shard, &a.key, std::cmp::Reverse(a.commit_ts))
                .cmp(&(b.shard, &b.key, std::cmp::Reverse(b.commit_ts)));
            prop_assert_eq!(a.encode().cmp(&b.encode()), logical);
        }

        #[test]
        fn shard_prefix_is_at_or_below_exactly_the_rows_at_or_above_its_route_key(key in data_key(), bound in part()) {
            let above = key.encode() >= shard_prefix(key.shard, &bound);
            prop_assert_eq!(above, key.key.route_key.as_ref() >= bound.as_slice());
            prop_assert!(key.encode() < shard_end(key.shard).unwrap());
        }

        #[test]
        fn arbitrary_input_never_panics_and_decodes_only_to_itself(input: Vec<u8>) {
            if let Ok(key) = DataKey::decode(&input) {
                prop_assert_eq!(key.encode(), input);
            }
        }
    }
}
