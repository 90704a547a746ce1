//! The catalog in the state of the default group.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drover_catalog::job::JobOptions;
use drover_catalog::{
    Bootstrap, BootstrapNode, CatalogCommand, CatalogCommandKind, CatalogRefusal, CatalogReply, CatalogRow,
    CatalogSettings, MOVES_RANGES, MOVES_SINCE, RegisterNode, RequestId, Route, RouteState, StartJob,
};
use drover_fsm::{Command, catalog_rows, decode_catalog_row};
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, End, GroupId, Interval, JobId, NodeId, RouteId, ShardId, StoreId};
use drover_rafttypes::{ApplyReply, ControlReply, Entry};
use drover_wire::CatalogPart;
use proptest::prelude::*;
use support::*;

fn command(n: u8, kind: CatalogCommandKind) -> Command {
    let now = PhysicalMs::new(u64::from(n)).unwrap();
    Command::Catalog(Box::new(CatalogCommand { request_id: RequestId([n; 16]), actor: "test".to_owned(), now, kind }))
}

fn create() -> CatalogCommandKind {
    let route = Route {
        id: RouteId(1),
        interval: Interval::all(),
        group: GroupId::DEFAULT,
        shard: ShardId(1),
        state: RouteState::Active,
    };
    let node = BootstrapNode { address: "a:1".to_owned(), admin_address: "a:2".to_owned() };
    CatalogCommandKind::Bootstrap(Box::new(Bootstrap {
        settings: CatalogSettings { delta_log: 3, audit_log: 2, request_log: 2, ..CatalogSettings::default() },
        routes: vec![route],
        groups: BTreeMap::from([(GroupId::DEFAULT, BTreeSet::from([NodeId(1)]))]),
        nodes: BTreeMap::from([(NodeId(1), node)]),
    }))
}

fn split(version: u64, route: u64, at: u8) -> CatalogCommandKind {
    let (expected_version, route) = (CatalogVersion(version), RouteId(route));
    CatalogCommandKind::SplitRange { expected_version, route, key: vec![at].into() }
}

fn answer(reply: ApplyReply) -> Result<CatalogReply, CatalogRefusal> {
    match reply {
        ApplyReply::Control(ControlReply::Catalog(answer)) => *answer,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_catalog_comes_back_from_its_rows_after_a_crash_and_after_a_flush() {
    let dir = tempfile::tempdir().unwrap();
    let (env, path) = (env(), dir.path().join("store"));
    let mut replica = Replica::open_group(&env, &path, GroupId::DEFAULT);
    answer(replica.command(command(1, create()))).unwrap();
    for n in 0..6 {
        answer(replica.command(command(n + 2, split(u64::from(n) + 1, u64::from(n) + 1, n + 10)))).unwrap();
    }
    replica.store.flush().unwrap();
    let flushed = replica.catalog.clone();
    answer(replica.command(command(9, split(7, 7, 99)))).unwrap();
    assert_eq!(replica.catalog.routes().unwrap().version(), CatalogVersion(8));
    drop(replica);
    let replica = Replica::open_group(&env, &path, GroupId::DEFAULT);
    assert_eq!(replica.catalog, flushed, "what came after the flush is replayed from the log");
    assert_eq!(replica.catalog.routes().unwrap().count(), 7);
}

#[test]
fn a_refusal_writes_nothing_and_a_group_without_catalog_refuses_everything() {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    let mut replica = Replica::open_group(&env, &dir.path().join("default"), GroupId::DEFAULT);
    answer(replica.command(command(1, create()))).unwrap();
    let (rows, catalog) = (replica.store.catalog_rows().unwrap(), replica.catalog.clone());
    let stale = answer(replica.command(command(2, split(9, 1, 10))));
    assert!(matches!(stale, Err(CatalogRefusal::StaleVersion { .. })), "{stale:?}");
    assert_eq!((replica.store.catalog_rows().unwrap(), replica.catalog.clone()), (rows, catalog));

    let mut other = Replica::open_group(&env, &dir.path().join("other"), GroupId(7));
    let refused = other.command(command(1, create()));
    assert!(matches!(refused, ApplyReply::Control(ControlReply::Refused(_))), "{refused:?}");
    assert_eq!(other.store.catalog_rows().unwrap(), []);
}

#[test]
fn jobs_are_read_from_a_number_downwards_the_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open_group(&env(), &dir.path().join("store"), GroupId::DEFAULT);
    let CatalogCommandKind::Bootstrap(mut bootstrap) = create() else { panic!("it creates the cluster") };
    bootstrap.groups.insert(GroupId(2), BTreeSet::from([NodeId(1)]));
    answer(replica.command(command(1, CatalogCommandKind::Bootstrap(bootstrap)))).unwrap();
    let register = RegisterNode {
        node: Some(NodeId(1)),
        store: StoreId([1; 16]),
        address: "a:1".to_owned(),
        admin_address: "a:2".to_owned(),
        version: MOVES_SINCE,
        capabilities: BTreeSet::from([MOVES_RANGES.to_owned()]),
    };
    answer(replica.command(command(2, CatalogCommandKind::RegisterNode(register)))).unwrap();
    for n in 3..7u8 {
        let start = StartJob {
            expected_version: CatalogVersion::FIRST,
            route: RouteId(1),
            interval: Interval::new(vec![n], End::Key(vec![n + 1].into())).unwrap(),
            target: GroupId(2),
            options: JobOptions::default(),
        };
        answer(replica.command(command(n, CatalogCommandKind::StartJob(start)))).unwrap();
    }
    let read = |newest, limit| {
        let rows = catalog_rows(&replica.catalog, CatalogPart::Jobs { newest: JobId(newest) }, limit);
        let job = |(key, value): (Bytes, Bytes)| match decode_catalog_row(&key, value).unwrap() {
            CatalogRow::Job(job) => job.id.0,
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(job).collect::<Vec<_>>()
    };
    let ids: Vec<u64> = replica.catalog.jobs().rev().map(|job| job.id.0).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(read(u64::MAX, 9), ids);
    assert_eq!(read(u64::MAX, 2), ids[..2]);
    assert_eq!(read(ids[1], 9), ids[1..]);
    assert_eq!(read(ids[2], 1), ids[2..3]);
    assert_eq!(read(ids[3] - 1, 9), [0u64; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Splits that collide, repeat and expect wrong versions, cut into batches in any way.
    #[test]
    fn how_the_log_is_cut_into_batches_changes_neither_rows_nor_answers(
        splits in proptest::collection::vec((0u64..12, 1u64..8, 0u8..16, 0u8..12), 0..40),
        cuts in proptest::collection::vec(1usize..6, 40),
    ) {
        let kinds = splits.into_iter().map(|(version, route, at, id)| command(id + 2, split(version, route, at)));
        let commands = std::iter::once(command(1, create())).chain(kinds);
        let log: Vec<Entry> = commands.zip(0..).map(|(command, index)| entry(1, index, &command)).collect();
        let dir = tempfile::tempdir().unwrap();
        let env = env();
        let mut one = Replica::open_group(&env, &dir.path().join("one"), GroupId::DEFAULT);
        let mut many = Replica::open_group(&env, &dir.path().join("many"), GroupId::DEFAULT);
        let singly: Vec<ApplyReply> = log.iter().flat_map(|entry| one.apply(std::slice::from_ref(entry))).collect();
        let mut batched = Vec::new();
        let mut rest = &log[..];
        for cut in cuts {
            let (batch, tail) = rest.split_at(cut.min(rest.len()));
            batched.extend(many.apply(batch));
            rest = tail;
        }
        batched.extend(many.apply(rest));
        prop_assert_eq!(singly, batched);
        prop_assert_eq!(one.store.catalog_rows().unwrap(), many.store.catalog_rows().unwrap());
        prop_assert_eq!(&one.catalog, &many.catalog);
        prop_assert_eq!(one.digest(), many.digest());
        let reread = one.store.catalog_rows().unwrap().into_iter();
        let reread = reread.map(|(name, value)| drover_fsm::codec::catalog::row::decode(&name, value).unwrap());
        prop_assert_eq!(&drover_catalog::Catalog::from_rows(reread).unwrap(), one.catalog.as_ref());
    }
}
