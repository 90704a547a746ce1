use drover_keys::ReplicaId;
use proptest::prelude::*;

use super::*;

/// What somebody asks for, with numbers that mostly mean something.
#[derive(Debug, Clone)]
enum Ask {
    Split {
        behind: u64,
        route: u64,
        key: Vec<u8>,
    },
    SplitWherever {
        key: Vec<u8>,
    },
    Command(Kind),
    /// Time passes, maybe backwards.
    Tick(i64),
    /// Somebody sends an earlier command again.
    Retry(prop::sample::Index),
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'm'), Just(b't')], 0..5)
}

fn any_version() -> impl Strategy<Value = Version> + Clone {
    (1u16..3).prop_map(|minor| Version::new(1, minor))
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let (group, id, replica) = (1u64..4, 1u64..7, 1u64..8);
    let of_node = (id.clone(), any_version(), any::<bool>());
    let in_group = (group, id.clone(), replica);
    prop_oneof![
        4 => (of_node.clone(), 1u64..8, any::<bool>()).prop_map(|((n, version, own), other, named)| {
            let store = if own { store(n) } else { store(other) };
            let named = named.then_some(NodeId(n));
            Kind::RegisterNode(RegisterNode { node: named, store, ..node(n, version) })
        }),
        12 => of_node.prop_map(|(n, version, serving)| Kind::Heartbeat(Heartbeat { serving, ..heard(n, version) })),
        1 => (id.clone(), any::<bool>()).prop_map(|(n, on)| Kind::DrainNode { node: NodeId(n), on }),
        1 => id.clone().prop_map(|n| Kind::RemoveNode { node: NodeId(n) }),
        4 => in_group.clone().prop_map(|(g, n, _)| Kind::AddReplica { group: GroupId(g), node: NodeId(n) }),
        3 => (in_group.clone(), proptest::option::of(id)).prop_map(|((g, a, _), b)| {
            let nodes = [Some(a), b].into_iter().flatten().map(NodeId).collect();
            Kind::RemoveReplicas { group: GroupId(g), nodes }
        }),
        4 => in_group.clone().prop_map(|(g, n, r)| {
            Kind::PromoteReplica { group: GroupId(g), node: NodeId(n), replica: ReplicaId(r) }
        }),
        4 => in_group.prop_map(|(g, n, r)| {
            Kind::DropReplica { group: GroupId(g), node: NodeId(n), replica: ReplicaId(r) }
        }),
        1 => Just(Kind::Freeze),
        1 => Just(Kind::Unfreeze),
        1 => Just(Kind::ReadCompat),
        3 => (any_key(), any_key(), 1u64..4, 1u64..4, 1u64..8).prop_map(|(start, end, group, route, version)| {
            jobs::start(version, route, jobs::some_interval(start, end), group)
        }),
        16 => (1u64..4, proptest::option::of(1u64..4), 0usize..64).prop_map(|(job, epoch, n)| {
            let events = crate::job::all_events();
            Kind::JobEvent {
                job: drover_keys::JobId(job),
                epoch: epoch.map(drover_keys::JobEpoch),
                event: events[n % events.len()].clone(),
            }
        }),
        1 => Just(Kind::Bootstrap(Box::new(bootstrap()))),
    ]
}

fn any_ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        1 => (0u64..2, 1u64..9, any_key()).prop_map(|(behind, route, key)| Ask::Split { behind, route, key }),
        4 => any_key().prop_map(|key| Ask::SplitWherever { key }),
        20 => any_kind().prop_map(Ask::Command),
        3 => (-1_000i64..20_000).prop_map(Ask::Tick),
        1 => any::<prop::sample::Index>().prop_map(Ask::Retry),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked: rows and catalog agree, refusals change nothing, and what must never fall does not. The
    /// first three are checked by [`World::apply`] after each command.
    #[test]
    fn a_catalog_is_its_rows_and_keeps_its_promises(asks in proptest::collection::vec(any_ask(), 1..120)) {
        let small = CatalogSettings { delta_log: 4, audit_log: 6, request_log: 5, ..CatalogSettings::default() };
        let mut world = World::with(small);
        let mut sent: Vec<CatalogCommand> = Vec::new();
        let mut replica = world.catalog.clone();
        for ask in asks {
            let version = world.version();
            let split = |expected, route, key: Vec<u8>| Kind::SplitRange {
                expected_version: drover_keys::CatalogVersion(expected), route, key: key.into(),
            };
            let command = match ask {
                Ask::Tick(ms) => {
                    world.now = world.now.saturating_add_signed(ms);
                    continue;
                }
                Ask::Split { behind, route, key } => world.command(split(version.0 - behind, RouteId(route), key)),
                Ask::SplitWherever { key } => {
                    let route = world.catalog.routes().unwrap().route_of(&key).id;
                    world.command(split(version.0, route, key))
                }
                Ask::Command(kind) => world.command(kind),
                Ask::Retry(_) if sent.is_empty() => continue,
                Ask::Retry(index) => index.get(&sent).clone(),
            };
            let before = world.catalog.clone();
            let judged = world.catalog.judge(&command);
            let outcome = world.apply(&command);
            // What was told of it before is what it comes to.
            let (told, would_change) = match judged {
                Ok((reply, changes)) => (Ok(reply), changes),
                Err(refusal) => (Err(refusal), false),
            };
            prop_assert_eq!(&told, &outcome);
            prop_assert!(would_change || world.catalog == before);
            let is_split = matches!(command.kind, Kind::SplitRange { .. });
            let changed = world.catalog != before;
            prop_assert_eq!(world.version().0 - version.0, u64::from(is_split && changed));
            prop_assert!(!is_split || !changed || outcome.is_ok());
            let compat = |catalog: &Catalog| {
                let state = catalog.compat().unwrap();
                (state.cluster_version, state.high_water)
            };
            prop_assert!(compat(&world.catalog) >= compat(&before));
            // Another replica that applies the same entry comes to the same.
            let other = replica.apply(&command).map(|(reply, _)| reply);
            prop_assert_eq!((&other, &replica), (&outcome, &world.catalog));
            // A retry at once gets the same answer and changes nothing but what a heartbeat renews.
            if outcome.is_ok() && !command.kind.is_heartbeat() {
                let after = world.catalog.clone();
                prop_assert_eq!(world.apply(&command), outcome);
                prop_assert_eq!(&world.catalog, &after);
            }
            sent.push(command);
        }
    }
}
