//! Operations forwarded to the leader of a group, and their answers, as the product writes and reads them.

use drover_catalog::job::{BaseSum, JobProgress};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, GroupId, Interval, JobEpoch, JobId, ShardId};
use drover_kv::{
    Entry, Error, Expectation, Idempotency, Outcome, ReadAnswer, ReadOp, Reason, ScanCursor, ScanLimits, ScanPage,
    ScanRequest, Update, Versioned, WriteKind, WriteOp,
};
use drover_wire::proto::v1;
use drover_wire::{
    CatalogPart, GroupAnswer, GroupCall, GroupDigest, GroupOp, OwnershipFacts, RangeFacts, decode_group_request,
    decode_group_response, encode_group_request, encode_group_response,
};
use prost::Message;

use super::distribution::delta;
use super::{Case, case};

fn ts(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

fn interval() -> Interval {
    Interval::new("a", End::Key("m".into())).unwrap()
}

pub fn call(name: &'static str, op: GroupOp) -> Case {
    let call = GroupCall { group: GroupId(2), timeout_ms: 8, op };
    let bytes = encode_group_request(&call).encode_to_vec();
    let read = move |bytes: &[u8]| {
        let message = v1::GroupRequest::decode(bytes).unwrap();
        assert_eq!(decode_group_request(message).as_ref(), Ok(&call), "{name}");
    };
    Case { name, bytes, read: Box::new(read) }
}

pub fn answer(name: &'static str, answer: Result<GroupAnswer, Error>) -> Case {
    let bytes = encode_group_response(answer.clone()).encode_to_vec();
    let read = move |bytes: &[u8]| {
        let message = v1::GroupResponse::decode(bytes).unwrap();
        assert_eq!(decode_group_response(message), answer, "{name}");
    };
    Case { name, bytes, read: Box::new(read) }
}

pub fn cases() -> Vec<Case> {
    [writes(), reads(), others(), written(), read(), answered(), framed()].into_iter().flatten().collect()
}

fn write(kind: WriteKind) -> GroupOp {
    let idempotency = Some(Idempotency { key: "i".into(), not_after: ts(9) });
    GroupOp::Write(WriteOp { kind, observed_version: Some(CatalogVersion(3)), idempotency })
}

fn writes() -> Vec<Case> {
    let (key, value) = (|| "k".into(), || "v".into());
    let compare = |expect, update| write(WriteKind::CompareAndSet { key: "k".into(), expect, update });
    let clear = |resume| write(WriteKind::DeleteRange { interval: interval(), resume });
    vec![
        call("GroupRequest/put", write(WriteKind::Put { key: key(), value: value(), ttl_ms: Some(6) })),
        call("GroupRequest/put_for_ever", write(WriteKind::Put { key: key(), value: value(), ttl_ms: None })),
        call("GroupRequest/delete", write(WriteKind::Delete { key: key() })),
        call("GroupRequest/compare_absent", {
            compare(Expectation::Absent, Update::Put { value: value(), ttl_ms: Some(6) })
        }),
        call("GroupRequest/compare_present", compare(Expectation::Present, Update::Delete)),
        call("GroupRequest/compare_value", compare(Expectation::Value("w".into()), Update::Delete)),
        call("GroupRequest/compare_version", compare(Expectation::Version(ts(300)), Update::Delete)),
        call("GroupRequest/delete_range", clear(None)),
        call("GroupRequest/delete_range_resumed", clear(Some("b".into()))),
        call("GroupRequest/settle", write(WriteKind::Settle { key: key() })),
    ]
}

fn reads() -> Vec<Case> {
    let observed_version = Some(CatalogVersion(3));
    let read = |op| GroupOp::Read { op, observed_version };
    let scan = ScanRequest {
        interval: interval(),
        read_ts: ts(7),
        reverse: true,
        keys_only: true,
        count_only: true,
        limits: ScanLimits { rows: 3, bytes: 4 },
    };
    let keys = vec!["a".into(), "b".into()];
    vec![
        call("GroupRequest/get", read(ReadOp::Get { key: "k".into(), read_ts: Some(ts(7)) })),
        call("GroupRequest/get_latest", read(ReadOp::Get { key: "k".into(), read_ts: None })),
        call("GroupRequest/batch_get", read(ReadOp::BatchGet { keys, read_ts: ts(7) })),
        call("GroupRequest/scan", read(ReadOp::Scan(scan))),
        call("GroupRequest/latest_commit_ts", read(ReadOp::LatestCommitTs { key: "k".into() })),
    ]
}

fn others() -> Vec<Case> {
    let rows = |part| GroupOp::ReadCatalog { part, limit: 5 };
    vec![
        call("GroupRequest/digest", GroupOp::Digest { index: 300 }),
        call("GroupRequest/describe", GroupOp::Describe { intervals: vec![interval(), Interval::all()] }),
        call("GroupRequest/catalog", GroupOp::Catalog { command: "c".into() }),
        call("GroupRequest/catalog_meta", rows(CatalogPart::Meta)),
        call("GroupRequest/catalog_nodes", rows(CatalogPart::Nodes)),
        call("GroupRequest/catalog_groups", rows(CatalogPart::Groups)),
        call("GroupRequest/catalog_audit", rows(CatalogPart::Audit)),
        call("GroupRequest/move_step", GroupOp::MoveStep { command: "m".into() }),
        call("GroupRequest/observe_move", GroupOp::ObserveMove { job: JobId(300) }),
        call("GroupRequest/sum_range", GroupOp::SumRange { job: JobId(300), armed_at: 400 }),
        call("GroupRequest/forget_jobs", GroupOp::ForgetJobs { below: JobId(300) }),
        call("GroupRequest/slow_writers", {
            let (job, epoch) = (JobId(5), JobEpoch(3));
            GroupOp::SlowWriters { job, epoch, bytes_per_second: 300, duration_ms: 301 }
        }),
        call("GroupRequest/catalog_jobs", rows(CatalogPart::Jobs { newest: JobId(300) })),
        call("GroupRequest/judge_catalog", GroupOp::JudgeCatalog { command: "c".into() }),
        call("GroupRequest/job_progress", GroupOp::JobProgress { jobs: vec![JobId(5), JobId(300)] }),
    ]
}

fn version() -> Versioned {
    Versioned { value: "v".into(), commit_ts: ts(300), expire_at: Some(ts(400)) }
}

fn written() -> Vec<Case> {
    let written = |outcome| Ok(GroupAnswer::Written(outcome));
    let cleared = Outcome::RangeDeleted { commit_ts: ts(300), deleted: 2, resume: Some("b".into()) };
    vec![
        answer("GroupResponse/written", written(Outcome::Written { commit_ts: ts(300) })),
        answer("GroupResponse/compare_failed", written(Outcome::CompareFailed { current: Some(version()) })),
        answer("GroupResponse/compare_met_nothing", written(Outcome::CompareFailed { current: None })),
        answer("GroupResponse/range_deleted", written(cleared)),
        answer("GroupResponse/settled", written(Outcome::Settled)),
    ]
}

fn read() -> Vec<Case> {
    let read = |answer| Ok(GroupAnswer::Read(answer));
    let entries = vec![Entry { key: "k".into(), version: version() }];
    let page = ScanPage { entries, count: 1, cursor: Some(ScanCursor("n".into())) };
    let got = ReadAnswer::Get { version: Some(version()), read_ts: Some(ts(7)) };
    vec![
        answer("GroupResponse/get", read(got)),
        answer("GroupResponse/get_nothing", read(ReadAnswer::Get { version: None, read_ts: None })),
        answer("GroupResponse/batch_get", read(ReadAnswer::BatchGet { versions: vec![None, Some(version())] })),
        answer("GroupResponse/scan", read(ReadAnswer::Scan(page))),
        answer("GroupResponse/latest_commit_ts", read(ReadAnswer::LatestCommitTs(Some(ts(300))))),
    ]
}

fn answered() -> Vec<Case> {
    let owned = OwnershipFacts {
        interval: interval(),
        shard: ShardId(3),
        acquired_version: CatalogVersion(4),
        floor_ts: ts(5),
        history_start: ts(6),
        safe_point: ts(7),
    };
    let facts = RangeFacts { approximate_bytes: 300, owned: vec![owned] };
    let digest = GroupDigest { index: 300, digest: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10, rows: 4 };
    let rows = vec![("k".into(), "v".into())];
    let progress = JobProgress {
        job: JobId(5),
        waits_for: "w".to_owned(),
        bytes_copied: 300,
        bytes_total: 301,
        bytes_per_second: 302,
        tracked_left: 303,
        projected_pause_ms: 304,
        eta_ms: Some(305),
        write_pause_ms: Some(306),
        read_pause_ms: None,
    };
    vec![
        // Its details are a map; one item has one order.
        answer("GroupResponse/error", Err(Error::definite(Reason::RouteMoved, "no"))),
        answer("GroupResponse/digest", Ok(GroupAnswer::Digest(digest))),
        answer("GroupResponse/described", Ok(GroupAnswer::Described(vec![facts]))),
        answer("GroupResponse/catalog", Ok(GroupAnswer::Catalog("r".into()))),
        answer("GroupResponse/catalog_rows", Ok(GroupAnswer::CatalogRows(rows))),
        answer("GroupResponse/moved", Ok(GroupAnswer::Moved(true))),
        answer("GroupResponse/move_facts", Ok(GroupAnswer::MoveFacts("f".into()))),
        answer(
            "GroupResponse/range_sum",
            Ok(GroupAnswer::RangeSum(BaseSum { armed_at: 300, hash: 1 << 64 | 2, rows: 3 })),
        ),
        answer("GroupResponse/judged", Ok(GroupAnswer::Judged { reply: "r".into(), changes: true })),
        answer("GroupResponse/job_progress", Ok(GroupAnswer::JobProgress(vec![progress]))),
    ]
}

/// How they stand in the frames of a link.
fn framed() -> Vec<Case> {
    use v1::link_message::Body;
    let link = |body| v1::LinkFrame { messages: vec![v1::LinkMessage { id: 300, body: Some(body) }] };
    let digest = v1::group_request::Body::Digest(v1::GroupDigest { index: 300 });
    let request = v1::GroupRequest { group_id: 2, timeout_ms: 8, observed_version: 3, body: Some(digest) };
    let body = Some(v1::group_response::Body::LatestCommitTs(300));
    let response = v1::GroupResponse { body, newer_routes: vec![delta()], lock: None };
    vec![
        case("LinkFrame/group_request", link(Body::GroupRequest(request))),
        case("LinkFrame/group_response", link(Body::GroupResponse(response))),
    ]
}
