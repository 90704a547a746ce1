//! Which versions of a key must stay, as a pure decision shared by garbage collection and the digest.
//!
//! Per key and safe point: everything above the safe point stays, of the rest the newest version alone counts, and that
//! one only if it is not a tombstone (a tombstone that is newest at or below the safe point and nothing at all answer
//! every permitted read alike).

use drover_hlc::Timestamp;
use drover_keys::{Interval, ShardId};

use crate::bounds::PhysicalRange;

/// What one version is to its key, given that its versions come newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rank {
    /// Above the safe point, or in no interval that has one.
    Live,
    /// The newest at or below the safe point, among those that were shown.
    Base,
    /// Below another version at or below the safe point: no permitted read can see it.
    Superseded,
}

/// Safe points by physical interval. Rows outside every interval have none.
#[derive(Debug, Default)]
pub(crate) struct SafePoints {
    /// Sorted by lower bound, disjoint.
    spans: Vec<(PhysicalRange, Timestamp)>,
}

impl SafePoints {
    /// # Panics
    /// If two intervals of one shard overlap: ownership is disjoint by construction.
    pub fn new<'a>(rules: impl Iterator<Item = (ShardId, &'a Interval, Timestamp)>) -> Self {
        let mut spans: Vec<_> = rules.map(|(shard, interval, at)| (PhysicalRange::new(shard, interval), at)).collect();
        spans.sort_by(|(a, _), (b, _)| a.lower.cmp(&b.lower));
        for pair in spans.windows(2) {
            assert!(!pair[0].0.is_above(&pair[1].0.lower), "intervals with safe points overlap: {pair:?}");
        }
        Self { spans }
    }

    /// The safe point of the rows whose keys start with `prefix`.
    pub fn of(&self, prefix: &[u8]) -> Option<Timestamp> {
        let after = self.spans.partition_point(|(range, _)| range.lower.as_slice() <= prefix);
        let (range, safe_point) = self.spans.get(after.checked_sub(1)?)?;
        range.is_above(prefix).then_some(*safe_point)
    }
}

/// Ranks versions that come in physical key order. May start and end anywhere: seeing only a part of the versions of a
/// key makes it keep more, never less.
#[derive(Debug, Default)]
pub(crate) struct Ranker {
    prefix: Vec<u8>,
    safe_point: Option<Timestamp>,
    base_seen: bool,
}

impl Ranker {
    /// Ranks the next version; `safe_point_of` is asked once per key.
    pub fn rank(
        &mut self,
        prefix: &[u8],
        commit_ts: Timestamp,
        safe_point_of: impl FnOnce(&[u8]) -> Option<Timestamp>,
    ) -> Rank {
        if self.prefix != prefix || prefix.is_empty() {
            self.prefix.clear();
            self.prefix.extend_from_slice(prefix);
            self.safe_point = safe_point_of(prefix);
            self.base_seen = false;
        }
        match self.safe_point {
            Some(safe_point) if commit_ts <= safe_point => {
                let rank = if self.base_seen { Rank::Superseded } else { Rank::Base };
                self.base_seen = true;
                rank
            }
            Some(_) | None => Rank::Live,
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::End;

    use super::*;

    fn ts(raw: u64) -> Timestamp {
        Timestamp::from_raw(raw)
    }

    #[test]
    fn the_newest_version_at_or_below_the_safe_point_is_the_base_and_all_under_it_are_superseded() {
        let table: [(Option<u64>, [Rank; 4]); 6] = [
            (None, [Rank::Live; 4]),
            (Some(0), [Rank::Live; 4]),
            (Some(1), [Rank::Live, Rank::Live, Rank::Live, Rank::Base]),
            (Some(5), [Rank::Live, Rank::Live, Rank::Base, Rank::Superseded]),
            (Some(7), [Rank::Live, Rank::Base, Rank::Superseded, Rank::Superseded]),
            (Some(99), [Rank::Base, Rank::Superseded, Rank::Superseded, Rank::Superseded]),
        ];
        for (safe_point, expect) in table {
            let mut ranker = Ranker::default();
            let got = [9, 7, 5, 1].map(|at| ranker.rank(b"k", ts(at), |_| safe_point.map(ts)));
            assert_eq!(got, expect, "safe point {safe_point:?}");
        }
    }

    #[test]
    fn each_key_starts_anew() {
        let mut ranker = Ranker::default();
        let got = [&b"a"[..], b"a", b"b", b"b", b""].map(|key| ranker.rank(key, ts(1), |_| Some(ts(1))));
        assert_eq!(got, [Rank::Base, Rank::Superseded, Rank::Base, Rank::Superseded, Rank::Base]);
    }

    #[test]
    fn a_safe_point_holds_for_its_shard_and_interval_only() {
        let interval = Interval::new("b", End::Key("d".into())).unwrap();
        let tail = Interval::new("d", End::Unbounded).unwrap();
        let points = SafePoints::new([(ShardId(2), &tail, ts(9)), (ShardId(2), &interval, ts(5))].into_iter());
        let of = |shard, key: &str| {
            points.of(&drover_keys::key_prefix(ShardId(shard), &drover_keys::LogicalKey::plain(key.to_owned())))
        };
        let table =
            [(2, "a", None), (2, "b", Some(5)), (2, "cz", Some(5)), (2, "d", Some(9)), (1, "c", None), (3, "c", None)];
        for (shard, key, expect) in table {
            assert_eq!(of(shard, key), expect.map(ts), "shard {shard} key {key}");
        }
    }
}
