//! What a group remembers of the ranges that move to it or away from it, and how each step changes that: pure functions.
//!
//! Guards and grants belong to a job and to a shard, never to an interval. Only [`MoveStep::PrepareImport`] and
//! [`MoveStep::ArmMigration`] make the state of a job; whatever ends it leaves a mark, and a job with that mark refuses every
//! step. Every step carries the epoch of the course that it belongs to; one of an older course is refused, so that nobody who
//! was deposed, and no late message, can lift a guard that somebody relies on, or set one again.

mod apply;
mod export;
mod facts;
mod import;
mod source;
mod step;

use std::collections::BTreeSet;

use drover_guards::{self as guards, Guard};
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId};

pub use apply::{MovedRows, Stop, apply_step, note_tracked, tracked_ranges};
pub use export::{ExportRequest, ExportRows, Exported};
pub use facts::{MoveFacts, SourceFacts};
pub use import::{ChunkRefusal, ImportJob, ImportPhase, Stream};
pub use source::{Fence, SourceJob};
pub use step::{Activation, Chunk, ChunkRows, MoveStep};

/// Released intervals that are remembered, for hints.
const RELEASED_KEPT: usize = 256;

/// An interval that was given up, and where it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Released {
    /// Route keys.
    pub interval: Interval,
    /// The group that was named as the new owner.
    pub group: GroupId,
    /// The catalog version from which that holds.
    pub version: CatalogVersion,
}

/// The ranges that move, as one group sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Moves {
    /// Ranges that move away; intervals are disjoint.
    pub sources: Vec<SourceJob>,
    /// Ranges that are copied here; each has a shard of its own.
    pub imports: Vec<ImportJob>,
    /// Jobs that are over, of those at or above the horizon.
    pub retired: BTreeSet<JobId>,
    /// Every job below it is over.
    pub horizon: JobId,
    /// What was given up lately, the latest last.
    pub released: Vec<Released>,
}

/// Why a step is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveRefusal {
    /// The job is over, whatever comes late.
    #[error("job {job} is over in this group")]
    Retired { job: JobId },
    /// The step belongs to an older course.
    #[error("job {job} is at epoch {current}, and the step is of {epoch}")]
    OldEpoch { job: JobId, epoch: JobEpoch, current: JobEpoch },
    /// There is no such job here.
    #[error("job {job} has not been begun in this group")]
    NotBegun { job: JobId },
    /// The job was begun with something else.
    #[error("job {job} was begun with another interval, shard or group")]
    Differs { job: JobId },
    /// Not all of the interval lies within one owned interval.
    #[error("{interval} does not lie within one interval that this group owns")]
    NotOwned { interval: String },
    /// Another job has part of the interval.
    #[error("{interval} overlaps with that of job {other}")]
    Overlap { interval: String, other: JobId },
    /// The shard holds something.
    #[error("shard {shard} is in use in this group")]
    ShardInUse { shard: u64 },
    /// What is to be copied here is owned already, at least in part.
    #[error("{interval} is owned by this group, at least in part")]
    Owned { interval: String },
    /// What it owns from the start has not been granted to it yet.
    #[error("this group has not been given what it owns from the start")]
    NotFounded,
    /// Version zero stands for "no version".
    #[error("job {job} names no catalog version for its range")]
    NoVersion { job: JobId },
    /// The step is not what comes next.
    #[error("job {job} is {phase}, so it cannot be {wanted}")]
    OutOfOrder { job: JobId, phase: &'static str, wanted: &'static str },
    /// Transactions that have prepared are not resolved yet.
    #[error("job {job} cannot be sealed: transactions hold locks in its interval")]
    LocksStand { job: JobId },
    /// A chunk does not continue what is here.
    #[error(transparent)]
    Chunk(#[from] ChunkRefusal),
}

/// Lets what is known of a job follow the course of `epoch`, unless it follows a later one.
///
/// # Errors
/// [`MoveRefusal::OldEpoch`].
fn enter(job: JobId, current: &mut JobEpoch, epoch: JobEpoch) -> Result<(), MoveRefusal> {
    if epoch < *current && guards::on(Guard::MoveEpochs) {
        return Err(MoveRefusal::OldEpoch { job, epoch, current: *current });
    }
    *current = (*current).max(epoch);
    Ok(())
}

impl Moves {
    /// Whether a job is over here.
    pub fn is_retired(&self, job: JobId) -> bool {
        job < self.horizon || self.retired.contains(&job)
    }

    /// What is known of a range that moves away.
    pub fn source(&self, job: JobId) -> Option<&SourceJob> {
        self.sources.iter().find(|source| source.job == job)
    }

    /// What is known of a range that is copied here.
    pub fn import(&self, job: JobId) -> Option<&ImportJob> {
        self.imports.iter().find(|import| import.job == job)
    }

    /// The ranges that move away and share a key with `interval`.
    pub fn leaving<'a>(&'a self, interval: &Interval) -> impl Iterator<Item = &'a SourceJob> {
        self.sources.iter().filter(move |source| source.interval.overlaps(interval))
    }

    /// Whether something of `interval` is held as it is, for a copy.
    pub fn is_pinned(&self, interval: &Interval) -> bool {
        self.leaving(interval).next().is_some()
    }

    /// The ranges that are copied here and share a key with `interval`.
    pub fn arriving<'a>(&'a self, interval: &Interval) -> impl Iterator<Item = &'a ImportJob> {
        self.imports.iter().filter(move |import| import.interval.overlaps(interval))
    }

    /// Where `interval`, or part of it, went latest.
    pub fn gone(&self, interval: &Interval) -> Option<&Released> {
        self.released.iter().rev().find(|released| released.interval.overlaps(interval))
    }

    /// Takes note that a job is over, and forgets all else about it.
    pub(crate) fn retire(&mut self, job: JobId) {
        self.sources.retain(|source| source.job != job);
        self.imports.retain(|import| import.job != job);
        if job >= self.horizon {
            self.retired.insert(job);
        }
    }

    /// Remembers where an interval went.
    pub(crate) fn release(&mut self, released: Released) {
        self.released.push(released);
        if self.released.len() > RELEASED_KEPT {
            self.released.remove(0);
        }
    }

    /// An interval has come here: what was known of its leaving is of the past.
    pub(crate) fn arrive(&mut self, interval: &Interval) {
        self.released.retain(|released| !released.interval.overlaps(interval));
    }

    /// Forgets the marks of jobs below `horizon`, all of which are over. Whether that changes anything.
    pub fn advance_horizon(&mut self, horizon: JobId) -> bool {
        // What is not over here yet is no job below the horizon; the catalog counts on that, and this group does not.
        let live = self.sources.iter().map(|s| s.job).chain(self.imports.iter().map(|i| i.job)).min();
        let horizon = live.map_or(horizon, |live| horizon.min(live));
        if horizon <= self.horizon {
            return false;
        }
        self.horizon = horizon;
        self.retired = self.retired.split_off(&horizon);
        true
    }
}

#[cfg(test)]
pub(crate) mod tests_support {
    pub(crate) use super::import::tests::import;
    pub(crate) use super::source::tests::source;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::interval;

    fn released(start: &str, end: &str, group: u64) -> Released {
        Released { interval: interval(start, end), group: GroupId(group), version: CatalogVersion(2) }
    }

    #[test]
    fn marks_of_jobs_that_are_over_go_behind_the_horizon_and_no_live_job_falls_below_it() {
        let mut moves = Moves::default();
        for job in [3, 5, 9] {
            moves.retire(JobId(job));
        }
        assert!(moves.advance_horizon(JobId(5)));
        assert_eq!(moves.retired, BTreeSet::from([JobId(5), JobId(9)]));
        assert!(moves.is_retired(JobId(3)) && moves.is_retired(JobId(5)) && !moves.is_retired(JobId(6)));
        assert!(!moves.advance_horizon(JobId(4)), "it only rises");
        moves.imports.push(import::tests::import(7));
        assert!(moves.advance_horizon(JobId(100)));
        assert_eq!((moves.horizon, moves.is_retired(JobId(7)), moves.is_retired(JobId(9))), (JobId(7), false, true));
        moves.retire(JobId(6));
        assert!(!moves.retired.contains(&JobId(6)), "below the horizon no mark is needed");
    }

    #[test]
    fn the_latest_release_is_the_hint_until_the_interval_comes_back() {
        let mut moves = Moves::default();
        moves.release(released("a", "f", 3));
        moves.release(released("c", "d", 4));
        let hint = |moves: &Moves, start, end| moves.gone(&interval(start, end)).map(|gone| gone.group.0);
        assert_eq!(hint(&moves, "a", "b"), Some(3));
        assert_eq!(hint(&moves, "c", "c\0"), Some(4));
        assert_eq!(hint(&moves, "f", "g"), None);
        moves.arrive(&interval("c", "d"));
        assert_eq!(hint(&moves, "c", "c\0"), None);
        for _ in 0..RELEASED_KEPT + 10 {
            moves.release(released("x", "y", 5));
        }
        assert_eq!(moves.released.len(), RELEASED_KEPT);
    }
}
