//! The way from the members that a Raft group has to the replicas that it shall have.
//!
//! The driver on the group's leader asks for a step, takes it, looks again, and so on. Every step may be repeated, and
//! whoever takes over after a crash finds the same one: nothing is remembered between steps.

use std::collections::{BTreeMap, BTreeSet};

use drover_guards::{self as guards, Guard};
use drover_keys::NodeId;

use crate::{CatalogCommandKind, GroupDescriptor, Replica, ReplicaState};

#[cfg(test)]
mod tests;

/// The members of a Raft group, as its leader sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaftMembership {
    /// One set of voters, or two while the group is joint: the old one, then the new one.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// How many entries each learner is behind. `None` if the leader has not heard from it.
    pub learners: BTreeMap<NodeId, Option<u64>>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipStep {
    /// The members are the replicas.
    None,
    /// Add a node without a vote.
    AddLearner(NodeId),
    /// Look again later: a node is too far behind to vote.
    WaitForLearner {
        /// Which.
        node: NodeId,
        /// How far, in entries, if that is known.
        lag: Option<u64>,
    },
    /// Make these the voters. One more or one less than now.
    ChangeVoters(BTreeSet<NodeId>),
    /// Somebody began to change the voters: finish it.
    LeaveJoint,
    /// Remove a node without a vote.
    RemoveLearner(NodeId),
    /// Tell the catalog.
    Command(CatalogCommandKind),
}

/// What a node is in a group's Raft membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    Absent,
    Learner { lag: Option<u64> },
    Voter,
}

/// The next step towards `descriptor`. A learner may vote when it is at most `max_lag` entries behind.
pub fn next_membership_step(descriptor: &GroupDescriptor, observed: &RaftMembership, max_lag: u64) -> MembershipStep {
    let voters = match observed.voters.as_slice() {
        // Without voters there is no leader to take a step.
        [] => return MembershipStep::None,
        [voters] => voters,
        [..] => return MembershipStep::LeaveJoint,
    };
    let member = |node: &NodeId| match observed.learners.get(node) {
        _ if voters.contains(node) => Member::Voter,
        Some(lag) => Member::Learner { lag: *lag },
        None => Member::Absent,
    };
    // Those who stay come first, so that a group grows before it shrinks; those whom nobody wants come last.
    let in_state = |state| descriptor.replicas.iter().filter(move |(_, replica)| replica.state == state);
    let wanted = in_state(ReplicaState::Active)
        .chain(in_state(ReplicaState::Joining))
        .chain(in_state(ReplicaState::Leaving))
        .map(|(node, replica)| (*node, Some(*replica)));
    let strays = voters.iter().chain(observed.learners.keys());
    let strays = strays.filter(|node| !descriptor.replicas.contains_key(node)).map(|node| (*node, None));

    let steps = wanted.chain(strays).map(|(node, replica)| {
        let lacks = |lag: Option<u64>| lag.is_none_or(|lag| lag > max_lag) && guards::on(Guard::CaughtUpBeforeVote);
        match (replica.map(|replica| replica.state), member(&node)) {
            (Some(ReplicaState::Active), Member::Voter) => MembershipStep::None,
            (Some(ReplicaState::Active | ReplicaState::Joining), Member::Absent) => MembershipStep::AddLearner(node),
            (Some(ReplicaState::Active | ReplicaState::Joining), Member::Learner { lag }) if lacks(lag) => {
                MembershipStep::WaitForLearner { node, lag }
            }
            (Some(ReplicaState::Active | ReplicaState::Joining), Member::Learner { .. }) => {
                MembershipStep::ChangeVoters(voters.iter().copied().chain([node]).collect())
            }
            (Some(ReplicaState::Joining), Member::Voter) => told(descriptor, node, replica),
            (Some(ReplicaState::Leaving) | None, Member::Voter) if voters.len() == 1 => MembershipStep::None,
            (Some(ReplicaState::Leaving) | None, Member::Voter) => {
                MembershipStep::ChangeVoters(voters.iter().copied().filter(|voter| *voter != node).collect())
            }
            (Some(ReplicaState::Leaving) | None, Member::Learner { .. }) => MembershipStep::RemoveLearner(node),
            (Some(ReplicaState::Leaving), Member::Absent) => told(descriptor, node, replica),
            (None, Member::Absent) => MembershipStep::None,
        }
    });
    let mut waits = MembershipStep::None;
    for step in steps {
        match step {
            MembershipStep::None => {}
            MembershipStep::WaitForLearner { .. } if waits == MembershipStep::None => waits = step,
            MembershipStep::WaitForLearner { .. } => {}
            step => return step,
        }
    }
    waits
}

/// Raft has done with this replica what the catalog wanted.
fn told(descriptor: &GroupDescriptor, node: NodeId, replica: Option<Replica>) -> MembershipStep {
    let (group, Some(Replica { id: replica, state, .. })) = (descriptor.id, replica) else {
        return MembershipStep::None;
    };
    MembershipStep::Command(match state {
        ReplicaState::Leaving => CatalogCommandKind::DropReplica { group, node, replica },
        ReplicaState::Joining | ReplicaState::Active => CatalogCommandKind::PromoteReplica { group, node, replica },
    })
}
