//! What nodes say to each other, but for what concerns one group's data: handshake, links, Raft, snapshots.

use drover_wire::proto::storage::v1 as stored;
use drover_wire::proto::v1::link_message::Body;
use drover_wire::proto::v1::*;

use super::{Case, case};

fn link(name: &'static str, body: Body) -> Case {
    case(name, LinkFrame { messages: vec![LinkMessage { id: 300, body: Some(body) }] })
}

fn vote() -> Option<stored::Vote> {
    Some(stored::Vote { term: 3, node_id: 1, committed: true })
}

fn log_id(index: u64) -> Option<stored::LogId> {
    Some(stored::LogId { term: 2, index })
}

fn append() -> AppendRequest {
    let command = stored::raft_entry::Payload::Command("c".into());
    let entries = vec![stored::RaftEntry { log_id: log_id(9), payload: Some(command) }];
    AppendRequest { vote: vote(), prev_log_id: log_id(8), entries, leader_commit: log_id(7) }
}

fn meta() -> stored::SnapshotMeta {
    let members = vec![stored::Member { node_id: 1, address: "a:1".to_owned(), replica_id: 0 }];
    let configs = vec![stored::NodeSet { node_ids: vec![1] }];
    let membership = Some(stored::Membership { configs, members });
    let last_membership = Some(stored::StoredMembership { log_id: log_id(1), membership });
    stored::SnapshotMeta { last_log_id: log_id(9), last_membership }
}

pub fn cases() -> Vec<Case> {
    [handshake(), appends(), calls(), snapshots()].into_iter().flatten().collect()
}

fn handshake() -> Vec<Case> {
    let (cluster_id, store_id) = (vec![0xc1; 16].into(), vec![0x51; 16].into());
    let (version, admin_address) = ("1.2.3".to_owned(), "a:2".to_owned());
    let request = HandshakeRequest {
        cluster_id,
        node_id: 1,
        store_id,
        to_node: 2,
        version: version.clone(),
        grpc_address: "a:1".to_owned(),
        admin_address: admin_address.clone(),
        ..HandshakeRequest::default()
    };
    let response = HandshakeResponse {
        cluster_id: request.cluster_id.clone(),
        node_id: 2,
        store_id: vec![0x52; 16].into(),
        version,
        admin_address,
        session: vec![0x5e; 16].into(),
        ..HandshakeResponse::default()
    };
    let asked = HandshakeRequest {
        lease_promise_ms: 600,
        lease_trust_ms: 500,
        to_store_id: vec![0x53; 16].into(),
        ..request.clone()
    };
    let told = HandshakeResponse { lease_promise_ms: 600, lease_trust_ms: 500, ..response.clone() };
    vec![
        case("HandshakeRequest/all", request),
        case("HandshakeResponse/all", response),
        case("HandshakeRequest/lease_and_store", asked),
        case("HandshakeResponse/lease", told),
        case("LeaveResponse/leaves", LeaveResponse { leaving: true }),
    ]
}

fn appends() -> Vec<Case> {
    use append_response::Kind;
    let answer = |kind: Kind, log_id, vote, error: &str| {
        Body::AppendResponse(AppendResponse { kind: kind.into(), log_id, vote, error: error.to_owned() })
    };
    vec![
        link("LinkFrame/append_open", Body::AppendOpen(AppendOpen { group_id: 2, replica_id: 0 })),
        link("LinkFrame/append_open_replica", Body::AppendOpen(AppendOpen { group_id: 2, replica_id: 3 })),
        link("LinkFrame/append_request", Body::AppendRequest(append())),
        link("LinkFrame/append_success", answer(Kind::Success, log_id(9), None, "")),
        link("LinkFrame/append_partial_success", answer(Kind::PartialSuccess, log_id(9), None, "")),
        link("LinkFrame/append_conflict", answer(Kind::Conflict, log_id(8), None, "")),
        link("LinkFrame/append_higher_vote", answer(Kind::HigherVote, None, vote(), "")),
        link("LinkFrame/append_failed", answer(Kind::Failed, None, None, "e")),
        link("LinkFrame/append_close", Body::AppendClose(AppendClose {})),
    ]
}

fn calls() -> Vec<Case> {
    use raft_request::Body as Ask;
    use raft_response::Body as Tell;
    use transfer_response::Kind;
    let ask = |body| Body::RaftRequest(RaftRequest { group_id: 2, replica_id: 0, body: Some(body) });
    let tell = |body| Body::RaftResponse(RaftResponse { body: Some(body) });
    let candidate = || VoteRequest { vote: vote(), last_log_id: log_id(9), leadership_transfer: true };
    let transfer = TransferRequest { from_leader: vote(), to_node: 2, last_log_id: log_id(9) };
    let moved = |kind: Kind, vote, log_id| tell(Tell::Transfer(TransferResponse { kind: kind.into(), vote, log_id }));
    let success = AppendResponse { kind: append_response::Kind::Success.into(), ..AppendResponse::default() };
    let granted = VoteResponse { vote: vote(), granted: true, last_log_id: log_id(9) };
    let first = timestamp_response::Body::First(300);
    let error = timestamp_response::Body::Error("e".into());
    vec![
        link("LinkFrame/timestamp_request", Body::TimestampRequest(TimestampRequest { count: 4 })),
        link("LinkFrame/timestamp_first", Body::TimestampResponse(TimestampResponse { body: Some(first) })),
        link("LinkFrame/timestamp_error", Body::TimestampResponse(TimestampResponse { body: Some(error) })),
        link("LinkFrame/raft_append", ask(Ask::Append(append()))),
        link("LinkFrame/raft_vote", ask(Ask::Vote(candidate()))),
        link(
            "LinkFrame/raft_vote_replica",
            Body::RaftRequest(RaftRequest { group_id: 2, replica_id: 3, body: Some(Ask::Vote(candidate())) }),
        ),
        link("LinkFrame/raft_pre_vote", ask(Ask::PreVote(candidate()))),
        link("LinkFrame/raft_transfer", ask(Ask::Transfer(transfer))),
        link("LinkFrame/raft_error", tell(Tell::Error("e".to_owned()))),
        link("LinkFrame/raft_appended", tell(Tell::Append(success))),
        link("LinkFrame/raft_voted", tell(Tell::Vote(granted))),
        link("LinkFrame/raft_transfer_accepted", moved(Kind::Accepted, None, None)),
        link("LinkFrame/raft_transfer_vote_changed", moved(Kind::VoteChanged, vote(), None)),
        link("LinkFrame/raft_transfer_log_not_flushed", moved(Kind::LogNotFlushed, None, log_id(8))),
    ]
}

fn snapshots() -> Vec<Case> {
    let file = SnapshotFile { name: "db/1.sst".to_owned(), bytes: 300, checksum: vec![0xcc; 16].into() };
    let snapshot_id = "s".to_owned();
    let offer = |replica_id| OfferSnapshotRequest {
        group_id: 2,
        vote: vote(),
        meta: Some(meta()),
        replica_id,
        files: vec![file.clone()],
        snapshot_id: snapshot_id.clone(),
    };
    let install =
        |replica_id| InstallSnapshotRequest { group_id: 2, vote: vote(), snapshot_id: snapshot_id.clone(), replica_id };
    let chunk = SnapshotChunk {
        group_id: 2,
        snapshot_id: snapshot_id.clone(),
        file: 1,
        offset: 300,
        data: "data".into(),
        crc: 0xaabb_ccdd,
    };
    vec![
        case("OfferSnapshotRequest/file", offer(0)),
        case("OfferSnapshotRequest/replica", offer(3)),
        case("OfferSnapshotResponse/have", OfferSnapshotResponse { have_bytes: vec![0, 300] }),
        case("SnapshotChunk/data", chunk),
        case("SendSnapshotResponse/received", SendSnapshotResponse { received_bytes: 300 }),
        case("InstallSnapshotRequest/all", install(0)),
        case("InstallSnapshotRequest/replica", install(3)),
        case("InstallSnapshotResponse/vote", InstallSnapshotResponse { vote: vote() }),
    ]
}
