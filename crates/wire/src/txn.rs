//! The steps of transactions, locks and what is known of a transaction, as messages.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{
    Attempt, LockInfo, Mutation, ReadSet, RefreshRequest, RollbackCause, TxnCommit, TxnDecide, TxnFinish, TxnHeartbeat,
    TxnId, TxnPrepare, TxnRef, TxnResolve, TxnRollback, TxnStatus, TxnWrite, Update, Verdict,
};

use crate::WireError;
use crate::proto::storage::v1 as pb;
use crate::proto::v1;
use crate::range::{decode_range, encode_range};

fn ts(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

/// An id as a field.
pub fn encode_txn_id(id: TxnId) -> Bytes {
    Bytes::copy_from_slice(&id.0)
}

/// An id from its field.
///
/// # Errors
/// If it does not have 16 bytes.
pub fn decode_txn_id(bytes: &[u8]) -> Result<TxnId, WireError> {
    bytes.try_into().map(TxnId).map_err(|_| WireError::Malformed("txn_id"))
}

/// An attempt as a message.
pub fn encode_attempt(attempt: Attempt) -> pb::TxnAttempt {
    pb::TxnAttempt { number: attempt.number, coordinator: attempt.coordinator }
}

/// An attempt from its message.
///
/// # Errors
/// If it is missing.
pub fn decode_attempt(attempt: Option<pb::TxnAttempt>) -> Result<Attempt, WireError> {
    let pb::TxnAttempt { number, coordinator } = attempt.ok_or(WireError::Missing("attempt"))?;
    Ok(Attempt { number, coordinator })
}

fn encode_ref(txn: TxnRef) -> Option<pb::TxnRef> {
    let Attempt { number, coordinator } = txn.attempt;
    Some(pb::TxnRef { txn_id: encode_txn_id(txn.id), number, coordinator })
}

fn decode_ref(txn: Option<pb::TxnRef>) -> Result<TxnRef, WireError> {
    let pb::TxnRef { txn_id, number, coordinator } = txn.ok_or(WireError::Missing("txn"))?;
    Ok(TxnRef { id: decode_txn_id(&txn_id)?, attempt: Attempt { number, coordinator } })
}

fn encode_mutation(mutation: &Mutation) -> pb::TxnMutation {
    let (put_value, ttl_ms) = encode_update(&mutation.update);
    pb::TxnMutation { key: mutation.key.clone(), put_value, ttl_ms }
}

fn decode_mutations(mutations: Vec<pb::TxnMutation>) -> Result<Vec<Mutation>, WireError> {
    let decode = |mutation: pb::TxnMutation| {
        Ok(Mutation { key: mutation.key, update: decode_update(mutation.put_value, mutation.ttl_ms)? })
    };
    nonempty(mutations.into_iter().map(decode).collect::<Result<_, WireError>>()?, "mutations")
}

/// What is written to a key, as the fields `put_value` and `ttl_ms`.
pub fn encode_update(update: &Update) -> (Option<Bytes>, Option<u64>) {
    match update {
        Update::Put { value, ttl_ms } => (Some(value.clone()), *ttl_ms),
        Update::Delete => (None, None),
    }
}

/// What is written to a key, from the fields `put_value` and `ttl_ms`.
///
/// # Errors
/// If a deletion has a time to live.
pub fn decode_update(put_value: Option<Bytes>, ttl_ms: Option<u64>) -> Result<Update, WireError> {
    match (put_value, ttl_ms) {
        (Some(value), ttl_ms) => Ok(Update::Put { value, ttl_ms }),
        (None, None) => Ok(Update::Delete),
        (None, Some(_)) => Err(WireError::Malformed("ttl_ms without put_value")),
    }
}

fn nonempty<T>(items: Vec<T>, field: &'static str) -> Result<Vec<T>, WireError> {
    if items.is_empty() { Err(WireError::Missing(field)) } else { Ok(items) }
}

fn encode_reads(reads: &ReadSet) -> Option<pb::TxnReads> {
    let ranges = reads.intervals.iter().map(encode_range).collect();
    Some(pb::TxnReads { keys: reads.keys.clone(), ranges })
}

fn decode_reads(reads: Option<pb::TxnReads>) -> Result<ReadSet, WireError> {
    let pb::TxnReads { keys, ranges } = reads.ok_or(WireError::Missing("reads"))?;
    let intervals = ranges.into_iter().map(|range| decode_range(Some(range))).collect::<Result<_, _>>()?;
    Ok(ReadSet { keys, intervals })
}

/// A step as it stands in the log.
pub(crate) fn encode_step(step: &TxnWrite) -> pb::operation::Kind {
    use pb::operation::Kind;
    match step {
        TxnWrite::Commit(TxnCommit { txn, start_ts, mutations, reads }) => Kind::TxnCommit(pb::TxnCommitOp {
            txn: encode_ref(*txn),
            start_ts: start_ts.raw(),
            mutations: mutations.iter().map(encode_mutation).collect(),
            reads: encode_reads(reads),
        }),
        TxnWrite::Prepare(prepare) => Kind::TxnPrepare(pb::TxnPrepareOp {
            txn: encode_ref(prepare.txn),
            start_ts: prepare.start_ts.raw(),
            primary: prepare.primary.clone(),
            fingerprint: prepare.fingerprint,
            ttl_ms: prepare.ttl_ms,
            supersedes: prepare.supersedes,
            mutations: prepare.mutations.iter().map(encode_mutation).collect(),
        }),
        TxnWrite::Decide(decide) => Kind::TxnDecide(pb::TxnDecideOp {
            txn: encode_ref(decide.txn),
            start_ts: decide.start_ts.raw(),
            commit_ts: decide.commit_ts.raw(),
            fingerprint: decide.fingerprint,
            keys: decide.keys.clone(),
            remote: decide.remote.clone(),
        }),
        TxnWrite::Resolve(TxnResolve { txn, start_ts, verdict, keys }) => Kind::TxnResolve(pb::TxnResolveOp {
            txn: encode_ref(*txn),
            start_ts: start_ts.raw(),
            commit_ts: match verdict {
                Verdict::Committed { commit_ts } => Some(commit_ts.raw()),
                Verdict::RolledBack => None,
            },
            keys: keys.clone(),
        }),
        TxnWrite::Rollback(TxnRollback { txn, start_ts, primary, cause }) => Kind::TxnRollback(pb::TxnRollbackOp {
            txn: encode_ref(*txn),
            start_ts: start_ts.raw(),
            primary: primary.clone(),
            seen_expire_at: match cause {
                RollbackCause::Expired { seen } => Some(seen.raw()),
                RollbackCause::Asked => None,
            },
        }),
        TxnWrite::Heartbeat(TxnHeartbeat { txn, primary, ttl_ms }) => {
            Kind::TxnHeartbeat(pb::TxnHeartbeatOp { txn: encode_ref(*txn), primary: primary.clone(), ttl_ms: *ttl_ms })
        }
        TxnWrite::Finish(TxnFinish { txn, primary }) => {
            Kind::TxnFinish(pb::TxnFinishOp { txn: encode_ref(*txn), primary: primary.clone() })
        }
    }
}

/// A step from the log; `None` if the operation is not one.
pub(crate) fn decode_step(kind: pb::operation::Kind) -> Result<Option<TxnWrite>, WireError> {
    use pb::operation::Kind;
    Ok(Some(match kind {
        Kind::TxnCommit(op) => TxnWrite::Commit(TxnCommit {
            txn: decode_ref(op.txn)?,
            start_ts: ts(op.start_ts),
            mutations: decode_mutations(op.mutations)?,
            reads: decode_reads(op.reads)?,
        }),
        Kind::TxnPrepare(op) => TxnWrite::Prepare(TxnPrepare {
            txn: decode_ref(op.txn)?,
            start_ts: ts(op.start_ts),
            primary: op.primary,
            fingerprint: op.fingerprint,
            ttl_ms: op.ttl_ms,
            supersedes: op.supersedes,
            mutations: decode_mutations(op.mutations)?,
        }),
        Kind::TxnDecide(op) => TxnWrite::Decide(TxnDecide {
            txn: decode_ref(op.txn)?,
            start_ts: ts(op.start_ts),
            commit_ts: ts(op.commit_ts),
            fingerprint: op.fingerprint,
            keys: nonempty(op.keys, "keys")?,
            remote: op.remote,
        }),
        Kind::TxnResolve(op) => TxnWrite::Resolve(TxnResolve {
            txn: decode_ref(op.txn)?,
            start_ts: ts(op.start_ts),
            verdict: op.commit_ts.map_or(Verdict::RolledBack, |raw| Verdict::Committed { commit_ts: ts(raw) }),
            keys: nonempty(op.keys, "keys")?,
        }),
        Kind::TxnRollback(op) => TxnWrite::Rollback(TxnRollback {
            txn: decode_ref(op.txn)?,
            start_ts: ts(op.start_ts),
            primary: op.primary,
            cause: op.seen_expire_at.map_or(RollbackCause::Asked, |raw| RollbackCause::Expired { seen: ts(raw) }),
        }),
        Kind::TxnHeartbeat(op) => {
            TxnWrite::Heartbeat(TxnHeartbeat { txn: decode_ref(op.txn)?, primary: op.primary, ttl_ms: op.ttl_ms })
        }
        Kind::TxnFinish(op) => TxnWrite::Finish(TxnFinish { txn: decode_ref(op.txn)?, primary: op.primary }),
        Kind::Put(_) | Kind::Delete(_) | Kind::CompareAndSet(_) | Kind::DeleteRange(_) | Kind::Settle(_) => {
            return Ok(None);
        }
    }))
}

pub(crate) fn encode_refresh(refresh: &RefreshRequest) -> v1::GroupTxnRefresh {
    v1::GroupTxnRefresh {
        txn_id: encode_txn_id(refresh.id),
        start_ts: refresh.start_ts.raw(),
        commit_ts: refresh.commit_ts.raw(),
        reads: encode_reads(&refresh.reads),
    }
}

pub(crate) fn decode_refresh(refresh: v1::GroupTxnRefresh) -> Result<RefreshRequest, WireError> {
    Ok(RefreshRequest {
        id: decode_txn_id(&refresh.txn_id)?,
        start_ts: ts(refresh.start_ts),
        commit_ts: ts(refresh.commit_ts),
        reads: decode_reads(refresh.reads)?,
    })
}

pub(crate) fn encode_lock(lock: &LockInfo) -> v1::Lock {
    v1::Lock {
        key: lock.key.clone(),
        txn: encode_ref(lock.txn),
        primary: lock.primary.clone(),
        start_ts: lock.start_ts.raw(),
        expire_at: lock.expire_at.raw(),
    }
}

pub(crate) fn decode_lock(lock: v1::Lock) -> Result<LockInfo, WireError> {
    Ok(LockInfo {
        key: lock.key,
        txn: decode_ref(lock.txn)?,
        primary: lock.primary,
        start_ts: ts(lock.start_ts),
        expire_at: ts(lock.expire_at),
    })
}

pub(crate) fn encode_known(status: TxnStatus) -> v1::GroupTxnKnown {
    use v1::group_txn_known::State;
    let state = match status {
        TxnStatus::Nothing => State::Nothing(v1::Unit {}),
        TxnStatus::Prepared { attempt, start_ts, expire_at } => State::Prepared(v1::GroupTxnPrepared {
            attempt: Some(encode_attempt(attempt)),
            start_ts: start_ts.raw(),
            expire_at: expire_at.raw(),
        }),
        TxnStatus::Committed { attempt, commit_ts, remote } => State::Committed(pb::TxnCommittedState {
            attempt: Some(encode_attempt(attempt)),
            commit_ts: commit_ts.raw(),
            fingerprint: 0,
            remote,
        }),
        TxnStatus::RolledBack { through } => State::RolledBack(encode_attempt(through)),
    };
    v1::GroupTxnKnown { state: Some(state) }
}

pub(crate) fn decode_known(known: v1::GroupTxnKnown) -> Result<TxnStatus, WireError> {
    use v1::group_txn_known::State;
    Ok(match known.state.ok_or(WireError::Missing("state"))? {
        State::Nothing(v1::Unit {}) => TxnStatus::Nothing,
        State::Prepared(prepared) => TxnStatus::Prepared {
            attempt: decode_attempt(prepared.attempt)?,
            start_ts: ts(prepared.start_ts),
            expire_at: ts(prepared.expire_at),
        },
        State::Committed(committed) => TxnStatus::Committed {
            attempt: decode_attempt(committed.attempt)?,
            commit_ts: ts(committed.commit_ts),
            remote: committed.remote,
        },
        State::RolledBack(through) => TxnStatus::RolledBack { through: decode_attempt(Some(through))? },
    })
}
