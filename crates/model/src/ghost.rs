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
    /// Every acknowledged version of the key and whether it is a value, oldest first.
    pub truth: Vec<(Timestamp, bool)>,
    /// The highest timestamp at which the key was read.
    pub read: Timestamp,
    /// The same, of the reads that each group has served since it owns the range: its leader keeps what it accepts above these.
    pub read_at: [Timestamp; 2],
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
    /// A version was acknowledged.
    pub fn acknowledged(&mut self, at: Timestamp, is_value: bool) {
        if at <= self.read {
            self.breaks(Broken::WriteBelowRead);
        }
        let place = self.truth.partition_point(|(other, _)| *other < at);
        self.truth.insert(place, (at, is_value));
    }

    /// When what a read at `at` has to see was written; `None` if it has to see nothing.
    pub fn expected(&self, at: Timestamp) -> Option<Timestamp> {
        let newest = self.truth.iter().rev().find(|(of, _)| *of <= at);
        newest.filter(|(_, is_value)| *is_value).map(|(of, _)| *of)
    }

    /// A read at `at` was served by the group at `place`.
    pub fn served(&mut self, place: usize, at: Timestamp, seen: Option<Timestamp>) {
        if seen != self.expected(at) {
            self.breaks(Broken::StaleRead);
        }
        self.read = self.read.max(at);
        self.read_at[place] = self.read_at[place].max(at);
    }

    /// A promise was broken; the first one is remembered.
    pub fn breaks(&mut self, broken: Broken) {
        self.broken = self.broken.or(Some(broken));
    }
}
