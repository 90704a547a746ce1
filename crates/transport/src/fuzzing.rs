//! What the fuzz targets run of this crate's private decoders. No part of the API.

use drover_keys::{ClusterId, NodeId, StoreId};
use drover_rafttypes::{decode_snapshot_meta, encode_snapshot_meta};
use drover_wire::proto::storage::v1 as pb;
use drover_wire::proto::v1;
use drover_wire::proto::v1::link_message::Body;
use openraft::raft::TransferLeaderRequest;
use prost::Message;

use crate::codec::{self, AppendSpan};
use crate::options::{LeaseTerms, PeerOptions, Tuning};
use crate::{handshake, identities, snapshot};

/// Whether the bytes are the file of the peers' identities.
///
/// # Panics
/// If what was read is written in another way.
pub fn peers(bytes: &[u8]) -> bool {
    let Ok(known) = identities::decode(bytes) else { return false };
    assert_eq!(identities::encode(&known), bytes);
    true
}

/// Files of peers' identities.
pub fn peer_files() -> Vec<Vec<u8>> {
    let two = [(NodeId(1), StoreId([1; 16])), (NodeId(7), StoreId([0xfe; 16]))].into();
    vec![identities::encode(&two), identities::encode(&Default::default())]
}

fn node(id: u64) -> PeerOptions {
    PeerOptions {
        cluster_id: ClusterId([9; 16]),
        node_id: NodeId(id),
        store_id: StoreId([id as u8; 16]),
        version: "1.2.3".to_owned(),
        grpc_address: "a:1".to_owned(),
        admin_address: "a:2".to_owned(),
        lease: LeaseTerms { promise_ms: 600, trust_ms: 500 },
        tuning: Tuning::default(),
    }
}

/// Whether the bytes are either half of a handshake between node 2 and node 1.
///
/// # Panics
/// If somebody else is taken for node 2.
pub fn handshake(bytes: &[u8]) -> bool {
    let me = node(1);
    let request = v1::HandshakeRequest::decode(bytes).ok();
    let asks = request.is_some_and(|request| {
        handshake::judge_request(&me, &request).is_ok_and(|peer| {
            assert_eq!((peer.node.0, request.to_node, &request.cluster_id[..]), (request.node_id, 1, &[9; 16][..]));
            true
        })
    });
    let response = v1::HandshakeResponse::decode(bytes).ok();
    let answers = response.is_some_and(|response| {
        handshake::judge_response(&me, NodeId(2), &response).is_ok_and(|peer| {
            assert_eq!((peer.node.0, response.node_id, &response.cluster_id[..]), (2, 2, &[9; 16][..]));
            true
        })
    });
    asks || answers
}

/// Both halves of a handshake.
pub fn handshakes() -> Vec<Vec<u8>> {
    let request = handshake::request(&node(2), NodeId(1), Some(StoreId([1; 16])));
    let response = handshake::response(&node(2), vec![5; 16].into());
    vec![request.encode_to_vec(), response.encode_to_vec()]
}

/// Whether the bytes are an offer of a snapshot.
///
/// # Panics
/// If what was read does not survive being written and read again.
pub fn snapshot_offer(bytes: &[u8]) -> bool {
    let Ok(offer) = v1::OfferSnapshotRequest::decode(bytes) else { return false };
    let meta = offer.meta.as_ref().and_then(|meta| decode_snapshot_meta(meta).ok());
    let (Some(meta), Ok(_)) = (meta, codec::leader_vote(offer.vote.as_ref())) else { return false };
    assert_eq!(decode_snapshot_meta(&encode_snapshot_meta(&meta)).as_ref(), Ok(&meta));
    snapshot::survives(offer.files)
}

/// Offers of snapshots.
pub fn snapshot_offers() -> Vec<Vec<u8>> {
    vec![offer().encode_to_vec()]
}

/// Whether the bytes are a chunk of a file of the offered snapshot. It is also judged with the right checksum.
///
/// # Panics
/// If a chunk is taken that reaches beyond the end of its file.
pub fn snapshot_chunk(bytes: &[u8]) -> bool {
    let Ok(chunk) = v1::SnapshotChunk::decode(bytes) else { return false };
    let mended = v1::SnapshotChunk { crc: crc32c::crc32c(&chunk.data), ..chunk.clone() };
    let fits = snapshot::takes_chunk(offer().files, &mended);
    let taken = snapshot::takes_chunk(offer().files, &chunk);
    assert!(fits || !taken);
    taken
}

/// Chunks of files of the offered snapshot.
pub fn snapshot_chunks() -> Vec<Vec<u8>> {
    let chunk = |file, offset, data: &'static [u8]| {
        let crc = crc32c::crc32c(data);
        v1::SnapshotChunk { group_id: 2, snapshot_id: "s".to_owned(), file, offset, data: data.into(), crc }
    };
    [chunk(0, 0, b"first"), chunk(1, 297, b"end")].iter().map(Message::encode_to_vec).collect()
}

/// Whether the bytes ask, as a leader may, to install the offered snapshot.
///
/// # Panics
/// If a leader of an earlier term than the snapshot's is let.
pub fn snapshot_install(bytes: &[u8]) -> bool {
    let Ok(request) = v1::InstallSnapshotRequest::decode(bytes) else { return false };
    let meta = offer().meta.expect("an offer has it");
    let installs = snapshot::installs(&meta, &request);
    let vote = request.vote.unwrap_or_default();
    assert!(!installs || (vote.committed && vote.term >= 2));
    installs
}

/// Requests to install the offered snapshot.
pub fn snapshot_installs() -> Vec<Vec<u8>> {
    let vote = |term| Some(pb::Vote { term, node_id: 1, committed: true });
    let request = |term| {
        let (group_id, replica_id, snapshot_id) = (2, 2, "s".to_owned());
        v1::InstallSnapshotRequest { group_id, replica_id, vote: vote(term), snapshot_id }
    };
    [2, 300].map(|term| request(term).encode_to_vec()).into()
}

fn offer() -> v1::OfferSnapshotRequest {
    let log_id = |index| Some(pb::LogId { term: 2, index });
    let members = vec![pb::Member { node_id: 1, address: "a:1".to_owned(), replica_id: 2 }];
    let configs = vec![pb::NodeSet { node_ids: vec![1] }];
    let membership = Some(pb::Membership { configs, members });
    let last_membership = Some(pb::StoredMembership { log_id: log_id(1), membership });
    let file = |name: &str| v1::SnapshotFile { name: name.to_owned(), bytes: 300, checksum: vec![0xcc; 16].into() };
    v1::OfferSnapshotRequest {
        replica_id: 2,
        group_id: 2,
        vote: Some(pb::Vote { term: 3, node_id: 1, committed: true }),
        meta: Some(pb::SnapshotMeta { last_log_id: log_id(9), last_membership }),
        files: vec![file("CURRENT"), file("db/000012.sst")],
        snapshot_id: "s".to_owned(),
    }
}

/// Whether a body of a link's message that is about Raft is one that a peer sends. The other bodies are.
///
/// # Panics
/// If what was read does not survive being written and read again.
pub fn raft_body(body: &Body) -> bool {
    match body {
        Body::AppendRequest(request) => append(request),
        Body::AppendResponse(response) => appended(response),
        Body::RaftRequest(v1::RaftRequest { body, .. }) => match body {
            Some(v1::raft_request::Body::Append(request)) => append(request),
            Some(v1::raft_request::Body::Vote(request) | v1::raft_request::Body::PreVote(request)) => {
                codec::decode_vote_request(request).is_ok_and(|vote| {
                    assert_eq!(codec::decode_vote_request(&codec::encode_vote_request(&vote)), Ok(vote));
                    true
                })
            }
            Some(v1::raft_request::Body::Transfer(request)) => codec::decode_transfer(request).is_ok_and(|transfer| {
                assert_eq!(codec::decode_transfer(&codec::encode_transfer(&transfer)), Ok(transfer));
                true
            }),
            None => false,
        },
        Body::RaftResponse(v1::RaftResponse { body }) => match body {
            Some(v1::raft_response::Body::Error(_)) => true,
            Some(v1::raft_response::Body::Append(response)) => appended(response),
            Some(v1::raft_response::Body::Vote(response)) => codec::decode_vote_response(response).is_ok_and(|vote| {
                assert_eq!(codec::decode_vote_response(&codec::encode_vote_response(&vote)), Ok(vote));
                true
            }),
            Some(v1::raft_response::Body::Transfer(response)) => transferred(response),
            None => false,
        },
        Body::GroupRequest(_)
        | Body::GroupResponse(_)
        | Body::TimestampRequest(_)
        | Body::TimestampResponse(_)
        | Body::AppendOpen(_)
        | Body::AppendClose(_) => true,
    }
}

fn append(request: &v1::AppendRequest) -> bool {
    let Ok(append) = codec::decode_append(request.clone()) else { return false };
    let written = codec::encode_append(&append);
    let again = codec::decode_append(written.clone()).expect("what was written is accepted");
    assert_eq!(codec::encode_append(&again), written);
    for part in codec::split_append(append, 100) {
        codec::decode_append(codec::encode_append(&part)).expect("a part of a request is a request");
    }
    true
}

/// The answer to a request that ended at index 9.
fn appended(response: &v1::AppendResponse) -> bool {
    let log_id = |index| Some(drover_rafttypes::decode_log_id(&pb::LogId { term: 2, index }));
    let span = AppendSpan { prev: log_id(8), last: log_id(9) };
    let single = codec::decode_append_response(response, span);
    codec::decode_stream_result(response, span).is_ok() || single.is_ok()
}

fn transferred(response: &v1::TransferResponse) -> bool {
    let vote = drover_rafttypes::decode_vote(&pb::Vote { term: 3, node_id: 1, committed: true });
    let request = TransferLeaderRequest::new(vote, 2, None);
    codec::decode_transfer_response(response, &request).is_ok_and(|answer| {
        let again = codec::decode_transfer_response(&codec::encode_transfer_response(&answer), &request);
        assert_eq!(again, Ok(answer));
        true
    })
}
