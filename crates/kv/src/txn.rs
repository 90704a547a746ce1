//! The steps of a transaction, as its coordinator sends them to the groups concerned.
//!
//! A transaction is named by its [`TxnId`] for good; each try to commit it is an [`Attempt`] of its own. Its *primary* is the
//! first key that it writes: the outcome record filed under that key alone decides what became of it.

use std::fmt;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;

use crate::Update;

/// Names a transaction: 16 bytes, chosen at random by whoever begins it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub [u8; 16]);

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TxnId({self})")
    }
}

impl std::str::FromStr for TxnId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if digits => Ok(Self(number.to_be_bytes())),
            Ok(_) | Err(_) => Err("a transaction id has 32 hexadecimal digits"),
        }
    }
}

/// One try to commit a transaction. Ordered: a higher one supersedes the lower ones, and never the other way round. No two
/// coordinators share one, so a coordinator can tell its own locks from those of another that works on the same request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// Counted by the client, from 1.
    pub number: u32,
    /// Chosen at random by the coordinator.
    pub coordinator: u64,
}

impl Attempt {
    /// Above every attempt.
    pub const MAX: Attempt = Attempt { number: u32::MAX, coordinator: u64::MAX };

    /// The highest attempt below this one.
    pub fn before(self) -> Attempt {
        match (self.number, self.coordinator) {
            (0, 0) => self,
            (number, 0) => Attempt { number: number - 1, coordinator: u64::MAX },
            (number, coordinator) => Attempt { number, coordinator: coordinator - 1 },
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.number, self.coordinator)
    }
}

/// One attempt of one transaction. Locks, prepares, resolutions and rollbacks name both; a refresh names the transaction alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TxnRef {
    /// The transaction.
    pub id: TxnId,
    /// The attempt.
    pub attempt: Attempt,
}

impl fmt::Display for TxnRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (attempt {})", self.id, self.attempt)
    }
}

/// One key that a transaction writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutation {
    /// Route key.
    pub key: Bytes,
    /// What becomes of it. A time to live counts from the commit timestamp.
    pub update: Update,
}

impl Mutation {
    /// Bytes of key and value.
    pub fn payload_bytes(&self) -> usize {
        let value = match &self.update {
            Update::Put { value, .. } => value.len(),
            Update::Delete => 0,
        };
        self.key.len() + value
    }
}

/// What a transaction has read, and must find unchanged when it commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadSet {
    /// Single keys, absent ones included.
    pub keys: Vec<Bytes>,
    /// Intervals of which it has seen every key.
    pub intervals: Vec<Interval>,
}

impl ReadSet {
    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.intervals.is_empty()
    }

    /// Bytes of keys and bounds.
    pub fn payload_bytes(&self) -> usize {
        let interval = |interval: &Interval| interval.start().len() + interval.end().as_key().map_or(0, Bytes::len);
        self.keys.iter().map(Bytes::len).sum::<usize>() + self.intervals.iter().map(interval).sum::<usize>()
    }
}

/// A lock that stands in the way, and whom to ask about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockInfo {
    /// The key it is on.
    pub key: Bytes,
    /// Who holds it.
    pub txn: TxnRef,
    /// The key under which the holder's outcome is recorded.
    pub primary: Bytes,
    /// The snapshot that the holder reads: its commit timestamp will be above this.
    pub start_ts: Timestamp,
    /// When it may be rolled back, unless the lock on the primary lives longer.
    pub expire_at: Timestamp,
}

/// Commits a transaction that one group holds all of, in one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnCommit {
    /// Who.
    pub txn: TxnRef,
    /// The snapshot that was read.
    pub start_ts: Timestamp,
    /// At least one; the first key is the primary. No key twice.
    pub mutations: Vec<Mutation>,
    /// What was read.
    pub reads: ReadSet,
}

/// Locks the keys that a transaction writes in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnPrepare {
    /// Who.
    pub txn: TxnRef,
    /// The snapshot that was read.
    pub start_ts: Timestamp,
    /// Of the transaction; one of these keys in one of the groups.
    pub primary: Bytes,
    /// Tells a retry from another transaction under the same id: of all mutations of the transaction.
    pub fingerprint: u64,
    /// How long the locks live, in milliseconds from the entry's timestamp.
    pub ttl_ms: u64,
    /// Whether locks of lower attempts may be replaced: the primary's group has seen to it that none of those commits.
    pub supersedes: bool,
    /// At least one. No key twice.
    pub mutations: Vec<Mutation>,
}

/// The commit point of a transaction of several groups: writes the outcome record, and makes the locks in the primary's group
/// versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnDecide {
    /// Who.
    pub txn: TxnRef,
    /// The snapshot that was read.
    pub start_ts: Timestamp,
    /// From an oracle request that was sent after all prepares had been applied; the read set was found unchanged at it.
    pub commit_ts: Timestamp,
    /// As in the prepares.
    pub fingerprint: u64,
    /// The keys that are locked in the primary's group, the primary first.
    pub keys: Vec<Bytes>,
    /// The keys that are locked elsewhere.
    pub remote: Vec<Bytes>,
}

/// What became of an attempt, as far as its locks are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They become versions at this timestamp.
    Committed { commit_ts: Timestamp },
    /// They are removed.
    RolledBack,
}

/// Resolves locks of an attempt whose outcome is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResolve {
    /// Who.
    pub txn: TxnRef,
    /// The snapshot that was read; tells when the marker may be forgotten.
    pub start_ts: Timestamp,
    /// What was decided.
    pub verdict: Verdict,
    /// At least one. Those without a lock of the attempt are left as they are.
    pub keys: Vec<Bytes>,
}

/// Why an attempt is rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RollbackCause {
    /// Its lock has outlived its time: the one on the primary, or if there is none, the one that was met elsewhere and expires
    /// at `seen`. Judged by the entry's timestamp.
    Expired { seen: Timestamp },
    /// The client or an operator has given it up.
    Asked,
}

/// Decides that no attempt up to this one commits, unless one has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnRollback {
    /// Who, and the highest attempt.
    pub txn: TxnRef,
    /// The snapshot that was read; tells when the record may be forgotten.
    pub start_ts: Timestamp,
    /// Of the transaction.
    pub primary: Bytes,
    /// Why.
    pub cause: RollbackCause,
}

/// Keeps the locks of an attempt alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnHeartbeat {
    /// Who.
    pub txn: TxnRef,
    /// Of the transaction.
    pub primary: Bytes,
    /// For how long, in milliseconds from the entry's timestamp.
    pub ttl_ms: u64,
}

/// Notes that all locks of the attempt that was committed are resolved, so that the record may be forgotten in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnFinish {
    /// Who. Nothing happens if another attempt was committed.
    pub txn: TxnRef,
    /// Of the transaction.
    pub primary: Bytes,
}

/// One step of a transaction in one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnWrite {
    /// See [`TxnCommit`].
    Commit(TxnCommit),
    /// See [`TxnPrepare`].
    Prepare(TxnPrepare),
    /// See [`TxnDecide`].
    Decide(TxnDecide),
    /// See [`TxnResolve`].
    Resolve(TxnResolve),
    /// See [`TxnRollback`].
    Rollback(TxnRollback),
    /// See [`TxnHeartbeat`].
    Heartbeat(TxnHeartbeat),
    /// See [`TxnFinish`].
    Finish(TxnFinish),
}

impl TxnWrite {
    /// The transaction.
    pub fn id(&self) -> TxnId {
        match self {
            TxnWrite::Commit(TxnCommit { txn, .. })
            | TxnWrite::Prepare(TxnPrepare { txn, .. })
            | TxnWrite::Decide(TxnDecide { txn, .. })
            | TxnWrite::Resolve(TxnResolve { txn, .. })
            | TxnWrite::Rollback(TxnRollback { txn, .. })
            | TxnWrite::Heartbeat(TxnHeartbeat { txn, .. })
            | TxnWrite::Finish(TxnFinish { txn, .. }) => txn.id,
        }
    }

    /// Whether it ends a transaction that may have prepared, or keeps it alive: what a fence waits for, and lets pass. The others
    /// begin something new.
    pub fn ends_a_transaction(&self) -> bool {
        match self {
            TxnWrite::Commit(_) | TxnWrite::Prepare(_) => false,
            TxnWrite::Decide(_)
            | TxnWrite::Resolve(_)
            | TxnWrite::Rollback(_)
            | TxnWrite::Heartbeat(_)
            | TxnWrite::Finish(_) => true,
        }
    }

    /// The keys it touches, those that it only reads left out; never empty in a step that was decoded.
    pub fn keys(&self) -> Box<dyn Iterator<Item = &Bytes> + '_> {
        match self {
            TxnWrite::Commit(TxnCommit { mutations, .. }) | TxnWrite::Prepare(TxnPrepare { mutations, .. }) => {
                Box::new(mutations.iter().map(|mutation| &mutation.key))
            }
            TxnWrite::Decide(TxnDecide { keys, .. }) | TxnWrite::Resolve(TxnResolve { keys, .. }) => {
                Box::new(keys.iter())
            }
            TxnWrite::Rollback(TxnRollback { primary, .. })
            | TxnWrite::Heartbeat(TxnHeartbeat { primary, .. })
            | TxnWrite::Finish(TxnFinish { primary, .. }) => Box::new(std::iter::once(primary)),
        }
    }

    /// The first of [`TxnWrite::keys`]: markers are filed under it.
    pub fn first_key(&self) -> &Bytes {
        static NONE: Bytes = Bytes::new();
        self.keys().next().unwrap_or(&NONE)
    }

    /// The smallest interval that holds all that it reads or writes.
    pub(crate) fn hull(&self) -> Interval {
        let point = |key: &Bytes| Interval::point(key.clone());
        let reads = self.reads().into_iter();
        let read = reads.flat_map(|reads| reads.keys.iter().map(point).chain(reads.intervals.iter().cloned()));
        let all = self.keys().map(point).chain(read);
        all.reduce(|hull, next| hull.hull(&next)).unwrap_or_else(|| Interval::point(Bytes::new()))
    }

    /// What it has read and validates.
    pub fn reads(&self) -> Option<&ReadSet> {
        match self {
            TxnWrite::Commit(commit) => Some(&commit.reads),
            TxnWrite::Prepare(_)
            | TxnWrite::Decide(_)
            | TxnWrite::Resolve(_)
            | TxnWrite::Rollback(_)
            | TxnWrite::Heartbeat(_)
            | TxnWrite::Finish(_) => None,
        }
    }

    /// Bytes of payload, for batching and limits.
    pub fn payload_bytes(&self) -> usize {
        let mutations = |mutations: &[Mutation]| mutations.iter().map(Mutation::payload_bytes).sum::<usize>();
        let keys = |keys: &[Bytes]| keys.iter().map(Bytes::len).sum::<usize>();
        match self {
            TxnWrite::Commit(commit) => mutations(&commit.mutations) + commit.reads.payload_bytes(),
            TxnWrite::Prepare(prepare) => mutations(&prepare.mutations) + prepare.primary.len(),
            TxnWrite::Decide(decide) => keys(&decide.keys) + keys(&decide.remote),
            TxnWrite::Resolve(resolve) => keys(&resolve.keys),
            TxnWrite::Rollback(TxnRollback { primary, .. })
            | TxnWrite::Heartbeat(TxnHeartbeat { primary, .. })
            | TxnWrite::Finish(TxnFinish { primary, .. }) => primary.len(),
        }
    }
}

/// What the primary's group knows of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnStatus {
    /// Nothing: no attempt has reached the primary, or all is forgotten.
    Nothing,
    /// An attempt has locked the primary and is not decided.
    Prepared { attempt: Attempt, start_ts: Timestamp, expire_at: Timestamp },
    /// Committed by this attempt. `remote`: keys elsewhere whose locks may not be resolved yet.
    Committed { attempt: Attempt, commit_ts: Timestamp, remote: Vec<Bytes> },
    /// No attempt up to this one commits.
    RolledBack { through: Attempt },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(number: u32, coordinator: u64) -> Attempt {
        Attempt { number, coordinator }
    }

    #[test]
    fn attempts_are_ordered_by_the_clients_count_and_then_by_coordinator() {
        assert!(attempt(1, 9) < attempt(2, 0));
        assert!(attempt(1, 8) < attempt(1, 9));
        let table = [
            (attempt(2, 0), attempt(1, u64::MAX)),
            (attempt(2, 5), attempt(2, 4)),
            (attempt(0, 0), attempt(0, 0)),
            (Attempt::MAX, attempt(u32::MAX, u64::MAX - 1)),
        ];
        for (of, before) in table {
            assert_eq!(of.before(), before, "{of}");
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = TxnId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(TxnId([0; 16]).to_string(), "00000000000000000000000000000000");
        for bad in ["", "ab", "+b5d8e1c0a7f49b3862d0e1f4a5c6b7d", "zz5d8e1c0a7f49b3862d0e1f4a5c6b7d1"] {
            assert!(bad.parse::<TxnId>().is_err(), "{bad}");
        }
    }
}
