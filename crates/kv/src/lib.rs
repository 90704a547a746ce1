//! The domain of the key-value service: what can be asked of a group, what it answers, what can go wrong.
//!
//! # Model
//!
//! A *group operation* is what a coordinator sends to the leader of one group: a [`WriteOp`] that goes through the log
//! or a [`ReadOp`] that goes through the read door. The steps of a transaction are
//! writes ([`TxnWrite`]). A write ends in an [`Outcome`] (apply's own answer, recorded under
//! the idempotency key) or a [`Refusal`] (a gate turned it away; nothing happened). Everything a client can be told
//! beyond an answer is an [`Error`] with one stable [`Reason`] and a [`Certainty`].
//!
//! Knows nothing of the wire, storage, Raft or time sources.

mod error;
mod limits;
mod outcome;
mod read;
mod txn;
mod write;

pub use error::{Certainty, Error, Reason};
pub use limits::Limits;
pub use outcome::{OpResult, Outcome, Refusal, RouteHint};
pub use read::{Entry, ReadAnswer, ReadOp, RefreshRequest, ScanCursor, ScanLimits, ScanPage, ScanRequest, Versioned};
pub use txn::{
    Attempt, LockInfo, Mutation, ReadSet, RollbackCause, TxnCommit, TxnDecide, TxnFinish, TxnHeartbeat, TxnId,
    TxnPrepare, TxnRef, TxnResolve, TxnRollback, TxnStatus, TxnWrite, Verdict,
};
pub use write::{Expectation, Idempotency, Update, WriteKind, WriteOp};
