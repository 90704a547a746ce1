use super::*;
use crate::{CompatOutcome, CompatState, Freeze};

fn compat(world: &mut World, kind: Kind) -> (CompatOutcome, CompatState) {
    match world.run(kind) {
        Ok(CatalogReply::Compat { outcome, state }) => (outcome, state),
        other => panic!("{other:?}"),
    }
}

fn versions(world: &World) -> (Option<Version>, Version) {
    let state = world.catalog.compat().unwrap();
    (state.cluster_version, state.high_water)
}

/// Nodes 1 to 4 restart with `version`, and serve.
fn upgrade(world: &mut World, version: Version) {
    (1..=4).for_each(|n| drop(world.run(register(n, version)).unwrap()));
    world.beat();
}

#[test]
fn the_first_version_is_known_when_every_node_is_there_and_is_that_of_the_oldest() {
    let mut world = World::new();
    world.run(register(1, V2)).unwrap();
    world.run(register(2, V1)).unwrap();
    assert_eq!(versions(&world), (None, Version::default()));
    assert_eq!(world.run(Kind::Freeze), Err(CatalogRefusal::NoClusterVersion));
    world.run(register(3, V2)).unwrap();
    assert_eq!(versions(&world), (Some(V1), V1));
    assert!(world.catalog.at_least(V1) && !world.catalog.at_least(V2));
}

#[test]
fn without_a_node_that_never_came_the_version_is_known_when_all_others_have_served_for_the_settle_time() {
    let mut world = World::new();
    (1..=2).for_each(|n| drop(world.run(register(n, V1)).unwrap()));
    world.now += 20_000;
    world.run(Kind::Heartbeat(Heartbeat { serving: false, ..heard(1, V1) })).unwrap();
    assert_eq!(versions(&world), (None, Version::default()));
    world.beat();
    world.now += 9_999;
    world.beat();
    assert_eq!(versions(&world), (None, Version::default()));
    world.now += 1;
    world.run(heartbeat(1, V1)).unwrap();
    assert_eq!(versions(&world), (Some(V1), V1));
}

#[test]
fn the_version_rises_with_the_last_node_and_stays_when_one_restarts() {
    let mut world = World::settled();
    (1..=3).for_each(|n| drop(world.run(register(n, V2)).unwrap()));
    world.settle();
    assert_eq!(versions(&world), (Some(V1), V1), "node 4 is not upgraded");
    world.run(register(4, V2)).unwrap();
    world.now += 9_000;
    world.beat();
    assert_eq!(versions(&world), (Some(V1), V1), "node 4 has not settled");
    world.settle();
    assert_eq!(versions(&world), (Some(V2), V2));
    world.run(register(1, V2)).unwrap();
    assert_eq!(versions(&world), (Some(V2), V2));
}

#[test]
fn a_node_that_is_not_heard_holds_nobody_up_and_is_refused_when_it_comes_back_too_old() {
    let mut world = World::settled();
    (1..=3).for_each(|n| drop(world.run(register(n, V2)).unwrap()));
    for _ in 0..7 {
        world.now += 5_000;
        (1..=3).for_each(|n| drop(world.run(heartbeat(n, V2)).unwrap()));
    }
    assert_eq!(versions(&world), (Some(V2), V2));
    for kind in [heartbeat(4, V1), register(4, V1), register(7, V1)] {
        let refusal = world.run(kind).unwrap_err();
        assert_eq!(refusal, CatalogRefusal::VersionTooLow { version: V1, high_water: V2 });
        assert!(refusal.to_string().contains("Upgrade the node to 1.1 or later"));
    }
    assert!(world.run(register(4, V2)).is_ok());
}

#[test]
fn an_interruption_starts_the_settle_time_again() {
    let mut world = World::settled();
    upgrade(&mut world, V2);
    world.now += 9_000;
    world.beat();
    world.run(Kind::Heartbeat(Heartbeat { serving: false, ..heard(2, V2) })).unwrap();
    world.now += 1_000;
    world.beat();
    assert_eq!(versions(&world), (Some(V1), V1));
    world.now += 9_999;
    world.beat();
    assert_eq!(versions(&world), (Some(V1), V1));
    world.now += 1;
    world.beat();
    assert_eq!(versions(&world), (Some(V2), V2));
}

#[test]
fn silence_and_another_version_start_the_settle_time_again() {
    let since = |world: &World| world.catalog.compat().unwrap().nodes[0].serving_since.unwrap().unix_ms();
    let mut world = World::settled();
    world.now += 29_000;
    world.run(heartbeat(1, V1)).unwrap();
    assert!(since(&world) < world.now, "it was heard in time");
    world.now += 30_000;
    world.run(heartbeat(1, V1)).unwrap();
    assert_eq!(since(&world), world.now, "it had expired");
    world.now += 1;
    world.run(heartbeat(1, V2)).unwrap();
    assert_eq!(since(&world), world.now, "it is another build");
}

#[test]
fn a_freeze_holds_version_and_mark_so_that_a_rollout_can_be_taken_back() {
    let mut world = World::settled();
    let (outcome, state) = compat(&mut world, Kind::Freeze);
    let freeze = Freeze { version: V1, by: "admin".to_owned(), at: PhysicalMs::new(world.now).unwrap() };
    assert_eq!((outcome, state.freeze.as_ref()), (CompatOutcome::Frozen, Some(&freeze)));
    upgrade(&mut world, V2);
    world.settle();
    assert_eq!(versions(&world), (Some(V1), V1));
    let (outcome, state) = compat(&mut world, Kind::Freeze);
    assert_eq!((outcome, state.freeze.as_ref()), (CompatOutcome::AlreadyFrozen, Some(&freeze)), "the first one");
    assert_eq!(state.nodes.len(), 4);
    assert!(state.nodes.iter().all(|node| node.live && node.version == Some(V2)));
    world.run(register(2, V1)).unwrap();
    world.run(register(2, V2)).unwrap();
    world.settle();
    let (outcome, state) = compat(&mut world, Kind::Unfreeze);
    assert_eq!((outcome, state.freeze), (CompatOutcome::Unfrozen, None));
    assert_eq!((state.cluster_version, state.high_water), (Some(V2), V2), "all have settled meanwhile");
    let (outcome, _) = compat(&mut world, Kind::Unfreeze);
    assert_eq!(outcome, CompatOutcome::NothingFrozen);
    assert_eq!(world.audited(), "admin unfreeze compatibility: nothing was frozen");
}

#[test]
fn a_command_of_a_later_version_waits_until_the_cluster_cannot_go_back_behind_it() {
    let judged = |world: &World, required| {
        let contents = world.catalog.contents.as_ref().unwrap();
        let now = PhysicalMs::new(world.now).unwrap();
        super::super::Judge { contents, actor: "admin", now }.check_cluster_version(required)
    };
    let too_low = |have| Err(CatalogRefusal::ClusterVersionTooLow { required: V2, have });
    assert_eq!(judged(&World::new(), V2), too_low(None));
    let mut world = World::settled();
    assert_eq!(judged(&world, V1), Ok(()));
    assert_eq!(judged(&world, V2), too_low(Some(V1)));
    world.run(Kind::Freeze).unwrap();
    upgrade(&mut world, V2);
    world.settle();
    assert_eq!(judged(&world, V2), too_low(Some(V1)), "all nodes understand it, and may be rolled back");
    assert!(judged(&world, V2).unwrap_err().to_string().contains("lift a freeze"));
    world.run(Kind::Unfreeze).unwrap();
    assert_eq!(judged(&world, V2), Ok(()));
}

#[test]
fn what_is_not_known_cannot_be_frozen() {
    let mut world = World::new();
    world.run(register(1, V1)).unwrap();
    assert_eq!(world.run(Kind::Freeze), Err(CatalogRefusal::NoClusterVersion));
    assert_eq!(compat(&mut world, Kind::Unfreeze).0, CompatOutcome::NothingFrozen);
}

#[test]
fn reading_the_state_changes_it_not_and_is_audited() {
    let mut world = World::settled();
    let before = world.catalog.compat().unwrap();
    let (outcome, state) = compat(&mut world, Kind::ReadCompat);
    assert_eq!((outcome, state), (CompatOutcome::Read, before));
    assert_eq!(world.audited(), "admin read-compat compatibility: cluster version 1.0");
}

#[test]
fn a_capability_counts_when_all_nodes_have_it() {
    let mut world = World::settled();
    assert_eq!(world.catalog.all_have("move", &nodes([1, 2, 4])), Ok(()));
    assert_eq!(world.catalog.all_have("fly", &nodes([1])), Err(vec![NodeId(1)]));
    world.run(Kind::Heartbeat(Heartbeat { capabilities: BTreeSet::new(), ..heard(2, V1) })).unwrap();
    assert_eq!(world.catalog.all_have("move", &nodes([1, 2, 9])), Err(vec![NodeId(2), NodeId(9)]));
}
