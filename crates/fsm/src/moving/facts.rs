//! What a group's log says of one job, for whoever drives it.

use drover_catalog::job::{Closed, ImportView, SourceView};
use drover_hlc::Timestamp;
use drover_keys::JobId;

use super::{Fence, ImportJob, ImportPhase, Moves, SourceJob};

/// What a group's log says of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MoveFacts {
    /// The job is over here.
    pub retired: bool,
    /// The range moves away from here.
    pub source: Option<SourceFacts>,
    /// The range moves here.
    pub import: Option<ImportJob>,
}

/// What a source says of a range that moves away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// How far it is.
    pub job: SourceJob,
    /// The oldest snapshot that a transaction reads which holds a lock in the range; `None` if none does.
    pub oldest_lock: Option<Timestamp>,
    /// Snapshots below it are refused by whoever owns the range next.
    pub history_start: Timestamp,
    /// Transactions at or below it are refused by whoever owns the range next.
    pub txn_horizon: Timestamp,
    /// Idempotency records whose `not_after` is at or below it may be gone.
    pub record_horizon: Timestamp,
}

impl MoveFacts {
    /// What decides of the source's side.
    pub fn source_view(&self) -> SourceView {
        source_view(self.retired, self.source.as_ref().map(|source| &source.job))
    }

    /// What decides of the target's side.
    pub fn import_view(&self) -> ImportView {
        import_view(self.retired, self.import.as_ref())
    }
}

impl Moves {
    /// What decides of the source's side of a job.
    pub fn source_view(&self, job: JobId) -> SourceView {
        source_view(self.is_retired(job), self.source(job))
    }

    /// What decides of the target's side of a job.
    pub fn import_view(&self, job: JobId) -> ImportView {
        import_view(self.is_retired(job), self.import(job))
    }
}

fn source_view(retired: bool, source: Option<&SourceJob>) -> SourceView {
    match source {
        _ if retired => SourceView::Retired,
        None => SourceView::Unknown,
        Some(source) => SourceView::Armed {
            epoch: source.epoch,
            closed: match source.fence {
                Fence::Open => Closed::Open,
                Fence::Written => Closed::New,
                Fence::Sealed => Closed::Writes,
                Fence::Read => Closed::Reads,
            },
            closed_in: source.fenced_in,
            tracked: source.tracked_rows,
        },
    }
}

fn import_view(retired: bool, import: Option<&ImportJob>) -> ImportView {
    match import {
        _ if retired => ImportView::Retired,
        None => ImportView::Unknown,
        Some(import) => match import.phase {
            ImportPhase::Open => ImportView::Open {
                shard: import.shard,
                versions: import.versions.done,
                records: import.records.done,
                tracked: import.tracked,
            },
            ImportPhase::Closed => ImportView::Closed { shard: import.shard, closed_in: import.closed_in },
            ImportPhase::Differs => ImportView::Differs { shard: import.shard },
        },
    }
}
