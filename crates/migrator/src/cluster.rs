use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::job::{BaseSum, JobEvent};
use drover_catalog::{CatalogCommandKind, RequestId};
use drover_coordinator::{Coordinator, GroupDirectory, Repeat, hold_if_asked};
use drover_fsm::moving::{ExportRequest, Exported, ImportJob, MoveFacts};
use drover_fsm::{
    MoveCommand, MoveCrash, decode_exported, decode_import_answer, decode_move_facts, encode_export,
    encode_import_request, encode_move_command,
};
use drover_guards::Moment;
use drover_hlc::Timestamp;
use drover_keys::{GroupId, Interval, JobEpoch, JobId, NodeId};
use drover_kv::{Error, Reason};
use drover_transport::{NodeService, PeerPool};
use drover_wire::proto::v1::{ImportRangeVersionsRequest, ImportRangeVersionsResponse};
use drover_wire::{GroupAnswer, GroupOp};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{StreamExt, TryStreamExt};

use crate::brake::Slowdown;

/// How long a replica may take to say that it has what is asked for.
const FIRST_PORTION: Duration = Duration::from_secs(5);
/// After how long without an answer the next replica is asked as well: a hedged request (Dean and Barroso, *The Tail at Scale*, 2013).
const HEDGE: Duration = Duration::from_millis(500);
/// How often it is looked whether a node that is to take rows in still leads.
const LEADER_LOOK: Duration = Duration::from_millis(50);
/// Pause before the next node is asked who leads.
const PAUSE: Duration = Duration::from_millis(5);

/// What a migrator reaches the cluster with.
pub struct ClusterParts {
    /// This node.
    pub node: NodeId,
    /// Reaches the leaders of groups, and resolves the locks of transactions.
    pub coordinator: Arc<Coordinator>,
    /// The other nodes.
    pub peers: Arc<PeerPool>,
    /// What this node does for others, and so for itself.
    pub here: Arc<dyn NodeService>,
}

/// Whom to ask first for rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Prefer {
    /// A replica that does not lead: it has less to do.
    Followers,
    /// The one that leads: it knows first.
    Leader,
}

/// The groups and the catalog, as whoever drives a job reaches them.
pub struct Cluster {
    parts: ClusterParts,
}

impl Cluster {
    /// Reaches them with these.
    pub fn new(parts: ClusterParts) -> Arc<Self> {
        Arc::new(Self { parts })
    }

    /// The replicas here, and where those of every group are.
    pub(crate) fn directory(&self) -> &Arc<GroupDirectory> {
        self.parts.coordinator.dispatcher().directory()
    }

    /// What the log of a group says of a job, as of now.
    pub(crate) async fn observe(&self, group: GroupId, job: JobId, deadline: Instant) -> Result<MoveFacts, Error> {
        match self.call(group, GroupOp::ObserveMove { job }, Repeat::Read, deadline).await? {
            GroupAnswer::MoveFacts(facts) => decode_move_facts(facts),
            other => Err(misfit(&other)),
        }
    }

    /// Has a group take a step that brings no rows. It may be sent again.
    pub(crate) async fn step(&self, group: GroupId, command: &MoveCommand, deadline: Instant) -> Result<bool, Error> {
        let crash = MoveCrash::of(&command.step);
        reached(crash, Moment::Unsent).await;
        let op = GroupOp::MoveStep { command: encode_move_command(command) };
        let answer = self.call(group, op, Repeat::Recognised, deadline).await?;
        reached(crash, Moment::Answered).await;
        match answer {
            GroupAnswer::Moved(changed) => Ok(changed),
            other => Err(misfit(&other)),
        }
    }

    /// Lets a group forget the marks of jobs below `below`.
    pub(crate) async fn forget(&self, group: GroupId, below: JobId, deadline: Instant) -> Result<(), Error> {
        self.call(group, GroupOp::ForgetJobs { below }, Repeat::Recognised, deadline).await.map(drop)
    }

    /// Lets the leader of the source know how fast the writers of a job's range may be, for `lease`.
    pub(crate) async fn slow_writers(
        &self,
        job: JobId,
        slowdown: Slowdown,
        lease: Duration,
        deadline: Instant,
    ) -> Result<(), Error> {
        let Slowdown { source, epoch, bytes_per_second } = slowdown;
        let duration_ms = u32::try_from(lease.as_millis()).unwrap_or(u32::MAX);
        let op = GroupOp::SlowWriters { job, epoch, bytes_per_second, duration_ms };
        self.call(source, op, Repeat::Read, deadline).await.map(drop)
    }

    /// What the rows of a range take in a group's store; an estimate.
    pub(crate) async fn size(&self, group: GroupId, interval: &Interval, deadline: Instant) -> Result<u64, Error> {
        match self.call(group, GroupOp::Describe { intervals: vec![interval.clone()] }, Repeat::Read, deadline).await? {
            GroupAnswer::Described(facts) => Ok(facts.iter().map(|facts| facts.approximate_bytes).sum()),
            other => Err(misfit(&other)),
        }
    }

    /// Tells the catalog what happens to a job.
    pub(crate) async fn event(
        &self,
        job: JobId,
        epoch: JobEpoch,
        event: JobEvent,
        deadline: Instant,
    ) -> Result<(), Error> {
        let crash = MoveCrash::of_event(&event);
        reached(crash, Moment::Unsent).await;
        let kind = CatalogCommandKind::JobEvent { job, epoch: Some(epoch), event };
        let request = RequestId(rand::random());
        let actor = format!("node {}", self.parts.node);
        let told: BoxFuture<'_, _> = Box::pin(self.parts.coordinator.catalog(request, actor, kind, deadline));
        told.await?;
        reached(crash, Moment::Answered).await;
        Ok(())
    }

    /// A timestamp above all that were issued before.
    pub(crate) async fn fresh(&self, deadline: Instant) -> Result<Timestamp, Error> {
        self.parts.coordinator.fresh(deadline).await
    }

    /// Resolves the locks in a range whose transactions have ended, or have had their time; how many are left.
    pub(crate) async fn resolve_locks(&self, interval: &Interval, deadline: Instant) -> Result<usize, Error> {
        let resolved: BoxFuture<'_, _> = Box::pin(self.parts.coordinator.resolve_range(interval, deadline));
        resolved.await
    }

    /// The sum of a range that moves away, from a replica that has what it takes.
    pub(crate) async fn sum(
        &self,
        group: GroupId,
        job: JobId,
        armed_at: u64,
        deadline: Instant,
    ) -> Result<BaseSum, Error> {
        let mut last = no_replica(group);
        for node in self.reachable_first(group, Prefer::Followers) {
            let op = GroupOp::SumRange { job, armed_at };
            let asked: BoxFuture<'_, _> =
                Box::pin(self.parts.coordinator.dispatcher().call_one(node, group, op, deadline));
            match asked.await {
                Ok(GroupAnswer::RangeSum(sum)) => return Ok(sum),
                Ok(other) => return Err(misfit(&other)),
                Err(failure) => last = failure.into_error(),
            }
        }
        Err(last)
    }

    /// What a range that moves away holds, portion by portion, from the first replica that has what is asked for. One that takes its
    /// time is not waited for alone: whoever answers first is read from.
    pub(crate) async fn export(
        &self,
        request: &ExportRequest,
        prefer: Prefer,
    ) -> Result<BoxStream<'static, Result<Exported, Error>>, Error> {
        let mut others = self.reachable_first(request.group, prefer).into_iter();
        let mut asked = FuturesUnordered::new();
        let mut last = no_replica(request.group);
        loop {
            if let Some(node) = others.next() {
                let opened: BoxFuture<'_, _> = Box::pin(self.open_in_time(node, request));
                asked.push(opened);
            }
            tokio::select! {
                biased;
                opened = asked.next() => match opened {
                    Some(Ok(portions)) => return Ok(portions),
                    Some(Err(error)) => last = error,
                    None => return Err(last),
                },
                () = tokio::time::sleep(HEDGE), if others.len() > 0 => {}
            }
        }
    }

    async fn open_in_time(
        &self,
        node: NodeId,
        request: &ExportRequest,
    ) -> Result<BoxStream<'static, Result<Exported, Error>>, Error> {
        let deadline = Instant::now() + FIRST_PORTION;
        tokio::time::timeout_at(deadline.into(), self.open_export(node, request, deadline)).await.unwrap_or_else(|_| {
            Err(Error::definite(Reason::Timeout, format!("node {node} gives no rows of group {}", request.group)))
        })
    }

    /// The portions of one replica, once the first of them is there.
    async fn open_export(
        &self,
        node: NodeId,
        request: &ExportRequest,
        deadline: Instant,
    ) -> Result<BoxStream<'static, Result<Exported, Error>>, Error> {
        let message = encode_export(request);
        let mut portions = match node == self.parts.node {
            true => self.parts.here.export(message),
            false => self.parts.peers.export_range_versions(node, message, deadline.into()).await?,
        };
        let first = portions.next().await.ok_or_else(|| {
            Error::definite(Reason::Internal, format!("node {node} gave no portion of group {}", request.group))
        })??;
        let portions = stream::iter([Ok(first)]).chain(portions);
        Ok(portions.and_then(|portion| std::future::ready(decode_exported(portion))).boxed())
    }

    /// Has the leader of a group take rows in. Sent once to whoever leads: a portion is taken once, so whoever hears nothing
    /// looks how far the copy is.
    pub(crate) async fn import(
        &self,
        group: GroupId,
        command: &MoveCommand,
        deadline: Instant,
    ) -> Result<ImportJob, Error> {
        let crash = MoveCrash::of(&command.step);
        reached(crash, Moment::Unsent).await;
        let request = encode_import_request(group, command);
        let replicas = self.replicas(group, Prefer::Leader);
        let mut asked = 0;
        let mut hint = None;
        loop {
            let Some(node) = hint.take().or_else(|| replicas.get(asked % replicas.len().max(1)).copied()) else {
                return Err(no_replica(group));
            };
            asked += 1;
            let answer = tokio::select! {
                answer = self.import_on(node, &request, deadline) => answer,
                () = self.replaced(group, node) => {
                    let message = format!("another node leads group {group} before node {node} has answered");
                    return Err(Error::unknown(Reason::TimeoutIndefinite, message));
                }
            };
            match answer {
                Ok(import) => {
                    self.parts.coordinator.dispatcher().answered_as_leader(group, node);
                    reached(crash, Moment::Answered).await;
                    return decode_import_answer(import);
                }
                Err(error) if error.is_transient() && !error.is_unknown() && Instant::now() < deadline => {
                    hint = error.leader_hint.filter(|leader| *leader != node && asked < 2 * replicas.len());
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn import_on(
        &self,
        node: NodeId,
        request: &ImportRangeVersionsRequest,
        deadline: Instant,
    ) -> Result<ImportRangeVersionsResponse, Error> {
        if node != self.parts.node {
            return self.parts.peers.import_range_versions(node, request.clone(), deadline.into()).await;
        }
        let timeout_ms = deadline.saturating_duration_since(Instant::now()).as_millis();
        let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        self.parts.here.import(ImportRangeVersionsRequest { timeout_ms, ..request.clone() }).await
    }

    /// Returns when another node than this one has come to lead the group: what was sent to one that cannot be reached any more is
    /// not answered, and writers may be waiting for it.
    async fn replaced(&self, group: GroupId, node: NodeId) {
        let believed = || self.parts.coordinator.dispatcher().believed_leader(group);
        // Who was believed to lead before may be wrong: somebody else has named this node.
        let before = believed();
        loop {
            tokio::time::sleep(LEADER_LOOK).await;
            if believed().is_some_and(|leader| leader != node && Some(leader) != before) {
                return;
            }
        }
    }

    async fn call(&self, group: GroupId, op: GroupOp, repeat: Repeat, deadline: Instant) -> Result<GroupAnswer, Error> {
        // Boxed, as in all calls of this file: what they borrow is too deep for the type of a task.
        let called: BoxFuture<'_, _> = Box::pin(self.parts.coordinator.dispatcher().call(group, op, repeat, deadline));
        called.await
    }

    /// The nodes with a replica of a group, in the order in which to ask them.
    fn replicas(&self, group: GroupId, prefer: Prefer) -> Vec<NodeId> {
        let dispatcher = self.parts.coordinator.dispatcher();
        let members = dispatcher.directory().members(group).to_vec();
        in_order(members, prefer, self.parts.node, dispatcher.believed_leader(group), |_| true)
    }

    /// As [`Cluster::replicas`], and those last of which it is known that they cannot be reached now, or will not be for long.
    fn reachable_first(&self, group: GroupId, prefer: Prefer) -> Vec<NodeId> {
        let dispatcher = self.parts.coordinator.dispatcher();
        let members = dispatcher.directory().members(group).to_vec();
        let (me, peers) = (self.parts.node, &self.parts.peers);
        let reachable = |node| node == me || peers.is_connected(node) && !peers.is_leaving(node);
        in_order(members, prefer, me, dispatcher.believed_leader(group), reachable)
    }
}

/// The order in which to ask nodes: those that can be reached first, then by what is preferred, and what is here crosses no
/// network.
fn in_order(
    mut nodes: Vec<NodeId>,
    prefer: Prefer,
    me: NodeId,
    leader: Option<NodeId>,
    reachable: impl Fn(NodeId) -> bool,
) -> Vec<NodeId> {
    nodes.sort_by_key(|node| {
        let leads = Some(*node) == leader;
        let last = match prefer {
            Prefer::Followers => leads,
            Prefer::Leader => !leads,
        };
        (!reachable(*node), last, *node != me)
    });
    nodes
}

/// A step of a move has come to this moment: ends the process, or waits, if a test has asked for that here.
async fn reached(crash: MoveCrash, moment: Moment) {
    crash.at(moment);
    if let Some(point) = crash.point(moment) {
        hold_if_asked(point).await;
    }
}

fn no_replica(group: GroupId) -> Error {
    Error::definite(Reason::UnknownGroup, format!("no node is known to hold group {group}; nothing happened"))
}

fn misfit(answer: &GroupAnswer) -> Error {
    Error::unknown(Reason::Internal, format!("a step of a move was answered with {answer:?}"))
}

#[cfg(test)]
mod tests;
