//! Scans for the visible version of each plain key.
//!
//! Versions of a key are adjacent, newest first. A scan steps over a few rows, since most keys have few versions, and
//! seeks when that does not get it past: a key with 100,000 versions costs a handful of steps and a seek.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{KeyFamily, memcomparable, split_versioned_key};

use crate::bounds::PhysicalRange;
use crate::cursor::Cursor;
use crate::engine::{Family, RawIter};
use crate::error::StoreError;
use crate::value::Stored;

/// Rows to step over before seeking.
const STEPS: usize = 4;
const SHARD_BYTES: usize = 8;

/// Takes `(route key, commit timestamp, version)`; breaks to stop the scan.
pub(crate) type Visit<'v> = dyn FnMut(Bytes, Timestamp, Stored) -> ControlFlow<()> + 'v;

/// The part of a physical key that all versions share, taken apart.
pub(crate) struct RowName {
    pub(crate) route_key: Vec<u8>,
    /// Length of `shard | memcomparable(route_key)`.
    route_len: usize,
    family: KeyFamily,
}

impl RowName {
    pub(crate) fn decode(prefix: &[u8]) -> Result<Self, StoreError> {
        let bad = |reason: &dyn std::fmt::Display| StoreError::bad_row(Family::Data.name(), prefix, reason);
        let rest = prefix.get(SHARD_BYTES..).ok_or_else(|| bad(&"key ends inside the shard"))?;
        let (route_key, used) = memcomparable::decode(rest).map_err(|e| bad(&e))?;
        let family = *rest.get(used).ok_or_else(|| bad(&"key ends before the family"))?;
        if KeyFamily(family) == KeyFamily::PLAIN && rest.len() > used + 1 {
            return Err(bad(&"bytes left over after a plain key"));
        }
        Ok(Self { route_key, route_len: SHARD_BYTES + used, family: KeyFamily(family) })
    }

    /// The least physical key above every row under this route key, whatever its family: the terminator `00 01` of
    /// the route key becomes `00 02`, which no encoding holds.
    pub(crate) fn route_end(&self, prefix: &[u8]) -> Vec<u8> {
        let mut end = prefix[..self.route_len].to_vec();
        *end.last_mut().expect("an encoded route key ends with its terminator") += 1;
        end
    }
}

/// Splits a stored key into row prefix and timestamp.
pub(crate) fn split(key: &[u8]) -> Result<(&[u8], Timestamp), StoreError> {
    let (prefix, raw) = split_versioned_key(key).map_err(|e| StoreError::bad_row(Family::Data.name(), key, e))?;
    Ok((prefix, Timestamp::from_raw(raw)))
}

/// The physical key of the version of `prefix` at `at`; the first at or after it is the newest version at or below `at`.
pub(crate) fn version_key(prefix: &[u8], at: Timestamp) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 8);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&version_stamp(at));
    key
}

/// What stands behind the prefix in the physical key of a version: the newest first.
pub(crate) fn version_stamp(at: Timestamp) -> [u8; 8] {
    (!at.raw()).to_be_bytes()
}

/// Reads a stored value; `key` is for the error message.
pub(crate) fn decode_value(key: &[u8], value: &[u8]) -> Result<Stored, StoreError> {
    Stored::decode(value).map_err(|reason| StoreError::bad_row(Family::Data.name(), key, reason))
}

/// Whether the cursor stands on a version of `prefix`; its timestamp then.
fn version_of<C: Cursor>(cursor: &C, prefix: &[u8]) -> Option<Timestamp> {
    let (key, _) = cursor.entry()?;
    let (head, raw) = split_versioned_key(key).ok()?;
    (head == prefix).then(|| Timestamp::from_raw(raw))
}

/// Shows the newest version at or below `at` of each plain key in `range`, in key order.
pub(crate) fn forward<C: Cursor>(
    cursor: &mut C,
    range: &PhysicalRange,
    at: Timestamp,
    visit: &mut Visit<'_>,
) -> Result<(), StoreError> {
    let mut prefix = Vec::new();
    cursor.seek(&range.lower);
    while let Some((key, value)) = cursor.entry() {
        if !range.is_above(key) {
            break;
        }
        let (head, commit_ts) = split(key)?;
        prefix.clear();
        prefix.extend_from_slice(head);
        let row = RowName::decode(head)?;
        if row.family != KeyFamily::PLAIN {
            cursor.seek(&row.route_end(&prefix));
        } else if commit_ts > at {
            descend(cursor, &prefix, at);
        } else {
            let stored = decode_value(key, value)?;
            if visit(row.route_key.into(), commit_ts, stored).is_break() {
                return Ok(());
            }
            leave(cursor, &prefix);
        }
    }
    cursor.status()
}

/// From a version of `prefix` above `at` to the newest at or below, or off the key if there is none.
fn descend<C: Cursor>(cursor: &mut C, prefix: &[u8], at: Timestamp) {
    for _ in 0..STEPS {
        cursor.next();
        if version_of(cursor, prefix).is_none_or(|commit_ts| commit_ts <= at) {
            return;
        }
    }
    cursor.seek(&version_key(prefix, at));
}

/// To the first row behind all versions of `prefix`.
fn leave<C: Cursor>(cursor: &mut C, prefix: &[u8]) {
    for _ in 0..STEPS {
        cursor.next();
        if version_of(cursor, prefix).is_none() {
            return;
        }
    }
    let mut behind = version_key(prefix, Timestamp::ZERO);
    behind.push(0);
    cursor.seek(&behind);
}

/// Shows the newest version at or below `at` of each plain key within the bounds of `rows`, in descending key order.
pub(crate) fn reverse(rows: &mut RawIter<'_>, at: Timestamp, visit: &mut Visit<'_>) -> Result<(), StoreError> {
    let mut prefix = Vec::new();
    rows.seek_to_last();
    // Here the cursor stands on the oldest row of what is left.
    while let Some((key, _)) = rows.item() {
        let (head, commit_ts) = split(key)?;
        prefix.clear();
        prefix.extend_from_slice(head);
        let row = RowName::decode(head)?;
        if row.family != KeyFamily::PLAIN {
            prefix.truncate(row.route_len);
            prefix.push(KeyFamily::PLAIN.0);
            rows.seek_for_prev(version_key(&prefix, Timestamp::ZERO));
        } else if commit_ts > at {
            rows.seek_for_prev(&prefix);
        } else {
            let (commit_ts, stored) = ascend(rows, &prefix, commit_ts, at)?;
            if visit(row.route_key.into(), commit_ts, stored).is_break() {
                return Ok(());
            }
        }
    }
    Ok(rows.status()?)
}

/// From the oldest version of `prefix`, which is at or below `at`, to the newest at or below; then off the key.
fn ascend(
    rows: &mut RawIter<'_>,
    prefix: &[u8],
    oldest: Timestamp,
    at: Timestamp,
) -> Result<(Timestamp, Stored), StoreError> {
    let mut found = (oldest, rows.value().unwrap_or_default().to_vec());
    for _ in 0..STEPS {
        rows.prev();
        rows.status()?;
        match version_of(rows, prefix) {
            Some(commit_ts) if commit_ts <= at => {
                found.0 = commit_ts;
                found.1.clear();
                found.1.extend_from_slice(rows.value().unwrap_or_default());
            }
            above => {
                if above.is_some() {
                    rows.seek_for_prev(prefix);
                }
                return Ok((found.0, decode_value(prefix, &found.1)?));
            }
        }
    }
    rows.seek(version_key(prefix, at));
    let Some(commit_ts) = version_of(rows, prefix) else {
        rows.status()?;
        return Err(StoreError::bad_row(Family::Data.name(), prefix, "a version is gone within one snapshot"));
    };
    let stored = decode_value(prefix, rows.value().unwrap_or_default())?;
    rows.seek_for_prev(prefix);
    Ok((commit_ts, stored))
}
