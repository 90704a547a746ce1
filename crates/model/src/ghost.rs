//! What an observer of the whole cluster knows: what was acknowledged and what was read. Nothing in the cluster sees it.

use drover_hlc::Timestamp;
use drover_mvcc::Stored;

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A read did not see what was acknowledged at or below its timestamp, or saw something else.
    StaleRead,
    /// A write was accepted at or below a timestamp at which the key had been read: the read cannot be repeated.
    WriteBelowRead,
    /// A request was accepted that was routed by a map under which the group was not the owner, or by none.
    Composed,
}

/// What was acknowledged and what was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Ghost {
    /// Of each key, every acknowledged version and whether it is a value, oldest first.
    pub truth: [Vec<(Timestamp, bool)>; 2],
    /// The highest timestamp at which each key was read.
    pub read: [Timestamp; 2],
    /// The same, of the reads that each group has served since it owns the range: its leader keeps what it accepts above these.
    pub read_at: [[Timestamp; 2]; 2],
    /// At or below it, records of writes may have been removed by whoever had the range.
    pub forgotten: Timestamp,
    /// A group was told to take a range over whose copy is not closed, or to give one up that it serves.
    pub ran_ahead: bool,
    /// The first promise that was broken.
    pub broken: Option<Broken>,
}

/// What is written: versions are told apart by their timestamps.
pub fn stored(is_value: bool) -> Stored {
    match is_value {
        true => Stored::Put { value: "v".into(), expire_at: None },
        false => Stored::Tombstone,
    }
}

impl Ghost {
    /// A version of the key at a place was acknowledged.
    pub fn acknowledged(&mut self, key: usize, at: Timestamp, is_value: bool) {
        if at <= self.read[key] {
            self.breaks(Broken::WriteBelowRead);
        }
        let place = self.truth[key].partition_point(|(other, _)| *other < at);
        self.truth[key].insert(place, (at, is_value));
    }

    /// When what a read of a key at `at` has to see was written; `None` if it has to see nothing.
    pub fn expected(&self, key: usize, at: Timestamp) -> Option<Timestamp> {
        let newest = self.truth[key].iter().rev().find(|(of, _)| *of <= at);
        newest.filter(|(_, is_value)| *is_value).map(|(of, _)| *of)
    }

    /// A read of a key at `at` was served by the group at a place.
    pub fn served(&mut self, group: usize, key: usize, at: Timestamp, seen: Option<Timestamp>) {
        if seen != self.expected(key, at) {
            self.breaks(Broken::StaleRead);
        }
        self.read[key] = self.read[key].max(at);
        self.read_at[group][key] = self.read_at[group][key].max(at);
    }

    /// A promise was broken; the first one is remembered.
    pub fn breaks(&mut self, broken: Broken) {
        self.broken = self.broken.or(Some(broken));
    }
}
