//! Physical key ranges of an interval. Every column family that holds rows of routes is keyed by
//! `shard | memcomparable(route_key)` first, so one range serves all of them.

use drover_keys::{End, Interval, ShardId, shard_end, shard_prefix};

use crate::meta::CATALOG_TAG;

/// `[lower, upper)` of physical keys; without `upper` to the end of the column family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PhysicalRange {
    pub lower: Vec<u8>,
    pub upper: Option<Vec<u8>>,
}

impl PhysicalRange {
    /// All rows of `shard` whose route key lies in `interval`.
    pub fn new(shard: ShardId, interval: &Interval) -> Self {
        let lower = shard_prefix(shard, interval.start());
        let upper = match interval.end() {
            End::Key(end) => Some(shard_prefix(shard, end)),
            End::Unbounded => shard_end(shard),
        };
        Self { lower, upper }
    }

    /// The rows of the catalog in the family of control rows.
    pub fn catalog() -> Self {
        Self { lower: vec![CATALOG_TAG], upper: Some(vec![CATALOG_TAG + 1]) }
    }

    /// Whether `key` lies below the upper bound.
    pub fn is_above(&self, key: &[u8]) -> bool {
        self.upper.as_deref().is_none_or(|upper| key < upper)
    }
}
