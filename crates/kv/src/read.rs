use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{End, Interval};

use crate::{LockInfo, ReadSet, TxnId, TxnStatus};

/// One read on route keys of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOp {
    /// The value of one key: the newest one, or as of `read_ts`.
    Get { key: Bytes, read_ts: Option<Timestamp> },
    /// The values of several keys as of one timestamp.
    BatchGet { keys: Vec<Bytes>, read_ts: Timestamp },
    /// Part of an interval as of one timestamp.
    Scan(ScanRequest),
    /// The commit timestamp of the newest version of a key, deletions included.
    LatestCommitTs { key: Bytes },
    /// Whether a transaction's reads would be the same at `commit_ts` as they were at `start_ts`.
    Refresh(RefreshRequest),
    /// What is known of a transaction where its primary is.
    TxnStatus { id: TxnId, primary: Bytes },
    /// Locks in an interval, at most `limit`, in key order.
    Locks { interval: Interval, limit: u32 },
}

/// Asks whether what a transaction has read in one group is unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshRequest {
    /// The transaction; its own locks do not stand in its way.
    pub id: TxnId,
    /// The snapshot that was read.
    pub start_ts: Timestamp,
    /// From an oracle request that was sent after all locks of the transaction stood.
    pub commit_ts: Timestamp,
    /// What was read.
    pub reads: ReadSet,
}

/// Bounds of one page of a scan. Zero means "no limit of this kind"; the server has limits of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScanLimits {
    /// Rows.
    pub rows: u64,
    /// Bytes of keys and values; the first row is always returned.
    pub bytes: u64,
}

/// A scan of an interval inside one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanRequest {
    /// What is left to scan.
    pub interval: Interval,
    /// Snapshot.
    pub read_ts: Timestamp,
    /// From the highest key down.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count the rows; none are returned, and `limits.rows` bounds the rows counted.
    pub count_only: bool,
    /// Bounds of this page.
    pub limits: ScanLimits,
}

/// One visible version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The value; empty in a scan of keys only.
    pub value: Bytes,
    /// When it was committed.
    pub commit_ts: Timestamp,
    /// When it stops being visible.
    pub expire_at: Option<Timestamp>,
}

/// A key and its visible version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Route key.
    pub key: Bytes,
    /// Visible version.
    pub version: Versioned,
}

/// Where a scan goes on: everything at or above (forward) or strictly below (reverse) this key is still to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanCursor(pub Bytes);

impl ScanCursor {
    /// The cursor in front of `key`, which is the next row to come.
    pub fn before(key: Bytes, reverse: bool) -> Self {
        // Reverse cursors are exclusive: the least key above `key` leaves `key` itself to come.
        match (reverse, Interval::point(key.clone()).end()) {
            (true, End::Key(above)) => Self(above.clone()),
            (true, End::Unbounded) | (false, _) => Self(key),
        }
    }
}

/// One page of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// Rows in scan order.
    pub entries: Vec<Entry>,
    /// Rows that were seen; equals `entries.len()` unless only counting.
    pub count: u64,
    /// Set if the interval was not finished.
    pub cursor: Option<ScanCursor>,
}

/// What a read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadAnswer {
    /// To [`ReadOp::Get`]. `read_ts` is the snapshot it was served at, if it was served from one.
    Get { version: Option<Versioned>, read_ts: Option<Timestamp> },
    /// To [`ReadOp::BatchGet`], in the order of the keys.
    BatchGet { versions: Vec<Option<Versioned>> },
    /// To [`ReadOp::Scan`].
    Scan(ScanPage),
    /// To [`ReadOp::LatestCommitTs`]; `None` if no version is known.
    LatestCommitTs(Option<Timestamp>),
    /// To [`ReadOp::Refresh`]: nothing has changed.
    Refreshed,
    /// To [`ReadOp::TxnStatus`].
    TxnStatus(TxnStatus),
    /// To [`ReadOp::Locks`]. `resume`: where the rest starts, if there may be more.
    Locks { locks: Vec<LockInfo>, resume: Option<Bytes> },
}
