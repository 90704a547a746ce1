//! Jobs: the durable record of each range that moves, and which step comes next.
//!
//! The record says how far the catalog has gone. What source and target have done stands in their own logs; whoever drives
//! the job looks there before each step ([`next_step`]).

mod course;
mod options;
mod progress;
mod step;

use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId, RouteId, ShardId};

#[cfg(test)]
pub(crate) use course::tests::all_events;
pub use course::{JobEvent, JobRefusal};
pub use progress::JobProgress;
pub use step::{Closed, ImportView, JobStep, Observed, SourceView, WaitingFor, next_step};

/// Jobs that may be under way at once.
pub const MAX_LIVE_JOBS: usize = 64;
/// Jobs that have ended and are kept.
pub const JOB_HISTORY: usize = 1_000;
/// How long jobs that have ended are kept at most.
pub const JOB_HISTORY_MS: u64 = 7 * 24 * 3_600 * 1_000;
/// Pauses of a job that are kept, the latest ones.
pub const JOB_PAUSES: usize = 16;
/// Longest text of why a job failed that is kept, in bytes.
pub const MAX_WHY_BYTES: usize = 512;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobPhase {
    /// Nothing else was changed yet.
    Planned,
    /// The range is copied while the source serves it.
    Backfill,
    /// New writes are held back, and what is under way comes to its end.
    Fence,
    /// The rest is copied; nothing changes meanwhile.
    DeltaCopy,
    /// The range changes hands.
    Cutover,
    /// The target serves it; the source clears up.
    Cleanup,
    /// The range was moved.
    Done,
    /// The job is being called off.
    Abandoning,
    /// The job was called off; all is as before it.
    Abandoned,
    /// It could not go on. Fences are lifted, and the copy is kept for a while.
    Failed,
}

impl JobPhase {
    /// All of them.
    pub const ALL: [JobPhase; 10] = [
        JobPhase::Planned,
        JobPhase::Backfill,
        JobPhase::Fence,
        JobPhase::DeltaCopy,
        JobPhase::Cutover,
        JobPhase::Cleanup,
        JobPhase::Done,
        JobPhase::Abandoning,
        JobPhase::Abandoned,
        JobPhase::Failed,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            JobPhase::Planned => "planned",
            JobPhase::Backfill => "backfill",
            JobPhase::Fence => "fence",
            JobPhase::DeltaCopy => "delta-copy",
            JobPhase::Cutover => "cutover",
            JobPhase::Cleanup => "cleanup",
            JobPhase::Done => "done",
            JobPhase::Abandoning => "abandoning",
            JobPhase::Abandoned => "abandoned",
            JobPhase::Failed => "failed",
        }
    }

    /// Whether the job is over.
    pub fn has_ended(self) -> bool {
        matches!(self, JobPhase::Done | JobPhase::Abandoned)
    }
}

impl std::fmt::Display for JobPhase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How a range is to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobOptions {
    /// How long writes may be held back, in milliseconds: the fence waits until that is likely to be enough.
    pub max_pause_ms: u32,
    /// How fast the range may be copied; zero: as fast as it goes.
    pub max_bytes_per_second: u64,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self { max_pause_ms: 100, max_bytes_per_second: 50 << 20 }
    }
}

impl JobOptions {
    const PAUSE_MS: std::ops::RangeInclusive<u32> = 10..=60_000;
    const LEAST_RATE: u64 = 64 << 10;

    /// Refuses what makes no sense.
    ///
    /// # Errors
    /// Which option, and what it may be.
    pub fn check(&self) -> Result<(), String> {
        if !Self::PAUSE_MS.contains(&self.max_pause_ms) {
            let (low, high) = (Self::PAUSE_MS.start(), Self::PAUSE_MS.end());
            return Err(format!("the longest pause is {} ms; it must be from {low} to {high}", self.max_pause_ms));
        }
        if self.max_bytes_per_second != 0 && self.max_bytes_per_second < Self::LEAST_RATE {
            let (rate, least) = (self.max_bytes_per_second, Self::LEAST_RATE);
            return Err(format!("the rate is {rate} bytes a second; it must be at least {least}, or 0 for no limit"));
        }
        Ok(())
    }
}

/// Sum of the rows of a range as of the arming of its tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseSum {
    /// Index of the source's log entry that armed the tracker.
    pub armed_at: u64,
    /// Sum of the hashes.
    pub hash: u128,
    /// Number of rows.
    pub rows: u64,
}

/// What the new owner begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandoverTerms {
    /// Above everything that the source has served.
    pub floor_ts: Timestamp,
    /// Snapshots below it are refused.
    pub history_start: Timestamp,
    /// Transactions at or below it are refused.
    pub txn_horizon: Timestamp,
    /// Idempotency records whose `not_after` is at or below it may be gone.
    pub record_horizon: Timestamp,
}

/// That the catalog names the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handover {
    /// The catalog version that does.
    pub version: CatalogVersion,
    /// What the target begins with.
    pub terms: HandoverTerms,
}

/// What the catalog has for a job when something happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// By the catalog's clock.
    pub now: PhysicalMs,
    /// The version that a change of routes would make.
    pub next_version: CatalogVersion,
    /// The route that is the moving interval alone, once it was carved.
    pub own_route: RouteId,
    /// The next shard that is free.
    pub next_shard: ShardId,
}

/// How long one fence of a job held requests back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobPause {
    /// Which of the fences of the job: the first one is 1.
    pub fence: u32,
    /// Writes: from the proposal of the fence until the target served them, or until the fence was lifted. In microseconds.
    pub write_us: u64,
    /// Reads: from the proposal of their fence until then, in microseconds; zero if they were not held back.
    pub read_us: u64,
}

/// Why a job could not go on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// For people.
    pub why: String,
    /// By the catalog's clock.
    pub at: PhysicalMs,
    /// Where a retry goes on.
    pub retry_phase: JobPhase,
}

/// A range that moves, as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SplitJob {
    /// Its number.
    pub id: JobId,
    /// Rises with every change of course.
    pub epoch: JobEpoch,
    /// Where it stands.
    pub phase: JobPhase,
    /// Whether somebody has asked it to take no further step for now. Not heeded once writes are held back.
    pub paused: bool,
    /// What moves.
    pub interval: Interval,
    /// The route that it was part of when the job began.
    pub from_route: RouteId,
    /// Who serves it.
    pub source: GroupId,
    /// Who is to serve it.
    pub target: GroupId,
    /// The keyspace of the copy.
    pub shard: ShardId,
    /// How it is to be moved.
    pub options: JobOptions,
    /// Who began it.
    pub actor: String,
    /// By the catalog's clock.
    pub created: PhysicalMs,
    /// By the catalog's clock: of the last change.
    pub changed: PhysicalMs,
    /// How often it was begun from the start.
    pub starts: u32,
    /// How often writes were held back.
    pub fences: u32,
    /// What the source's scan came to.
    pub base: Option<BaseSum>,
    /// The route that is the moving interval alone, once there is one.
    pub own_route: Option<RouteId>,
    /// Once the catalog has named the target.
    pub handover: Option<Handover>,
    /// Why it could not go on, latest.
    pub failure: Option<Failure>,
    /// How long requests were held back, by the fences that somebody saw from their beginning to their end, in their order. Of
    /// the others it is not known.
    pub pauses: Vec<JobPause>,
}

/// What is known of a job before anything has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its number.
    pub id: JobId,
    /// What moves.
    pub interval: Interval,
    /// The route that it is part of.
    pub from_route: RouteId,
    /// Who serves it.
    pub source: GroupId,
    /// Who is to serve it.
    pub target: GroupId,
    /// The keyspace of the copy.
    pub shard: ShardId,
    /// How it is to be moved.
    pub options: JobOptions,
    /// Who begins it.
    pub actor: String,
    /// By the catalog's clock.
    pub now: PhysicalMs,
}

impl SplitJob {
    /// The groups concerned: the one that holds the catalog, the source and the target.
    pub fn groups(&self) -> [GroupId; 3] {
        [GroupId::DEFAULT, self.source, self.target]
    }

    /// A job that begins.
    pub fn begun(new: NewJob) -> Self {
        let NewJob { id, interval, from_route, source, target, shard, options, actor, now } = new;
        Self {
            id,
            epoch: JobEpoch(1),
            phase: JobPhase::Planned,
            paused: false,
            interval,
            from_route,
            source,
            target,
            shard,
            options,
            actor,
            created: now,
            changed: now,
            starts: 1,
            fences: 0,
            base: None,
            own_route: None,
            handover: None,
            failure: None,
            pauses: Vec::new(),
        }
    }

    /// Whether the catalog names the target: from then on there is only forward.
    pub fn is_handed_over(&self) -> bool {
        self.handover.is_some()
    }

    /// What `event` makes of it; `None` if it is so already. `epoch`: the course of whoever drives it; `None` if people ask.
    /// What becomes of the routes is not this function's business.
    ///
    /// # Errors
    /// If it follows another course, or is in no phase for that.
    pub fn after(
        &self,
        epoch: Option<JobEpoch>,
        event: &JobEvent,
        around: &Surroundings,
    ) -> Result<Option<SplitJob>, JobRefusal> {
        course::apply(self, epoch, event, around)
    }

    /// Checks what must hold of every job.
    ///
    /// # Errors
    /// What does not hold.
    pub fn validate(&self) -> Result<(), String> {
        let wrong = |why: &str| Err(why.to_owned());
        match self.phase {
            _ if self.source == self.target => wrong("source and target are one group"),
            JobPhase::Cleanup | JobPhase::Done if self.handover.is_none() => {
                wrong("it is over and nothing was handed over")
            }
            JobPhase::Planned | JobPhase::Backfill | JobPhase::Fence | JobPhase::DeltaCopy
                if self.handover.is_some() =>
            {
                wrong("it was handed over before its time")
            }
            JobPhase::Abandoning | JobPhase::Abandoned | JobPhase::Failed if self.handover.is_some() => {
                wrong("it was given up after it was handed over")
            }
            JobPhase::Fence | JobPhase::DeltaCopy | JobPhase::Cutover | JobPhase::Cleanup
                if self.own_route.is_none() =>
            {
                wrong("it is fenced and has no route of its own")
            }
            JobPhase::Failed if self.failure.is_none() => wrong("it failed and nobody knows why"),
            _ if !self.pauses.is_sorted_by(|a, b| a.fence < b.fence) => wrong("its pauses are not in their order"),
            _ if self.pauses.last().is_some_and(|last| last.fence > self.fences) => {
                wrong("a fence that was not paused")
            }
            _ if self.pauses.len() > JOB_PAUSES => wrong("it has too many pauses"),
            _ => self.options.check(),
        }
    }
}
