//! The replicated control state of a group, as a value.

use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, End, Interval, RouteId, ShardId};

use crate::moving::{Fence, Moves};

/// One interval that the group owns without interruption since `acquired_version`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnedInterval {
    /// Route keys.
    pub interval: Interval,
    /// Name for people; decides nothing.
    pub route: RouteId,
    /// Physical keyspace of the rows.
    pub shard: ShardId,
    /// Catalog version at which this uninterrupted ownership began.
    pub acquired_version: CatalogVersion,
    /// Commit timestamps at or below it are refused.
    pub floor_ts: Timestamp,
    /// Snapshots below it are refused.
    pub history_start: Timestamp,
    /// Snapshots below it are refused, and garbage collection works up to it.
    pub safe_point: Timestamp,
    /// Transactions that read a snapshot at or below it are refused; what is recorded of them may be gone.
    pub txn_horizon: Timestamp,
}

/// How far the oracle may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OracleCeiling {
    /// Highest physical half that may be issued.
    pub physical: PhysicalMs,
    /// Term of the entry that set it.
    pub term: u64,
}

/// The replicated control state of a group, except what is kept per key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct GroupState {
    /// Whether a grant was applied; there is one in the life of a group.
    pub bootstrapped: bool,
    /// Disjoint and ascending.
    pub owned: Vec<OwnedInterval>,
    /// Highest commit timestamp of an applied operation whose effect depended on what it read.
    pub read_floor: Timestamp,
    /// At or above the commit timestamp of every version in the group.
    pub max_commit_ts: Timestamp,
    /// Idempotency records whose `not_after` is at or below it may be gone.
    pub record_horizon: Timestamp,
    /// Default group only.
    pub oracle_ceiling: OracleCeiling,
    /// Locks that stand in the group.
    pub locks: u64,
    /// Ranges that move here or away.
    pub moves: Moves,
}

/// Which invariant of [`GroupState`] does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidState {
    /// Two owned intervals share a key or stand in the wrong order.
    #[error("owned interval {second} does not lie above {first}")]
    NotAscending { first: String, second: String },
    /// Version zero stands for "no version".
    #[error("owned interval {0} has no acquired version")]
    NoVersion(String),
    /// What moves away is owned, by itself.
    #[error("{0} moves away and is no owned interval")]
    MovesForeign(String),
    /// A group owns something only after its grant.
    #[error("intervals are owned, and no grant was applied")]
    NotBootstrapped,
}

impl GroupState {
    /// Checks what must hold of every state.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn validate(&self) -> Result<(), InvalidState> {
        if !self.bootstrapped && !self.owned.is_empty() {
            return Err(InvalidState::NotBootstrapped);
        }
        if let Some(owned) = self.owned.iter().find(|o| o.acquired_version < CatalogVersion::FIRST) {
            return Err(InvalidState::NoVersion(owned.interval.to_string()));
        }
        let owned = |interval: &Interval| self.owned.iter().any(|owned| owned.interval == *interval);
        if let Some(source) = self.moves.sources.iter().find(|source| !owned(&source.interval)) {
            return Err(InvalidState::MovesForeign(source.interval.to_string()));
        }
        let ascends = |pair: &&[OwnedInterval]| match pair[0].interval.end().as_key() {
            Some(end) => end <= pair[1].interval.start(),
            None => false,
        };
        match self.owned.windows(2).find(|pair| !ascends(pair)) {
            Some(pair) => Err(InvalidState::NotAscending {
                first: pair[0].interval.to_string(),
                second: pair[1].interval.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// The owned intervals that together hold all of `footprint`, ascending and without a gap; `None` if any part of
    /// it is not owned.
    pub fn owner_of(&self, footprint: &Interval) -> Option<&[OwnedInterval]> {
        let first = self.owned.partition_point(|o| !o.interval.end().is_above(footprint.start()));
        let mut last = first;
        let mut covered_to = footprint.start();
        loop {
            let owned = self.owned.get(last)?;
            if owned.interval.start() > covered_to {
                return None;
            }
            match owned.interval.end() {
                end if end >= footprint.end() => return Some(&self.owned[first..=last]),
                end => covered_to = end.as_key().expect("an end below another one is a key"),
            }
            last += 1;
        }
    }

    /// Whether a reader that judged `self` with the data of `other` could be wrong: what the group owns, how far back
    /// it may be read, or whether locks or a fence can stand in the way.
    pub fn differs_for_readers(&self, other: &GroupState) -> bool {
        fn closed(state: &GroupState) -> impl Iterator<Item = &Interval> {
            state.moves.sources.iter().filter(|source| source.fence == Fence::Read).map(|source| &source.interval)
        }
        self.owned != other.owned || (self.locks == 0) != (other.locks == 0) || !closed(self).eq(closed(other))
    }

    /// Makes `interval`, which lies within one owned interval, an owned interval by itself, and returns its place; `None`
    /// if it does not lie within one.
    pub(crate) fn carve(&mut self, interval: &Interval) -> Option<usize> {
        let at = self.owned.iter().position(|owned| owned.interval.covers(interval))?;
        let whole = self.owned.remove(at);
        let piece = |start: &bytes::Bytes, end: &End| {
            let interval = Interval::new(start.clone(), end.clone()).ok()?;
            Some(OwnedInterval { interval, ..whole.clone() })
        };
        let before = piece(whole.interval.start(), &End::Key(interval.start().clone()));
        let after = interval.end().as_key().and_then(|end| piece(end, whole.interval.end()));
        let place = at + usize::from(before.is_some());
        let moving = OwnedInterval { interval: interval.clone(), ..whole.clone() };
        let pieces = before.into_iter().chain([moving]).chain(after);
        self.owned.splice(at..at, pieces);
        Some(place)
    }

    /// Joins neighbours that differ in nothing but their bounds, and do not move: what was cut for a move that came to
    /// nothing.
    pub(crate) fn mend(&mut self) {
        let mut at = 1;
        while at < self.owned.len() {
            let (left, right) = (&self.owned[at - 1], &self.owned[at]);
            let alike = OwnedInterval { interval: left.interval.clone(), ..right.clone() } == *left
                && left.interval.end().as_key() == Some(right.interval.start())
                && !self.moves.is_pinned(&left.interval)
                && !self.moves.is_pinned(&right.interval);
            if alike {
                let whole = left.interval.hull(&right.interval);
                self.owned[at - 1].interval = whole;
                self.owned.remove(at);
            } else {
                at += 1;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::Bytes;
    use drover_keys::End;
    use proptest::prelude::*;

    use super::*;

    /// `[start, end)`; an empty `end` stands for "unbounded" in test tables only.
    pub(crate) fn interval(start: &str, end: &str) -> Interval {
        let end = if end.is_empty() { End::Unbounded } else { End::Key(Bytes::copy_from_slice(end.as_bytes())) };
        Interval::new(Bytes::copy_from_slice(start.as_bytes()), end).unwrap()
    }

    pub(crate) fn ts(raw: u64) -> Timestamp {
        Timestamp::from_raw(raw)
    }

    pub(crate) fn owned(start: &str, end: &str, version: u64) -> OwnedInterval {
        OwnedInterval {
            interval: interval(start, end),
            route: RouteId(1),
            shard: ShardId(1),
            acquired_version: CatalogVersion(version),
            floor_ts: Timestamp::ZERO,
            history_start: Timestamp::ZERO,
            safe_point: Timestamp::ZERO,
            txn_horizon: Timestamp::ZERO,
        }
    }

    pub(crate) fn state(owned: Vec<OwnedInterval>) -> GroupState {
        GroupState { bootstrapped: true, owned, ..GroupState::default() }
    }

    #[test]
    fn overlapping_unordered_unversioned_and_ungranted_intervals_are_invalid() {
        assert_eq!(state(vec![owned("a", "c", 1), owned("c", "", 1)]).validate(), Ok(()));
        for bad in [
            vec![owned("a", "d", 1), owned("c", "", 1)],
            vec![owned("c", "d", 1), owned("a", "b", 1)],
            vec![owned("a", "", 1), owned("c", "d", 1)],
        ] {
            assert!(matches!(state(bad).validate(), Err(InvalidState::NotAscending { .. })));
        }
        assert!(matches!(state(vec![owned("a", "b", 0)]).validate(), Err(InvalidState::NoVersion(_))));
        let ungranted = GroupState { bootstrapped: false, ..state(vec![owned("a", "b", 1)]) };
        assert_eq!(ungranted.validate(), Err(InvalidState::NotBootstrapped));
    }

    #[test]
    fn readers_are_told_of_ownership_safe_points_and_the_first_lock_and_not_of_each_write() {
        let before = state(vec![owned("a", "", 1)]);
        let written = GroupState { max_commit_ts: ts(9), read_floor: ts(8), ..before.clone() };
        assert!(!written.differs_for_readers(&before));
        let mut advanced = before.clone();
        advanced.owned[0].safe_point = ts(3);
        assert!(advanced.differs_for_readers(&before));
        let locked = GroupState { locks: 1, ..before.clone() };
        assert!(locked.differs_for_readers(&before));
        assert!(!GroupState { locks: 2, ..before.clone() }.differs_for_readers(&locked));
    }

    proptest! {
        /// Keys are single bytes, so that ownership can be counted key by key.
        #[test]
        fn a_footprint_is_owned_exactly_if_each_of_its_keys_is(
            cuts in proptest::collection::btree_set(0u8..20, 2..8), mask: u8, from in 0u8..19, len in 1u8..20, open: bool,
        ) {
            let cuts: Vec<u8> = cuts.into_iter().collect();
            let pieces = cuts.windows(2).enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, w)| OwnedInterval {
                interval: Interval::new(vec![w[0]], End::Key(vec![w[1]].into())).unwrap(),
                ..owned("", "", 1)
            });
            let state = state(pieces.collect());
            state.validate().unwrap();
            let end = if open { End::Unbounded } else { End::Key(vec![from + len].into()) };
            let footprint = Interval::new(vec![from], end).unwrap();
            let each_key = !open
                && (from..from + len).all(|key| state.owned.iter().any(|o| o.interval.contains(&[key])));
            let got = state.owner_of(&footprint);
            prop_assert_eq!(got.is_some(), each_key);
            if let Some(got) = got {
                prop_assert!(got.iter().all(|o| o.interval.overlaps(&footprint)));
            }
        }
    }
}
