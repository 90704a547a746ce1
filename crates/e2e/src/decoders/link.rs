//! Frames of the links between nodes: everything that nodes say to each other about groups.

use drover_transport::fuzzing as transport;
use drover_wire::proto::storage::v1 as stored;
use drover_wire::proto::v1;
use drover_wire::{decode_group_request, decode_group_response, encode_group_request, encode_group_response};
use prost::Message;

use super::{a_delta, error_bytes, log_entry_seeds, log_id, message, operations};

/// Whether the bytes are a frame of messages that are all read.
pub(super) fn frame(bytes: &[u8]) -> bool {
    let Ok(frame) = v1::LinkFrame::decode(bytes) else { return false };
    frame.messages.into_iter().filter_map(|message| message.body).all(body)
}

fn body(body: v1::link_message::Body) -> bool {
    use v1::link_message::Body;
    match body {
        Body::GroupRequest(request) => {
            message::<v1::GroupRequest, _, _>(&request.encode_to_vec(), decode_group_request, encode_group_request)
        }
        // What cannot be read is an error as well, and each error has a meaning.
        Body::GroupResponse(mut response) => {
            drop(drover_wire::take_newer_routes(&mut response));
            let answer = decode_group_response(response);
            let again = encode_group_response(answer.clone());
            if answer.is_ok() {
                assert_eq!(decode_group_response(again), answer);
            }
            true
        }
        Body::TimestampResponse(response) => {
            if let Some(v1::timestamp_response::Body::Error(status)) = response.body {
                drop(drover_wire::status_bytes_to_error(&status));
            }
            true
        }
        Body::TimestampRequest(_)
        | Body::AppendOpen(_)
        | Body::AppendRequest(_)
        | Body::AppendResponse(_)
        | Body::AppendClose(_)
        | Body::RaftRequest(_)
        | Body::RaftResponse(_) => transport::raft_body(&body),
    }
}

/// Frames with one message of each kind.
pub(super) fn frames() -> Vec<Vec<u8>> {
    use v1::link_message::Body;
    let entry = |bytes: Vec<u8>| stored::RaftEntry::decode(&*bytes).expect("a seed decodes");
    let others = [
        Body::TimestampRequest(v1::TimestampRequest { count: 4 }),
        Body::TimestampResponse(v1::TimestampResponse { body: Some(v1::timestamp_response::Body::First(300)) }),
        Body::AppendOpen(v1::AppendOpen { group_id: 2, replica_id: 3 }),
        Body::AppendRequest(v1::AppendRequest {
            vote: elected(),
            prev_log_id: log_id(8),
            entries: log_entry_seeds().into_iter().take(1).map(entry).collect(),
            leader_commit: log_id(8),
        }),
    ];
    let asked = writes().into_iter().chain(reads()).map(|body| {
        Body::GroupRequest(v1::GroupRequest { group_id: 2, timeout_ms: 50, observed_version: 1, body: Some(body) })
    });
    let answered = answers().into_iter().map(|body| {
        let newer_routes = vec![drover_wire::encode_route_delta(&a_delta())];
        Body::GroupResponse(v1::GroupResponse { body: Some(body), newer_routes, lock: Some(lock()) })
    });
    let bodies = asked.chain(answered).chain(others).chain(raft_bodies());
    let frames = bodies.map(|body| v1::LinkFrame { messages: vec![v1::LinkMessage { id: 1, body: Some(body) }] });
    frames.map(|frame| frame.encode_to_vec()).collect()
}

fn writes() -> Vec<v1::group_request::Body> {
    let write = |operation| {
        // The timestamp comes when the leader proposes.
        let operation = stored::Operation { commit_ts: 0, ..operation };
        v1::group_request::Body::Write(v1::GroupWrite { operation: Some(operation) })
    };
    operations().into_iter().map(write).collect()
}

/// What changes nothing, except for a command of the catalog.
fn reads() -> Vec<v1::group_request::Body> {
    use v1::group_request::Body;
    let range = || stored::Range { start: "a".into(), end: Some("m".into()) };
    let part = v1::group_read_catalog::Part::Nodes.into();
    let jobs = v1::group_read_catalog::Part::Jobs.into();
    vec![
        Body::Get(v1::GroupGet { key: "k".into(), read_ts: 7 }),
        Body::BatchGet(v1::GroupBatchGet { keys: vec!["k".into(), "l".into()], read_ts: 7 }),
        Body::Scan(v1::GroupScan {
            range: Some(range()),
            read_ts: 7,
            reverse: true,
            keys_only: true,
            count_only: true,
            limit_rows: 3,
            limit_bytes: 300,
        }),
        Body::LatestCommitTs(v1::GroupLatestCommitTs { key: "k".into() }),
        Body::Digest(v1::GroupDigest { index: 300 }),
        Body::Describe(v1::GroupDescribe { ranges: vec![range()] }),
        Body::Catalog("c".into()),
        Body::ReadCatalog(v1::GroupReadCatalog { part, limit: 5, newest_job: 0 }),
        Body::ReadCatalog(v1::GroupReadCatalog { part: jobs, limit: 5, newest_job: 300 }),
        Body::JudgeCatalog("c".into()),
        Body::JobProgress(v1::GroupJobs { job_ids: vec![5, 300] }),
        Body::TxnRefresh(v1::GroupTxnRefresh {
            txn_id: super::txn_id(),
            start_ts: 5,
            commit_ts: 6,
            reads: super::txn_reads(),
        }),
        Body::TxnStatus(v1::GroupTxnStatus { txn_id: super::txn_id(), primary: "p".into() }),
        Body::Locks(v1::GroupLocks { range: Some(range()), limit: 9 }),
    ]
}

fn lock() -> v1::Lock {
    v1::Lock { key: "k".into(), txn: super::txn_ref(), primary: "p".into(), start_ts: 5, expire_at: 6 }
}

/// What a group may know of a transaction.
fn known() -> Vec<v1::group_txn_known::State> {
    use v1::group_txn_known::State;
    let attempt = || Some(stored::TxnAttempt { number: 2, coordinator: 3 });
    let remote = vec!["z".into()];
    vec![
        State::Nothing(v1::Unit {}),
        State::Prepared(v1::GroupTxnPrepared { attempt: attempt(), start_ts: 5, expire_at: 6 }),
        State::Committed(stored::TxnCommittedState { attempt: attempt(), commit_ts: 6, fingerprint: 0, remote }),
        State::RolledBack(attempt().expect("it is one")),
    ]
}

fn answers() -> Vec<v1::group_response::Body> {
    use v1::group_response::Body;
    use v1::group_written::Outcome;
    let version = || v1::Version { value: "v".into(), commit_ts: 300, expire_at: 400 };
    let written = |outcome| Body::Written(v1::GroupWritten { outcome: Some(outcome) });
    let entry = v1::KeyValue { key: "k".into(), version: Some(version()) };
    let versions = vec![v1::MaybeVersion { version: Some(version()) }, v1::MaybeVersion { version: None }];
    let owned = v1::Ownership {
        start: "a".into(),
        end: Some("m".into()),
        shard_id: 3,
        acquired_version: 4,
        floor_ts: 5,
        history_start: 6,
        safe_point: 7,
    };
    let facts = v1::RangeFacts { approximate_bytes: 300, owned: vec![owned] };
    let row = v1::CatalogRowBytes { key: "k".into(), value: "v".into() };
    let progress = v1::SplitJobProgress {
        job_id: 5,
        waits_for: "w".into(),
        bytes_copied: 300,
        eta_ms: Some(7),
        ..v1::SplitJobProgress::default()
    };
    let status = known().into_iter().map(|state| Body::TxnStatus(v1::GroupTxnKnown { state: Some(state) }));
    let plain = vec![
        Body::Error(error_bytes()),
        written(Outcome::CommitTs(300)),
        written(Outcome::CompareFailed(v1::GroupCompareFailed { current: Some(version()) })),
        written(Outcome::RangeDeleted(v1::GroupRangeDeleted { commit_ts: 300, deleted: 2, resume: Some("b".into()) })),
        written(Outcome::Settled(v1::Unit {})),
        Body::Get(v1::GroupGot { version: Some(version()), read_ts: 7 }),
        Body::BatchGet(v1::GroupBatchGot { versions }),
        Body::Scan(v1::GroupScanned { entries: vec![entry], count: 1, cursor: Some("n".into()) }),
        Body::LatestCommitTs(300),
        Body::Digest(v1::GroupDigested { index: 300, digest: vec![7; 16].into(), rows: 4 }),
        Body::Describe(v1::GroupDescribed { ranges: vec![facts] }),
        Body::Catalog("r".into()),
        Body::CatalogRows(v1::GroupCatalogRows { rows: vec![row] }),
        Body::Judged(v1::GroupJudged { reply: "r".into(), changes: true }),
        Body::JobProgress(v1::GroupJobProgress { jobs: vec![progress] }),
        written(Outcome::TxnCommitted(6)),
        written(Outcome::TxnLocked(v1::GroupTxnLocked { expire_at: 6, changes_at: Some(5) })),
        written(Outcome::TxnRolledBack(v1::Unit {})),
        written(Outcome::TxnResolved(v1::Unit {})),
        Body::TxnRefreshed(v1::Unit {}),
        Body::Locks(v1::GroupLocked { locks: vec![lock()], resume: Some("n".into()) }),
    ];
    plain.into_iter().chain(status).collect()
}

fn elected() -> Option<stored::Vote> {
    Some(stored::Vote { term: 3, node_id: 1, committed: true })
}

/// Votes, transfers, and answers to them and to appends.
fn raft_bodies() -> Vec<v1::link_message::Body> {
    use v1::link_message::Body;
    use v1::{raft_request, raft_response};
    let candidate = v1::VoteRequest {
        vote: Some(stored::Vote { term: 4, node_id: 2, committed: false }),
        last_log_id: log_id(9),
        leadership_transfer: true,
    };
    let asked = [
        raft_request::Body::Append(v1::AppendRequest { vote: elected(), ..v1::AppendRequest::default() }),
        raft_request::Body::Vote(candidate),
        raft_request::Body::PreVote(candidate),
        raft_request::Body::Transfer(v1::TransferRequest {
            from_leader: elected(),
            to_node: 2,
            last_log_id: log_id(9),
        }),
    ];
    let success = v1::append_response::Kind::Success.into();
    let success = v1::AppendResponse { kind: success, ..v1::AppendResponse::default() };
    let higher = v1::append_response::Kind::HigherVote.into();
    let higher = v1::AppendResponse { kind: higher, vote: elected(), ..v1::AppendResponse::default() };
    let changed = v1::transfer_response::Kind::VoteChanged.into();
    let answered = [
        raft_response::Body::Append(success.clone()),
        raft_response::Body::Vote(v1::VoteResponse { vote: elected(), granted: true, last_log_id: log_id(9) }),
        raft_response::Body::Transfer(v1::TransferResponse { kind: changed, vote: elected(), log_id: None }),
    ];
    let asked = asked.map(|body| Body::RaftRequest(v1::RaftRequest { group_id: 2, replica_id: 3, body: Some(body) }));
    let answered = answered.map(|body| Body::RaftResponse(v1::RaftResponse { body: Some(body) }));
    asked.into_iter().chain(answered).chain([Body::AppendResponse(success), Body::AppendResponse(higher)]).collect()
}
