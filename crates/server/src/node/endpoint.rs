//! The Raft of a replica as its peers see it, with a guard for a full disk in front.
//!
//! A node whose disk is full refuses writes, not entries: a leader whose entries nobody takes can neither begin its term nor
//! renew the oracle's ceiling, and where a majority is full nothing could be read. Only when half of the reserve is gone as
//! well, a follower takes no entries. Votes and heartbeats go on, so the group keeps its leader. Snapshots are large: they
//! are refused as soon as the disk is full.
//!
//! What a leader sends and the replica accepts is noted as contact with the group.
//!
//! A replica that is to stop takes nothing more, and finishes what it has before its Raft ends.

use std::sync::Arc;
use std::time::Duration;

use drover_raftgroup::Group;
use drover_rafttypes::{TypeConfig, Vote};
use drover_transport::{EndpointError, RaftEndpoint, Snapshot};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::disk::DiskState;

/// How long what peers have begun may take when a replica is to stop.
const FINISH_TIMEOUT: Duration = Duration::from_secs(1);

/// Lets nothing in once a replica is to stop, and knows when what was let in has ended.
#[derive(Clone)]
pub struct Door {
    stop: CancellationToken,
    at_work: TaskTracker,
}

impl Door {
    /// Open until `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { stop, at_work: TaskTracker::new() }
    }

    /// What peers have begun has ended, or had its time. Comes after `stop`.
    pub async fn shut(&self) {
        self.at_work.close();
        // Raft answers what is left.
        let _ = tokio::time::timeout(FINISH_TIMEOUT, self.at_work.wait()).await;
    }

    /// Held for as long as something is under way.
    fn enter(&self) -> Result<TaskTrackerToken, EndpointError> {
        // In this order: whoever waits for all that is under way has closed the door before.
        let token = self.at_work.token();
        match self.stop.is_cancelled() {
            false => Ok(token),
            true => Err(EndpointError("the replica is being stopped; nothing was changed".to_owned())),
        }
    }
}

/// A replica's Raft behind a guard for a full disk.
pub struct GuardedRaft {
    inner: Arc<dyn RaftEndpoint>,
    group: Arc<Group>,
    disk: watch::Receiver<DiskState>,
    door: Door,
}

impl GuardedRaft {
    /// Guards the replica of `group`.
    pub fn new(group: Arc<Group>, disk: watch::Receiver<DiskState>, door: Door) -> Self {
        Self { inner: Arc::new(group.raft().clone()), group, disk, door }
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
        let entered = match self.door.enter() {
            Ok(entered) => entered,
            Err(refusal) => return stream::once(async move { Err(refusal) }).boxed(),
        };
        let requests = requests.take_until(self.door.stop.clone().cancelled_owned());
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
        let refusal = stream::once(async move { stopped.load(std::sync::atomic::Ordering::SeqCst).then(no_space) });
        let refusal = refusal.filter_map(|refused| std::future::ready(refused.map(Err)));
        // Held until the last answer is given.
        let answers = answers.chain(refusal).boxed();
        stream::unfold((answers, entered), |(mut answers, entered)| async move {
            Some((answers.next().await?, (answers, entered)))
        })
        .boxed()
    }

    async fn append(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, EndpointError> {
        let _entered = self.door.enter()?;
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
        let _entered = self.door.enter()?;
        self.inner.vote(request).await
    }

    async fn pre_vote(&self, request: VoteRequest<TypeConfig>) -> Result<VoteResponse<TypeConfig>, EndpointError> {
        let _entered = self.door.enter()?;
        self.inner.pre_vote(request).await
    }

    async fn transfer_leader(
        &self,
        request: TransferLeaderRequest<TypeConfig>,
    ) -> Result<TransferLeaderResponse<TypeConfig>, EndpointError> {
        let _entered = self.door.enter()?;
        self.inner.transfer_leader(request).await
    }

    async fn install_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, EndpointError> {
        let _entered = self.door.enter()?;
        if self.disk.borrow().full {
            return Err(no_space());
        }
        let answer = self.inner.install_snapshot(vote, snapshot).await?;
        self.group.heard_from_leader();
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_door_lets_nothing_in_after_the_stop_and_is_shut_when_all_inside_have_ended() {
        let stop = CancellationToken::new();
        let door = Door::new(stop.clone());
        let (first, second) = (door.enter().unwrap(), door.enter().unwrap());
        stop.cancel();
        assert!(door.enter().is_err());
        for inside in [first, second] {
            assert_eq!(door.shut().now_or_never(), None, "something is inside");
            drop(inside);
        }
        assert_eq!(door.shut().now_or_never(), Some(()));
    }
}
