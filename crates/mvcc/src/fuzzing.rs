//! What the fuzz targets run of this crate's private decoders. No part of the API.

use drover_keys::ShardId;

use crate::format;
use crate::record::{RecordKind, decode_record_key, record_key};

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
