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
use drover_guards::{self as guards, Guard};
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
        let safe_point_of = |prefix: &[u8]| match guards::on(Guard::PinsAtOnce) {
            true => Some(active.of(prefix)?.min(latest.of(prefix)?)),
            false => active.of(prefix),
        };
        match self.ranker.rank(prefix, Timestamp::from_raw(raw), safe_point_of) {
            Rank::Live => false,
            Rank::Base => (self.covers_all || !guards::on(Guard::TombstonesStay)) && is_tombstone(value),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use drover_keys::{DataKey, LogicalKey};
    use proptest::prelude::*;

    use super::*;
    use crate::value::Stored;

    const SHARD: ShardId = ShardId(1);

    fn rules(safe_point: u64, pinned: bool) -> GcRules {
        let safe_point = Timestamp::from_raw(safe_point);
        GcRules(vec![GcRule { shard: SHARD, interval: Interval::all(), safe_point, pinned }])
    }

    fn filter(state: &Arc<GcState>, covers_all: bool) -> GcFilter {
        let context = CompactionFilterContext { is_full_compaction: covers_all, is_manual_compaction: false };
        GcFilterFactory::new(state.clone()).create(context)
    }

    /// Rows of plain keys: `(key, commit timestamp)` to whether it is a tombstone.
    type Rows = BTreeMap<Vec<u8>, bool>;

    fn row(key: u8, commit_ts: u64) -> Vec<u8> {
        DataKey { shard: SHARD, key: LogicalKey::plain(vec![key]), commit_ts }.encode()
    }

    fn compacted(mut filter: GcFilter, rows: &Rows) -> Rows {
        let value = |tombstone| if tombstone { Stored::Tombstone.encode() } else { vec![0x11, 1] };
        rows.iter()
            .filter(|(key, tombstone)| !filter.may_drop(key, &value(**tombstone)))
            .map(|(key, tombstone)| (key.clone(), *tombstone))
            .collect()
    }

    /// The version a read at `at` answers with; `None` for a tombstone and for nothing alike.
    fn read(rows: &Rows, key: u8, at: u64) -> Option<Vec<u8>> {
        let (found, tombstone) = rows.range(row(key, at)..=row(key, 0)).next()?;
        (!tombstone).then(|| found.clone())
    }

    #[test]
    fn a_rule_acts_after_a_flush_that_began_after_it_and_a_pin_at_once() {
        let state = Arc::new(GcState::default());
        let rows = Rows::from([(row(1, 1), false), (row(1, 2), false)]);
        let left = |state: &Arc<GcState>| compacted(filter(state, true), &rows).len();
        assert_eq!(left(&state), 2, "no rules");
        let flushing = state.latest();
        state.publish(&rules(9, false), false);
        state.activate(flushing);
        assert_eq!(left(&state), 2, "the flush began before the rule");
        state.activate(state.latest());
        assert_eq!(left(&state), 1);
        state.publish(&rules(9, true), false);
        assert_eq!(left(&state), 2, "pinned");
        state.publish(&rules(9, false), true);
        assert_eq!(left(&state), 1, "durable when published");
        state.publish(&GcRules::default(), false);
        assert_eq!(left(&state), 2, "the interval is gone");
    }

    #[test]
    fn a_tombstone_goes_only_where_nothing_older_can_hide() {
        let state = Arc::new(GcState::default());
        state.publish(&rules(9, false), true);
        let rows = Rows::from([(row(1, 10), true), (row(1, 5), true), (row(1, 3), false)]);
        let left = |covers_all| compacted(filter(&state, covers_all), &rows).into_keys().collect::<Vec<_>>();
        assert_eq!(left(false), [row(1, 10), row(1, 5)]);
        assert_eq!(left(true), [row(1, 10)]);
    }

    proptest! {
        #[test]
        fn reads_at_or_above_the_safe_point_survive_any_sequence_of_compactions(
            rows in proptest::collection::btree_map((0u8..3, 0u64..12), (any::<bool>(), 0usize..3), 0..30),
            rounds in proptest::collection::vec((0usize..4, 0u64..12), 1..6),
        ) {
            let mut files: [Rows; 3] = Default::default();
            for ((key, commit_ts), (tombstone, file)) in &rows {
                files[*file].insert(row(*key, *commit_ts), *tombstone);
            }
            let all: Rows = files.iter().flatten().map(|(k, t)| (k.clone(), *t)).collect();
            let mut safe_point = 0;
            let state = Arc::new(GcState::default());
            for (choice, advance) in rounds {
                safe_point = safe_point.max(advance);
                state.publish(&rules(safe_point, false), true);
                match files.get(choice) {
                    Some(file) => files[choice] = compacted(filter(&state, false), file),
                    None => {
                        let merged = files.iter().flatten().map(|(k, t)| (k.clone(), *t)).collect();
                        files = [compacted(filter(&state, true), &merged), Rows::new(), Rows::new()];
                    }
                }
            }
            let left: Rows = files.iter().flatten().map(|(k, t)| (k.clone(), *t)).collect();
            for key in 0..3 {
                for at in safe_point..13 {
                    prop_assert_eq!(read(&left, key, at), read(&all, key, at), "key {} at {}", key, at);
                }
            }
        }

        #[test]
        fn arbitrary_rows_never_panic(key: Vec<u8>, value: Vec<u8>) {
            let state = Arc::new(GcState::default());
            state.publish(&rules(u64::MAX, false), true);
            filter(&state, true).may_drop(&key, &value);
        }
    }
}
