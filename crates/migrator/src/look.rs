//! What is known when the next step of a job is decided.

use std::time::Duration;

use drover_catalog::job::{ImportView, JobPhase, Observed, SourceView, SplitJob};
use drover_fsm::moving::{Fence, MoveFacts};
use drover_hlc::{PhysicalMs, Timestamp};
use tokio::time::Instant;

use crate::convergence::RoundOutcome;
use crate::measure::Measures;
use crate::options::MigratorOptions;
use crate::projection::{Estimate, fence_limit, is_worth_a_round, likely_bytes, projected_pause};

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

/// How far the list of the source and its copy are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lists {
    pub(crate) listed_rows: u64,
    pub(crate) listed_bytes: u64,
    pub(crate) copied_rows: u64,
}

impl Lists {
    /// What has happened since `before`, which was seen so long ago.
    pub(crate) fn since(&self, before: &Lists, took: Duration) -> RoundOutcome {
        let bytes = |rows| likely_bytes(rows, self.listed_rows, self.listed_bytes);
        RoundOutcome {
            written_bytes: bytes(self.listed_rows.saturating_sub(before.listed_rows)),
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
        let Some(source) = source.map(|source| &source.job) else { return (0, 0) };
        let rows = source.tracked_rows.saturating_sub(import.map_or(0, |import| import.tracked));
        (rows, likely_bytes(rows, source.tracked_rows, source.tracked_bytes))
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
        let source = &self.source.as_ref()?.source.as_ref()?.job;
        let copied_rows = self.target.as_ref()?.import.as_ref()?.tracked;
        Some(Lists { listed_rows: source.tracked_rows, listed_bytes: source.tracked_bytes, copied_rows })
    }

    /// How long writes would be held back from now on.
    pub(crate) fn projected(&self, measures: &Measures) -> Duration {
        self.projected_with(self.behind().1, measures)
    }

    /// Whether a pause would fit if nothing were behind: then it is the writers who are in the way.
    pub(crate) fn writers_are_in_the_way(&self, job: &SplitJob, measures: &Measures) -> bool {
        self.projected_with(0, measures) <= Duration::from_millis(job.options.max_pause_ms.into())
    }

    fn projected_with(&self, remaining_bytes: u64, measures: &Measures) -> Duration {
        projected_pause(&estimate(remaining_bytes, measures))
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
        let lock = self.source.as_ref().and_then(|facts| facts.source.as_ref()?.oldest_lock);
        let max_pause = Duration::from_millis(job.options.max_pause_ms.into());
        Observed {
            source: self.source.as_ref().map_or(SourceView::Unreachable, MoveFacts::source_view),
            target: self.target.as_ref().map_or(ImportView::Unreachable, MoveFacts::import_view),
            pause_fits: self.projected(measures) <= max_pause
                && !is_worth_a_round(&estimate(self.behind().1, measures), left_before),
            old_lock: lock.is_some_and(|lock| self.is_past(lock.physical(), options.old_lock)),
            locked: lock.is_some(),
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

fn estimate(remaining_bytes: u64, measures: &Measures) -> Estimate {
    let (bytes_per_second, commit) = (measures.bytes_per_second(), measures.commit());
    Estimate { remaining_bytes, bytes_per_second, commit, drain: Duration::ZERO }
}
