//! What is known when the next step of a job is decided.

use std::time::Duration;

use drover_catalog::job::{ImportView, JobPhase, Observed, SourceView, SplitJob};
use drover_fsm::moving::{Fence, MoveFacts, SourceJob};
use drover_hlc::{PhysicalMs, Timestamp};
use tokio::time::Instant;

use crate::convergence::RoundOutcome;
use crate::measure::Measures;
use crate::options::MigratorOptions;
use crate::projection::{Estimate, Obstacle, fence_limit, is_worth_a_round, likely_bytes, obstacle, projected_pause};

/// What source and target say; `None`: nothing, for now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) source: Option<MoveFacts>,
    pub(crate) target: Option<MoveFacts>,
    /// By the oracle; only where something depends on it.
    pub(crate) now: Option<Timestamp>,
    /// A node that holds a replica of a group concerned cannot move ranges.
    pub(crate) incapable: bool,
}

/// What the source has listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl Listed {
    pub(crate) fn of(source: &SourceJob) -> Self {
        Self { rows: source.tracked_rows, bytes: source.tracked_bytes }
    }

    /// What of it is not copied, if the first `copied` rows are: rows, and the bytes they are likely to have.
    pub(crate) fn behind(&self, copied: u64) -> (u64, u64) {
        let rows = self.rows.saturating_sub(copied);
        (rows, likely_bytes(rows, self.rows, self.bytes))
    }
}

/// How far the list of the source and its copy are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) listed: Listed,
    pub(crate) copied_rows: u64,
}

impl Lists {
    /// What has happened since `before`, which was seen so long ago.
    pub(crate) fn since(&self, before: &Lists, took: Duration) -> RoundOutcome {
        let bytes = |rows| likely_bytes(rows, self.listed.rows, self.listed.bytes);
        RoundOutcome {
            written_bytes: bytes(self.listed.rows.saturating_sub(before.listed.rows)),
            copied_bytes: bytes(self.copied_rows.saturating_sub(before.copied_rows)),
            took,
        }
    }
}

impl Look {
    /// What of the source's list is not copied: rows, and the bytes they are likely to have.
    pub(crate) fn behind(&self) -> (u64, u64) {
        let source = self.source.as_ref().and_then(|facts| facts.source.as_ref());
        let import = self.target.as_ref().and_then(|facts| facts.import.as_ref());
        let listed = source.map(|source| Listed::of(&source.job)).unwrap_or_default();
        listed.behind(import.map_or(0, |import| import.tracked))
    }

    /// Whether the source refuses reads.
    pub(crate) fn reads_held(&self) -> bool {
        self.fence().is_some_and(|fence| fence == Fence::Read)
    }

    /// Whether writes to the range are held back; `None` if that cannot be told.
    pub(crate) fn writes_held(&self, job: &SplitJob) -> Option<bool> {
        let closed = self.source.is_some().then(|| self.fence().is_some_and(|fence| fence > Fence::Open));
        match job.phase {
            JobPhase::Planned | JobPhase::Backfill | JobPhase::Abandoning | JobPhase::Failed => closed,
            JobPhase::Fence | JobPhase::DeltaCopy => Some(true),
            // The target serves as soon as it has activated the range, whatever the catalog says of the job.
            JobPhase::Cutover => {
                let target = self.target.as_ref()?;
                Some(target.import_view() != ImportView::Retired)
            }
            JobPhase::Cleanup | JobPhase::Done | JobPhase::Abandoned => Some(false),
        }
    }

    fn fence(&self) -> Option<Fence> {
        Some(self.source.as_ref()?.source.as_ref()?.job.fence)
    }

    /// How far the list of the source and its copy are; `None` if that cannot be told.
    pub(crate) fn lists(&self) -> Option<Lists> {
        let listed = Listed::of(&self.source.as_ref()?.source.as_ref()?.job);
        let copied_rows = self.target.as_ref()?.import.as_ref()?.tracked;
        Some(Lists { listed, copied_rows })
    }

    /// How long writes would be held back from now on.
    pub(crate) fn projected(&self, measures: &Measures) -> Duration {
        projected_pause(&estimate(self.behind().1, measures))
    }

    /// What stands in the way of a pause that fits.
    pub(crate) fn obstacle(&self, job: &SplitJob, measures: &Measures) -> Option<Obstacle> {
        obstacle(&estimate(self.behind().1, measures), Duration::from_millis(job.options.max_pause_ms.into()))
    }

    /// Why a job fails whose pause does not come to fit.
    pub(crate) fn why_stuck(&self, job: &SplitJob, measures: &Measures, obstacle: Option<Obstacle>) -> String {
        let (allowed, longer) = (job.options.max_pause_ms, "call it off and allow the next one a longer pause");
        match obstacle {
            Some(Obstacle::Commits) => {
                let (projected, commit) = (self.projected(measures).as_millis(), measures.commit().as_millis());
                format!(
                    "writes would be held back for {projected} ms, as a commit takes {commit} ms, and {allowed} ms are allowed: make \
                     commits quicker and retry, or {longer}"
                )
            }
            Some(Obstacle::Locks) => {
                let stood = measures.drain().as_millis();
                format!(
                    "transactions hold locks in the range, the oldest one for {stood} ms by now, and writes may be held back for \
                     {allowed} ms: make these transactions shorter and retry, or {longer}"
                )
            }
            Some(Obstacle::Writers) | None => {
                format!("the copy does not catch up with the writers: slow them down and retry, or {longer}")
            }
        }
    }

    /// Whether a transaction holds a lock in the range that is resolved before a fence.
    fn has_old_lock(&self, options: &MigratorOptions) -> bool {
        self.oldest_lock().is_some_and(|lock| self.is_past(lock.physical(), options.old_lock))
    }

    /// A lock in the range for which a fence would wait.
    pub(crate) fn lock_to_wait_for(&self, options: &MigratorOptions) -> Option<Timestamp> {
        self.oldest_lock().filter(|_| !self.has_old_lock(options))
    }

    /// The oldest snapshot of a transaction that holds a lock in the range.
    fn oldest_lock(&self) -> Option<Timestamp> {
        self.source.as_ref()?.source.as_ref()?.oldest_lock
    }

    /// What the next step depends on. `left_before`: what was behind before the last round of catching up.
    pub(crate) fn observed(
        &self,
        job: &SplitJob,
        measures: &Measures,
        left_before: Option<u64>,
        options: &MigratorOptions,
        now: Instant,
    ) -> Observed {
        let max_pause = Duration::from_millis(job.options.max_pause_ms.into());
        Observed {
            source: self.source.as_ref().map_or(SourceView::Unreachable, MoveFacts::source_view),
            target: self.target.as_ref().map_or(ImportView::Unreachable, MoveFacts::import_view),
            pause_fits: self.projected(measures) <= max_pause
                && !is_worth_a_round(&estimate(self.behind().1, measures), left_before),
            old_lock: self.has_old_lock(options),
            locked: self.oldest_lock().is_some(),
            overrun: measures.fenced_for(now) > fence_limit(max_pause),
            failed_for_long: job.phase == JobPhase::Failed
                && job.failure.as_ref().is_some_and(|failure| self.is_past(failure.at, options.failed_copy_kept)),
            incapable: self.incapable,
        }
    }

    /// Whether `at` is longer ago than `age`, by the oracle. Without its time nothing is.
    fn is_past(&self, at: PhysicalMs, age: Duration) -> bool {
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.now.is_some_and(|now| at.saturating_add_ms(age_ms) < now.physical())
    }
}

pub(crate) fn estimate(remaining_bytes: u64, measures: &Measures) -> Estimate {
    let (bytes_per_second, commit, drain) = (measures.bytes_per_second(), measures.commit(), measures.drain());
    Estimate { remaining_bytes, bytes_per_second, commit, drain }
}
