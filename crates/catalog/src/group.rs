//! Which nodes shall hold replicas of a group.

use std::collections::{BTreeMap, BTreeSet};

use drover_keys::{GroupId, NodeId, ReplicaId};

/// Which nodes shall hold replicas of a group, and how far that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescriptor {
    /// The group.
    pub id: GroupId,
    /// One for each node.
    pub replicas: BTreeMap<NodeId, Replica>,
    /// The id of the next replica.
    pub next_replica: ReplicaId,
}

/// A replica of a group on one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// Its number within the group.
    pub id: ReplicaId,
    /// What it is for Raft, as far as the catalog has been told.
    pub role: ReplicaRole,
    /// Where it is in its life.
    pub state: ReplicaState,
}

/// What a replica is for Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It gets the log and does not vote.
    Learner,
    /// It votes.
    Voter,
}

/// Where a replica is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaState {
    /// It is to become a voter.
    Joining,
    /// It is a voter.
    Active,
    /// It is to go.
    Leaving,
}

impl GroupDescriptor {
    /// A new group.
    pub fn new(id: GroupId, voters: &BTreeSet<NodeId>) -> Self {
        let replica = |n| Replica { id: ReplicaId(n), role: ReplicaRole::Voter, state: ReplicaState::Active };
        let replicas = voters.iter().copied().zip((1..).map(replica)).collect();
        Self { id, replicas, next_replica: ReplicaId(voters.len() as u64 + 1) }
    }

    /// The nodes whose replicas vote and stay.
    pub fn active(&self) -> BTreeSet<NodeId> {
        self.nodes_in(ReplicaState::Active).collect()
    }

    /// The nodes whose replicas are in this state.
    pub fn nodes_in(&self, state: ReplicaState) -> impl Iterator<Item = NodeId> + Clone {
        self.replicas.iter().filter(move |(_, replica)| replica.state == state).map(|(node, _)| *node)
    }

    /// The first replica that joins or leaves; there is none between two changes.
    pub fn in_change(&self) -> Option<(NodeId, ReplicaState)> {
        let mut changing = self.replicas.iter().filter(|(_, replica)| replica.state != ReplicaState::Active);
        changing.next().map(|(node, replica)| (*node, replica.state))
    }

    /// Checks what must hold of every descriptor.
    ///
    /// # Errors
    /// What does not hold.
    pub fn validate(&self) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        for (node, replica) in &self.replicas {
            if replica.id == ReplicaId(0) || replica.id >= self.next_replica {
                return Err(format!("replica {} on node {node} is not below {}", replica.id, self.next_replica));
            }
            if !ids.insert(replica.id) {
                return Err(format!("replica {} is on two nodes", replica.id));
            }
            match (replica.state, replica.role) {
                (ReplicaState::Joining, ReplicaRole::Voter) => {
                    return Err(format!("replica {} on node {node} joins and votes already", replica.id));
                }
                (ReplicaState::Active, ReplicaRole::Learner) => {
                    return Err(format!("replica {} on node {node} is active and does not vote", replica.id));
                }
                (ReplicaState::Joining, ReplicaRole::Learner)
                | (ReplicaState::Active, ReplicaRole::Voter)
                | (ReplicaState::Leaving, _) => {}
            }
        }
        if self.nodes_in(ReplicaState::Active).next().is_none() {
            return Err("no replica is active".to_owned());
        }
        let joining = self.nodes_in(ReplicaState::Joining).count();
        let leaving = self.nodes_in(ReplicaState::Leaving).count();
        if joining > 1 || (joining == 1 && leaving > 0) {
            return Err(format!("{joining} replicas join and {leaving} leave; one change at a time is allowed"));
        }
        Ok(())
    }
}
