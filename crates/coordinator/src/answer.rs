use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Entry, Outcome, Versioned};

/// What a client's request is answered with, whatever call or session message it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a get. `read_ts` is the snapshot, if it was served from one.
    Get { version: Option<Versioned>, read_ts: Option<Timestamp> },
    /// To a batch get, in the order of the keys.
    BatchGet { versions: Vec<Option<Versioned>>, read_ts: Timestamp },
    /// To a write of one key.
    Written(Outcome),
    /// One page of a scan.
    Scan { entries: Vec<Entry>, count: u64, cursor: Option<Bytes>, read_ts: Timestamp },
    /// One batch of a range delete.
    RangeDeleted { deleted: u64, cursor: Option<Bytes>, commit_ts: Timestamp },
    /// The newest commit timestamp of a key.
    LatestCommitTs(Option<Timestamp>),
    /// What became of an operation.
    Settled(Outcome),
    /// When a transaction was committed.
    Committed(Timestamp),
}
