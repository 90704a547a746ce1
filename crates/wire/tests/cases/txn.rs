//! Transactions: the steps between nodes as the product writes and reads them, and the messages of clients.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, Interval};
use drover_kv::{
    Attempt, Error, LockInfo, Mutation, Outcome, ReadAnswer, ReadOp, ReadSet, Reason, RefreshRequest, RollbackCause,
    TxnCommit, TxnDecide, TxnFinish, TxnHeartbeat, TxnId, TxnPrepare, TxnRef, TxnResolve, TxnRollback, TxnStatus,
    TxnWrite, Update, Verdict, WriteKind, WriteOp,
};
use drover_wire::proto::v1;
use drover_wire::{GroupAnswer, GroupOp};

use super::group::{answer, call};
use super::{Case, case};

const ID: TxnId = TxnId([7; 16]);
const ATTEMPT: Attempt = Attempt { number: 2, coordinator: 3 };
const TXN: TxnRef = TxnRef { id: ID, attempt: ATTEMPT };

fn ts(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

fn keys() -> Vec<Bytes> {
    vec!["k".into(), "l".into()]
}

fn mutations() -> Vec<Mutation> {
    vec![
        Mutation { key: "k".into(), update: Update::Put { value: "v".into(), ttl_ms: Some(6) } },
        Mutation { key: "l".into(), update: Update::Delete },
    ]
}

fn reads() -> ReadSet {
    let interval = Interval::new("a", End::Key("m".into())).unwrap();
    ReadSet { keys: vec!["r".into()], intervals: vec![interval, Interval::new("n", End::Unbounded).unwrap()] }
}

fn lock() -> LockInfo {
    LockInfo { key: "k".into(), txn: TXN, primary: "p".into(), start_ts: ts(5), expire_at: ts(6) }
}

pub fn cases() -> Vec<Case> {
    [steps(), looks(), answers(), public(), asked()].into_iter().flatten().collect()
}

fn steps() -> Vec<Case> {
    let step = |name, step| {
        let kind = WriteKind::Txn(Box::new(step));
        call(name, GroupOp::Write(WriteOp { kind, observed_version: Some(CatalogVersion(3)), idempotency: None }))
    };
    let start_ts = ts(5);
    let prepare = TxnPrepare {
        txn: TXN,
        start_ts,
        primary: "p".into(),
        fingerprint: 8,
        ttl_ms: 9,
        supersedes: true,
        mutations: mutations(),
    };
    let decide =
        TxnDecide { txn: TXN, start_ts, commit_ts: ts(6), fingerprint: 8, keys: keys(), remote: vec!["z".into()] };
    let resolve = |verdict| TxnWrite::Resolve(TxnResolve { txn: TXN, start_ts, verdict, keys: keys() });
    let rollback = |cause| TxnWrite::Rollback(TxnRollback { txn: TXN, start_ts, primary: "p".into(), cause });
    let commit = TxnCommit { txn: TXN, start_ts, mutations: mutations(), reads: reads() };
    let heartbeat = TxnHeartbeat { txn: TXN, primary: "p".into(), ttl_ms: 9 };
    vec![
        step("GroupRequest/txn_commit", TxnWrite::Commit(commit)),
        step("GroupRequest/txn_prepare", TxnWrite::Prepare(prepare)),
        step("GroupRequest/txn_decide", TxnWrite::Decide(decide)),
        step("GroupRequest/txn_resolve committed", resolve(Verdict::Committed { commit_ts: ts(6) })),
        step("GroupRequest/txn_resolve rolled back", resolve(Verdict::RolledBack)),
        step("GroupRequest/txn_rollback expired", rollback(RollbackCause::Expired { seen: ts(4) })),
        step("GroupRequest/txn_rollback asked", rollback(RollbackCause::Asked)),
        step("GroupRequest/txn_heartbeat", TxnWrite::Heartbeat(heartbeat)),
        step("GroupRequest/txn_finish", TxnWrite::Finish(TxnFinish { txn: TXN, primary: "p".into() })),
    ]
}

fn looks() -> Vec<Case> {
    let look = |name, op| call(name, GroupOp::Read { op, observed_version: Some(CatalogVersion(3)) });
    let refresh = RefreshRequest { id: ID, start_ts: ts(5), commit_ts: ts(6), reads: reads() };
    let interval = Interval::new("a", End::Key("m".into())).unwrap();
    vec![
        look("GroupRequest/txn_refresh", ReadOp::Refresh(refresh)),
        look("GroupRequest/txn_status", ReadOp::TxnStatus { id: ID, primary: "p".into() }),
        look("GroupRequest/locks", ReadOp::Locks { interval, limit: 9 }),
    ]
}

fn answers() -> Vec<Case> {
    let written = |name, outcome| answer(name, Ok(GroupAnswer::Written(outcome)));
    let read = |name, found| answer(name, Ok(GroupAnswer::Read(found)));
    let status = |name, status| read(name, ReadAnswer::TxnStatus(status));
    let committed = TxnStatus::Committed { attempt: ATTEMPT, commit_ts: ts(6), remote: keys() };
    let prepared = TxnStatus::Prepared { attempt: ATTEMPT, start_ts: ts(5), expire_at: ts(6) };
    let locked = Error { lock: Some(Box::new(lock())), ..Error::definite(Reason::Locked, "no") };
    vec![
        written("GroupResponse/txn_committed", Outcome::TxnCommitted { commit_ts: ts(6) }),
        written("GroupResponse/txn_locked", Outcome::TxnLocked { expire_at: ts(6), changes_at: None }),
        written("GroupResponse/txn_locked_expiring", Outcome::TxnLocked { expire_at: ts(6), changes_at: Some(ts(5)) }),
        written("GroupResponse/txn_rolled_back", Outcome::TxnRolledBack),
        written("GroupResponse/txn_resolved", Outcome::TxnResolved),
        read("GroupResponse/txn_refreshed", ReadAnswer::Refreshed),
        status("GroupResponse/txn_status nothing", TxnStatus::Nothing),
        status("GroupResponse/txn_status prepared", prepared),
        status("GroupResponse/txn_status committed", committed),
        status("GroupResponse/txn_status rolled back", TxnStatus::RolledBack { through: ATTEMPT }),
        read("GroupResponse/locks", ReadAnswer::Locks { locks: vec![lock()], resume: Some("n".into()) }),
        answer("GroupResponse/locked", Err(locked)),
    ]
}

fn id() -> Bytes {
    Bytes::copy_from_slice(&ID.0)
}

/// How a client commits.
pub fn commit() -> v1::TxnCommitRequest {
    use v1::mutation::Update;
    let put = Update::Put(v1::PutUpdate { value: "v".into(), ttl_ms: 6 });
    v1::TxnCommitRequest {
        txn_id: id(),
        attempt: 2,
        start_ts: 300,
        mutations: vec![
            v1::Mutation { key: "k".into(), update: Some(put) },
            v1::Mutation { key: "l".into(), update: Some(Update::Delete(v1::DeleteUpdate {})) },
        ],
        read_keys: vec!["r".into()],
        read_ranges: vec![v1::KeyRange { start: "a".into(), end: Some("m".into()) }],
        timeout_ms: 8,
    }
}

fn public() -> Vec<Case> {
    use v1::session_answer::Answer;
    use v1::session_call::Call;
    let committed = || v1::TxnCommitResponse { commit_ts: 300 };
    let session = |call| v1::SessionRequest { calls: vec![v1::SessionCall { id: 1, call: Some(call) }] };
    let answered = |answer| {
        let answer = v1::SessionAnswer { id: 1, leader_hint: 2, answer: Some(answer) };
        v1::SessionResponse { answers: vec![answer] }
    };
    vec![
        case("TxnBeginRequest/plain", v1::TxnBeginRequest { timeout_ms: 8 }),
        case("TxnBeginResponse/plain", v1::TxnBeginResponse { txn_id: id(), start_ts: 300 }),
        case("TxnCommitRequest/plain", commit()),
        case("TxnCommitResponse/plain", committed()),
        case("SessionRequest/commit", session(Call::Commit(commit()))),
        case("SessionResponse/commit", answered(Answer::Commit(committed()))),
    ]
}

fn asked() -> Vec<Case> {
    use v1::txn_state::Kind;
    let primary = || "p".into();
    let state = |kind: Kind, commit_ts, expire_at| v1::TxnState {
        kind: kind.into(),
        commit_ts,
        expire_at,
        settled: matches!(kind, Kind::Committed | Kind::RolledBack),
    };
    let prepared = v1::PreparedTxn {
        txn_id: id(),
        start_ts: 300,
        primary: primary(),
        keys: keys(),
        state: Some(state(Kind::Prepared, 0, 301)),
    };
    vec![
        case(
            "TxnAbortRequest/plain",
            v1::TxnAbortRequest { txn_id: id(), primary: primary(), start_ts: 300, timeout_ms: 8 },
        ),
        case("TxnHeartbeatRequest/plain", v1::TxnHeartbeatRequest { txn_id: id(), primary: primary(), timeout_ms: 8 }),
        case("TxnStatusRequest/plain", v1::TxnStatusRequest { txn_id: id(), primary: primary(), timeout_ms: 8 }),
        case("TxnState/nothing", state(Kind::Nothing, 0, 0)),
        case("TxnState/prepared", state(Kind::Prepared, 0, 301)),
        case("TxnState/committed", state(Kind::Committed, 300, 0)),
        case("TxnState/rolled back", state(Kind::RolledBack, 0, 0)),
        case(
            "ListPreparedRequest/plain",
            v1::ListPreparedRequest { limit_locks: 9, cursor: "c".into(), timeout_ms: 8 },
        ),
        case(
            "ListPreparedResponse/plain",
            v1::ListPreparedResponse { transactions: vec![prepared], cursor: "c".into() },
        ),
        case("TxnResolveRequest/plain", v1::TxnResolveRequest { txn_id: id(), force: true, timeout_ms: 8 }),
    ]
}
