//! What every engine must do, run on each.

use std::path::Path;

use bytes::Bytes;
use drover_keys::GroupId;
use drover_rafttypes::{CommandBytes, Entry, LogId, Payload, Vote, decode_log_id};
use drover_wire::proto::storage::v1 as pb;
use openraft::impls::leader_id_std::LeaderId;
use tempfile::TempDir;

use super::{Change, LogEngine, MemoryDisk, Recovered, open, verify};
use crate::error::LogError;
use crate::options::{EngineKind, LogOptions};
use crate::record::{Records, Window};

const G: GroupId = GroupId(7);
const OTHER: GroupId = GroupId(8);

fn log_id(term: u64, index: u64) -> LogId {
    decode_log_id(&pb::LogId { term, index })
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    let entry = |index: u64| {
        let payload = Payload::Normal(CommandBytes(Bytes::from(format!("{term}-{index}"))));
        Entry { log_id: log_id(term, index), payload }
    };
    range.map(entry).collect()
}

fn append(term: u64, range: std::ops::Range<u64>) -> (GroupId, Change) {
    (G, Change::Append(Records::encode(&entries(term, range))))
}

fn window(purged: Option<LogId>, last: LogId) -> (GroupId, Change) {
    (
        G,
        Change::Window(Window {
            purged,
            first: purged.map_or(0, |id| id.index + 1),
            last: Some(last),
            committed: None,
        }),
    )
}

fn vote(term: u64) -> Vote {
    Vote { leader_id: LeaderId { term, voted_for: 2 }, committed: true }
}

/// Which engine.
enum Kind {
    Files(EngineKind),
    Memory,
}

struct Fixture {
    kind: Kind,
    dir: TempDir,
    disk: MemoryDisk,
}

impl Fixture {
    fn try_open(&self) -> Result<Box<dyn LogEngine>, LogError> {
        match self.kind {
            Kind::Memory => Ok(Box::new(self.disk.open()?)),
            Kind::Files(engine) => {
                let (file_bytes, reclaim_bytes) = (8 << 10, 16 << 10);
                let options = LogOptions { engine, file_bytes, reclaim_bytes, ..LogOptions::default() };
                open(&self.dir.path().join("log"), &options)
            }
        }
    }

    fn open(&self) -> Box<dyn LogEngine> {
        self.try_open().unwrap()
    }
}

fn read(engine: &dyn LogEngine, range: std::ops::Range<u64>) -> Vec<Entry> {
    engine.read(G, range, usize::MAX).unwrap()
}

fn a_batch_of_everything_survives_a_restart(on: &Fixture) {
    let engine = on.open();
    let changes =
        [append(1, 0..5), window(None, log_id(1, 4)), (G, Change::Vote(vote(3))), (OTHER, Change::Vote(vote(9)))];
    assert!(engine.write(&changes).unwrap() > 0);
    drop(engine);
    let engine = on.open();
    assert_eq!(read(&*engine, 0..5), entries(1, 0..5));
    let expected = Window { last: Some(log_id(1, 4)), ..Window::default() };
    assert_eq!(engine.recover(G).unwrap(), Recovered { vote: Some(vote(3)), window: expected });
    assert_eq!(engine.recover(OTHER).unwrap(), Recovered { vote: Some(vote(9)), ..Recovered::default() });
    let mut groups = engine.groups().unwrap();
    groups.sort_unstable();
    assert_eq!(groups, [G, OTHER]);
    verify(&*engine, G, &expected).unwrap();
}

fn an_append_replaces_entries_from_its_first_index_on(on: &Fixture) {
    let engine = on.open();
    engine.write(&[append(1, 0..9)]).unwrap();
    engine.write(&[append(2, 4..6)]).unwrap();
    let expected = [entries(1, 0..4), entries(2, 4..6)].concat();
    assert_eq!(read(&*engine, 0..6), expected);
    drop(engine);
    assert_eq!(read(&*on.open(), 0..6), expected);
}

fn appends_of_one_batch_take_effect_in_order(on: &Fixture) {
    let engine = on.open();
    engine.write(&[append(1, 0..3), append(1, 3..6), append(2, 2..4)]).unwrap();
    assert_eq!(read(&*engine, 0..4), [entries(1, 0..2), entries(2, 2..4)].concat());
}

fn purged_entries_go_and_the_rest_stays(on: &Fixture) {
    let engine = on.open();
    engine.write(&[append(1, 0..9)]).unwrap();
    engine.write(&[(G, Change::Purge { through: 3 })]).unwrap();
    assert_eq!(read(&*engine, 4..9), entries(1, 4..9));
    assert!(matches!(engine.read(G, 3..9, usize::MAX), Err(LogError::Corrupt { .. })));
    drop(engine);
    assert_eq!(read(&*on.open(), 4..9), entries(1, 4..9));
}

fn a_log_may_go_on_behind_a_purge_that_passed_its_end(on: &Fixture) {
    let engine = on.open();
    engine.write(&[append(1, 0..9)]).unwrap();
    engine.write(&[(G, Change::Purge { through: 99 })]).unwrap();
    engine.write(&[append(2, 100..103)]).unwrap();
    assert_eq!(read(&*engine, 100..103), entries(2, 100..103));
    drop(engine);
    assert_eq!(read(&*on.open(), 100..103), entries(2, 100..103));
}

fn a_removed_group_is_gone_and_may_come_back(on: &Fixture) {
    let engine = on.open();
    engine.write(&[append(1, 0..9), (G, Change::Vote(vote(3))), (OTHER, Change::Vote(vote(1)))]).unwrap();
    engine.write(&[(G, Change::Remove)]).unwrap();
    assert_eq!(engine.groups().unwrap(), [OTHER]);
    drop(engine);
    let engine = on.open();
    assert_eq!(engine.groups().unwrap(), [OTHER]);
    assert_eq!(engine.recover(G).unwrap(), Recovered::default());
    engine.write(&[append(5, 20..22), window(Some(log_id(4, 19)), log_id(5, 21))]).unwrap();
    drop(engine);
    let engine = on.open();
    assert_eq!(read(&*engine, 20..22), entries(5, 20..22));
    assert_eq!(engine.recover(G).unwrap().vote, None);
}

fn a_read_is_bounded_but_never_empty(on: &Fixture) {
    let engine = on.open();
    engine.write(&[append(1, 0..9)]).unwrap();
    assert_eq!(engine.read(G, 2..9, 1).unwrap(), entries(1, 2..3));
    assert_eq!(engine.read(G, 2..4, 1 << 20).unwrap(), entries(1, 2..4));
}

fn what_is_missing_is_an_error_and_no_panic(on: &Fixture) {
    let engine = on.open();
    assert!(engine.read(G, 0..1, 1).is_err());
    engine.write(&[append(1, 5..9)]).unwrap();
    assert!(engine.read(G, 4..6, usize::MAX).is_err());
    assert!(engine.read(G, 9..10, usize::MAX).is_err());
    let longer = Window { first: 5, last: Some(log_id(1, 9)), ..Window::default() };
    assert!(matches!(verify(&*engine, G, &longer), Err(LogError::Corrupt { .. })));
    let other_term = Window { first: 5, last: Some(log_id(2, 8)), ..Window::default() };
    assert!(matches!(verify(&*engine, G, &other_term), Err(LogError::Corrupt { .. })));
    let starts_earlier = Window { purged: Some(log_id(1, 3)), first: 4, last: Some(log_id(1, 8)), committed: None };
    assert!(matches!(verify(&*engine, G, &starts_earlier), Err(LogError::Corrupt { .. })));
}

fn a_directory_is_open_only_once(on: &Fixture) {
    let _engine = on.open();
    assert!(on.try_open().is_err());
}

fn reclaiming_loses_nothing_that_is_live(on: &Fixture) {
    let engine = on.open();
    let other = |range| (OTHER, Change::Append(Records::encode(&entries(1, range))));
    engine.write(&[other(0..40), (OTHER, Change::Vote(vote(4)))]).unwrap();
    for round in 0..60_u64 {
        let range = round * 50..(round + 1) * 50;
        let last = log_id(1, range.end - 1);
        engine.write(&[append(1, range.clone()), window(None, last)]).unwrap();
        if let Some(through) = range.start.checked_sub(1) {
            engine.write(&[(G, Change::Purge { through })]).unwrap();
        }
        engine.reclaim().unwrap();
    }
    let check = |engine: &dyn LogEngine| {
        assert_eq!(engine.read(OTHER, 0..40, usize::MAX).unwrap(), entries(1, 0..40));
        assert_eq!(engine.recover(OTHER).unwrap().vote, Some(vote(4)));
        assert_eq!(read(engine, 2950..3000), entries(1, 2950..3000));
    };
    check(&*engine);
    drop(engine);
    check(&*on.open());
    let bytes: u64 = walk(on.dir.path());
    assert!(bytes < 1 << 20, "{bytes} bytes are kept");
}

fn walk(dir: &Path) -> u64 {
    let size = |item: std::fs::DirEntry| {
        let meta = item.metadata().unwrap();
        if meta.is_dir() { walk(&item.path()) } else { meta.len() }
    };
    std::fs::read_dir(dir).unwrap().map(|item| size(item.unwrap())).sum()
}

macro_rules! conformance {
    ($($behaviour:ident),* $(,)?) => {
        mod raft_engine {
            $(#[test] fn $behaviour() { super::run(super::Kind::Files(crate::EngineKind::RaftEngine), super::$behaviour) })*
        }
        mod rocksdb {
            $(#[test] fn $behaviour() { super::run(super::Kind::Files(crate::EngineKind::RocksDb), super::$behaviour) })*
        }
        mod memory {
            $(#[test] fn $behaviour() { super::run(super::Kind::Memory, super::$behaviour) })*
        }
    };
}

fn run(kind: Kind, behaviour: fn(&Fixture)) {
    behaviour(&Fixture { kind, dir: tempfile::tempdir().unwrap(), disk: MemoryDisk::default() });
}

conformance!(
    a_batch_of_everything_survives_a_restart,
    an_append_replaces_entries_from_its_first_index_on,
    appends_of_one_batch_take_effect_in_order,
    purged_entries_go_and_the_rest_stays,
    a_log_may_go_on_behind_a_purge_that_passed_its_end,
    a_removed_group_is_gone_and_may_come_back,
    a_read_is_bounded_but_never_empty,
    what_is_missing_is_an_error_and_no_panic,
    a_directory_is_open_only_once,
    reclaiming_loses_nothing_that_is_live,
);
