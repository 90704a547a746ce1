//! Where a test may end the process while a transaction or a move is under way: before and after each of their entries.

use drover_catalog::CatalogCommandKind;
use drover_catalog::job::JobEvent;
use drover_guards::{CrashPoint, JobMark, Moment, MoveEntry, TxnEntry, crash_point, crashes_are_possible};
use drover_kv::{TxnWrite, Verdict, WriteKind};
use drover_mvcc::RowKind;

use crate::moving::{Chunk, ChunkRows, MoveStep};

/// The entry of a step, as far as a test may ask about it.
#[derive(Debug, Clone, Copy)]
pub struct TxnCrash(Option<TxnEntry>);

impl TxnCrash {
    /// Of this step.
    #[inline]
    pub fn of(step: &TxnWrite) -> Self {
        Self(crashes_are_possible().then(|| entry_of(step)))
    }

    /// Ends the process if a test has asked for that at this moment of such an entry.
    #[inline]
    pub fn at(self, moment: Moment) {
        if let Some(entry) = self.0 {
            crash_point(CrashPoint::Txn(entry, moment));
        }
    }

    /// As [`TxnCrash::at`], for a write that may be a step of a transaction.
    #[inline]
    pub fn in_write(kind: &WriteKind, moment: Moment) {
        if let WriteKind::Txn(step) = kind {
            Self::of(step).at(moment);
        }
    }
}

fn entry_of(step: &TxnWrite) -> TxnEntry {
    match step {
        TxnWrite::Commit(_) => TxnEntry::Commit,
        TxnWrite::Prepare(prepare) if prepare.mutations.iter().any(|mutation| mutation.key == prepare.primary) => {
            TxnEntry::PreparePrimary
        }
        TxnWrite::Prepare(_) => TxnEntry::PrepareSecondary,
        TxnWrite::Decide(_) => TxnEntry::Decide,
        TxnWrite::Resolve(resolve) => match resolve.verdict {
            Verdict::Committed { .. } => TxnEntry::ResolveCommitted,
            Verdict::RolledBack => TxnEntry::ResolveRolledBack,
        },
        TxnWrite::Rollback(_) => TxnEntry::Rollback,
        TxnWrite::Heartbeat(_) => TxnEntry::Heartbeat,
        TxnWrite::Finish(_) => TxnEntry::Finish,
    }
}

#[derive(Debug, Clone, Copy)]
enum MoveEnd {
    Entry(MoveEntry),
    Mark(JobMark),
}

/// An entry of a move, as far as a test may ask about it.
#[derive(Debug, Clone, Copy)]
pub struct MoveCrash(Option<MoveEnd>);

impl MoveCrash {
    /// Of a step of the source's log, or of the target's.
    #[inline]
    pub fn of(step: &MoveStep) -> Self {
        Self(crashes_are_possible().then(|| MoveEnd::Entry(move_entry_of(step))))
    }

    /// Of what the catalog takes note of.
    #[inline]
    pub fn of_event(event: &JobEvent) -> Self {
        Self(if crashes_are_possible() { mark_of(event).map(MoveEnd::Mark) } else { None })
    }

    /// Of a command of the catalog, which may have to do with something else.
    #[inline]
    pub fn in_catalog(kind: &CatalogCommandKind) -> Self {
        match kind {
            CatalogCommandKind::JobEvent { event, .. } => Self::of_event(event),
            _ => Self(None),
        }
    }

    /// What a test calls this moment of such an entry; none if it cannot ask about it.
    pub fn point(self, moment: Moment) -> Option<CrashPoint> {
        self.0.map(|end| match end {
            MoveEnd::Entry(entry) => CrashPoint::Move(entry, moment),
            MoveEnd::Mark(mark) => CrashPoint::Job(mark, moment),
        })
    }

    /// Ends the process if a test has asked for that at this moment of such an entry.
    #[inline]
    pub fn at(self, moment: Moment) {
        if let Some(point) = self.point(moment) {
            crash_point(point);
        }
    }
}

fn move_entry_of(step: &MoveStep) -> MoveEntry {
    match step {
        MoveStep::PrepareImport { .. } => MoveEntry::PrepareImport,
        MoveStep::ArmMigration { .. } => MoveEntry::Arm,
        MoveStep::ImportChunk(Chunk { close: Some(_), .. }) => MoveEntry::LastChunk,
        MoveStep::ImportChunk(Chunk { rows: ChunkRows::Copied { kind: RowKind::Version, from, .. }, .. })
            if from.is_empty() =>
        {
            MoveEntry::FirstChunk
        }
        MoveStep::ImportChunk(Chunk { rows: ChunkRows::Copied { .. }, .. }) => MoveEntry::LaterChunk,
        MoveStep::ImportChunk(Chunk { rows: ChunkRows::Tracked { .. }, .. }) => MoveEntry::ListedChunk,
        MoveStep::ApplyWriteFence => MoveEntry::FenceWrites,
        MoveStep::Seal => MoveEntry::Seal,
        MoveStep::ArmReadFence => MoveEntry::FenceReads,
        MoveStep::Clear => MoveEntry::Clear,
        MoveStep::Activate(_) => MoveEntry::Activate,
        MoveStep::Release { .. } => MoveEntry::Release,
        MoveStep::Retire => MoveEntry::Retire,
    }
}

/// What changes nothing of the course, a pause of the job and a figure, comes at any step and is none.
fn mark_of(event: &JobEvent) -> Option<JobMark> {
    match event {
        JobEvent::Begin => Some(JobMark::Begin),
        JobEvent::Scanned(_) => Some(JobMark::Scanned),
        JobEvent::Carve => Some(JobMark::Carve),
        JobEvent::Fence => Some(JobMark::Fence),
        JobEvent::Sealed => Some(JobMark::Sealed),
        JobEvent::CutOver => Some(JobMark::CutOver),
        JobEvent::HandOver(_) => Some(JobMark::HandOver),
        JobEvent::Activated => Some(JobMark::Activated),
        JobEvent::Finish => Some(JobMark::Finish),
        JobEvent::Unfence => Some(JobMark::Unfence),
        JobEvent::Abandon => Some(JobMark::Abandon),
        JobEvent::Abandoned => Some(JobMark::Abandoned),
        JobEvent::StartOver => Some(JobMark::StartOver),
        JobEvent::Fail { .. } => Some(JobMark::Fail),
        JobEvent::Retry => Some(JobMark::Retry),
        JobEvent::Held(_) | JobEvent::Pause | JobEvent::Resume => None,
    }
}
