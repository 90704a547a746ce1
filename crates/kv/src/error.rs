use std::fmt;

/// Whether an operation that ended in an error has had, or can still have, an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Nothing happened and nothing will.
    Definite,
    /// It may have happened, or may still happen. Settle it by its idempotency key.
    Unknown,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The stable name of an error, as it appears in `google.rpc.ErrorInfo.reason` and in `docs/errors.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of the documentation.
            pub const ALL: &[Reason] = &[$(Reason::$variant),*];

            /// The stable name.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$variant => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// A key is empty.
    KeyEmpty = "KEY_EMPTY",
    /// A key is longer than the limit.
    KeyTooLarge = "KEY_TOO_LARGE",
    /// A value is longer than the limit.
    ValueTooLarge = "VALUE_TOO_LARGE",
    /// A request as a whole is larger than the limit.
    BatchTooLarge = "BATCH_TOO_LARGE",
    /// Scan or delete bounds are reversed or empty.
    RangeReversed = "RANGE_REVERSED",
    /// A field is missing, malformed or contradicts another.
    InvalidArgument = "INVALID_ARGUMENT",
    /// A resume token was not issued by this cluster or does not fit the request.
    CursorInvalid = "CURSOR_INVALID",
    /// No such group.
    UnknownGroup = "UNKNOWN_GROUP",
    /// No such node.
    UnknownNode = "UNKNOWN_NODE",
    /// No such route.
    UnknownRoute = "UNKNOWN_ROUTE",
    /// No job has this number.
    UnknownJob = "UNKNOWN_JOB",
    /// The catalog is at another version than the caller expected.
    VersionMismatch = "VERSION_MISMATCH",
    /// The peer belongs to another cluster.
    WrongCluster = "WRONG_CLUSTER",
    /// The peer is not the node it was taken for, or its data directory was replaced.
    WrongNode = "WRONG_NODE",
    /// The node asked is not the leader of the group, and could not pass the request on.
    NotLeader = "NOT_LEADER",
    /// No leader, no quorum, or no connection to the one that is needed.
    Unavailable = "UNAVAILABLE",
    /// The group no longer owns the range.
    RouteMoved = "ROUTE_MOVED",
    /// The range is changing hands right now.
    CutoverPending = "CUTOVER_PENDING",
    /// The request was routed by a map that is too old, or by none.
    StaleRoute = "STALE_ROUTE",
    /// Writes to the range are held back for a moment.
    RouteFenced = "ROUTE_FENCED",
    /// The commit timestamp fell below what has been served.
    TimestampTooLow = "TIMESTAMP_TOO_LOW",
    /// The read timestamp is below the safe point or the start of the history kept.
    SnapshotTooOld = "SNAPSHOT_TOO_OLD",
    /// The read timestamp is above all that the oracle has issued.
    TimestampInFuture = "TIMESTAMP_IN_FUTURE",
    /// Another transaction holds a lock.
    Locked = "LOCKED",
    /// What the transaction has read or writes was changed by another one.
    TxnConflict = "TXN_CONFLICT",
    /// The transaction was rolled back, by its client, an operator, or because its locks had expired.
    TxnAborted = "TXN_ABORTED",
    /// The transaction is too old to be committed.
    TxnTooOld = "TXN_TOO_OLD",
    /// The transaction's id was used before for something else.
    TxnReused = "TXN_REUSED",
    /// The deadline passed; nothing happened.
    Timeout = "TIMEOUT",
    /// The deadline passed, or the answer was lost; it may have happened.
    TimeoutIndefinite = "TIMEOUT_INDEFINITE",
    /// The idempotency key is past its `not_after`.
    IdempotencyExpired = "IDEMPOTENCY_EXPIRED",
    /// The idempotency key was settled as "never applied".
    IdempotencySettled = "IDEMPOTENCY_SETTLED",
    /// The idempotency key was used for a different operation.
    IdempotencyReused = "IDEMPOTENCY_REUSED",
    /// Too many requests are in flight.
    Overloaded = "OVERLOADED",
    /// The node's disk is too full to take writes.
    DiskFull = "DISK_FULL",
    /// The node is draining.
    ShuttingDown = "SHUTTING_DOWN",
    /// The replica stopped because its storage failed or is damaged.
    ReplicaStopped = "REPLICA_STOPPED",
    /// The request is not allowed in the present state.
    FailedPrecondition = "FAILED_PRECONDITION",
    /// A defect.
    Internal = "INTERNAL",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Reason {
    /// The reason called `text`.
    pub fn parse(text: &str) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

/// An error as a caller meets it: what happened, whether anything was changed, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Error {
    /// Stable name.
    pub reason: Reason,
    /// One sentence for people, with the figures that matter and what to do.
    pub message: String,
    /// Whether the operation can have had an effect.
    pub certainty: Certainty,
    /// When a retry makes sense, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The node that is believed to lead the group in question.
    pub leader_hint: Option<drover_keys::NodeId>,
    /// The lock that stands in the way. Known between nodes only.
    pub lock: Option<Box<crate::LockInfo>>,
}

impl Error {
    /// An error after which nothing has happened and nothing will.
    pub fn definite(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            certainty: Certainty::Definite,
            retry_after_ms: None,
            leader_hint: None,
            lock: None,
        }
    }

    /// An error after which the operation may have happened or may still happen.
    pub fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { certainty: Certainty::Unknown, ..Self::definite(reason, message) }
    }

    /// Adds when a retry makes sense.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Adds the node that is believed to lead.
    #[must_use]
    pub fn leader_hint(mut self, node: Option<drover_keys::NodeId>) -> Self {
        self.leader_hint = node;
        self
    }

    /// Whether the operation can have had an effect.
    pub fn is_unknown(&self) -> bool {
        self.certainty == Certainty::Unknown
    }

    /// Whether the same request may succeed if sent again without change: the error describes a passing state.
    pub fn is_transient(&self) -> bool {
        match self.reason {
            Reason::NotLeader
            | Reason::Unavailable
            | Reason::RouteMoved
            | Reason::CutoverPending
            | Reason::StaleRoute
            | Reason::RouteFenced
            | Reason::TimestampTooLow
            | Reason::Locked
            | Reason::Overloaded
            | Reason::ShuttingDown
            | Reason::ReplicaStopped => true,
            Reason::KeyEmpty
            | Reason::KeyTooLarge
            | Reason::ValueTooLarge
            | Reason::BatchTooLarge
            | Reason::RangeReversed
            | Reason::InvalidArgument
            | Reason::CursorInvalid
            | Reason::UnknownGroup
            | Reason::UnknownNode
            | Reason::UnknownRoute
            | Reason::UnknownJob
            | Reason::VersionMismatch
            | Reason::WrongCluster
            | Reason::WrongNode
            | Reason::SnapshotTooOld
            | Reason::TimestampInFuture
            | Reason::TxnConflict
            | Reason::TxnAborted
            | Reason::TxnTooOld
            | Reason::TxnReused
            | Reason::Timeout
            | Reason::TimeoutIndefinite
            | Reason::IdempotencyExpired
            | Reason::IdempotencySettled
            | Reason::IdempotencyReused
            | Reason::DiskFull
            | Reason::FailedPrecondition
            | Reason::Internal => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name_and_no_name_is_used_twice() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        assert_eq!(Reason::parse("NO_SUCH_REASON"), None);
    }
}
