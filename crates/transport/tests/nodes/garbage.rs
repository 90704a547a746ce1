//! Peers that have shaken hands and then talk nonsense.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_keys::NodeId;
use drover_wire::proto::storage::v1 as pb;
use drover_wire::proto::v1;
use drover_wire::proto::v1::internal_client::InternalClient;
use drover_wire::proto::v1::link_message::Body;
use futures::{StreamExt, stream};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};

use crate::endpoint::{Appends, Recorder};
use crate::node::{GROUP, REPLICA, TestNode, options, tuning};

const LIMIT: Duration = Duration::from_secs(30);

/// A client that has shaken hands and does what a node would not.
pub struct Stranger {
    pub channel: Channel,
    session: Bytes,
}

impl Stranger {
    pub async fn meet(node: &TestNode) -> Self {
        Self::meet_as(node, 2).await
    }

    pub async fn meet_as(node: &TestNode, id: u64) -> Self {
        let channel = Endpoint::from_shared(format!("http://{}", node.address)).unwrap().connect().await.unwrap();
        let me = options(id, 1, id as u8, tuning());
        let hello = v1::HandshakeRequest {
            cluster_id: Bytes::copy_from_slice(&me.cluster_id.0),
            node_id: id,
            store_id: Bytes::copy_from_slice(&me.store_id.0),
            to_node: node.id.0,
            lease_promise_ms: me.lease.promise_ms,
            lease_trust_ms: me.lease.trust_ms,
            ..Default::default()
        };
        let answer = InternalClient::new(channel.clone()).handshake(hello).await.unwrap().into_inner();
        Self { channel, session: answer.session }
    }

    pub fn client(&self) -> InternalClient<Channel> {
        InternalClient::new(self.channel.clone())
    }

    pub fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert_bin("drover-session-bin", MetadataValue::from_bytes(&self.session));
        request
    }

    /// Sends frames, and returns what comes back until a message with the id `until` or the end.
    async fn talk(&self, frames: Vec<v1::LinkFrame>, until: u64) -> Result<Vec<v1::LinkMessage>, tonic::Status> {
        let frames = stream::iter(frames).chain(stream::pending());
        let mut answers = self.client().link(self.request(frames)).await?.into_inner();
        let mut heard = Vec::new();
        while let Some(frame) = timeout(LIMIT, answers.next()).await.expect("an answer in time") {
            heard.extend(frame?.messages);
            if heard.iter().any(|message| message.id == until) {
                break;
            }
        }
        Ok(heard)
    }
}

fn message(id: u64, body: impl Into<Option<Body>>) -> v1::LinkMessage {
    v1::LinkMessage { id, body: body.into() }
}

fn raft(group: u64, body: Option<v1::raft_request::Body>) -> Body {
    Body::RaftRequest(v1::RaftRequest { group_id: group, replica_id: REPLICA.0, body })
}

async fn node() -> TestNode {
    let node = TestNode::start(1).await;
    node.set_group(GROUP, Arc::new(Recorder::new(Appends::Never)));
    node
}

async fn assert_well(node: &TestNode) {
    let other = TestNode::start(3).await;
    other.pool.set_address(node.id, &node.address);
    assert_eq!(other.ask(node.id, "well").await, Ok(4));
}

#[tokio::test]
async fn nonsense_gets_errors_and_what_makes_sense_is_answered_on_the_same_link() {
    let node = node().await;
    let stranger = Stranger::meet(&node).await;
    let vote = pb::Vote { term: 3, node_id: 2, committed: true };
    let gap = v1::AppendRequest {
        vote: Some(vote),
        prev_log_id: Some(pb::LogId { term: 1, index: 1 }),
        entries: vec![pb::RaftEntry { log_id: Some(pb::LogId { term: 1, index: 9 }), payload: None }],
        leader_commit: None,
    };
    let elected = v1::VoteRequest { vote: Some(vote), ..Default::default() };
    let nonsense = vec![
        message(1, None),
        message(2, Body::GroupResponse(v1::GroupResponse::default())),
        message(3, Body::AppendResponse(v1::AppendResponse::default())),
        message(10, Body::GroupRequest(v1::GroupRequest::default())),
        message(11, raft(99, None)),
        message(12, raft(GROUP.0, None)),
        message(13, raft(GROUP.0, Some(v1::raft_request::Body::Append(v1::AppendRequest::default())))),
        message(14, raft(GROUP.0, Some(v1::raft_request::Body::Vote(elected)))),
        message(15, raft(GROUP.0, Some(v1::raft_request::Body::Transfer(v1::TransferRequest::default())))),
        message(20, Body::AppendRequest(gap.clone())),
        message(21, Body::AppendOpen(v1::AppendOpen { group_id: 99, replica_id: REPLICA.0 })),
        message(22, Body::AppendOpen(v1::AppendOpen { group_id: GROUP.0, replica_id: REPLICA.0 })),
        message(22, Body::AppendRequest(gap)),
        message(23, Body::AppendClose(v1::AppendClose {})),
    ];
    let sense = message(50, Body::TimestampRequest(v1::TimestampRequest { count: 1 }));
    let frames = vec![v1::LinkFrame { messages: nonsense }, v1::LinkFrame::default()];
    let heard = stranger.talk([frames, vec![v1::LinkFrame { messages: vec![sense] }]].concat(), 50).await.unwrap();
    let failed = v1::append_response::Kind::Failed;
    for message in &heard {
        match message.body.as_ref().unwrap() {
            Body::GroupResponse(response) => {
                assert!(matches!(response.body, Some(v1::group_response::Body::Error(_))));
            }
            Body::RaftResponse(response) => {
                assert!(matches!(response.body, Some(v1::raft_response::Body::Error(_))), "{message:?}");
            }
            Body::AppendResponse(response) => assert_eq!(response.kind(), failed),
            Body::TimestampResponse(response) => assert!(response.body.is_some() && message.id == 50),
            other => panic!("{other:?}"),
        }
    }
    let mut ids: Vec<u64> = heard.iter().map(|message| message.id).filter(|id| (20..50).contains(id)).collect();
    ids.sort_unstable();
    assert_eq!(ids, [20, 21, 22], "a close of nothing needs no answer");
    assert_well(&node).await;
}

#[tokio::test]
async fn a_frame_that_is_no_protobuf_ends_its_link_and_nothing_else() {
    let node = node().await;
    let stranger = Stranger::meet(&node).await;
    // Field 1 holds bytes that are no LinkMessage.
    let garbage =
        v1::TimestampResponse { body: Some(v1::timestamp_response::Body::Error(Bytes::from_static(&[0xff; 40]))) };
    let mut grpc = tonic::client::Grpc::new(stranger.channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::TimestampResponse, v1::LinkFrame>::default();
    let path = "/drover.v1.Internal/Link".parse().unwrap();
    let frames = stranger.request(stream::iter([garbage]).chain(stream::pending()));
    let mut answers = grpc.streaming(frames, path, codec).await.unwrap().into_inner();
    let status = timeout(LIMIT, answers.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal, "{status}");
    let sense = message(1, Body::TimestampRequest(v1::TimestampRequest { count: 1 }));
    let heard = stranger.talk(vec![v1::LinkFrame { messages: vec![sense] }], 1).await.unwrap();
    assert_eq!(heard.len(), 1, "another link of the same connection goes on");
    assert_well(&node).await;
}

#[tokio::test]
async fn a_frame_above_the_limit_is_refused() {
    let small = drover_transport::Tuning { max_message_bytes: 1 << 20, ..tuning() };
    let node = TestNode::start_with(options(1, 1, 1, small)).await;
    let stranger = Stranger::meet(&node).await;
    let key = Bytes::from(vec![1; 2 << 20]);
    let body = Some(v1::group_request::Body::LatestCommitTs(v1::GroupLatestCommitTs { key }));
    let huge = message(1, Body::GroupRequest(v1::GroupRequest { body, ..Default::default() }));
    let status = stranger.talk(vec![v1::LinkFrame { messages: vec![huge] }], 1).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    assert_well(&node).await;
}

#[tokio::test]
async fn bytes_that_are_no_http_are_dropped() {
    let node = node().await;
    for junk in [&b"\0\0\0\0"[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 10_000], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\njunk"]
    {
        let mut socket = tokio::net::TcpStream::connect(&node.address).await.unwrap();
        // The server may have hung up already.
        let _ = socket.write_all(junk).await;
    }
    assert_well(&node).await;
    assert_eq!(node.pool.identities().get(NodeId(2)), None);
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_the_open_ones_stay() {
    let few = drover_transport::Tuning { inbound_streams: 2, ..tuning() };
    let node = TestNode::start_with(options(1, 1, 1, few)).await;
    node.set_group(GROUP, Arc::new(Recorder::new(Appends::AfterAll(1))));
    let stranger = Stranger::meet(&node).await;
    let open = |id| message(id, Body::AppendOpen(v1::AppendOpen { group_id: GROUP.0, replica_id: REPLICA.0 }));
    let good =
        v1::AppendRequest { vote: Some(pb::Vote { term: 3, node_id: 2, committed: true }), ..Default::default() };
    let messages = vec![open(1), open(2), open(3), open(2), message(1, Body::AppendRequest(good))];
    let heard = stranger.talk(vec![v1::LinkFrame { messages }], 1).await.unwrap();
    let kind = |id| {
        let of = |message: &v1::LinkMessage| match &message.body {
            Some(Body::AppendResponse(response)) => response.kind(),
            other => panic!("{other:?}"),
        };
        heard.iter().filter(|message| message.id == id).map(of).collect::<Vec<_>>()
    };
    assert_eq!(kind(3), [v1::append_response::Kind::Failed]);
    assert_eq!(kind(1), [v1::append_response::Kind::Success]);
}
