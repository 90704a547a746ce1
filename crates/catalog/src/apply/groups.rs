//! Commands about the replicas of groups. One change at a time: it ends when the reconciler on the group's leader has
//! told that Raft has done it.

use std::collections::BTreeSet;

use drover_guards::{self as guards, Guard};
use drover_keys::{GroupId, NodeId, ReplicaId};

use super::{Answer, Decision, Judge, Note};
use crate::row::CatalogRow;
use crate::{CatalogRefusal, CatalogReply, GroupDescriptor, MOVES_RANGES, Replica, ReplicaRole, ReplicaState};

impl Judge<'_> {
    pub(super) fn add_replica(&self, group: GroupId, node: NodeId) -> Result<Decision, CatalogRefusal> {
        let descriptor = self.group(group)?;
        let entry = self.node(node)?;
        if descriptor.replicas.contains_key(&node) {
            return Err(CatalogRefusal::AlreadyReplica { group, node });
        }
        check_idle(descriptor)?;
        if entry.live(self.now, &self.contents.meta.settings).is_none() {
            return Err(CatalogRefusal::NodeNotLive { node });
        }
        if entry.draining {
            return Err(CatalogRefusal::NodeDraining { node });
        }
        // A range moves, and what holds a replica of a group concerned has to know how.
        if self.contents.jobs.values().any(|job| !job.phase.has_ended() && job.groups().contains(&group)) {
            self.check_capability_of(std::iter::once(node), MOVES_RANGES)?;
        }
        let id = descriptor.next_replica;
        let mut next = descriptor.clone();
        next.next_replica = ReplicaId(id.0 + 1);
        next.replicas.insert(node, Replica { id, role: ReplicaRole::Learner, state: ReplicaState::Joining });
        self.decide_group(next, "add-replica", format!("replica {id} joins on node {node}"))
    }

    pub(super) fn remove_replicas(&self, group: GroupId, nodes: &BTreeSet<NodeId>) -> Result<Decision, CatalogRefusal> {
        let descriptor = self.group(group)?;
        if nodes.is_empty() {
            return Err(CatalogRefusal::NothingToRemove { group });
        }
        if let Some(&node) = nodes.iter().find(|node| !descriptor.replicas.contains_key(node)) {
            return Err(CatalogRefusal::NotAReplica { group, node });
        }
        let calls_off = descriptor.nodes_in(ReplicaState::Joining).eq(nodes.iter().copied());
        if !calls_off {
            check_idle(descriptor)?;
            check_remainder(descriptor, nodes.len())?;
            self.check_quorum(descriptor, nodes)?;
        }
        let mut next = descriptor.clone();
        for node in nodes {
            next.replicas.entry(*node).and_modify(|replica| replica.state = ReplicaState::Leaving);
        }
        let list: Vec<String> = nodes.iter().map(|node| format!("{} on node {node}", next.replicas[node].id)).collect();
        let called_off = if calls_off { ", which was joining" } else { "" };
        self.decide_group(next, "remove-replicas", format!("replica {} leaves{called_off}", list.join(", ")))
    }

    pub(super) fn promote(&self, group: GroupId, node: NodeId, id: ReplicaId) -> Result<Decision, CatalogRefusal> {
        let descriptor = self.group(group)?;
        let wrong = |why| Err(CatalogRefusal::WrongReplica { group, node, replica: id, why });
        match descriptor.replicas.get(&node) {
            Some(replica) if replica.id == id => match replica.state {
                ReplicaState::Active => Ok(Decision::Nothing(CatalogReply::Group(descriptor.clone()))),
                ReplicaState::Leaving => wrong("is leaving"),
                ReplicaState::Joining => {
                    let mut next = descriptor.clone();
                    let active = Replica { id, role: ReplicaRole::Voter, state: ReplicaState::Active };
                    next.replicas.insert(node, active);
                    self.decide_group(next, "promote-replica", format!("replica {id} on node {node} votes"))
                }
            },
            Some(_) | None => wrong("does not exist"),
        }
    }

    /// A replica that is gone was dropped before: its number is never given out again.
    pub(super) fn drop_replica(&self, group: GroupId, node: NodeId, id: ReplicaId) -> Result<Decision, CatalogRefusal> {
        let descriptor = self.group(group)?;
        let wrong = |why| Err(CatalogRefusal::WrongReplica { group, node, replica: id, why });
        match descriptor.replicas.get(&node) {
            Some(replica) if replica.id == id => match replica.state {
                ReplicaState::Active => wrong("is active"),
                ReplicaState::Joining => wrong("is joining"),
                ReplicaState::Leaving => {
                    let mut next = descriptor.clone();
                    next.replicas.remove(&node);
                    self.decide_group(next, "drop-replica", format!("replica {id} on node {node} is gone"))
                }
            },
            Some(_) | None if id != ReplicaId(0) && id < descriptor.next_replica => {
                Ok(Decision::Nothing(CatalogReply::Group(descriptor.clone())))
            }
            Some(_) | None => wrong("never existed"),
        }
    }

    /// Refuses to leave a group of which fewer than a majority are on live nodes: the change could never be agreed on.
    fn check_quorum(&self, descriptor: &GroupDescriptor, removed: &BTreeSet<NodeId>) -> Result<(), CatalogRefusal> {
        let settings = &self.contents.meta.settings;
        let is_live =
            |node: &NodeId| self.contents.nodes.get(node).is_some_and(|entry| entry.live(self.now, settings).is_some());
        let left: Vec<&NodeId> = descriptor.replicas.keys().filter(|node| !removed.contains(node)).collect();
        let (voters, live) = (left.len(), left.into_iter().filter(|node| is_live(node)).count());
        match live > voters / 2 || !guards::on(Guard::QuorumStays) {
            true => Ok(()),
            false => Err(CatalogRefusal::NoQuorumLeft { group: descriptor.id, live, voters }),
        }
    }

    pub(super) fn group(&self, group: GroupId) -> Result<&GroupDescriptor, CatalogRefusal> {
        self.contents.groups.get(&group).ok_or(CatalogRefusal::UnknownGroup { group })
    }

    fn decide_group(
        &self,
        next: GroupDescriptor,
        action: &'static str,
        details: String,
    ) -> Result<Decision, CatalogRefusal> {
        let note = Note { action, subject: format!("group {}", next.id), details };
        let answer = Answer::Ready(CatalogReply::Group(next.clone()));
        self.plan(answer, Some(note)).put(CatalogRow::Group(next)).decided()
    }
}

fn check_idle(descriptor: &GroupDescriptor) -> Result<(), CatalogRefusal> {
    match descriptor.in_change() {
        Some((node, state)) => Err(CatalogRefusal::ChangeUnderWay { group: descriptor.id, node, state }),
        None => Ok(()),
    }
}

/// Whether enough voters stay when `removed` of them go at once.
fn check_remainder(descriptor: &GroupDescriptor, removed: usize) -> Result<(), CatalogRefusal> {
    let (group, voters) = (descriptor.id, descriptor.replicas.len());
    match removed {
        _ if removed == voters => Err(CatalogRefusal::LastReplica { group }),
        _ if removed > voters / 2 => Err(CatalogRefusal::Majority { group, removed, voters }),
        _ => Ok(()),
    }
}
