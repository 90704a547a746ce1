use drover_keys::{CatalogVersion, JobId, RouteId};

use super::*;
use crate::routes::strategies::interval;
use crate::{RouteState, Split};

#[test]
fn a_cluster_is_created_once_and_the_same_one_again_is_no_error() {
    let mut world = World::default();
    assert_eq!(world.run(Kind::Freeze), Err(CatalogRefusal::NotBootstrapped));
    let created = CatalogReply::Bootstrapped { version: CatalogVersion(1) };
    assert_eq!(world.run(Kind::Bootstrap(Box::new(bootstrap()))), Ok(created.clone()));
    let before = world.catalog.clone();
    let mut again = bootstrap();
    again.routes.reverse();
    assert_eq!(world.run(Kind::Bootstrap(Box::new(again))), Ok(created));
    assert_eq!(world.catalog, before);
    let other = Bootstrap { settings: CatalogSettings { settle_ms: 9, ..CatalogSettings::default() }, ..bootstrap() };
    assert_eq!(world.run(Kind::Bootstrap(Box::new(other))), Err(CatalogRefusal::AlreadyBootstrapped));
    assert_eq!(world.audited(), "admin bootstrap cluster: 2 routes, 2 groups, 3 nodes");
}

#[test]
fn what_cannot_be_a_cluster_is_not_created() {
    type Spoil = fn(&mut Bootstrap);
    let table: [(Spoil, &str); 15] = [
        (|b| drop(b.routes.pop()), "it must be unbounded"),
        (|b| b.routes[1].id = RouteId(1), "route id 1 is used twice"),
        (|b| b.routes[0].id = RouteId(0), "0 is no route id"),
        (|b| b.routes[0].shard = ShardId(1 << 60), "is no shard id"),
        (|b| b.routes[0].group = GroupId(9), "route 1 names group 9"),
        (|b| b.routes[0].state = RouteState::WriteFenced { job: JobId(1) }, "route 1 is not active"),
        (|b| b.settings.max_key_bytes = 0, "max_key_bytes is 0"),
        (|b| b.settings.audit_log = u32::MAX, "audit_log is 4294967295"),
        (|b| b.nodes.clear(), "there is no node"),
        (|b| b.nodes.get_mut(&NodeId(2)).unwrap().address = "n1:2".to_owned(), "n1:2 is the address of nodes 1 and 2"),
        (|b| b.nodes.get_mut(&NodeId(2)).unwrap().address.clear(), "the address has 0 bytes"),
        (|b| b.nodes.get_mut(&NodeId(2)).unwrap().address = "n 2".to_owned(), "other characters"),
        (|b| drop(b.groups.remove(&GroupId(1))), "group 1 is missing"),
        (|b| drop(b.groups.insert(GroupId(2), nodes([]))), "group 2 has no voter"),
        (|b| drop(b.groups.insert(GroupId(2), nodes([1, 7]))), "a voter on node 7"),
    ];
    for (spoil, words) in table {
        let mut bad = bootstrap();
        spoil(&mut bad);
        let refusal = World::default().run(Kind::Bootstrap(Box::new(bad))).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn a_split_keeps_the_id_on_the_left_and_group_and_shard_on_both_sides() {
    let mut world = World::new();
    let CatalogReply::Split(halves) = world.run(split(1, 2, "t")).unwrap() else { panic!("not a split") };
    let Split { version, left, right } = *halves;
    assert_eq!((version, world.version()), (CatalogVersion(2), CatalogVersion(2)));
    assert_eq!((left.id, left.interval.clone()), (RouteId(2), interval("m", Some(b"t"))));
    assert_eq!((right.id, right.interval.clone()), (RouteId(3), interval("t", None)));
    assert_eq!((right.group, right.shard), (left.group, left.shard));
    assert_eq!(world.catalog.routes().unwrap().route_of(b"x"), &right);
    assert_eq!(world.audited(), r#"admin split-range route 2: cut at "t", route 3 from there on, version 2"#);
    assert!(world.run(split(2, 3, "z")).is_ok());
    assert_eq!(world.version(), CatalogVersion(3));
}

#[test]
fn a_split_that_cannot_be_is_refused() {
    let mut world = World::with(CatalogSettings { max_key_bytes: 4, ..CatalogSettings::default() });
    world.run(split(1, 2, "t")).unwrap();
    let at = |route, key: &str| {
        let key = format!("{key:?}");
        Err(CatalogRefusal::KeyAtBoundary { holder: RouteId(route), key })
    };
    let outside = |route, keys: &str, key: &str, holder| {
        let (keys, key) = (keys.to_owned(), format!("{key:?}"));
        Err(CatalogRefusal::KeyOutside { route: RouteId(route), keys, key, holder: RouteId(holder) })
    };
    let stale = |expected| {
        let (expected, current) = (CatalogVersion(expected), CatalogVersion(2));
        Err(CatalogRefusal::StaleVersion { expected, current })
    };
    let table = [
        (split(1, 2, "p"), stale(1)),
        (split(3, 2, "p"), stale(3)),
        (split(0, 2, "p"), stale(0)),
        (split(2, 9, "p"), Err(CatalogRefusal::UnknownRoute { route: RouteId(9) })),
        (split(2, 2, "m"), at(2, "m")),
        (split(2, 2, "t"), at(3, "t")),
        (split(2, 1, ""), at(1, "")),
        (split(2, 2, "a"), outside(2, r#""m" to "t""#, "a", 1)),
        (split(2, 2, "z"), outside(2, r#""m" to "t""#, "z", 3)),
        (split(2, 3, "a"), outside(3, r#""t" to the end"#, "a", 1)),
        (split(2, 2, "ppppp"), Err(CatalogRefusal::KeyTooLarge { bytes: 5, limit: 4 })),
    ];
    for (kind, expect) in table {
        assert_eq!(world.run(kind.clone()), expect, "{kind:?}");
    }
    assert!(world.run(split(2, 2, "pppp")).is_ok());
}

#[test]
fn a_watcher_goes_on_from_any_version_that_is_still_in_the_log() {
    let mut world = World::with(CatalogSettings { delta_log: 3, ..CatalogSettings::default() });
    let mut snapshots = vec![world.catalog.routes().unwrap().clone()];
    for n in 1..=6u64 {
        world.run(split(n, 1, &format!("a{}", 9 - n))).unwrap();
        snapshots.push(world.catalog.routes().unwrap().clone());
    }
    let now = world.catalog.routes().unwrap();
    for snapshot in &snapshots {
        let deltas = world.catalog.deltas_since(snapshot.version());
        assert_eq!(deltas.is_some(), snapshot.version() >= CatalogVersion(4), "{:?}", snapshot.version());
        if let Some(mut deltas) = deltas {
            assert_eq!(deltas.try_fold(snapshot.clone(), |map, delta| map.apply(delta)).as_ref(), Ok(now));
        }
    }
    assert!(world.catalog.deltas_since(CatalogVersion(8)).is_none());
}
