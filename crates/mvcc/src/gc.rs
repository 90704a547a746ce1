//! Garbage collection of versions, as a filter on what compactions write.
//!
//! # Invariants
//!
//! - A rule acts only when a flush that began after [`GcState::publish`] has ended: a crash can then no longer forget the
//!   safe point, and replay never judges against a lower one (a replayed entry would miss what was collected).
//! - A pin acts at once.
//! - A compaction may see only some of a key's versions. What it sees as newest at or below the safe point stays unless
//!   it is a tombstone *and* the compaction covers all files: elsewhere an older value would come back to life.
//! - RocksDB asks the filter without regard to its own snapshots. Readers compare their timestamp with the safe point
//!   again after they have read.

use std::ffi::CStr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use drover_hlc::Timestamp;
use drover_keys::{Interval, ShardId, split_versioned_key};
use rocksdb::CompactionDecision;
use rocksdb::compaction_filter::CompactionFilter;
use rocksdb::compaction_filter_factory::{CompactionFilterContext, CompactionFilterFactory};

use crate::retention::{Rank, Ranker, SafePoints};
use crate::value::is_tombstone;

/// What may be collected in one interval of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcRule {
    /// Physical keyspace.
    pub shard: ShardId,
    /// Interval of route keys.
    pub interval: Interval,
    /// No read below it is permitted any more. As applied, that is: part of a committed batch.
    pub safe_point: Timestamp,
    /// Nothing at all may be collected.
    pub pinned: bool,
}

/// The whole set of rules. Rows outside every rule are never collected. Intervals of one shard are disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcRules(pub Vec<GcRule>);

impl GcRules {
    fn safe_points(&self) -> SafePoints {
        SafePoints::new(self.0.iter().filter(|r| !r.pinned).map(|r| (r.shard, &r.interval, r.safe_point)))
    }
}

/// The rules of one store.
#[derive(Debug, Default)]
pub(crate) struct GcState {
    /// As last published.
    latest: ArcSwap<SafePoints>,
    /// As of the last flush.
    active: ArcSwap<SafePoints>,
}

impl GcState {
    /// Takes new rules. `durable`: whether what they follow from is on disk already.
    pub fn publish(&self, rules: &GcRules, durable: bool) {
        let points = Arc::new(rules.safe_points());
        if durable {
            self.active.store(points.clone());
        }
        self.latest.store(points);
    }

    /// What a flush that begins now will make durable; pass it to [`GcState::activate`] when it has ended.
    pub fn latest(&self) -> Arc<SafePoints> {
        self.latest.load_full()
    }

    /// Lets rules act.
    pub fn activate(&self, points: Arc<SafePoints>) {
        self.active.store(points);
    }
}

/// Makes one filter per compaction.
pub(crate) struct GcFilterFactory {
    state: Arc<GcState>,
}

impl GcFilterFactory {
    pub fn new(state: Arc<GcState>) -> Self {
        Self { state }
    }
}

const FILTER_NAME: &CStr = c"drover.gc";

impl CompactionFilterFactory for GcFilterFactory {
    type Filter = GcFilter;

    fn create(&mut self, context: CompactionFilterContext) -> GcFilter {
        GcFilter {
            active: self.state.active.load_full(),
            latest: self.state.latest.load_full(),
            covers_all: context.is_full_compaction,
            ranker: Ranker::default(),
        }
    }

    fn name(&self) -> &CStr {
        FILTER_NAME
    }
}

/// Judges the rows of one compaction, in key order.
pub(crate) struct GcFilter {
    active: Arc<SafePoints>,
    latest: Arc<SafePoints>,
    covers_all: bool,
    ranker: Ranker,
}

impl GcFilter {
    fn may_drop(&mut self, key: &[u8], value: &[u8]) -> bool {
        // Rows that cannot be read are for readers to complain about.
        let Ok((prefix, raw)) = split_versioned_key(key) else { return false };
        let (active, latest) = (&self.active, &self.latest);
        // Lower of the two: a pin, or an interval that went away, shows in the newer rules first.
        let safe_point_of = |prefix: &[u8]| Some(active.of(prefix)?.min(latest.of(prefix)?));
        match self.ranker.rank(prefix, Timestamp::from_raw(raw), safe_point_of) {
            Rank::Live => false,
            Rank::Base => self.covers_all && is_tombstone(value),
            Rank::Superseded => true,
        }
    }
}

impl CompactionFilter for GcFilter {
    fn filter(&mut self, _level: u32, key: &[u8], value: &[u8]) -> CompactionDecision {
        if self.may_drop(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
    }

    fn name(&self) -> &CStr {
        FILTER_NAME
    }
}
