//! What is asked of a replica whose range moves away, and what it gives.

use bytes::Bytes;
use drover_keys::{GroupId, JobId};
use drover_mvcc::{ExportBudget, RowKind, RowSum};

use super::Chunk;

/// Rows of a range that moves away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportRequest {
    /// The source.
    pub group: GroupId,
    /// Whose range.
    pub job: JobId,
    /// Index of the log entry that armed its tracker.
    pub armed_at: u64,
    /// Which rows.
    pub rows: ExportRows,
    /// When a portion ends.
    pub budget: ExportBudget,
}

/// Which rows are asked for, and from where on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportRows {
    /// All of one kind behind a row; empty: from the first one on.
    Copied { kind: RowKind, after: Bytes },
    /// Those that the tracker names from this entry on. With `sealed_at` only if nothing has changed since that log index.
    Tracked { from: u64, sealed_at: Option<u64> },
}

/// A portion of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The rows, and what they continue. Closes nothing.
    pub chunk: Chunk,
    /// Nothing follows, as of now.
    pub done: bool,
    /// What the sum of the range has changed by since it was armed, in the same moment.
    pub change: RowSum,
}
