use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_fsm::moving::MoveStep;
use drover_fsm::{decode_move_command, encode_move_facts};
use drover_keys::{GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_raftgroup::Group;
use drover_wire::{GroupAnswer, GroupCall, GroupDigest, GroupOp};
use parking_lot::RwLock;

use crate::JobBoard;

/// A replica on this node.
#[derive(Clone)]
pub enum Replica {
    /// It is being recovered, or keeps silent because it may have promised a lease before it restarted.
    Starting,
    /// It takes part in its group.
    Running(Arc<Group>),
    /// Its storage failed or is damaged; the sentence says how.
    Stopped(String),
}

/// The replicas on this node, and where the replicas of every group are.
#[derive(Default)]
pub struct GroupDirectory {
    local: RwLock<BTreeMap<GroupId, Replica>>,
    members: RwLock<BTreeMap<GroupId, Arc<[NodeId]>>>,
    jobs: JobBoard,
}

impl GroupDirectory {
    /// Makes a local replica known, or what became of it.
    pub fn set(&self, group: GroupId, replica: Replica) {
        self.local.write().insert(group, replica);
    }

    /// There is no replica of this group here any more; what became of it.
    pub fn remove(&self, group: GroupId) -> Option<Replica> {
        self.local.write().remove(&group)
    }

    /// Says on which nodes a group has replicas.
    pub fn set_members(&self, group: GroupId, nodes: Vec<NodeId>) {
        self.members.write().insert(group, nodes.into());
    }

    /// How far the jobs are that are driven here.
    pub fn jobs(&self) -> &JobBoard {
        &self.jobs
    }

    /// The running replica of `group` on this node.
    pub fn running(&self, group: GroupId) -> Option<Arc<Group>> {
        match self.local.read().get(&group) {
            Some(Replica::Running(replica)) => Some(Arc::clone(replica)),
            Some(Replica::Stopped(_) | Replica::Starting) | None => None,
        }
    }

    /// The replica of `group` on this node, whatever became of it.
    pub fn replica(&self, group: GroupId) -> Option<Replica> {
        self.local.read().get(&group).cloned()
    }

    /// All replicas on this node.
    pub fn replicas(&self) -> Vec<(GroupId, Replica)> {
        self.local.read().iter().map(|(group, replica)| (*group, replica.clone())).collect()
    }

    /// The nodes with a replica of `group`; empty if there is no such group.
    pub fn members(&self, group: GroupId) -> Arc<[NodeId]> {
        self.members.read().get(&group).cloned().unwrap_or_default()
    }

    /// Every group.
    pub fn groups(&self) -> Vec<GroupId> {
        self.members.read().keys().copied().collect()
    }

    /// The running replica of `group` on this node, for somebody who was sent here.
    ///
    /// # Errors
    /// [`Reason::Unavailable`], [`Reason::ReplicaStopped`] or [`Reason::NotLeader`] if there is none.
    pub fn serving(&self, group: GroupId) -> Result<Arc<Group>, Error> {
        match self.replica(group) {
            Some(Replica::Running(replica)) => Ok(replica),
            Some(Replica::Starting) => {
                let message = format!("the replica of group {group} on this node is starting; nothing happened");
                Err(Error::definite(Reason::Unavailable, message))
            }
            Some(Replica::Stopped(why)) => {
                let message = format!("the replica of group {group} on this node has stopped: {why}");
                Err(Error::definite(Reason::ReplicaStopped, message))
            }
            None => {
                let message = format!("this node has no replica of group {group}; nothing happened");
                Err(Error::definite(Reason::NotLeader, message))
            }
        }
    }

    /// Does what a node is asked to do in one group, on the replica here.
    ///
    /// # Errors
    /// As the operation's; [`Reason::Unavailable`], [`Reason::ReplicaStopped`] or [`Reason::NotLeader`] if there is no running
    /// replica.
    pub async fn serve(&self, call: GroupCall, deadline: Instant) -> Result<GroupAnswer, Error> {
        let group = self.serving(call.group)?;
        match call.op {
            GroupOp::Write(op) => group.write(op, deadline).await.map(GroupAnswer::Written),
            GroupOp::Read { op, observed_version } => {
                group.read(op, observed_version, deadline).await.map(GroupAnswer::Read)
            }
            GroupOp::Digest { index } => {
                let (index, digest, rows) = group.digest(index, deadline).await?;
                Ok(GroupAnswer::Digest(GroupDigest { index, digest, rows }))
            }
            GroupOp::Describe { intervals } => group.describe(&intervals, deadline).await.map(GroupAnswer::Described),
            GroupOp::ReadCatalog { part, limit } => {
                group.read_catalog(part, limit, deadline).await.map(GroupAnswer::CatalogRows)
            }
            GroupOp::Catalog { command } => group.catalog(command, deadline).await.map(GroupAnswer::Catalog),
            GroupOp::MoveStep { command } => {
                let command = decode_move_command(command)?;
                if let MoveStep::ImportChunk(_) = command.step {
                    let message = "rows of a move go by ImportRangeVersions; nothing was changed";
                    return Err(Error::definite(Reason::InvalidArgument, message));
                }
                group.move_step(command, deadline).await.map(GroupAnswer::Moved)
            }
            GroupOp::ObserveMove { job } => {
                let facts = group.observe_move(job, deadline).await?;
                Ok(GroupAnswer::MoveFacts(encode_move_facts(&facts)))
            }
            GroupOp::ForgetJobs { below } => group.forget_jobs(below, deadline).await.map(GroupAnswer::Moved),
            GroupOp::SlowWriters { job, epoch, bytes_per_second, duration_ms } => {
                let duration = Duration::from_millis(duration_ms.into());
                group.slow_writers(job, epoch, bytes_per_second, duration).map(GroupAnswer::Moved)
            }
            GroupOp::SumRange { job, armed_at } => group.sum_range(job, armed_at).await.map(GroupAnswer::RangeSum),
            GroupOp::JudgeCatalog { command } => {
                let (reply, changes) = group.judge_catalog(command, deadline).await?;
                Ok(GroupAnswer::Judged { reply, changes })
            }
            GroupOp::JobProgress { jobs } => {
                group.leadership()?;
                Ok(GroupAnswer::JobProgress(self.jobs.get(&jobs)))
            }
        }
    }
}
