//! The steps of a move, as they stand in the logs of the source and of the target.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, RouteId, ShardId};
use drover_mvcc::{RawRow, RowKind, RowSum};

/// One step. Each may be made twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum MoveStep {
    /// Target: a shard for the copy, that nobody owns.
    PrepareImport { interval: Interval, shard: ShardId, source: GroupId },
    /// Source: from this entry on every row that is written into the interval is listed, and nothing is collected there.
    ArmMigration { interval: Interval, target: GroupId },
    /// Target: part of the copy.
    ImportChunk(Chunk),
    /// Source: from this entry on new writes and prepares are refused.
    ApplyWriteFence,
    /// Source: from this entry on nothing changes. Only when no transaction that has prepared is left.
    Seal,
    /// Source: from this entry on reads are refused.
    ArmReadFence,
    /// Source: lifts the fences of older courses. Target: opens the import that an older course closed.
    Clear,
    /// Target: owns the range from this entry on.
    Activate(Activation),
    /// Source: gives the range up for good, with all its rows.
    Release { version: CatalogVersion },
    /// Either: the job is over here, and what it was about stays as it was before it. The copy goes.
    Retire,
}

impl MoveStep {
    /// What people call it.
    pub fn name(&self) -> &'static str {
        match self {
            MoveStep::PrepareImport { .. } => "prepare-import",
            MoveStep::ArmMigration { .. } => "arm-migration",
            MoveStep::ImportChunk(_) => "import-chunk",
            MoveStep::ApplyWriteFence => "apply-write-fence",
            MoveStep::Seal => "seal",
            MoveStep::ArmReadFence => "arm-read-fence",
            MoveStep::Clear => "clear",
            MoveStep::Activate(_) => "activate-range",
            MoveStep::Release { .. } => "release-range",
            MoveStep::Retire => "retire",
        }
    }
}

/// Part of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Chunk {
    /// Index of the source's log entry that armed its tracker: which copy this is a part of.
    pub armed_at: u64,
    /// What it holds.
    pub rows: ChunkRows,
    /// It is the last one: what the sum of all rows is then.
    pub close: Option<RowSum>,
}

/// What a chunk holds, and what it continues.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ChunkRows {
    /// Rows of one kind, in the order of their keys, behind `from` up to `to`.
    Copied { kind: RowKind, from: Bytes, to: Bytes, done: bool, rows: Vec<RawRow> },
    /// Rows that the entries `from..to` of the source's tracker name.
    Tracked { from: u64, to: u64, rows: Vec<RawRow> },
}

impl ChunkRows {
    /// The rows themselves.
    pub fn rows(&self) -> &[RawRow] {
        match self {
            ChunkRows::Copied { rows, .. } | ChunkRows::Tracked { rows, .. } => rows,
        }
    }
}

/// What the new owner begins with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Activation {
    /// Name for people.
    pub route: RouteId,
    /// The catalog version that names this group as the owner.
    pub acquired_version: CatalogVersion,
    /// Above every timestamp that the former owner has served or written.
    pub floor_ts: Timestamp,
    /// Snapshots below it are refused.
    pub history_start: Timestamp,
    /// Transactions that read a snapshot at or below it are refused.
    pub txn_horizon: Timestamp,
    /// Idempotency records whose `not_after` is at or below it may be gone.
    pub record_horizon: Timestamp,
}
