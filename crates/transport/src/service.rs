use std::path::PathBuf;
use std::sync::Arc;

use drover_hlc::Timestamp;
use drover_keys::{GroupId, ReplicaId};
use drover_rafttypes::{SnapshotDir, TypeConfig, Vote};
use drover_wire::proto::v1;
use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::alias::SnapshotOf;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::RaftStateMachine;

use crate::EndpointError;

/// A snapshot whose files are in a folder.
pub type Snapshot = SnapshotOf<TypeConfig, SnapshotDir>;

/// What a node does with the messages of its peers.
#[tonic::async_trait]
pub trait NodeService: Send + Sync + 'static {
    /// The Raft of a group, or `None` if this node does not hold that replica of it. Another one that it holds must not be
    /// taken for it.
    fn raft(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<dyn RaftEndpoint>>;

    /// An operation that was forwarded to this node.
    async fn group_call(&self, request: v1::GroupRequest) -> v1::GroupResponse;

    /// The lowest of `count` consecutive timestamps, if this node is the oracle.
    async fn timestamps(&self, count: u32) -> Result<Timestamp, drover_kv::Error>;

    /// What a range that moves away from here holds, portion by portion.
    fn export(
        &self,
        request: v1::ExportRangeVersionsRequest,
    ) -> BoxStream<'static, Result<v1::ExportRangeVersionsResponse, drover_kv::Error>>;

    /// A portion of a range that moves here.
    async fn import(
        &self,
        request: v1::ImportRangeVersionsRequest,
    ) -> Result<v1::ImportRangeVersionsResponse, drover_kv::Error>;

    /// Folder in which an arriving snapshot of the group is put together. It is this group's alone, on the file system
    /// of the group's store, and everything in it may be removed.
    fn snapshot_staging_dir(&self, group: GroupId) -> PathBuf;
}

/// The Raft of one group, as its peers see it.
#[tonic::async_trait]
pub trait RaftEndpoint: Send + Sync + 'static {
    /// Appends the requests of one replication stream, and answers them in their order. Ends at the first refusal.
    fn stream_append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, EndpointError>>;

    /// Appends, or takes note of a heartbeat.
    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, EndpointError>;

    /// Votes.
    async fn vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError>;

    /// Says how it would vote, and changes nothing.
    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError>;

    /// Takes the leadership over, or makes way for the node that shall.
    async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, EndpointError>;

    /// Replaces the state by a snapshot.
    async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, EndpointError>;
}

#[tonic::async_trait]
impl<SM> RaftEndpoint for openraft::Raft<TypeConfig, SM>
where
    SM: RaftStateMachine<TypeConfig, SnapshotData = SnapshotDir>,
{
    fn stream_append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, EndpointError>> {
        openraft::Raft::stream_append(self, requests).map(|result| result.map_err(EndpointError::new)).boxed()
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, EndpointError> {
        self.append_entries(request).await.map_err(EndpointError::new)
    }

    async fn vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError> {
        openraft::Raft::vote(self, request).await.map_err(EndpointError::new)
    }

    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError> {
        openraft::Raft::pre_vote(self, request).await.map_err(EndpointError::new)
    }

    async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, EndpointError> {
        self.handle_transfer_leader(request).await.map_err(EndpointError::new)
    }

    async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, EndpointError> {
        self.install_full_snapshot(vote, snapshot).await.map_err(EndpointError::new)
    }
}
