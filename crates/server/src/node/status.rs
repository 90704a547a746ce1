//! What this node says of itself.

use std::sync::Arc;
use std::time::Instant;

use drover_catalog::ReplicaState;
use drover_coordinator::{GroupDirectory, Replica};
use drover_fsm::moving::Fence;
use drover_keys::{GroupId, NodeId};
use drover_raftgroup::Group;
use drover_rafttypes::LogId;
use drover_wire::proto::v1;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::watch;

use crate::admin::{Check, Readiness};
use crate::datadir::{RecordState, ReplicaRecords};
use crate::disk::DiskState;
use crate::metrics::ReplicaSample;
use crate::services::Front;

use super::NodeClock;
use super::topology::TopologyCache;

/// Looks at the parts of a node.
#[derive(Clone)]
pub struct NodeView {
    /// This node.
    pub node: NodeId,
    /// Where others reach it.
    pub grpc_address: String,
    /// Where its health and metrics are.
    pub admin_address: String,
    /// When the process started.
    pub started: Instant,
    /// Its replicas.
    pub directory: Arc<GroupDirectory>,
    /// Which replicas it holds.
    pub records: Arc<ReplicaRecords>,
    /// What it knows of where nodes and replicas are.
    pub topology: Arc<TopologyCache>,
    /// Free space.
    pub disk: watch::Receiver<DiskState>,
    /// What has to stay free of it.
    pub disk_reserve_bytes: u64,
    /// Its client side.
    pub front: Arc<Front>,
    /// Its hybrid logical clock.
    pub clock: Arc<NodeClock>,
}

impl NodeView {
    /// Everything that is known of this node.
    pub fn status(&self) -> v1::NodeStatus {
        let disk = *self.disk.borrow();
        v1::NodeStatus {
            node_id: self.node.0,
            grpc_address: self.grpc_address.clone(),
            admin_address: self.admin_address.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            disk_used_bytes: disk.used_bytes,
            disk_free_bytes: disk.free_bytes,
            disk_full: disk.full,
            disk_reserve_bytes: self.disk_reserve_bytes,
            draining: self.front.is_draining(),
            replicas: self.directory.replicas().into_iter().map(|(id, replica)| replica_status(id, &replica)).collect(),
            error: String::new(),
            last_timestamp: self.clock.reading().map_or(0, |(last, _)| last.raw()),
        }
    }
}

impl Readiness for NodeView {
    fn checks(&self) -> Vec<Check> {
        let routes = self.front.coordinator().routes();
        let mut checks = vec![
            Check::new("serving", !self.front.is_draining(), "client requests are taken"),
            match routes.is_known() {
                true => Check::new("routes", true, format!("version {}", routes.current().version())),
                false => Check::new("routes", false, "the catalog is not known yet"),
            },
        ];
        let (topology, here) = (self.topology.current(), self.records.here());
        for group in topology.groups.values().filter(|group| !here.contains_key(&group.id)) {
            let mine = group.replicas.get(&self.node).is_some_and(|replica| replica.state == ReplicaState::Active);
            if mine {
                checks.push(Check::new(format!("group {}", group.id), false, "the replica that shall be here is lost"));
            }
        }
        for (group, record) in here {
            let what = format!("group {group}");
            let listed = topology.groups.get(&group).and_then(|group| group.replicas.get(&self.node));
            match (record.state, listed.map(|replica| replica.state)) {
                (RecordState::Removing | RecordState::Gone, _) | (_, Some(ReplicaState::Leaving)) => continue,
                // It does not serve yet, and the node serves all the same.
                (_, Some(ReplicaState::Joining)) => {
                    checks.push(Check::new(what, true, "the replica is joining"));
                    continue;
                }
                (RecordState::Founding | RecordState::Held, _) => {}
            }
            checks.push(match self.directory.replica(group) {
                None | Some(Replica::Starting) => Check::new(what, false, "the replica is starting"),
                Some(Replica::Stopped(why)) => Check::new(what, false, why),
                Some(Replica::Running(group)) => ready(what, &group),
            });
        }
        checks
    }
}

/// A replica is ready when it is in touch with its group and has applied what it knows to be committed.
fn ready(what: String, group: &Group) -> Check {
    let sample = sample(group);
    let lag = sample.committed_index.saturating_sub(sample.applied_index);
    // A few elections fit in; a stored vote names a leader that was never heard of since the start.
    let patience = std::time::Duration::from_millis(group.options().election_max_ms.saturating_mul(5));
    match group.last_contact() {
        None => return Check::new(what, false, "no leader was heard of since the start"),
        Some(silent) if silent > patience => {
            return Check::new(what, false, format!("out of touch with the group for {} ms", silent.as_millis()));
        }
        Some(_) => {}
    }
    match group.known_leader() {
        None => Check::new(what, false, "no leader is known"),
        Some(leader) if lag > 1_000 => Check::new(what, false, format!("led by node {leader}; {lag} entries behind")),
        Some(_) if !group.fsm().state().bootstrapped => {
            Check::new(what, false, "its first intervals are not granted yet")
        }
        Some(leader) => Check::new(what, true, format!("led by node {leader}")),
    }
}

fn index(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}

/// The figures of a replica that are exported as metrics.
pub fn sample(group: &Group) -> ReplicaSample {
    let metrics = group.raft().metrics().borrow_watched().clone();
    let stats = group.stats().snapshot();
    let state = group.fsm().state();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    ReplicaSample {
        is_leader: group.is_leader(),
        term: metrics.current_term,
        committed_index: index(metrics.local_committed),
        applied_index: index(metrics.last_applied),
        flushed_index: index(*group.fsm().flushed_log_id().borrow()),
        purged_index: index(metrics.purged),
        state_bytes: group.fsm().store().approximate_bytes(),
        proposed_entries: stats.entries,
        proposed_operations: stats.operations,
        leadership_proofs: stats.proofs,
        waited_reads: stats.waited_reads,
        held_requests: stats.held_requests,
        slowed_writes: stats.slowed_writes,
        slowed_us: stats.slowed_us,
        leaving_ranges: count(state.moves.sources.len()),
        fenced_ranges: count(state.moves.sources.iter().filter(|source| source.fence > Fence::Open).count()),
        arriving_ranges: count(state.moves.imports.len()),
        ended_moves: count(state.moves.retired.len()),
        locks: state.locks,
    }
}

fn replica_status(id: GroupId, replica: &Replica) -> v1::ReplicaStatus {
    let idle = |role: v1::replica_status::Role, why: &str| v1::ReplicaStatus {
        group_id: id.0,
        role: role.into(),
        error: why.to_owned(),
        ..Default::default()
    };
    let group = match replica {
        Replica::Running(group) => group,
        Replica::Starting => return idle(v1::replica_status::Role::Unspecified, "the replica is starting"),
        Replica::Stopped(why) => return idle(v1::replica_status::Role::Stopped, why),
    };
    let metrics = group.raft().metrics().borrow_watched().clone();
    let sample = sample(group);
    let role = match metrics.state {
        ServerState::Leader => v1::replica_status::Role::Leader,
        ServerState::Follower => v1::replica_status::Role::Follower,
        ServerState::Candidate => v1::replica_status::Role::Candidate,
        ServerState::Learner => v1::replica_status::Role::Learner,
        ServerState::Shutdown => v1::replica_status::Role::Stopped,
    };
    let last_log_index = metrics.last_log_index.unwrap_or(0);
    // Where a follower is that a new leader has not heard from is not known.
    let lag = |matched: &Option<LogId>| matched.map(|matched| last_log_index.saturating_sub(index(Some(matched))));
    let follower_lag = metrics.replication.iter().flatten();
    v1::ReplicaStatus {
        group_id: id.0,
        role: role.into(),
        term: sample.term,
        leader: metrics.current_leader.unwrap_or(0),
        last_log_index,
        committed_index: sample.committed_index,
        applied_index: sample.applied_index,
        flushed_index: sample.flushed_index,
        purged_index: sample.purged_index,
        voters: metrics.membership_config.membership().voter_ids().collect(),
        learners: metrics.membership_config.membership().learner_ids().collect(),
        state_bytes: sample.state_bytes,
        follower_lag: follower_lag.filter_map(|(node, matched)| Some((*node, lag(matched)?))).collect(),
        error: String::new(),
    }
}
