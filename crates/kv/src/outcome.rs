use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId};

use crate::{Attempt, LockInfo, Versioned};

/// What apply answered to an operation that passed the gates before the conditions. Recorded under the idempotency
/// key, so that a retry gets the same answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Put, Delete, or a compare-and-set whose expectation held.
    Written { commit_ts: Timestamp },
    /// A compare-and-set whose expectation did not hold; `current` is what it met. Nothing was written. A recorded
    /// outcome keeps the version's timestamps and not its value.
    CompareFailed { current: Option<Versioned> },
    /// One batch of a range delete: how many keys it deleted, and where the rest starts.
    RangeDeleted { commit_ts: Timestamp, deleted: u64, resume: Option<Bytes> },
    /// A settle found no outcome: the operation never applied and never will.
    Settled,
    /// A transaction is committed, by this step or before.
    TxnCommitted { commit_ts: Timestamp },
    /// The locks of a transaction stand, or live on; at least until `expire_at`. Until its end nothing changes under the
    /// locks of a prepare but by expiry, first at `changes_at`; a heartbeat leaves that out.
    TxnLocked { expire_at: Timestamp, changes_at: Option<Timestamp> },
    /// No attempt of the transaction up to the named one commits.
    TxnRolledBack,
    /// The locks of a transaction are resolved, or its end is noted.
    TxnResolved,
}

/// Where an interval went that the group gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteHint {
    /// The group that was named as the new owner.
    pub group: GroupId,
    /// The catalog version from which that holds.
    pub version: CatalogVersion,
}

/// Why a gate refused an operation. Nothing happened, and the refused proposal never will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// This group does not own all of the footprint.
    RouteMoved { hint: Option<RouteHint> },
    /// The interval is changing hands right now.
    CutoverPending,
    /// Routed by a map under which this group was not the owner, or by none.
    StaleRoute { acquired_version: CatalogVersion },
    /// New writes are held back on the interval.
    RouteFenced { retry_after_ms: u64 },
    /// The commit timestamp is not above `floor`.
    TimestampTooLow { floor: Timestamp },
    /// A transaction that is not this one holds a lock.
    Locked { lock: Box<LockInfo> },
    /// The key was written, or has expired, after the snapshot that the transaction reads.
    Conflict { key: Bytes, changed_at: Timestamp },
    /// The transaction reads a snapshot that is no longer kept, or is too old to be told from one that is forgotten.
    TxnTooOld { start_ts: Timestamp, oldest: Timestamp },
    /// The attempt was rolled back, or a higher one has taken its place; it never commits.
    TxnAborted { through: Attempt },
    /// The transaction's id was used before with other mutations.
    TxnReused,
    /// The lock has not expired; it lives until this timestamp at least.
    NotExpired { expire_at: Timestamp },
    /// The commit timestamp is past the operation's `not_after`, or its record may have been removed already. An
    /// earlier attempt may have applied.
    IdempotencyExpired { not_after: Timestamp },
    /// The operation was settled before it could apply.
    IdempotencySettled,
    /// The idempotency key was used before for a different operation.
    IdempotencyReused,
    /// The entry was admitted in another term than the one it was appended in.
    TermMismatch { admitted_term: u64, entry_term: u64 },
}

/// What became of one operation of an entry.
pub type OpResult = Result<Outcome, Refusal>;
