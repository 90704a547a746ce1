//! The Raft of a replica as its peers see it, with a guard for a full disk in front.
//!
//! A node whose disk is full refuses writes, not entries: a leader whose entries nobody takes can neither begin its term nor
//! renew the oracle's ceiling, and where a majority is full nothing could be read. Only when half of the reserve is gone as
//! well, a follower takes no entries. Votes and heartbeats go on, so the group keeps its leader. Snapshots are large: they
//! are refused as soon as the disk is full.
//!
//! What a leader sends and the replica accepts is noted as contact with the group.

use std::sync::Arc;

use drover_raftgroup::Group;
use drover_rafttypes::{TypeConfig, Vote};
use drover_transport::{EndpointError, RaftEndpoint, Snapshot};
use futures::StreamExt;
use futures::stream::BoxStream;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::watch;

use crate::disk::DiskState;

/// A replica's Raft behind a guard for a full disk.
pub struct GuardedRaft {
    inner: Arc<dyn RaftEndpoint>,
    group: Arc<Group>,
    disk: watch::Receiver<DiskState>,
}

impl GuardedRaft {
    /// Guards the replica of `group`.
    pub fn new(group: Arc<Group>, disk: watch::Receiver<DiskState>) -> Self {
        Self { inner: Arc::new(group.raft().clone()), group, disk }
    }
}

fn no_space() -> EndpointError {
    EndpointError("the disk of this node is too full to take entries; nothing was appended".to_owned())
}

fn needs_space(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    !request.entries.is_empty()
}

#[tonic::async_trait]
impl RaftEndpoint for GuardedRaft {
    fn stream_append(
        &self,
        requests: BoxStream<'static, AppendEntriesRequest<TypeConfig>>,
    ) -> BoxStream<'static, Result<StreamAppendResult<TypeConfig>, EndpointError>> {
        let disk = self.disk.clone();
        let stopped = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let tripped = Arc::clone(&stopped);
        let admitted = requests.take_while(move |request| {
            let admit = !(needs_space(request) && disk.borrow().exhausted);
            if !admit {
                tripped.store(true, std::sync::atomic::Ordering::SeqCst);
            }
            std::future::ready(admit)
        });
        let group = Arc::clone(&self.group);
        let answers = self.inner.stream_append(admitted.boxed()).inspect(move |answer| {
            if !matches!(answer, Ok(Err(StreamAppendError::HigherVote(_))) | Err(_)) {
                group.heard_from_leader();
            }
        });
        let refusal =
            futures::stream::once(async move { stopped.load(std::sync::atomic::Ordering::SeqCst).then(no_space) });
        answers.chain(refusal.filter_map(|refused| std::future::ready(refused.map(Err)))).boxed()
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, EndpointError> {
        if needs_space(&request) && self.disk.borrow().exhausted {
            return Err(no_space());
        }
        let answer = self.inner.append(request).await?;
        if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
            self.group.heard_from_leader();
        }
        Ok(answer)
    }

    async fn vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError> {
        self.inner.vote(request).await
    }

    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError> {
        self.inner.pre_vote(request).await
    }

    async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, EndpointError> {
        self.inner.transfer_leader(request).await
    }

    async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, EndpointError> {
        if self.disk.borrow().full {
            return Err(no_space());
        }
        let answer = self.inner.install_snapshot(vote, snapshot).await?;
        self.group.heard_from_leader();
        Ok(answer)
    }
}
