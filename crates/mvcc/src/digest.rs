//! A digest of a store that does not depend on what garbage collection did.
//!
//! The sum, modulo 2^128, of one XXH3-128 per row, over `family (1) | key length (4, BE) | key | value`. A sum does not
//! depend on order, and rows can be added to it and taken from it one by one. It tells honest replicas apart from
//! diverged ones; it is no protection against an adversary.

use std::ops::ControlFlow;

use drover_hlc::Timestamp;
use drover_keys::{Interval, ShardId};
use xxhash_rust::xxh3::xxh3_128;

use crate::bounds::PhysicalRange;
use crate::engine::Family;
use crate::error::StoreError;
use crate::meta::MetaKey;
use crate::retention::{Rank, Ranker, SafePoints};
use crate::scan::split;
use crate::value::is_tombstone;
use crate::view::{Caching, View};

/// Versions of this interval that are collectable at `safe_point` do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestScope {
    /// Physical keyspace.
    pub shard: ShardId,
    /// Interval of route keys.
    pub interval: Interval,
    /// At or above what any replica has used for collecting.
    pub safe_point: Timestamp,
}

/// Digest of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// Sum of the rows' hashes.
    pub hash: u128,
    /// Number of rows in it.
    pub rows: u64,
}

/// Adds rows up.
#[derive(Default)]
struct Adder {
    sum: Digest,
    buffer: Vec<u8>,
}

impl Adder {
    fn add(&mut self, family: u8, key: &[u8], value: &[u8]) {
        self.buffer.clear();
        self.buffer.push(family);
        // Keys are far below 4 GiB: requests are limited to a few KiB.
        self.buffer.extend_from_slice(&(key.len() as u32).to_be_bytes());
        self.buffer.extend_from_slice(key);
        self.buffer.extend_from_slice(value);
        self.sum.hash = self.sum.hash.wrapping_add(xxh3_128(&self.buffer));
        self.sum.rows += 1;
    }
}

/// Tags of families inside the hash.
const DATA: u8 = 1;
const LOCKS: u8 = 2;
const RECORDS: u8 = 3;
const META: u8 = 4;
const TRACKER: u8 = 5;

pub(crate) fn compute(view: &View<'_>, scopes: &[DigestScope], meta: &[MetaKey]) -> Result<Digest, StoreError> {
    let everything = PhysicalRange { lower: Vec::new(), upper: None };
    let safe_points = SafePoints::new(scopes.iter().map(|s| (s.shard, &s.interval, s.safe_point)));
    let mut ranker = Ranker::default();
    let mut adder = Adder::default();
    view.each(Family::Data, &everything, Caching::Bypass, |key, value| {
        let (prefix, commit_ts) = split(key)?;
        let counts = match ranker.rank(prefix, commit_ts, |prefix| safe_points.of(prefix)) {
            Rank::Live => true,
            Rank::Base => !is_tombstone(value),
            Rank::Superseded => false,
        };
        if counts {
            adder.add(DATA, key, value);
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    for (family, tag) in [(Family::Locks, LOCKS), (Family::Records, RECORDS), (Family::Tracker, TRACKER)] {
        view.each(family, &everything, Caching::Bypass, |key, value| {
            adder.add(tag, key, value);
            Ok(ControlFlow::<()>::Continue(()))
        })?;
    }
    view.each(Family::Meta, &PhysicalRange::catalog(), Caching::Bypass, |key, value| {
        adder.add(META, key, value);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    for key in meta {
        if let Some(value) = view.get(Family::Meta, key.as_bytes())? {
            adder.add(META, key.as_bytes(), &value);
        }
    }
    Ok(adder.sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_digest_of_one_row() {
        let mut adder = Adder::default();
        adder.add(DATA, b"key", b"value");
        assert_eq!(adder.sum, Digest { hash: xxh3_128(b"\x01\0\0\0\x03keyvalue"), rows: 1 });
        assert_eq!(format!("{:032x}", adder.sum.hash), "9e632f348f38c449e7f07867ed3897ed");
    }

    #[test]
    fn bytes_that_move_between_key_and_value_change_the_digest_and_order_does_not() {
        let digest = |rows: &[(&[u8], &[u8])]| {
            let mut adder = Adder::default();
            for (key, value) in rows {
                adder.add(DATA, key, value);
            }
            adder.sum
        };
        assert_ne!(digest(&[(b"ab", b"c")]), digest(&[(b"a", b"bc")]));
        assert_eq!(digest(&[(b"a", b"1"), (b"b", b"2")]), digest(&[(b"b", b"2"), (b"a", b"1")]));
    }
}
