//! Which rows of a moving interval were written since its move was armed, in the order of the log.
//!
//! ```text
//! shard (8, BE) | job (8, BE) | number (8, BE)      kind (1) | key of the row without its shard
//! ```
//!
//! A row that is written again is listed again. The list names rows and holds no values: whoever copies it reads the rows as
//! they are by then.

use bytes::Bytes;
use drover_keys::{Interval, JobId, ShardId};

use crate::bounds::PhysicalRange;
use crate::engine::Family;
use crate::error::StoreError;
use crate::row::{RowKind, RowSum};

/// Shard, job and number.
const KEY_BYTES: usize = 24;

/// What is tracked for one job, and what has come together so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tracking {
    /// Whose list it is.
    pub job: JobId,
    /// Physical keyspace of the interval.
    pub shard: ShardId,
    /// Route keys.
    pub interval: Interval,
    /// Rows listed so far, which is the number that the next one gets.
    pub rows: u64,
    /// Bytes of their keys and values when they were written.
    pub bytes: u64,
    /// What was written since, less what it replaced.
    pub change: RowSum,
}

impl Tracking {
    /// Whether a row of this route key is listed.
    pub fn covers(&self, shard: ShardId, route_key: &[u8]) -> bool {
        self.shard == shard && self.interval.contains(route_key)
    }
}

/// The key of entry `number` of a job's list.
pub(crate) fn tracker_key(shard: ShardId, job: JobId, number: u64) -> Vec<u8> {
    [shard.0.to_be_bytes(), job.0.to_be_bytes(), number.to_be_bytes()].concat()
}

/// Entries of a job's list from `number` on.
pub(crate) fn tracker_range(shard: ShardId, job: JobId, number: u64) -> PhysicalRange {
    PhysicalRange {
        lower: tracker_key(shard, job, number),
        // A job's id is below the highest: the catalog counts up from one.
        upper: Some(tracker_key(shard, JobId(job.0.saturating_add(1)), 0)),
    }
}

/// What an entry says.
pub(crate) fn encode_entry(kind: RowKind, key: &[u8]) -> Bytes {
    [&[kind.tag()], key].concat().into()
}

/// The number of an entry, and the row that it names.
pub(crate) fn decode_entry<'v>(key: &[u8], value: &'v [u8]) -> Result<(u64, RowKind, &'v [u8]), StoreError> {
    let bad = |why: &str| StoreError::bad_row(Family::Tracker.name(), key, why);
    let number =
        key.last_chunk().filter(|_| key.len() == KEY_BYTES).ok_or_else(|| bad("its key has another length"))?;
    let number = u64::from_be_bytes(*number);
    // Whoever reads on starts behind it.
    if number == u64::MAX {
        return Err(bad("no entry could follow it"));
    }
    let (tag, row) = value.split_first().ok_or_else(|| bad("it names no row"))?;
    let kind = RowKind::from_tag(*tag).ok_or_else(|| bad("it names a row of an unknown kind"))?;
    Ok((number, kind, row))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes_and_order() {
        let key = tracker_key(ShardId(1), JobId(2), 3);
        assert_eq!(key, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3]);
        let entry = encode_entry(RowKind::Record, b"row");
        assert_eq!(&entry[..], b"\x02row");
        assert_eq!(decode_entry(&key, &entry).unwrap(), (3, RowKind::Record, &b"row"[..]));
        let range = tracker_range(ShardId(1), JobId(2), 3);
        assert!(range.lower <= key && range.is_above(&tracker_key(ShardId(1), JobId(2), u64::MAX)));
        assert!(!range.is_above(&tracker_key(ShardId(1), JobId(3), 0)));
    }

    #[test]
    fn damaged_entries_are_corruption() {
        let key = tracker_key(ShardId(1), JobId(2), 3);
        let last = tracker_key(ShardId(1), JobId(2), u64::MAX);
        let longer = [&key[..], b"\0"].concat();
        for (key, value) in [
            (&key[..], &b""[..]),
            (&key, b"\x07row"),
            (b"short", b"\x01row"),
            (&longer, b"\x01row"),
            (&last, b"\x01row"),
        ] {
            assert!(matches!(decode_entry(key, value), Err(StoreError::Corruption { .. })), "{key:?} {value:?}");
        }
    }

    proptest! {
        #[test]
        fn entries_round_trip(shard: u64, job: u64, number in 0..u64::MAX, tag in 1u8..=2, row: Vec<u8>) {
            let kind = RowKind::from_tag(tag).unwrap();
            let key = tracker_key(ShardId(shard), JobId(job), number);
            let entry = encode_entry(kind, &row);
            prop_assert_eq!(decode_entry(&key, &entry).unwrap(), (number, kind, &row[..]));
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_are_read_in_one_way(
            key in proptest::collection::vec(any::<u8>(), 22..26),
            value in proptest::collection::vec(0u8..4, 0..4),
        ) {
            if let Ok((number, kind, row)) = decode_entry(&key, &value) {
                prop_assert_eq!(&key[16..], number.to_be_bytes());
                prop_assert_eq!(&encode_entry(kind, row)[..], &value[..]);
            }
        }
    }
}
