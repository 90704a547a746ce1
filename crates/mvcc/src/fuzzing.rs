//! What the fuzz targets run of this crate's private decoders. No part of the API.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{DataKey, End, Interval, JobId, KeyFamily, LogicalKey, ShardId};

use crate::format;
use crate::lock::show_lock;
use crate::record::{RecordKind, decode_record_key, record_key};
use crate::row::{BadRow, RawRow, RowKind, with_shard, without_shard};
use crate::scan::{RowName, split};
use crate::tracker::{decode_entry, encode_entry, tracker_key};
use crate::value::Stored;

/// Whether the bytes are the key of a record.
///
/// # Panics
/// If a key that was read is not written with the same bytes.
pub fn record(bytes: &[u8]) -> bool {
    let Ok((route_key, kind, name)) = decode_record_key(bytes) else { return false };
    let shard = bytes.first_chunk().map_or(0, |shard| u64::from_be_bytes(*shard));
    assert_eq!(record_key(ShardId(shard), &route_key, kind, name), bytes);
    true
}

/// Keys of records.
pub fn records() -> Vec<Vec<u8>> {
    let key = |route_key: &[u8], name: &[u8]| record_key(ShardId(3), route_key, RecordKind::Idempotency, name);
    vec![key(b"a\0b", b"n\0"), key(b"", b"")]
}

/// Whether the bytes are a `FORMAT` file.
pub fn store_format(bytes: &[u8]) -> bool {
    format::parse(bytes).is_some()
}

/// The `FORMAT` file that this build writes.
pub fn store_formats() -> Vec<Vec<u8>> {
    vec![format::current().into_bytes()]
}

/// Whether the bytes are the key of a stored version or of a lock.
///
/// # Panics
/// If scans find another route key in it than whoever reads the whole key, or an end of the route key's rows that is not behind it.
pub fn stored_key(bytes: &[u8]) -> bool {
    let mut locked = None;
    let shown = show_lock(bytes, Some(Bytes::new()), &mut |route_key, _| {
        locked = Some(route_key);
        ControlFlow::Continue(())
    });
    assert_eq!(shown.is_ok(), locked.is_some());
    let whole = DataKey::decode(bytes);
    let Ok((prefix, commit_ts)) = split(bytes) else {
        assert!(whole.is_err());
        return locked.is_some();
    };
    match RowName::decode(prefix) {
        Ok(name) => {
            assert!(*name.route_end(prefix) > *prefix);
            if let Ok(whole) = whole {
                assert_eq!((&name.route_key[..], commit_ts.raw()), (&whole.key.route_key[..], whole.commit_ts));
            }
            true
        }
        Err(_) => {
            assert!(whole.is_err());
            locked.is_some()
        }
    }
}

/// Keys of versions and of locks.
pub fn stored_keys() -> Vec<Vec<u8>> {
    let row = LogicalKey { route_key: "k".into(), family: KeyFamily(2), suffix: "s\0".into() };
    let key = |key| DataKey { shard: ShardId(3), key, commit_ts: 9 }.encode();
    let plain = key(LogicalKey::plain("a\0b"));
    // A lock stands under shard and route key alone.
    let lock = b"\0\0\0\0\0\0\0\x03a\0\xffb\0\x01".to_vec();
    vec![plain, key(row), lock]
}

/// Whether the bytes are an entry of a tracker: its key of 24 bytes, and its value.
///
/// # Panics
/// If an entry that was read is not written with the same bytes.
pub fn tracker_row(bytes: &[u8]) -> bool {
    let (key, value) = bytes.split_at(bytes.len().min(24));
    let Ok((number, kind, row)) = decode_entry(key, value) else { return false };
    let part = |at: usize| key[at..].first_chunk().map_or(0, |part| u64::from_be_bytes(*part));
    assert_eq!(tracker_key(ShardId(part(0)), JobId(part(8)), number), key);
    assert_eq!(encode_entry(kind, row), value);
    true
}

/// Entries of trackers.
pub fn tracker_rows() -> Vec<Vec<u8>> {
    let entry =
        |number, kind, row: &[u8]| [&tracker_key(ShardId(1), JobId(2), number)[..], &encode_entry(kind, row)].concat();
    vec![entry(0, RowKind::Version, b"a\0\x01"), entry(u64::MAX - 1, RowKind::Record, b"")]
}

/// Whether the bytes are a row as it travels from store to store: `kind (1) | length of the key (2, BE) | key | value`, without a
/// value if the highest bit of the kind is set. The key is also read as the cursor at which a copy goes on.
///
/// # Panics
/// If a key that was read is not written with the same bytes, or the interval decides more than whether the row is in it.
pub fn copied_row(bytes: &[u8]) -> bool {
    let Some((row, interval)) = parse_row(bytes) else { return false };
    let physical = with_shard(ShardId(0), &row.key);
    let cursor = split(&physical);
    let checked = row.check(&Interval::all());
    let route_key = match (&checked, row.kind) {
        (Err(_), _) => None,
        (Ok(commit_ts), RowKind::Version) => {
            let key = DataKey::decode(&physical).expect("it was just read");
            assert_eq!(key.encode(), physical);
            assert_eq!((commit_ts.map(Timestamp::raw), cursor.is_ok()), (Some(key.commit_ts), true));
            Some(key.key.route_key)
        }
        (Ok(commit_ts), RowKind::Record) => {
            let (route_key, kind, name) = decode_record_key(&physical).expect("it was just read");
            assert_eq!((record_key(ShardId(0), &route_key, kind, name), *commit_ts), (physical.clone(), None));
            Some(route_key.into())
        }
    };
    match route_key {
        Some(route_key) if !interval.contains(&route_key) => {
            assert_eq!(row.check(&interval), Err(BadRow::Outside(route_key)));
        }
        _ => assert_eq!(row.check(&interval), checked),
    }
    checked.is_ok()
}

fn parse_row(bytes: &[u8]) -> Option<(RawRow, Interval)> {
    let (&tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (key, value) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    let value = (tag & 0x80 == 0).then(|| Bytes::copy_from_slice(value));
    let row = RawRow { kind: RowKind::from_tag(tag & 0x7f)?, key: Bytes::copy_from_slice(key), value };
    Some((row, Interval::new("b", End::Key("d".into())).expect("its bounds are in order")))
}

/// Rows that travel.
pub fn copied_rows() -> Vec<Vec<u8>> {
    let row = |tag: u8, physical: Vec<u8>, value: &[u8]| {
        let key = without_shard(&physical);
        [&[tag][..], &(key.len() as u16).to_be_bytes(), key, value].concat()
    };
    let version = |key: &'static str| DataKey { shard: ShardId(3), key: LogicalKey::plain(key), commit_ts: 9 }.encode();
    let record = || record_key(ShardId(3), b"c", RecordKind::TxnMarker, b"n");
    let put = Stored::Put { value: "value".into(), expire_at: None }.encode();
    vec![
        row(1, version("a"), &put),
        row(1, version("c\0"), &Stored::Tombstone.encode()),
        row(2, record(), b"x"),
        row(0x82, record(), b""),
    ]
}
