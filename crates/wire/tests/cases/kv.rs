//! What clients and nodes say to each other.

use drover_kv::{Error, Reason};
use drover_wire::error_to_status_bytes;
use drover_wire::proto::v1::compare_and_set_request::Update;
use drover_wire::proto::v1::expectation::Expect;
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::settle_response::Verdict;
use drover_wire::proto::v1::*;

use super::{Case, case};

fn version() -> Version {
    Version { value: "v".into(), commit_ts: 300, expire_at: 400 }
}

fn reads() -> Option<Options> {
    Some(Options { read_ts: 7, timeout_ms: 8, ..Options::default() })
}

fn writes() -> Option<Options> {
    Some(Options { idempotency_key: "i".into(), not_after: 9, timeout_ms: 8, ..Options::default() })
}

fn range() -> Option<KeyRange> {
    Some(KeyRange { start: "a".into(), end: Some("b".into()) })
}

fn call(name: &'static str, call: Call) -> Case {
    case(name, SessionRequest { calls: vec![SessionCall { id: 5, call: Some(call) }] })
}

fn answer(name: &'static str, answer: Answer) -> Case {
    let answer = SessionAnswer { id: 5, leader_hint: 2, answer: Some(answer) };
    case(name, SessionResponse { answers: vec![answer] })
}

fn compare(expect: Expect, update: Update) -> Call {
    let (expect, update) = (Some(Expectation { expect: Some(expect) }), Some(update));
    Call::CompareAndSet(CompareAndSetRequest { key: "k".into(), expect, update, options: writes() })
}

pub fn cases() -> Vec<Case> {
    calls().into_iter().chain(answers()).collect()
}

fn calls() -> Vec<Case> {
    let put = || Update::Put(PutUpdate { value: "v".into(), ttl_ms: 6 });
    let delete = || Update::Delete(DeleteUpdate {});
    let scan = ScanRequest {
        range: range(),
        reverse: true,
        keys_only: true,
        count_only: true,
        limit_rows: 3,
        limit_bytes: 4,
        cursor: "c".into(),
        options: reads(),
    };
    let endless = ScanRequest { range: Some(KeyRange { start: "a".into(), end: None }), ..ScanRequest::default() };
    let keys = vec!["a".into(), "b".into()];
    vec![
        call("SessionRequest/get", Call::Get(GetRequest { key: "k".into(), options: reads() })),
        call("SessionRequest/batch_get", Call::BatchGet(BatchGetRequest { keys, options: reads() })),
        call("SessionRequest/put", {
            Call::Put(PutRequest { key: "k".into(), value: "v".into(), ttl_ms: 6, options: writes() })
        }),
        call("SessionRequest/delete", Call::Delete(DeleteRequest { key: "k".into(), options: writes() })),
        call("SessionRequest/compare_absent", compare(Expect::Absent(Unit {}), put())),
        call("SessionRequest/compare_present", compare(Expect::Present(Unit {}), delete())),
        call("SessionRequest/compare_value", compare(Expect::Value("w".into()), delete())),
        call("SessionRequest/compare_commit_ts", compare(Expect::CommitTs(300), delete())),
        call("SessionRequest/scan", Call::Scan(scan)),
        call("SessionRequest/scan_endless", Call::Scan(endless)),
        call("SessionRequest/delete_range", {
            Call::DeleteRange(DeleteRangeRequest { range: range(), cursor: "c".into(), options: writes() })
        }),
        call("SessionRequest/latest_commit_ts", {
            Call::LatestCommitTs(LatestCommitTsRequest { key: "k".into(), options: reads() })
        }),
        call("SessionRequest/settle", Call::Settle(SettleRequest { key: "k".into(), options: writes() })),
    ]
}

fn answers() -> Vec<Case> {
    // Its details are a map; one item has one order.
    let error = error_to_status_bytes(&Error::definite(Reason::KeyEmpty, "no"));
    let settled = |verdict: Verdict, succeeded, commit_ts| {
        Answer::Settle(SettleResponse { verdict: verdict.into(), succeeded, commit_ts })
    };
    let entries = vec![KeyValue { key: "k".into(), version: Some(version()) }];
    let versions = vec![MaybeVersion { version: None }, MaybeVersion { version: Some(version()) }];
    vec![
        answer("SessionResponse/error", Answer::Error(error)),
        answer("SessionResponse/get", Answer::Get(GetResponse { version: Some(version()), read_ts: 7 })),
        answer("SessionResponse/batch_get", Answer::BatchGet(BatchGetResponse { versions, read_ts: 7 })),
        answer("SessionResponse/put", Answer::Put(PutResponse { commit_ts: 300 })),
        answer("SessionResponse/delete", Answer::Delete(DeleteResponse { commit_ts: 300 })),
        answer("SessionResponse/compare_and_set", {
            Answer::CompareAndSet(CompareAndSetResponse { succeeded: true, commit_ts: 300, current: None })
        }),
        answer("SessionResponse/compare_failed", {
            let current = Some(version());
            Answer::CompareAndSet(CompareAndSetResponse { succeeded: false, commit_ts: 0, current })
        }),
        answer("SessionResponse/scan", {
            Answer::Scan(ScanResponse { entries, count: 1, cursor: "c".into(), read_ts: 7 })
        }),
        answer("SessionResponse/delete_range", {
            Answer::DeleteRange(DeleteRangeResponse { deleted: 2, cursor: "c".into(), commit_ts: 300 })
        }),
        answer("SessionResponse/latest_commit_ts", {
            Answer::LatestCommitTs(LatestCommitTsResponse { commit_ts: 300 })
        }),
        answer("SessionResponse/settle_applied", settled(Verdict::Applied, true, 300)),
        answer("SessionResponse/settle_never", settled(Verdict::Never, false, 0)),
    ]
}
