//! Generators of domain values for the round-trip tests.

use bytes::Bytes;
use drover_catalog::job::{BaseSum, JobProgress};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, GroupId, Interval, JobEpoch, JobId, NodeId, ShardId};
use drover_kv::*;
use proptest::option;
use proptest::prelude::*;

use crate::{CatalogPart, GroupAnswer, GroupCall, GroupDigest, GroupOp, OwnershipFacts, RangeFacts};

fn bytes() -> impl Strategy<Value = Bytes> {
    any::<Vec<u8>>().prop_map(Bytes::from)
}

fn nonempty() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 1..20).prop_map(Bytes::from)
}

/// Not zero, which means "absent" in most fields.
fn timestamp() -> impl Strategy<Value = Timestamp> {
    (1..=u64::MAX).prop_map(Timestamp::from_raw)
}

fn observed() -> impl Strategy<Value = Option<CatalogVersion>> {
    option::of((1..=u64::MAX).prop_map(CatalogVersion))
}

pub fn interval() -> impl Strategy<Value = Interval> {
    prop_oneof![
        bytes().prop_map(|start| Interval::new(start, End::Unbounded).unwrap()),
        (bytes(), bytes()).prop_filter_map("equal bounds", |(a, b)| {
            Interval::new(a.clone().min(b.clone()), End::Key(a.max(b))).ok()
        }),
    ]
}

pub fn error() -> impl Strategy<Value = Error> {
    let reason = prop::sample::select(Reason::ALL);
    (reason, ".{0,200}", any::<bool>(), option::of(0u64..1 << 50), option::of(any::<u64>())).prop_map(
        |(reason, message, definite, retry_after_ms, leader)| Error {
            reason,
            message,
            certainty: if definite { Certainty::Definite } else { Certainty::Unknown },
            retry_after_ms,
            leader_hint: leader.map(NodeId),
            lock: None,
        },
    )
}

fn txn_ref() -> impl Strategy<Value = TxnRef> {
    any::<([u8; 16], u32, u64)>()
        .prop_map(|(id, number, coordinator)| TxnRef { id: TxnId(id), attempt: Attempt { number, coordinator } })
}

fn any_ts() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp::from_raw)
}

fn update() -> impl Strategy<Value = Update> {
    prop_oneof![
        (bytes(), any::<Option<u64>>()).prop_map(|(value, ttl_ms)| Update::Put { value, ttl_ms }),
        Just(Update::Delete),
    ]
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    prop::collection::vec((bytes(), update()).prop_map(|(key, update)| Mutation { key, update }), 1..4)
}

fn reads() -> impl Strategy<Value = ReadSet> {
    (prop::collection::vec(bytes(), 0..3), prop::collection::vec(interval(), 0..3))
        .prop_map(|(keys, intervals)| ReadSet { keys, intervals })
}

fn keys() -> impl Strategy<Value = Vec<Bytes>> {
    prop::collection::vec(bytes(), 1..4)
}

fn txn_write() -> impl Strategy<Value = TxnWrite> {
    let verdict = option::of(any_ts())
        .prop_map(|commit_ts| commit_ts.map_or(Verdict::RolledBack, |commit_ts| Verdict::Committed { commit_ts }));
    let cause =
        option::of(any_ts()).prop_map(|seen| seen.map_or(RollbackCause::Asked, |seen| RollbackCause::Expired { seen }));
    prop_oneof![
        (txn_ref(), any_ts(), mutations(), reads()).prop_map(|(txn, start_ts, mutations, reads)| TxnWrite::Commit(
            TxnCommit { txn, start_ts, mutations, reads }
        )),
        (txn_ref(), any_ts(), bytes(), any::<(u64, u64, bool)>(), mutations()).prop_map(
            |(txn, start_ts, primary, (fingerprint, ttl_ms, supersedes), mutations)| TxnWrite::Prepare(TxnPrepare {
                txn,
                start_ts,
                primary,
                fingerprint,
                ttl_ms,
                supersedes,
                mutations
            })
        ),
        (txn_ref(), any_ts(), any_ts(), any::<u64>(), keys(), prop::collection::vec(bytes(), 0..3)).prop_map(
            |(txn, start_ts, commit_ts, fingerprint, keys, remote)| TxnWrite::Decide(TxnDecide {
                txn,
                start_ts,
                commit_ts,
                fingerprint,
                keys,
                remote
            })
        ),
        (txn_ref(), any_ts(), verdict, keys())
            .prop_map(|(txn, start_ts, verdict, keys)| TxnWrite::Resolve(TxnResolve { txn, start_ts, verdict, keys })),
        (txn_ref(), any_ts(), bytes(), cause).prop_map(|(txn, start_ts, primary, cause)| TxnWrite::Rollback(
            TxnRollback { txn, start_ts, primary, cause }
        )),
        (txn_ref(), bytes(), any::<u64>()).prop_map(|(txn, primary, ttl_ms)| TxnWrite::Heartbeat(TxnHeartbeat {
            txn,
            primary,
            ttl_ms
        })),
        (txn_ref(), bytes()).prop_map(|(txn, primary)| TxnWrite::Finish(TxnFinish { txn, primary })),
    ]
}

fn lock() -> impl Strategy<Value = LockInfo> {
    (bytes(), txn_ref(), bytes(), any_ts(), any_ts()).prop_map(|(key, txn, primary, start_ts, expire_at)| LockInfo {
        key,
        txn,
        primary,
        start_ts,
        expire_at,
    })
}

fn txn_status() -> impl Strategy<Value = TxnStatus> {
    let attempt = || txn_ref().prop_map(|txn| txn.attempt);
    prop_oneof![
        Just(TxnStatus::Nothing),
        (attempt(), any_ts(), any_ts()).prop_map(|(attempt, start_ts, expire_at)| TxnStatus::Prepared {
            attempt,
            start_ts,
            expire_at
        }),
        (attempt(), any_ts(), prop::collection::vec(bytes(), 0..3))
            .prop_map(|(attempt, commit_ts, remote)| TxnStatus::Committed { attempt, commit_ts, remote }),
        attempt().prop_map(|through| TxnStatus::RolledBack { through }),
    ]
}

fn write_kind() -> impl Strategy<Value = WriteKind> {
    let expect = prop_oneof![
        Just(Expectation::Absent),
        Just(Expectation::Present),
        bytes().prop_map(Expectation::Value),
        any::<u64>().prop_map(|raw| Expectation::Version(Timestamp::from_raw(raw))),
    ];
    prop_oneof![
        txn_write().prop_map(|step| WriteKind::Txn(Box::new(step))),
        (bytes(), bytes(), any::<Option<u64>>()).prop_map(|(key, value, ttl_ms)| WriteKind::Put { key, value, ttl_ms }),
        bytes().prop_map(|key| WriteKind::Delete { key }),
        (bytes(), expect, update()).prop_map(|(key, expect, update)| WriteKind::CompareAndSet { key, expect, update }),
        (interval(), option::of(bytes())).prop_map(|(interval, resume)| WriteKind::DeleteRange { interval, resume }),
        bytes().prop_map(|key| WriteKind::Settle { key }),
    ]
}

pub fn write_op() -> impl Strategy<Value = WriteOp> {
    let idempotency =
        (nonempty(), any::<u64>()).prop_map(|(key, raw)| Idempotency { key, not_after: Timestamp::from_raw(raw) });
    (write_kind(), observed(), option::of(idempotency)).prop_map(|(kind, observed_version, idempotency)| WriteOp {
        kind,
        observed_version,
        idempotency,
    })
}

fn read_op() -> impl Strategy<Value = ReadOp> {
    let scan = (interval(), timestamp(), any::<[bool; 3]>(), any::<[u64; 2]>());
    prop_oneof![
        (bytes(), option::of(timestamp())).prop_map(|(key, read_ts)| ReadOp::Get { key, read_ts }),
        (prop::collection::vec(bytes(), 0..4), timestamp())
            .prop_map(|(keys, read_ts)| ReadOp::BatchGet { keys, read_ts }),
        scan.prop_map(|(interval, read_ts, [reverse, keys_only, count_only], [rows, bytes])| {
            let limits = ScanLimits { rows, bytes };
            ReadOp::Scan(ScanRequest { interval, read_ts, reverse, keys_only, count_only, limits })
        }),
        bytes().prop_map(|key| ReadOp::LatestCommitTs { key }),
        (any::<[u8; 16]>(), any_ts(), any_ts(), reads()).prop_map(|(id, start_ts, commit_ts, reads)| {
            ReadOp::Refresh(RefreshRequest { id: TxnId(id), start_ts, commit_ts, reads })
        }),
        (any::<[u8; 16]>(), bytes()).prop_map(|(id, primary)| ReadOp::TxnStatus { id: TxnId(id), primary }),
        (interval(), any::<u32>()).prop_map(|(interval, limit)| ReadOp::Locks { interval, limit }),
    ]
}

fn catalog_part() -> impl Strategy<Value = CatalogPart> {
    let parts = vec![CatalogPart::Meta, CatalogPart::Nodes, CatalogPart::Groups, CatalogPart::Audit];
    prop_oneof![
        prop::sample::select(parts),
        any::<u64>().prop_map(|newest| CatalogPart::Jobs { newest: JobId(newest) }),
    ]
}

fn job_progress() -> impl Strategy<Value = JobProgress> {
    (".{0,20}", any::<[u64; 6]>(), any::<[Option<u64>; 3]>()).prop_map(|(waits_for, n, may)| JobProgress {
        job: JobId(n[0]),
        waits_for,
        bytes_copied: n[1],
        bytes_total: n[2],
        bytes_per_second: n[3],
        tracked_left: n[4],
        projected_pause_ms: n[5],
        eta_ms: may[0],
        write_pause_ms: may[1],
        read_pause_ms: may[2],
    })
}

pub fn group_call() -> impl Strategy<Value = GroupCall> {
    let op = prop_oneof![
        write_op().prop_map(GroupOp::Write),
        (read_op(), observed()).prop_map(|(op, observed_version)| GroupOp::Read { op, observed_version }),
        any::<u64>().prop_map(|index| GroupOp::Digest { index }),
        proptest::collection::vec(interval(), 0..3).prop_map(|intervals| GroupOp::Describe { intervals }),
        bytes().prop_map(|command| GroupOp::Catalog { command }),
        bytes().prop_map(|command| GroupOp::MoveStep { command }),
        any::<u64>().prop_map(|job| GroupOp::ObserveMove { job: JobId(job) }),
        any::<(u64, u64)>().prop_map(|(job, armed_at)| GroupOp::SumRange { job: JobId(job), armed_at }),
        any::<u64>().prop_map(|below| GroupOp::ForgetJobs { below: JobId(below) }),
        any::<(u64, u64, u64, u32)>().prop_map(|(job, epoch, bytes_per_second, duration_ms)| {
            GroupOp::SlowWriters { job: JobId(job), epoch: JobEpoch(epoch), bytes_per_second, duration_ms }
        }),
        (catalog_part(), any::<u32>()).prop_map(|(part, limit)| GroupOp::ReadCatalog { part, limit }),
        bytes().prop_map(|command| GroupOp::JudgeCatalog { command }),
        proptest::collection::vec(any::<u64>().prop_map(JobId), 0..3).prop_map(|jobs| GroupOp::JobProgress { jobs }),
    ];
    (any::<u64>(), any::<u32>(), op).prop_map(|(group, timeout_ms, op)| GroupCall {
        group: GroupId(group),
        timeout_ms,
        op,
    })
}

fn versioned() -> impl Strategy<Value = Versioned> {
    (bytes(), any::<u64>(), option::of(timestamp())).prop_map(|(value, raw, expire_at)| Versioned {
        value,
        commit_ts: Timestamp::from_raw(raw),
        expire_at,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        any::<u64>().prop_map(|raw| Outcome::Written { commit_ts: Timestamp::from_raw(raw) }),
        option::of(versioned()).prop_map(|current| Outcome::CompareFailed { current }),
        (any::<u64>(), any::<u64>(), option::of(bytes())).prop_map(|(raw, deleted, resume)| {
            Outcome::RangeDeleted { commit_ts: Timestamp::from_raw(raw), deleted, resume }
        }),
        Just(Outcome::Settled),
        any_ts().prop_map(|commit_ts| Outcome::TxnCommitted { commit_ts }),
        (any_ts(), proptest::option::of(any_ts()))
            .prop_map(|(expire_at, changes_at)| Outcome::TxnLocked { expire_at, changes_at }),
        Just(Outcome::TxnRolledBack),
        Just(Outcome::TxnResolved),
    ]
}

fn read_answer() -> impl Strategy<Value = ReadAnswer> {
    let entry = (bytes(), versioned()).prop_map(|(key, version)| Entry { key, version });
    prop_oneof![
        (option::of(versioned()), option::of(timestamp()))
            .prop_map(|(version, read_ts)| ReadAnswer::Get { version, read_ts }),
        prop::collection::vec(option::of(versioned()), 0..4).prop_map(|versions| ReadAnswer::BatchGet { versions }),
        (prop::collection::vec(entry, 0..4), any::<u64>(), option::of(bytes())).prop_map(|(entries, count, cursor)| {
            ReadAnswer::Scan(ScanPage { entries, count, cursor: cursor.map(ScanCursor) })
        }),
        option::of(timestamp()).prop_map(ReadAnswer::LatestCommitTs),
        Just(ReadAnswer::Refreshed),
        txn_status().prop_map(ReadAnswer::TxnStatus),
        (prop::collection::vec(lock(), 0..3), option::of(bytes()))
            .prop_map(|(locks, resume)| ReadAnswer::Locks { locks, resume }),
    ]
}

fn range_facts() -> impl Strategy<Value = RangeFacts> {
    let owned = (interval(), any::<[u64; 5]>()).prop_map(|(interval, n)| OwnershipFacts {
        interval,
        shard: ShardId(n[0]),
        acquired_version: CatalogVersion(n[1]),
        floor_ts: Timestamp::from_raw(n[2]),
        history_start: Timestamp::from_raw(n[3]),
        safe_point: Timestamp::from_raw(n[4]),
    });
    (any::<u64>(), proptest::collection::vec(owned, 0..3))
        .prop_map(|(approximate_bytes, owned)| RangeFacts { approximate_bytes, owned })
}

pub fn group_answer() -> impl Strategy<Value = Result<GroupAnswer, Error>> {
    prop_oneof![
        outcome().prop_map(|outcome| Ok(GroupAnswer::Written(outcome))),
        read_answer().prop_map(|answer| Ok(GroupAnswer::Read(answer))),
        any::<(u64, u128, u64)>().prop_map(|(index, digest, rows)| Ok(GroupAnswer::Digest(GroupDigest {
            index,
            digest,
            rows
        }))),
        proptest::collection::vec(range_facts(), 0..3).prop_map(|facts| Ok(GroupAnswer::Described(facts))),
        bytes().prop_map(|reply| Ok(GroupAnswer::Catalog(reply))),
        proptest::collection::vec((bytes(), bytes()), 0..3).prop_map(|rows| Ok(GroupAnswer::CatalogRows(rows))),
        any::<bool>().prop_map(|changed| Ok(GroupAnswer::Moved(changed))),
        bytes().prop_map(|facts| Ok(GroupAnswer::MoveFacts(facts))),
        any::<(u64, u128, u64)>().prop_map(|(armed_at, hash, rows)| Ok(GroupAnswer::RangeSum(BaseSum {
            armed_at,
            hash,
            rows
        }))),
        (bytes(), any::<bool>()).prop_map(|(reply, changes)| Ok(GroupAnswer::Judged { reply, changes })),
        proptest::collection::vec(job_progress(), 0..3).prop_map(|jobs| Ok(GroupAnswer::JobProgress(jobs))),
        (error(), option::of(lock())).prop_map(|(error, lock)| Err(Error { lock: lock.map(Box::new), ..error })),
    ]
}
