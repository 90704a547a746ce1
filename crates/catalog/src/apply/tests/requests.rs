use drover_keys::CatalogVersion;

use super::*;
use crate::{MAX_ACTOR_BYTES, Meta};

#[test]
fn a_retry_gets_the_first_answer_whatever_happened_since() {
    let mut world = World::new();
    let command = world.command(split(1, 2, "t"));
    let first = world.apply(&command).unwrap();
    world.run(split(2, 2, "p")).unwrap();
    let before = world.catalog.clone();
    world.now += 1_000_000;
    let retry = CatalogCommand { now: PhysicalMs::new(world.now).unwrap(), ..command };
    assert_eq!(world.apply(&retry), Ok(first));
    assert_eq!(world.catalog, before);
}

#[test]
fn an_id_of_another_request_is_refused() {
    let mut world = World::new();
    let command = world.command(split(1, 2, "t"));
    world.apply(&command).unwrap();
    let others = [
        CatalogCommand { kind: split(1, 2, "u"), ..command.clone() },
        CatalogCommand { kind: Kind::Freeze, ..command.clone() },
        CatalogCommand { actor: "eve".to_owned(), ..command.clone() },
    ];
    for other in others {
        let refusal = CatalogRefusal::RequestReused { request: command.request_id };
        assert_eq!(world.apply(&other), Err(refusal), "{other:?}");
    }
}

#[test]
fn a_refusal_is_not_an_answer_that_is_kept() {
    let mut world = World::new();
    let command = world.command(register(9, V1));
    let early = CatalogCommand { kind: heartbeat(9, V1), ..command.clone() };
    assert!(world.apply(&early).is_err());
    assert!(world.apply(&command).is_ok());
}

#[test]
fn answers_and_audit_events_are_bounded_and_heartbeats_are_not_among_them() {
    let mut world = World::with(CatalogSettings { request_log: 3, audit_log: 5, ..CatalogSettings::default() });
    world.run(register(1, V1)).unwrap();
    let commands: Vec<_> = (0..6).map(|n| world.command(Kind::DrainNode { node: NodeId(1), on: n % 2 == 0 })).collect();
    for command in &commands {
        world.apply(command).unwrap();
        world.run(heartbeat(1, V1)).unwrap();
    }
    let events: Vec<u64> = world.catalog.audit().map(|event| event.seq).collect();
    assert_eq!(events, [4, 5, 6, 7, 8]);
    let kept = world.rows.keys().filter(|key| matches!(key, RowKey::Request(_))).count();
    assert_eq!(kept, 3);
    let seen = world.catalog.audit().count();
    world.apply(&commands[3]).unwrap();
    assert_eq!(world.catalog.audit().next_back().unwrap().seq, 8, "still known");
    world.apply(&commands[2]).unwrap();
    assert_eq!(world.catalog.audit().next_back().unwrap().seq, 9, "forgotten, and so done again");
    assert_eq!(world.catalog.audit().count(), seen);
}

#[test]
fn who_asks_has_a_name_of_bounded_length() {
    let mut world = World::new();
    for bytes in [0, MAX_ACTOR_BYTES + 1] {
        let actor = "x".repeat(bytes);
        let command = CatalogCommand { actor, ..world.command(Kind::ReadCompat) };
        assert_eq!(world.apply(&command), Err(CatalogRefusal::Actor { bytes }));
    }
}

#[test]
fn the_clock_never_goes_back() {
    let mut world = World::new();
    world.now = 50_000;
    world.run(register(1, V1)).unwrap();
    world.now = 10;
    world.run(heartbeat(1, V1)).unwrap();
    assert_eq!(world.catalog.clock().unix_ms(), 50_000);
    assert_eq!(world.catalog.node(NodeId(1)).unwrap().presence.as_ref().unwrap().renewed.unix_ms(), 50_000);
}

#[test]
fn rows_that_are_no_catalog_are_refused() {
    let mut world = World::settled();
    world.run(split(1, 2, "t")).unwrap();
    assert_eq!(Catalog::from_rows([]), Ok(Catalog::default()));
    for key in world.rows.keys() {
        if matches!(key, RowKey::Node(NodeId(4))) {
            continue;
        }
        let rest = world.rows.iter().filter(|(k, _)| *k != key).map(|(_, row)| row.clone());
        let error = Catalog::from_rows(rest);
        assert!(error.is_err(), "nobody misses {key:?}");
    }
}

#[test]
fn counters_that_contradict_what_there_is_are_refused() {
    type Spoil = fn(&mut Meta);
    let mut world = World::settled();
    world.run(split(1, 2, "t")).unwrap();
    let table: [(Spoil, &str); 11] = [
        (|meta| meta.version = CatalogVersion(1), "the log of route changes"),
        (|meta| meta.version = CatalogVersion(3), "the log of route changes"),
        (|meta| meta.next_route = RouteId(3), "route 3 exists, and the next one would be 3"),
        (|meta| meta.next_shard = ShardId(2), "shard 2 exists, and the next one would be 2"),
        (|meta| meta.next_group = GroupId(2), "group 2 exists, and the next one would be 2"),
        (|meta| meta.next_node = NodeId(4), "node 4 exists, and the next one would be 4"),
        (|meta| meta.next_audit += 1, "the log of audit events"),
        (|meta| meta.next_request -= 1, "the log of answers"),
        (|meta| meta.clock = PhysicalMs::default(), "in the future"),
        (|meta| meta.high_water = V2, "the high-water mark is not the cluster version"),
        (|meta| meta.cluster_version = None, "nodes are refused, and no version is known"),
    ];
    for (spoil, words) in table {
        let rows = world.rows.values().cloned().map(|row| match row {
            CatalogRow::Meta(mut meta) => {
                spoil(&mut meta);
                CatalogRow::Meta(meta)
            }
            row => row,
        });
        let error = Catalog::from_rows(rows).unwrap_err().to_string();
        assert!(error.contains(words), "{error}, not {words}");
    }
}
