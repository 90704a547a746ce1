//! Rows as they travel between stores: without their shard, which differs, and with everything else as it is stored.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{DataKey, Interval, ShardId};
use xxhash_rust::xxh3::xxh3_128;

use crate::engine::Family;
use crate::record::decode_record_key;
use crate::value::Stored;

const SHARD_BYTES: usize = 8;

/// What kind of row it is; one byte on disk and on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKind {
    /// A version of a key. Byte 1.
    Version,
    /// A record: the outcome of an operation or of a transaction. Byte 2.
    Record,
}

impl RowKind {
    /// The byte that stands for it.
    pub fn tag(self) -> u8 {
        match self {
            RowKind::Version => 1,
            RowKind::Record => 2,
        }
    }

    /// What a byte stands for.
    pub fn from_tag(tag: u8) -> Option<Self> {
        match tag {
            1 => Some(RowKind::Version),
            2 => Some(RowKind::Record),
            _ => None,
        }
    }

    pub(crate) fn family(self) -> Family {
        match self {
            RowKind::Version => Family::Data,
            RowKind::Record => Family::Records,
        }
    }
}

/// One row, as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RawRow {
    /// What kind of row it is.
    pub kind: RowKind,
    /// Its physical key without the shard.
    pub key: Bytes,
    /// Its stored bytes; `None` if there is no such record any more. Versions are never taken away one by one.
    pub value: Option<Bytes>,
}

/// Why a row cannot be taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// The key or the value is no stored form that this build knows.
    #[error("a row of an unknown form: {0}")]
    Malformed(String),
    /// It belongs to a route key outside the interval.
    #[error("a row of route key {0:?}, which lies outside the interval")]
    Outside(Bytes),
    /// Versions are never taken away one by one.
    #[error("a version without a value")]
    VersionWithoutValue,
}

impl RawRow {
    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// Checks that it is a row of `interval`; the commit timestamp of a version.
    ///
    /// # Errors
    /// [`BadRow`].
    pub fn check(&self, interval: &Interval) -> Result<Option<Timestamp>, BadRow> {
        let malformed = |why: &dyn std::fmt::Display| BadRow::Malformed(why.to_string());
        let physical = with_shard(ShardId(0), &self.key);
        let (route_key, commit_ts) = match self.kind {
            RowKind::Version => {
                let DataKey { key, commit_ts, .. } = DataKey::decode(&physical).map_err(|e| malformed(&e))?;
                let value = self.value.as_ref().ok_or(BadRow::VersionWithoutValue)?;
                Stored::decode(value).map_err(|e| malformed(&e))?;
                (key.route_key, Some(Timestamp::from_raw(commit_ts)))
            }
            RowKind::Record => {
                let (route_key, _, _) = decode_record_key(&physical).map_err(|e| malformed(&e))?;
                (Bytes::from(route_key), None)
            }
        };
        if interval.contains(&route_key) { Ok(commit_ts) } else { Err(BadRow::Outside(route_key)) }
    }
}

/// The physical key in `shard` of a row that travels under `key`.
pub(crate) fn with_shard(shard: ShardId, key: &[u8]) -> Vec<u8> {
    [&shard.0.to_be_bytes()[..], key].concat()
}

/// What a physical key is without its shard.
pub(crate) fn without_shard(physical: &[u8]) -> &[u8] {
    physical.get(SHARD_BYTES..).unwrap_or_default()
}

/// Sum of the hashes of rows, whatever their order and their shard: rows can be added to it and taken from it one by one,
/// modulo 2^128. It tells an honest copy apart from one that differs; it is no protection against an adversary.
///
/// A hash is XXH3-128 over `kind (1) | key length (4, BE) | key | value`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RowSum {
    /// Sum of the hashes.
    pub hash: u128,
    /// How many rows there are in it, modulo 2^64.
    pub rows: u64,
}

impl RowSum {
    /// The sum of one row.
    pub fn of(kind: RowKind, key: &[u8], value: &[u8]) -> RowSum {
        let mut buffer = Vec::with_capacity(5 + key.len() + value.len());
        buffer.push(kind.tag());
        // Keys are far below 4 GiB: requests are limited to a few KiB.
        buffer.extend_from_slice(&(key.len() as u32).to_be_bytes());
        buffer.extend_from_slice(key);
        buffer.extend_from_slice(value);
        RowSum { hash: xxh3_128(&buffer), rows: 1 }
    }

    /// What a row that becomes another adds to a sum: the new one less the old one.
    pub fn of_change(kind: RowKind, key: &[u8], old: Option<&[u8]>, new: Option<&[u8]>) -> RowSum {
        let of = |value: Option<&[u8]>| value.map_or(RowSum::default(), |value| RowSum::of(kind, key, value));
        of(new).minus(of(old))
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: RowSum) -> RowSum {
        RowSum { hash: self.hash.wrapping_add(other.hash), rows: self.rows.wrapping_add(other.rows) }
    }

    /// This without the other.
    #[must_use]
    pub fn minus(self, other: RowSum) -> RowSum {
        RowSum { hash: self.hash.wrapping_sub(other.hash), rows: self.rows.wrapping_sub(other.rows) }
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::{End, LogicalKey, key_prefix};

    use super::*;
    use crate::record::{RecordKind, record_key};

    fn version(key: &str, value: Option<&'static [u8]>) -> RawRow {
        let physical = crate::scan::version_key(
            &key_prefix(ShardId(3), &LogicalKey::plain(key.to_owned())),
            Timestamp::from_raw(9),
        );
        let key = Bytes::copy_from_slice(without_shard(&physical));
        RawRow { kind: RowKind::Version, key, value: value.map(Bytes::from_static) }
    }

    fn record(key: &str, value: Option<&'static [u8]>) -> RawRow {
        let physical = record_key(ShardId(3), key.as_bytes(), RecordKind::TxnMarker, b"n");
        let key = Bytes::copy_from_slice(without_shard(&physical));
        RawRow { kind: RowKind::Record, key, value: value.map(Bytes::from_static) }
    }

    #[test]
    fn only_rows_of_the_interval_in_a_known_form_are_taken() {
        let interval = Interval::new("b", End::Key("d".into())).unwrap();
        let outside = |key: &'static str| Err(BadRow::Outside(key.into()));
        let at = Some(Timestamp::from_raw(9));
        let table = [
            ("a version", version("b", Some(b"\x13")), Ok(at)),
            ("below", version("a", Some(b"\x13")), outside("a")),
            ("at the end", version("d", Some(b"\x13")), outside("d")),
            ("without a value", version("b", None), Err(BadRow::VersionWithoutValue)),
            ("a record", record("c", Some(b"x")), Ok(None)),
            ("a record that went", record("c", None), Ok(None)),
            ("a record outside", record("d", Some(b"x")), outside("d")),
        ];
        for (case, row, expect) in table {
            assert_eq!(row.check(&interval), expect, "{case}");
        }
        let broken = [
            version("b", Some(b"\x99")),
            RawRow { key: "b".into(), ..version("b", Some(b"\x13")) },
            RawRow { key: Bytes::new(), ..record("b", Some(b"x")) },
            RawRow { kind: RowKind::Record, ..version("b", Some(b"\x13")) },
        ];
        for row in broken {
            assert!(matches!(row.check(&interval), Err(BadRow::Malformed(_))), "{row:?}");
        }
    }

    #[test]
    fn golden_sum_of_one_row() {
        let sum = RowSum::of(RowKind::Version, b"key", b"value");
        assert_eq!(sum, RowSum { hash: xxh3_128(b"\x01\0\0\0\x03keyvalue"), rows: 1 });
        assert_eq!(format!("{:032x}", sum.hash), "9e632f348f38c449e7f07867ed3897ed");
    }

    #[test]
    fn sums_do_not_depend_on_order_and_tell_kinds_keys_and_values_apart() {
        let (a, b) = (RowSum::of(RowKind::Version, b"ab", b"c"), RowSum::of(RowKind::Version, b"a", b"bc"));
        assert_ne!(a, b);
        assert_ne!(a, RowSum::of(RowKind::Record, b"ab", b"c"));
        assert_eq!(a.plus(b), b.plus(a));
        assert_eq!(a.plus(b).minus(a), b);
        let change = RowSum::of_change(RowKind::Record, b"k", Some(b"1"), Some(b"2"));
        let (old, new) = (RowSum::of(RowKind::Record, b"k", b"1"), RowSum::of(RowKind::Record, b"k", b"2"));
        assert_eq!(old.plus(change), new);
        assert_eq!(RowSum::of_change(RowKind::Record, b"k", Some(b"1"), None).plus(old), RowSum::default());
    }
}
