use drover_keys::{JobEpoch, JobId, ReplicaId};

use super::*;
use crate::job::JobEvent;
use crate::{GroupDescriptor, ReplicaRole, ReplicaState};

fn add(n: u64) -> Kind {
    Kind::AddReplica { group: GroupId(2), node: NodeId(n) }
}

fn remove<const N: usize>(ids: [u64; N]) -> Kind {
    Kind::RemoveReplicas { group: GroupId(2), nodes: nodes(ids) }
}

fn promote(n: u64, replica: u64) -> Kind {
    Kind::PromoteReplica { group: GroupId(2), node: NodeId(n), replica: ReplicaId(replica) }
}

fn gone(n: u64, replica: u64) -> Kind {
    Kind::DropReplica { group: GroupId(2), node: NodeId(n), replica: ReplicaId(replica) }
}

fn group(world: &World) -> &GroupDescriptor {
    world.catalog.group(GroupId(2)).unwrap()
}

fn states(world: &World) -> Vec<(u64, u64, ReplicaRole, ReplicaState)> {
    group(world).replicas.iter().map(|(node, r)| (node.0, r.id.0, r.role, r.state)).collect()
}

#[test]
fn a_replica_joins_without_a_vote_and_a_node_that_comes_back_is_another_replica() {
    use ReplicaRole::{Learner, Voter};
    use ReplicaState::{Active, Joining, Leaving};
    let mut world = World::settled();
    world.run(add(4)).unwrap();
    assert_eq!(states(&world)[3], (4, 4, Learner, Joining));
    world.run(promote(4, 4)).unwrap();
    assert_eq!(states(&world)[3], (4, 4, Voter, Active));
    world.run(remove([4])).unwrap();
    assert_eq!(states(&world)[3], (4, 4, Voter, Leaving));
    world.run(gone(4, 4)).unwrap();
    assert_eq!(states(&world).len(), 3);
    world.run(add(4)).unwrap();
    assert_eq!(states(&world)[3], (4, 5, Learner, Joining));
    assert_eq!(world.audited(), "admin add-replica group 2: replica 5 joins on node 4");
}

#[test]
fn what_raft_has_done_may_be_told_twice() {
    let mut world = World::settled();
    world.run(add(4)).unwrap();
    world.run(promote(4, 4)).unwrap();
    let before = world.catalog.clone();
    assert_eq!(world.run(promote(4, 4)), Ok(CatalogReply::Group(group(&world).clone())));
    assert_eq!(world.catalog, before);
    world.run(remove([4])).unwrap();
    world.run(gone(4, 4)).unwrap();
    world.run(add(4)).unwrap();
    let before = world.catalog.clone();
    assert_eq!(world.run(gone(4, 4)), Ok(CatalogReply::Group(group(&world).clone())), "replica 4, not replica 5");
    assert_eq!(world.catalog, before);
}

#[test]
fn a_change_that_would_hurt_the_group_is_refused() {
    let mut world = World::settled();
    world.run(register(5, V1)).unwrap();
    world.run(Kind::DrainNode { node: NodeId(5), on: true }).unwrap();
    world.now += 40_000;
    (1..=3).chain([5]).for_each(|n| drop(world.run(heartbeat(n, V1)).unwrap()));
    let group = GroupId(2);
    let unknown = |n| CatalogRefusal::UnknownGroup { group: GroupId(n) };
    let table = [
        (Kind::AddReplica { group: GroupId(9), node: NodeId(4) }, unknown(9)),
        (Kind::RemoveReplicas { group: GroupId(9), nodes: nodes([4]) }, unknown(9)),
        (add(9), CatalogRefusal::UnknownNode { node: NodeId(9) }),
        (add(4), CatalogRefusal::NodeNotLive { node: NodeId(4) }),
        (add(5), CatalogRefusal::NodeDraining { node: NodeId(5) }),
        (add(3), CatalogRefusal::AlreadyReplica { group, node: NodeId(3) }),
        (remove([]), CatalogRefusal::NothingToRemove { group }),
        (remove([4]), CatalogRefusal::NotAReplica { group, node: NodeId(4) }),
        (remove([3, 4]), CatalogRefusal::NotAReplica { group, node: NodeId(4) }),
        (remove([1, 2]), CatalogRefusal::Majority { group, removed: 2, voters: 3 }),
        (remove([1, 2, 3]), CatalogRefusal::LastReplica { group }),
    ];
    for (kind, refusal) in table {
        assert_eq!(world.run(kind.clone()), Err(refusal), "{kind:?}");
    }
    for kind in [promote(3, 9), promote(9, 1), gone(3, 3), gone(3, 9), gone(3, 0)] {
        let refusal = world.run(kind.clone()).unwrap_err();
        assert!(matches!(refusal, CatalogRefusal::WrongReplica { .. }), "{kind:?}: {refusal}");
    }
}

#[test]
fn a_group_is_not_left_without_a_live_majority() {
    let mut world = World::settled();
    world.now += 40_000;
    for n in [1, 3, 4] {
        world.run(heartbeat(n, V1)).unwrap();
    }
    let refusal = |live, voters| Err(CatalogRefusal::NoQuorumLeft { group: GroupId(2), live, voters });
    assert_eq!(world.run(remove([3])), refusal(1, 2), "nodes 1 and 2 would be left, and node 2 is gone");
    world.run(add(4)).unwrap();
    world.run(promote(4, 4)).unwrap();
    world.run(remove([3])).unwrap();
    world.run(gone(3, 3)).unwrap();
    assert_eq!(world.run(remove([4])), refusal(1, 2));
    world.run(remove([2])).unwrap();
    assert_eq!(world.run(gone(2, 2)).map(|_| group(&world).replicas.len()), Ok(2));
}

#[test]
fn h46_replicas_change_only_when_all_nodes_can_take_part_that_are_live_or_hold_one() {
    let mut world = World::settled();
    let RegisterNode { node, store, address, admin_address, version, .. } = node(2, V1);
    let old = RegisterNode { node, store, address, admin_address, version, capabilities: BTreeSet::new() };
    world.run(Kind::RegisterNode(old)).unwrap();
    let missing = Err(CatalogRefusal::CapabilityMissing { capability: CHANGES_REPLICAS, nodes: nodes([2]) });
    assert_eq!(world.run(add(4)), missing);
    assert_eq!(world.run(remove([3])), missing);
    // It is silent, and may come back to its replica as it was.
    world.now += 40_000;
    let others_are_heard = |world: &mut World| [1, 3, 4].map(|n| world.run(heartbeat(n, V1)).unwrap());
    others_are_heard(&mut world);
    assert_eq!(world.run(add(4)), missing);
    world.run(heartbeat(2, V1)).unwrap();
    // One that holds nothing has no say once it is silent.
    let RegisterNode { node, store, address, admin_address, version, .. } = super::node(5, V1);
    let old = RegisterNode { node, store, address, admin_address, version, capabilities: BTreeSet::new() };
    world.run(Kind::RegisterNode(old)).unwrap();
    let missing = Err(CatalogRefusal::CapabilityMissing { capability: CHANGES_REPLICAS, nodes: nodes([5]) });
    assert_eq!(world.run(add(4)), missing);
    world.now += 40_000;
    others_are_heard(&mut world);
    world.run(add(4)).unwrap();
    // What was begun is finished.
    world.run(Kind::Heartbeat(Heartbeat { capabilities: BTreeSet::new(), ..heard(5, V1) })).unwrap();
    world.run(promote(4, 4)).unwrap();
}

#[test]
fn h23_what_a_node_can_do_that_never_registered_is_not_known() {
    let mut world = World::new();
    for n in [1, 2, 4] {
        world.run(register(n, V1)).unwrap();
    }
    let missing = Err(CatalogRefusal::CapabilityMissing { capability: CHANGES_REPLICAS, nodes: nodes([3]) });
    assert_eq!(world.run(add(4)), missing);
    world.run(register(3, V1)).unwrap();
    world.run(add(4)).unwrap();
}

#[test]
fn a_group_shrinks_to_one_replica_and_no_further() {
    let mut world = World::settled();
    for n in [3, 2] {
        world.run(remove([n])).unwrap();
        world.run(gone(n, n)).unwrap();
    }
    assert_eq!(world.run(remove([1])), Err(CatalogRefusal::LastReplica { group: GroupId(2) }));
}

#[test]
fn one_change_at_a_time_and_a_join_can_be_called_off() {
    let mut world = World::settled();
    world.run(register(5, V1)).unwrap();
    let busy = |n, state| Err(CatalogRefusal::ChangeUnderWay { group: GroupId(2), node: NodeId(n), state });
    world.run(add(4)).unwrap();
    for kind in [add(5), remove([1]), remove([1, 4])] {
        assert_eq!(world.run(kind), busy(4, ReplicaState::Joining));
    }
    assert!(busy(4, ReplicaState::Joining).unwrap_err().to_string().contains("call it off"));
    world.run(remove([4])).unwrap();
    assert_eq!(world.audited(), "admin remove-replicas group 2: replica 4 on node 4 leaves, which was joining");
    for kind in [add(5), remove([4]), remove([1])] {
        assert_eq!(world.run(kind), busy(4, ReplicaState::Leaving));
    }
    let refusal = world.run(promote(4, 4)).unwrap_err();
    assert!(matches!(refusal, CatalogRefusal::WrongReplica { why: "is leaving", .. }));
    world.run(gone(4, 4)).unwrap();
    world.run(add(5)).unwrap();
}

#[test]
fn while_a_range_moves_its_groups_take_no_replica_on_a_node_that_cannot_move_ranges() {
    let mut world = World::settled();
    let RegisterNode { node, store, address, admin_address, version, .. } = node(4, V1);
    let capabilities = BTreeSet::from([CHANGES_REPLICAS.to_owned()]);
    let range = crate::routes::strategies::interval("c", Some(b"f"));
    world.run(super::jobs::start(1, 1, range, 1)).unwrap();
    world.run(Kind::RegisterNode(RegisterNode { node, store, address, admin_address, version, capabilities })).unwrap();
    let missing = CatalogRefusal::CapabilityMissing { capability: MOVES_RANGES, nodes: nodes([4]) };
    for concerned in [GroupId::DEFAULT, GroupId(2)] {
        assert_eq!(
            world.run(Kind::AddReplica { group: concerned, node: NodeId(4) }),
            Err(missing.clone()),
            "{concerned}"
        );
    }
    world.run(Kind::JobEvent { job: JobId(1), epoch: None, event: JobEvent::Abandon }).unwrap();
    assert_eq!(world.run(add(4)), Err(missing), "it still clears up");
    world.run(Kind::JobEvent { job: JobId(1), epoch: Some(JobEpoch(2)), event: JobEvent::Abandoned }).unwrap();
    world.run(add(4)).unwrap();
}
