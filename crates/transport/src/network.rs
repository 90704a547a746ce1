use std::sync::Arc;
use std::time::Duration;

use drover_keys::{GroupId, NodeId, ReplicaId};
use drover_rafttypes::{Node, SnapshotDir, TypeConfig, Vote};
use drover_wire::proto::v1;
use futures::Stream;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{Backoff, RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::Instant;

use crate::append_stream;
use crate::codec::{self, AppendSpan, MessageError};
use crate::pending::Answer;
use crate::pool::PeerPool;
use crate::service::Snapshot;
use crate::{CallError, snapshot};

/// Makes the clients through which the Raft of one group reaches its other replicas.
#[derive(Clone)]
pub struct GroupNetworkFactory {
    pool: Arc<PeerPool>,
    group: GroupId,
}

/// Reaches one replica of one group.
pub struct GroupNetwork {
    pool: Arc<PeerPool>,
    node: NodeId,
    group: GroupId,
    /// The replica there that is meant.
    replica: ReplicaId,
    /// Sends appends one by one over the control link, past what the bulk link has to carry.
    unary: bool,
}

impl GroupNetworkFactory {
    pub(crate) fn new(pool: Arc<PeerPool>, group: GroupId) -> Self {
        Self { pool, group }
    }

    fn client(&self, target: u64, node: &Node, unary: bool) -> GroupNetwork {
        let target = NodeId(target);
        self.pool.peer_or_start(target, &node.addr);
        GroupNetwork { pool: Arc::clone(&self.pool), node: target, group: self.group, replica: node.replica, unary }
    }
}

impl RaftNetworkFactory<TypeConfig> for GroupNetworkFactory {
    type Network = GroupNetwork;

    async fn new_client(&mut self, target: u64, node: &Node) -> GroupNetwork {
        self.client(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> GroupNetwork {
        self.client(target, node, true)
    }
}

impl GroupNetwork {
    async fn call(
        &self,
        body: v1::raft_request::Body,
        what: RPCTypes,
        option: &RPCOption,
    ) -> Result<v1::raft_response::Body, RPCError<TypeConfig>> {
        let limit = option.soft_ttl();
        let deadline = Instant::now() + limit;
        let request = Answer::RaftRequest(v1::RaftRequest {
            group_id: self.group.0,
            replica_id: self.replica.0,
            body: Some(body),
        });
        let answer =
            async { self.pool.peer(self.node)?.connection(deadline).await?.control.call(request, deadline).await }
                .await;
        match answer {
            Ok(Answer::RaftResponse(v1::RaftResponse { body: Some(body) })) => match body {
                v1::raft_response::Body::Error(error) => Err(unreachable(&MessageError::Remote(error))),
                body => Ok(body),
            },
            Ok(_) => Err(unreachable(&MessageError::Inconsistent("the peer answered something else than was asked"))),
            Err(error) => Err(self.failed(error, what, limit)),
        }
    }

    fn failed(&self, error: CallError, action: RPCTypes, timeout: Duration) -> RPCError<TypeConfig> {
        match error.reason {
            drover_kv::Reason::Timeout | drover_kv::Reason::TimeoutIndefinite => {
                RPCError::Timeout(Timeout { action, id: self.pool.options().node_id.0, target: self.node.0, timeout })
            }
            _ => unreachable(&error),
        }
    }

    async fn ask_vote(
        &self,
        body: v1::raft_request::Body,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.call(body, RPCTypes::Vote, option).await? {
            v1::raft_response::Body::Vote(response) => {
                codec::decode_vote_response(&response).map_err(|e| unreachable(&e))
            }
            _ => Err(wrong_body()),
        }
    }
}

fn unreachable<E: std::error::Error + 'static>(error: &E) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

fn wrong_body() -> RPCError<TypeConfig> {
    unreachable(&MessageError::Inconsistent("the peer answered something else than was asked"))
}

impl RaftNetworkV2<TypeConfig> for GroupNetwork {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let span = AppendSpan::of(&request);
        let body = v1::raft_request::Body::Append(codec::encode_append(&request));
        match self.call(body, RPCTypes::AppendEntries, &option).await? {
            v1::raft_response::Body::Append(response) => {
                codec::decode_append_response(&response, span).map_err(|e| unreachable(&e))
            }
            _ => Err(wrong_body()),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, RPCError<TypeConfig>>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        if self.unary {
            return stream_append_sequential(self, input, option);
        }
        let tuning = self.pool.options().tuning.clone();
        let connect = Duration::from_millis(tuning.connect_timeout_ms);
        let answers =
            append_stream::stream_append(self.pool.peer(self.node), (self.group, self.replica), tuning, input, connect);
        Box::pin(async move {
            let answers: BoxStream<'s, _> = answers;
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(v1::raft_request::Body::Vote(codec::encode_vote_request(&request)), &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(v1::raft_request::Body::PreVote(codec::encode_vote_request(&request)), &option).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let body = v1::raft_request::Body::Transfer(codec::encode_transfer(&request));
        match self.call(body, RPCTypes::TransferLeader, &option).await? {
            v1::raft_response::Body::Transfer(response) => {
                codec::decode_transfer_response(&response, &request).map_err(|e| unreachable(&e))
            }
            _ => Err(wrong_body()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = snapshot::send(&self.pool, self.node, (self.group, self.replica), vote, snapshot) => {
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        let waits = (0..).map(|n: u32| Duration::from_millis(25 << n.min(4)));
        Some(Backoff::new(waits))
    }
}
