//! Where nodes and replicas are, and what a node does about the replicas that it shall hold.

use std::collections::BTreeMap;

use drover_guards::{self as guards, Guard};
use drover_keys::{GroupId, NodeId, ReplicaId};

use crate::{Catalog, GroupDescriptor, ReplicaState};

/// Where the nodes are and which replicas the groups shall have, at one revision of the catalog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Of the catalog. Zero: nothing is known.
    pub revision: u64,
    /// Where the nodes are.
    pub nodes: BTreeMap<NodeId, NodeAddresses>,
    /// Which replicas the groups shall have.
    pub groups: BTreeMap<GroupId, GroupDescriptor>,
}

/// Where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddresses {
    /// By clients and other nodes.
    pub address: String,
    /// For its health and metrics. May be empty.
    pub admin_address: String,
}

/// What a node has of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// This replica.
    Held(ReplicaId),
    /// Nothing any more; this was the last replica that it held.
    Gone(ReplicaId),
}

/// What a node does about one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostingStep {
    /// Open a new replica, empty, that gets everything from the group.
    Open {
        /// Of this group.
        group: GroupId,
        /// Its number.
        replica: ReplicaId,
    },
    /// Stop a replica and remove its data: the group goes on without it, for good.
    Destroy {
        /// Of this group.
        group: GroupId,
        /// Its number.
        replica: ReplicaId,
    },
    /// Nothing can be done: the node shall hold a replica that votes, and has none. One that was opened anew would have
    /// forgotten its votes and what it acknowledged.
    Lost {
        /// Of this group.
        group: GroupId,
        /// Its number.
        replica: ReplicaId,
    },
}

impl Catalog {
    /// Where the nodes are and which replicas the groups shall have.
    pub fn topology(&self) -> Topology {
        let addresses = |entry: &crate::NodeEntry| NodeAddresses {
            address: entry.address.clone(),
            admin_address: entry.admin_address.clone(),
        };
        Topology {
            revision: self.revision(),
            nodes: self.nodes().map(|entry| (entry.id, addresses(entry))).collect(),
            groups: self.groups().map(|group| (group.id, group.clone())).collect(),
        }
    }
}

/// What `node` does about its replicas, given those that it holds or held.
///
/// Safe with any topology that ever was the catalog's, however old: a replica is destroyed only if its number had been given
/// out and it was not listed any more, which stays true; and one that was destroyed, or may have voted, is never opened anew.
pub fn hosting_steps(node: NodeId, have: &BTreeMap<GroupId, Holding>, topology: &Topology) -> Vec<HostingStep> {
    let step = |descriptor: &GroupDescriptor| {
        let group = descriptor.id;
        let (held, gone) = match have.get(&group) {
            Some(Holding::Held(replica)) => (Some(*replica), None),
            Some(Holding::Gone(replica)) => (None, Some(*replica)),
            None => (None, None),
        };
        match (descriptor.replicas.get(&node), held) {
            (None, None) => None,
            // The topology is from before it was destroyed.
            (Some(listed), None) if gone.is_some_and(|gone| listed.id <= gone) && guards::on(Guard::GoneStaysGone) => {
                None
            }
            (Some(listed), None) if listed.state == ReplicaState::Joining || !guards::on(Guard::VotersNotReopened) => {
                Some(HostingStep::Open { group, replica: listed.id })
            }
            (Some(listed), None) => Some(HostingStep::Lost { group, replica: listed.id }),
            (Some(listed), Some(replica)) if listed.id == replica => None,
            // The number is given out, and somebody else's: ours was dropped.
            (_, Some(replica)) if replica < descriptor.next_replica || !guards::on(Guard::DestroyOnlyDropped) => {
                Some(HostingStep::Destroy { group, replica })
            }
            // The topology is older than the replica.
            (_, Some(_)) => None,
        }
    };
    topology.groups.values().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::CatalogCommandKind as Kind;
    use crate::apply::tests::{V1, World, nodes, register};
    use crate::{Replica, ReplicaRole};

    const ME: NodeId = NodeId(4);
    const GROUP: GroupId = GroupId(2);

    fn topology(listed: Option<(u64, ReplicaState)>, next: u64) -> Topology {
        let mut group = GroupDescriptor::new(GROUP, &nodes([1, 2, 3]));
        group.next_replica = ReplicaId(next);
        if let Some((id, state)) = listed {
            let role = if state == ReplicaState::Joining { ReplicaRole::Learner } else { ReplicaRole::Voter };
            group.replicas.insert(ME, Replica { id: ReplicaId(id), role, state });
        }
        Topology { revision: 1, nodes: BTreeMap::new(), groups: BTreeMap::from([(GROUP, group)]) }
    }

    #[test]
    fn every_difference_has_a_step() {
        use ReplicaState::{Active, Joining, Leaving};
        let group = GROUP;
        let open = |n| Some(HostingStep::Open { group, replica: ReplicaId(n) });
        let destroy = |n| Some(HostingStep::Destroy { group, replica: ReplicaId(n) });
        let lost = |n| Some(HostingStep::Lost { group, replica: ReplicaId(n) });
        // Listed, the next number, held: what to do.
        let table = [
            (None, 4, None, None),
            (Some((4, Joining)), 5, None, open(4)),
            (Some((4, Active)), 5, None, lost(4)),
            (Some((4, Leaving)), 5, None, lost(4)),
            (Some((4, Joining)), 5, Some(4), None),
            (Some((4, Active)), 5, Some(4), None),
            (Some((4, Leaving)), 5, Some(4), None),
            // Dropped.
            (None, 5, Some(4), destroy(4)),
            // Dropped, and given another one since.
            (Some((5, Joining)), 6, Some(4), destroy(4)),
            (Some((5, Active)), 6, Some(4), destroy(4)),
            // The topology is older than the replica.
            (None, 4, Some(4), None),
            (Some((4, Leaving)), 5, Some(6), None),
            (None, 6, Some(6), None),
        ];
        for (listed, next, held, step) in table {
            let held = held.map(|id| (GROUP, Holding::Held(ReplicaId(id)))).into_iter().collect();
            let steps = hosting_steps(ME, &held, &topology(listed, next));
            assert_eq!(steps, step.into_iter().collect::<Vec<_>>(), "{listed:?} {next} {held:?}");
        }
        // One that was destroyed is not opened again, and the one after it is.
        for (listed, step) in [(4, None), (5, None), (6, open(6))] {
            let gone = BTreeMap::from([(GROUP, Holding::Gone(ReplicaId(5)))]);
            let steps = hosting_steps(ME, &gone, &topology(Some((listed, Joining)), 7));
            assert_eq!(steps, step.into_iter().collect::<Vec<_>>(), "{listed}");
        }
        let held = BTreeMap::from([(GroupId(9), Holding::Held(ReplicaId(1)))]);
        assert_eq!(hosting_steps(ME, &held, &topology(None, 4)), [], "a group that is not known yet");
    }

    proptest! {
        /// A node that looks at topologies in any order never destroys a replica that is listed, and opens none that has a
        /// vote or was destroyed.
        #[test]
        fn old_topologies_do_no_harm(events in proptest::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..40)) {
            let mut world = World::settled();
            world.run(register(5, V1)).unwrap();
            let group = GROUP;
            let mut seen = vec![world.catalog.topology()];
            let mut have: BTreeMap<GroupId, Holding> = BTreeMap::new();
            let mut destroyed: BTreeSet<ReplicaId> = BTreeSet::new();
            let mut voted: BTreeSet<ReplicaId> = BTreeSet::new();
            for (event, index) in events {
                let mine = world.catalog.group(group).and_then(|g| g.replicas.get(&ME).copied());
                match (event, mine) {
                    (0, None) => drop(world.run(Kind::AddReplica { group, node: ME })),
                    (1, Some(r)) => drop(world.run(Kind::RemoveReplicas { group, nodes: [ME].into() }).map(|_| r)),
                    (2, Some(r)) if r.state == ReplicaState::Leaving => {
                        world.run(Kind::DropReplica { group, node: ME, replica: r.id }).unwrap();
                    }
                    // It votes only after it has caught up, so it is held.
                    (2, Some(r)) if have.get(&group) == Some(&Holding::Held(r.id)) && r.state == ReplicaState::Joining => {
                        voted.insert(r.id);
                        world.run(Kind::PromoteReplica { group, node: ME, replica: r.id }).unwrap();
                    }
                    _ => {
                        let now = world.catalog.group(group).unwrap().replicas.get(&ME).map(|r| r.id);
                        for step in hosting_steps(ME, &have, index.get(&seen)) {
                            match step {
                                HostingStep::Open { replica, .. } => {
                                    prop_assert!(now != Some(replica) || !voted.contains(&replica), "{} votes", replica);
                                    prop_assert!(!destroyed.contains(&replica), "{} was destroyed", replica);
                                    have.insert(group, Holding::Held(replica));
                                }
                                HostingStep::Destroy { replica, .. } => {
                                    prop_assert_ne!(now, Some(replica));
                                    destroyed.insert(replica);
                                    have.insert(group, Holding::Gone(replica));
                                }
                                HostingStep::Lost { .. } => {}
                            }
                        }
                    }
                }
                seen.push(world.catalog.topology());
            }
        }
    }
}
