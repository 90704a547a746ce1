use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, Interval};

use crate::TxnWrite;

/// Names one intention of a client, so that sending it twice cannot apply it twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by the client, unique per intention under one route key; at most 64 bytes.
    pub key: Bytes,
    /// The operation is refused at any commit timestamp above this, so its record may be forgotten afterwards.
    pub not_after: Timestamp,
}

/// What a compare-and-set requires of the value that a read at its commit timestamp would see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// The key has no value: never written, deleted or expired.
    Absent,
    /// The key has a value, whatever it is.
    Present,
    /// The key has exactly this value.
    Value(Bytes),
    /// The key has a value and it was committed at this timestamp.
    Version(Timestamp),
}

/// What a successful compare-and-set writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Update {
    /// Put this value; it expires `ttl_ms` milliseconds after the commit timestamp, if given.
    Put { value: Bytes, ttl_ms: Option<u64> },
    /// Delete the key.
    Delete,
}

/// One write on route keys of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteKind {
    /// Put a value; it expires `ttl_ms` milliseconds after the commit timestamp, if given.
    Put { key: Bytes, value: Bytes, ttl_ms: Option<u64> },
    /// Delete a key. Deleting an absent key succeeds.
    Delete { key: Bytes },
    /// Write if the present value is as expected.
    CompareAndSet { key: Bytes, expect: Expectation, update: Update },
    /// Delete every live key of an interval. From a client the interval may be as wide as the owned range; the leader
    /// replaces it by a bounded part before proposing, and `resume` is where the rest starts.
    DeleteRange { interval: Interval, resume: Option<Bytes> },
    /// Settle the operation that carries this idempotency key: report its recorded outcome, or make sure that it never
    /// applies. The key to settle is the operation's [`Idempotency`].
    Settle { key: Bytes },
    /// A step of a transaction.
    Txn(Box<TxnWrite>),
}

/// A write as it is routed to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOp {
    /// What to do.
    pub kind: WriteKind,
    /// The catalog version by which this attempt was routed; `None` is refused by the Composed-1 gate.
    pub observed_version: Option<CatalogVersion>,
    /// Set if the client may retry.
    pub idempotency: Option<Idempotency>,
}

impl WriteKind {
    /// The smallest interval of route keys that holds all that the operation reads or writes.
    pub fn footprint(&self) -> Interval {
        match self {
            WriteKind::Txn(step) => step.hull(),
            WriteKind::Put { key, .. }
            | WriteKind::Delete { key }
            | WriteKind::CompareAndSet { key, .. }
            | WriteKind::Settle { key } => Interval::point(key.clone()),
            WriteKind::DeleteRange { interval, .. } => interval.clone(),
        }
    }

    /// The route key under which the operation's idempotency record is kept.
    pub fn record_key(&self) -> &Bytes {
        match self {
            WriteKind::Txn(step) => step.first_key(),
            WriteKind::Put { key, .. }
            | WriteKind::Delete { key }
            | WriteKind::CompareAndSet { key, .. }
            | WriteKind::Settle { key } => key,
            WriteKind::DeleteRange { interval, .. } => interval.start(),
        }
    }

    /// Bytes of payload, for batching and limits.
    pub fn payload_bytes(&self) -> usize {
        match self {
            WriteKind::Put { key, value, .. } => key.len() + value.len(),
            WriteKind::Delete { key } | WriteKind::Settle { key } => key.len(),
            WriteKind::CompareAndSet { key, expect, update } => {
                let expect = match expect {
                    Expectation::Value(value) => value.len(),
                    Expectation::Absent | Expectation::Present | Expectation::Version(_) => 0,
                };
                let update = match update {
                    Update::Put { value, .. } => value.len(),
                    Update::Delete => 0,
                };
                key.len() + expect + update
            }
            WriteKind::Txn(step) => step.payload_bytes(),
            WriteKind::DeleteRange { interval, .. } => {
                interval.start().len() + interval.end().as_key().map_or(0, Bytes::len)
            }
        }
    }
}
