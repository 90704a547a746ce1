//! The driver that leads the group from the members it has to the replicas that the catalog wants, while this replica
//! leads. What to do is decided by [`next_membership_step`]; here it is done.
//!
//! What the driver knows of the catalog may be old, so before each step it asks the catalog itself, and Raft takes the step
//! only if its members are still those that the step was decided by. Nothing is remembered between steps: whoever leads
//! next goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::{
    CatalogCommandKind, GroupDescriptor, MembershipStep, RaftMembership, Topology, next_membership_step,
};
use drover_guards::{self as guards, Guard};
use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use drover_rafttypes::{LogId, Node, StoredMembership, TypeConfig};
use futures::future::BoxFuture;
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::Precondition;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::group::Group;
use crate::leadership::Leadership;

/// How the driver hears of the catalog, and tells it what was done.
pub trait ReplicaPlan: Send + Sync + 'static {
    /// What is known here. It may be old.
    fn known(&self) -> watch::Receiver<Arc<Topology>>;

    /// Which replicas the group shall have now, asked of the catalog. `None`: it does not know the group.
    fn wanted(&self, deadline: Instant) -> BoxFuture<'_, Result<Option<GroupDescriptor>, Error>>;

    /// Tells the catalog what Raft has done.
    fn tell(&self, kind: CatalogCommandKind, deadline: Instant) -> BoxFuture<'_, Result<(), Error>>;
}

/// How long one step may take. A change of voters goes on in Raft if it takes longer, and is found there.
const STEP: Duration = Duration::from_secs(10);
/// Pause after a step that could not be taken, and between two looks at a learner.
const PAUSE: Duration = Duration::from_millis(200);

impl Group {
    /// Makes the members of the group those that `plan` wants, again and again while this replica leads, until `stop`.
    pub async fn drive_membership(self: Arc<Self>, plan: Arc<dyn ReplicaPlan>, stop: CancellationToken) {
        loop {
            let leadership = tokio::select! {
                () = stop.cancelled() => return,
                leadership = self.led() => leadership,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = leadership.over.cancelled() => {}
                () = self.drive(&leadership, &*plan) => {}
            }
        }
    }

    async fn drive(&self, leadership: &Leadership, plan: &dyn ReplicaPlan) {
        let mut known = plan.known();
        let mut members = self.raft.server_metrics();
        loop {
            // Marked as seen before they are looked at, so that no later change is missed.
            members.borrow_and_update();
            let step = known.borrow_and_update().groups.get(&self.id).map(|wanted| self.next_step(wanted).0);
            if matches!(step, None | Some(MembershipStep::None)) {
                let changed = tokio::select! {
                    changed = known.changed() => changed.is_ok(),
                    changed = members.changed() => changed.is_ok(),
                };
                if !changed {
                    return;
                }
                continue;
            }
            match self.advance(leadership, plan).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    tracing::debug!(group = %self.id, %error, "a change of the group's members has to wait");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn next_step(&self, wanted: &GroupDescriptor) -> (MembershipStep, Option<LogId>) {
        let stored = Arc::clone(&self.raft.server_metrics().borrow_watched().membership_config);
        // A replica that came before the one that is wanted on its node is a stray: it goes first.
        let mut wanted = wanted.clone();
        for (node, member) in stored.membership().nodes() {
            let is_another = |replica: &drover_catalog::Replica| replica.id != member.replica;
            if wanted.replicas.get(&NodeId(*node)).is_some_and(is_another) {
                wanted.replicas.remove(&NodeId(*node));
            }
        }
        let observed = self.members(&stored);
        (next_membership_step(&wanted, &observed, self.options.learner_max_lag), *stored.log_id())
    }

    /// The members of a membership as this leader sees them.
    fn members(&self, stored: &StoredMembership) -> RaftMembership {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let lag = |node: u64| {
            let matched = metrics.replication.as_ref()?.get(&node).copied()??;
            Some(last.saturating_sub(matched.index))
        };
        let membership = stored.membership();
        let set = |ids: &std::collections::BTreeSet<u64>| ids.iter().copied().map(NodeId).collect();
        RaftMembership {
            voters: membership.get_joint_config().iter().map(set).collect(),
            learners: membership.learner_ids().map(|node| (NodeId(node), lag(node))).collect(),
        }
    }

    /// Takes one step towards what the catalog wants now. Whether something was done.
    async fn advance(&self, leadership: &Leadership, plan: &dyn ReplicaPlan) -> Result<bool, Error> {
        let deadline = Instant::now() + STEP;
        let wanted = match guards::on(Guard::MembersByTheCatalog) {
            true => plan.wanted(deadline).await?,
            false => plan.known().borrow().groups.get(&self.id).cloned(),
        };
        let Some(wanted) = wanted else { return Ok(false) };
        let (step, since) = self.next_step(&wanted);
        if !matches!(step, MembershipStep::None | MembershipStep::WaitForLearner { .. }) {
            tracing::info!(group = %self.id, ?step, "the group's members change");
        }
        match step {
            MembershipStep::None => return Ok(false),
            MembershipStep::WaitForLearner { lag, .. } => {
                if lag.is_none() {
                    self.begin_with_snapshots(leadership, deadline).await?;
                }
                return Ok(false);
            }
            MembershipStep::AddLearner(node) => {
                self.begin_with_snapshots(leadership, deadline).await?;
                let address = plan.known().borrow().nodes.get(&node).map(|addresses| addresses.address.clone());
                let replica = wanted.replicas.get(&node).map(|replica| replica.id);
                let (Some(address), Some(replica)) = (address, replica) else { return Ok(false) };
                let learner = [(node.0, Node::new(address, replica))].into();
                self.change_members(leadership, ChangeMembers::AddNodes(learner), since, deadline).await?;
            }
            MembershipStep::RemoveLearner(node) => {
                let gone = [node.0].into();
                self.change_members(leadership, ChangeMembers::RemoveNodes(gone), since, deadline).await?;
            }
            MembershipStep::ChangeVoters(voters) if !voters.contains(&self.node) => {
                // A leader does not vote itself out: another one, which stays, goes on.
                let successor = self.most_recent(&voters).ok_or_else(|| {
                    Error::definite(Reason::Unavailable, "no voter that stays can take the lead; nothing was changed")
                })?;
                self.transfer_leader(successor, deadline).await?;
            }
            MembershipStep::ChangeVoters(voters) => {
                let voters = voters.into_iter().map(|node| node.0).collect();
                self.change_members(leadership, ChangeMembers::ReplaceAllVoters(voters), since, deadline).await?;
            }
            MembershipStep::LeaveJoint => {
                let stored = Arc::clone(&self.raft.server_metrics().borrow_watched().membership_config);
                let Some(voters) = stored.membership().get_joint_config().last().cloned() else { return Ok(false) };
                self.change_members(leadership, ChangeMembers::ReplaceAllVoters(voters), since, deadline).await?;
            }
            MembershipStep::Command(kind) => plan.tell(kind, deadline).await?,
        }
        Ok(true)
    }

    /// Makes sure that a replica which has nothing gets a snapshot and not the log from its beginning: a snapshot holds each
    /// row once, and is sent at a bounded rate. Cutting off the first entry of the log does it; nobody else needs that one.
    async fn begin_with_snapshots(&self, leadership: &Leadership, deadline: Instant) -> Result<(), Error> {
        let mut metrics = self.raft.metrics();
        if metrics.borrow_watched().purged.is_some() {
            return Ok(());
        }
        let stopped = |error: &dyn std::fmt::Display| {
            Error::definite(Reason::ReplicaStopped, format!("the replica stopped; nothing was changed: {error}"))
        };
        self.fsm.flush().await.map_err(|error| stopped(&error))?;
        self.raft.trigger().snapshot().await.map_err(|error| stopped(&error))?;
        let cut = async {
            while metrics.borrow_and_update().snapshot.is_none() {
                metrics.changed().await.map_err(|error| stopped(&error))?;
            }
            self.raft.trigger().purge_log(0).await.map_err(|error| stopped(&error))?;
            while metrics.borrow_and_update().purged.is_none() {
                metrics.changed().await.map_err(|error| stopped(&error))?;
            }
            Ok(())
        };
        leadership.wait(deadline, cut).await?
    }

    /// Changes the members, if they are still those of `since`. Voters that lose their vote stay as learners, so that they
    /// hear of it.
    async fn change_members(
        &self,
        leadership: &Leadership,
        change: ChangeMembers<u64, Node>,
        since: Option<LogId>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let unchanged = Precondition::<TypeConfig>::LastMembershipLogId { last_membership_log_id: since };
        let changed = leadership.wait(deadline, self.raft.change_membership_if(change, true, [unchanged])).await;
        let changed = changed.map_err(|error| {
            let message = format!("the change of members of group {} is not known to be done; it may go on", self.id);
            Error::unknown(error.reason, message)
        })?;
        changed.map(drop).map_err(|error| {
            let message = format!("the members of group {} could not be changed: {error}", self.id);
            Error::unknown(Reason::Unavailable, message)
        })
    }

    /// The one of `voters` that has most of the log, except this one.
    fn most_recent(&self, voters: &std::collections::BTreeSet<NodeId>) -> Option<NodeId> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let progress = metrics.replication?;
        let candidates =
            progress.into_iter().filter(|(node, _)| *node != self.node.0 && voters.contains(&NodeId(*node)));
        candidates.max_by_key(|(_, matched)| matched.map(|log_id| log_id.index)).map(|(node, _)| NodeId(node))
    }
}
