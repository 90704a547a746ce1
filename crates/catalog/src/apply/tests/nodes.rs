use super::*;
use crate::{MAX_CAPABILITIES, MAX_CAPABILITY_BYTES};

fn registered(n: u64) -> Result<CatalogReply, CatalogRefusal> {
    Ok(CatalogReply::Registered { node: NodeId(n), cluster_version: None, high_water: Version::default() })
}

#[test]
fn a_node_gets_the_next_number_and_keeps_it_with_its_data_directory() {
    let mut world = World::new();
    let fresh = |n| Kind::RegisterNode(RegisterNode { node: None, ..node(n, V1) });
    assert_eq!(world.run(fresh(40)), registered(4));
    assert_eq!(world.run(fresh(40)), registered(4), "the answer was lost, the node asks again");
    assert_eq!(world.run(register(9, V1)), registered(9));
    assert_eq!(world.run(fresh(50)), registered(10));
    assert_eq!(world.run(register(2, V1)), registered(2), "the cluster was created with node 2");
}

#[test]
fn a_registration_that_would_confuse_two_nodes_is_refused() {
    let mut world = World::settled();
    world.run(Kind::RemoveNode { node: NodeId(4) }).unwrap();
    let taken = |address: &str, n| CatalogRefusal::AddressTaken { address: address.to_owned(), node: NodeId(n) };
    let with = |node| Kind::RegisterNode(node);
    let table = [
        (
            with(RegisterNode { store: store(7), ..node(2, V1) }),
            CatalogRefusal::OtherStore { node: NodeId(2), registered: store(2), store: store(7) },
        ),
        (
            with(RegisterNode { store: store(2), ..node(7, V1) }),
            CatalogRefusal::StoreTaken { store: store(2), node: NodeId(2) },
        ),
        (with(RegisterNode { store: store(7), ..node(4, V1) }), CatalogRefusal::NodeRemoved { node: NodeId(4) }),
        (with(RegisterNode { node: None, ..node(4, V1) }), CatalogRefusal::NodeRemoved { node: NodeId(4) }),
        (with(RegisterNode { address: "n2:1".into(), ..node(7, V1) }), taken("n2:1", 2)),
        (with(RegisterNode { admin_address: "n2:1".into(), ..node(7, V1) }), taken("n2:1", 2)),
        (with(RegisterNode { address: "n2:2".into(), ..node(1, V1) }), taken("n2:2", 2)),
    ];
    for (kind, refusal) in table {
        assert_eq!(world.run(kind.clone()), Err(refusal), "{kind:?}");
    }
    for bad in [0, u64::MAX, 1 << 48] {
        let refusal = world.run(register(bad, V1)).unwrap_err();
        assert!(matches!(refusal, CatalogRefusal::BadNode { .. }), "{refusal}");
    }
    let wiped = world.run(with(RegisterNode { store: store(7), ..node(2, V1) })).unwrap_err().to_string();
    assert!(wiped.contains("must join under a new id, after node 2 was removed"), "{wiped}");
}

#[test]
fn an_address_is_free_again_when_its_node_has_expired() {
    let mut world = World::new();
    let wiped = Kind::RegisterNode(RegisterNode { node: None, store: store(7), ..node(2, V1) });
    assert!(matches!(world.run(wiped.clone()), Err(CatalogRefusal::AddressTaken { .. })), "node 2 is expected");
    world.run(register(2, V1)).unwrap();
    world.now += 29_999;
    assert!(matches!(world.run(wiped.clone()), Err(CatalogRefusal::AddressTaken { .. })));
    world.now += 1;
    assert_eq!(world.run(wiped), registered(4));
    let late = world.run(heartbeat(2, V1));
    assert_eq!(late, Err(CatalogRefusal::AddressTaken { address: "n2:1".into(), node: NodeId(4) }));
}

#[test]
fn a_heartbeat_is_for_a_node_that_is_known() {
    let mut world = World::settled();
    world.run(Kind::RemoveNode { node: NodeId(4) }).unwrap();
    world.run(Kind::AddReplica { group: GroupId(1), node: NodeId(3) }).unwrap_err();
    let mut fresh = World::new();
    assert_eq!(fresh.run(heartbeat(3, V1)), Err(CatalogRefusal::NotRegistered { node: NodeId(3) }));
    assert_eq!(world.run(heartbeat(4, V1)), Err(CatalogRefusal::NodeRemoved { node: NodeId(4) }));
    assert_eq!(world.run(heartbeat(5, V1)), Err(CatalogRefusal::UnknownNode { node: NodeId(5) }));
    let other = Kind::Heartbeat(Heartbeat { store: store(9), ..heard(3, V1) });
    let refusal = CatalogRefusal::OtherStore { node: NodeId(3), registered: store(3), store: store(9) };
    assert_eq!(world.run(other), Err(refusal));
}

#[test]
fn a_heartbeat_with_news_raises_the_revision_and_none_is_audited() {
    let mut world = World::settled();
    let (revision, events) = (world.catalog.revision(), world.catalog.audit().count());
    world.beat();
    assert_eq!(world.catalog.revision(), revision);
    world.run(Kind::Heartbeat(Heartbeat { serving: false, ..heard(2, V1) })).unwrap();
    assert_eq!(world.catalog.revision(), revision + 1);
    world.run(Kind::Heartbeat(Heartbeat { capabilities: BTreeSet::new(), serving: false, ..heard(2, V1) })).unwrap();
    assert_eq!(world.catalog.revision(), revision + 2);
    assert_eq!(world.catalog.audit().count(), events);
}

#[test]
fn nodes_expire_when_they_are_not_heard() {
    let mut world = World::settled();
    let live = |world: &World| -> Vec<u64> {
        world.catalog.live_nodes(PhysicalMs::new(world.now).unwrap()).map(|node| node.id.0).collect()
    };
    world.now += 29_999;
    assert_eq!(live(&world), [1, 2, 3, 4]);
    world.run(heartbeat(2, V1)).unwrap();
    world.now += 1;
    assert_eq!(live(&world), [2]);
}

#[test]
fn oversized_or_strange_capabilities_are_refused_with_the_limit() {
    let mut world = World::settled();
    let many = (0..=MAX_CAPABILITIES).map(|n| n.to_string()).collect();
    let table: [(BTreeSet<String>, &str); 6] = [
        (many, "at most 64"),
        (BTreeSet::from(["x".repeat(MAX_CAPABILITY_BYTES + 1)]), "1 to 64"),
        (BTreeSet::from(["x".repeat(10 << 20)]), "1 to 64"),
        (BTreeSet::from([String::new()]), "1 to 64"),
        (BTreeSet::from(["a b".to_owned()]), "printable ASCII"),
        (BTreeSet::from(["é".to_owned()]), "printable ASCII"),
    ];
    for (capabilities, words) in table {
        let node = RegisterNode { capabilities: capabilities.clone(), ..node(1, V1) };
        let heartbeat = Heartbeat { capabilities, ..heard(1, V1) };
        for kind in [Kind::RegisterNode(node), Kind::Heartbeat(heartbeat)] {
            let refusal = world.run(kind).unwrap_err().to_string();
            assert!(refusal.contains(words) && refusal.len() < 300, "{refusal}");
        }
    }
    let most = (0..MAX_CAPABILITIES).map(|n| format!("{n:064}")).collect();
    world.run(Kind::RegisterNode(RegisterNode { capabilities: most, ..node(1, V1) })).unwrap();
}

#[test]
fn a_node_that_holds_replicas_stays_and_a_removed_one_does_not_come_back() {
    let mut world = World::settled();
    let remove = |n| Kind::RemoveNode { node: NodeId(n) };
    let in_use = CatalogRefusal::NodeInUse { node: NodeId(3), groups: [GroupId(1), GroupId(2)].into() };
    assert!(in_use.to_string().contains("groups 1, 2"));
    assert_eq!(world.run(remove(3)), Err(in_use));
    assert_eq!(world.run(remove(9)), Err(CatalogRefusal::UnknownNode { node: NodeId(9) }));
    assert_eq!(world.run(remove(4)), Ok(CatalogReply::Removed { node: NodeId(4) }));
    assert_eq!(world.run(remove(4)), Err(CatalogRefusal::NodeRemoved { node: NodeId(4) }));
    assert!(world.catalog.node(NodeId(4)).is_none());
    let fresh = Kind::RegisterNode(RegisterNode { node: None, ..node(50, V1) });
    let CatalogReply::Registered { node, .. } = world.run(fresh).unwrap() else { panic!("not registered") };
    assert_eq!(node, NodeId(5));
}

#[test]
fn draining_survives_a_restart_of_the_node() {
    let mut world = World::settled();
    let drain = |on| Kind::DrainNode { node: NodeId(4), on };
    let reply = |on, changed| Ok(CatalogReply::Drain { node: NodeId(4), on, changed });
    assert_eq!(world.run(drain(true)), reply(true, true));
    assert_eq!(world.run(drain(true)), reply(true, false));
    assert_eq!(world.audited(), "admin drain-node node 4: was draining already");
    world.run(register(4, V1)).unwrap();
    assert!(world.catalog.node(NodeId(4)).unwrap().draining);
    assert_eq!(world.run(drain(false)), reply(false, true));
}
