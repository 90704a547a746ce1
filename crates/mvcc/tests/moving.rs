//! Copying a live interval from one store to another: portions, the list of what was written meanwhile, and the sum that
//! both sides keep.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use drover_keys::{Interval, JobId, LogicalKey, ShardId};
use drover_mvcc::{
    ExportBudget, GcRule, GcRules, GroupStore, RawRow, RecordKind, RowKind, RowSum, Stored, Summing, Tracking,
};
use proptest::prelude::*;
use support::*;

const JOB: JobId = JobId(5);
const TARGET: ShardId = ShardId(90);

/// Like what a state machine keeps of the source's job.
fn armed(interval: &Interval) -> Vec<Tracking> {
    let change = RowSum::default();
    vec![Tracking { job: JOB, shard: SHARD, interval: interval.clone(), rows: 0, bytes: 0, change }]
}

fn budget(bytes: usize) -> ExportBudget {
    ExportBudget { bytes, scanned_bytes: usize::MAX }
}

/// One write to the source.
#[derive(Debug, Clone)]
enum Write {
    Version {
        key: u8,
        family: u8,
        put: bool,
    },
    /// The version that was written last, once more.
    Again {
        put: bool,
    },
    Record {
        key: u8,
        name: u8,
        value: u8,
    },
    RecordGone {
        key: u8,
        name: u8,
    },
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        6 => (0u8..8, 0u8..2, any::<bool>()).prop_map(|(key, family, put)| Write::Version { key, family, put }),
        1 => any::<bool>().prop_map(|put| Write::Again { put }),
        3 => (0u8..8, 0u8..3, any::<u8>()).prop_map(|(key, name, value)| Write::Record { key, name, value }),
        1 => (0u8..8, 0u8..3).prop_map(|(key, name)| Write::RecordGone { key, name }),
    ]
}

/// What happens between two steps of the copy.
fn any_history() -> impl Strategy<Value = Vec<Vec<Write>>> {
    proptest::collection::vec(proptest::collection::vec(any_write(), 0..6), 1..12)
}

struct Source {
    fixture: Fixture,
    tracking: Vec<Tracking>,
    now: u64,
    last: Option<LogicalKey>,
}

impl Source {
    fn write(&mut self, writes: &[Write]) {
        let mut batch = self.fixture.store.batch();
        batch.set_tracking(self.tracking.clone());
        batch.set_youngest(ts(self.now));
        for write in writes {
            let stored = |put: bool, n: u64| if put { value(vec![n as u8; 3]) } else { Stored::Tombstone };
            match write {
                Write::Version { key, family, put } => {
                    self.now += 1;
                    let family = drover_keys::KeyFamily(*family);
                    let suffix = if family.0 == 0 { Bytes::new() } else { "s".into() };
                    let key = LogicalKey { route_key: vec![*key].into(), family, suffix };
                    batch.put_version(SHARD, &key, ts(self.now), &stored(*put, self.now)).unwrap();
                    self.last = Some(key);
                }
                Write::Again { put } => {
                    if let Some(key) = &self.last {
                        batch.put_version(SHARD, key, ts(self.now), &stored(*put, self.now + 100)).unwrap();
                    }
                }
                Write::Record { key, name, value } => {
                    let value = Bytes::from(vec![*value; 2]);
                    batch.put_record(SHARD, &[*key], RecordKind::TxnOutcome, &[*name], value).unwrap();
                }
                Write::RecordGone { key, name } => {
                    batch.delete_record(SHARD, &[*key], RecordKind::TxnOutcome, &[*name]).unwrap();
                }
            }
        }
        self.tracking = batch.tracking().to_vec();
        batch.commit().unwrap();
    }
}

/// Imports rows in one batch; what the sum becomes. Those of a part of a copy that comes in the order of keys are new.
fn import(store: &GroupStore, rows: &[RawRow], are_new: bool, interval: &Interval, sum: RowSum) -> RowSum {
    let mut batch = store.batch();
    let sum = rows.iter().fold(sum, |sum, row| {
        row.check(interval).unwrap();
        sum.plus(batch.import(TARGET, row, are_new).unwrap())
    });
    batch.commit().unwrap();
    sum
}

/// All rows that a store would export, in one go.
fn everything(store: &std::sync::Arc<GroupStore>, shard: ShardId, interval: &Interval, safe_point: u64) -> Vec<RawRow> {
    let snapshot = store.snapshot();
    let all = |kind| {
        let portion = snapshot.export(kind, shard, interval, ts(safe_point), b"", budget(usize::MAX)).unwrap();
        assert!(portion.done);
        portion.rows
    };
    [all(RowKind::Version), all(RowKind::Record)].concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever is written between the portions, and however they are cut, the copy ends as the source does, and both sums
    /// say so; it does not matter when the source's own scan was made, nor what its replicas have collected.
    #[test]
    fn a_copy_with_what_was_written_meanwhile_is_equal(
        before in proptest::collection::vec(any_write(), 0..40),
        history in any_history(),
        (from, len) in (0u8..7, 1u8..8),
        open: bool,
        safe_back in 0u64..30,
        bytes in 1usize..200,
        scanned in 1usize..200,
        collects: bool,
        scan_at in 0usize..12,
    ) {
        let end = if open { drover_keys::End::Unbounded } else { drover_keys::End::Key(vec![from + len].into()) };
        let interval = Interval::new(vec![from], end).unwrap();
        let mut source = Source { fixture: Fixture::new(), tracking: Vec::new(), now: 0, last: None };
        let target = Fixture::new();
        source.write(&before);
        let safe_point = source.now.saturating_sub(safe_back);
        if collects {
            source.fixture.store.flush().unwrap();
            let rule = GcRule { shard: SHARD, interval: Interval::all(), safe_point: ts(safe_point), pinned: false };
            source.fixture.store.set_gc(GcRules(vec![rule]));
            source.fixture.store.compact().unwrap();
        }
        source.tracking = armed(&interval);

        let budget = ExportBudget { bytes, scanned_bytes: scanned };
        let mut cursors: BTreeMap<RowKind, (Bytes, bool)> =
            [RowKind::Version, RowKind::Record].map(|kind| (kind, (Bytes::new(), false))).into();
        let (mut next, mut base, mut sum) = (0, None, RowSum::default());
        for step in 0.. {
            if let Some(writes) = history.get(step) {
                source.write(writes);
            }
            let snapshot = source.fixture.store.snapshot();
            if step == scan_at {
                let change = source.tracking[0].change;
                let sum = snapshot.sum(SHARD, &interval, ts(safe_point)).unwrap();
                let mut summing = Summing::new(SHARD, &interval, ts(safe_point));
                let steps = std::iter::from_fn(|| Some(snapshot.sum_on(&mut summing, scanned).unwrap()));
                prop_assert_eq!(steps.flatten().next(), Some(sum), "the sum does not depend on its steps");
                base = Some(sum.minus(change));
            }
            if let Some((kind, (cursor, done))) = cursors.iter_mut().find(|(_, (_, done))| !done) {
                let portion = snapshot.export(*kind, SHARD, &interval, ts(safe_point), cursor, budget).unwrap();
                prop_assert!(portion.done || portion.cursor > *cursor, "no progress");
                sum = import(&target.store, &portion.rows, true, &interval, sum);
                (*cursor, *done) = (portion.cursor, portion.done);
            } else {
                let portion = snapshot.export_tracked(SHARD, JOB, next, budget).unwrap();
                sum = import(&target.store, &portion.rows, false, &interval, sum);
                next = portion.next;
                if portion.done && step >= history.len() && step > scan_at {
                    break;
                }
            }
        }
        prop_assert_eq!(next, source.tracking[0].rows);
        prop_assert_eq!(base.unwrap().plus(source.tracking[0].change), sum, "the sums differ");
        let ours = everything(&source.fixture.store, SHARD, &interval, safe_point);
        prop_assert_eq!(&ours, &everything(&target.store, TARGET, &interval, 0));
        prop_assert_eq!(target.store.snapshot().sum(TARGET, &Interval::all(), ts(0)).unwrap(), sum);
    }
}

#[test]
fn h5_a_key_with_many_versions_is_cut_anywhere() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let mut batch = source.store.batch();
    for at in 1..=10_000 {
        batch.put_version(SHARD, &key("hot"), ts(at), &value("x")).unwrap();
    }
    batch.commit().unwrap();
    let (mut cursor, mut portions, mut sum) = (Bytes::new(), 0, RowSum::default());
    loop {
        let portion = source.store.snapshot().export(
            RowKind::Version,
            SHARD,
            &Interval::all(),
            ts(5_000),
            &cursor,
            budget(4_000),
        );
        let portion = portion.unwrap();
        assert!(portion.rows.iter().map(RawRow::bytes).sum::<usize>() <= 4_000);
        sum = import(&target.store, &portion.rows, true, &Interval::all(), sum);
        (cursor, portions) = (portion.cursor, portions + 1);
        if portion.done {
            break;
        }
    }
    // All above the safe point, and the newest at it.
    assert_eq!((sum.rows, portions > 20), (5_001, true));
    assert_eq!(sum, source.store.snapshot().sum(SHARD, &Interval::all(), ts(5_000)).unwrap());
}

#[test]
fn h15_a_portion_without_rows_still_makes_progress() {
    let fixture = Fixture::new();
    put(&fixture.store, &[("a", 3, Stored::Tombstone), ("a", 2, value("x")), ("b", 1, value("y"))]);
    let small = ExportBudget { bytes: 1_000, scanned_bytes: 1 };
    let snapshot = fixture.store.snapshot();
    let export =
        |after: &[u8]| snapshot.export(RowKind::Version, SHARD, &Interval::all(), ts(9), after, small).unwrap();
    let mut cursor = Bytes::new();
    let mut rows = Vec::new();
    for _ in 0..3 {
        let portion = export(&cursor);
        assert!(portion.cursor > cursor && !portion.done);
        (cursor, rows) = (portion.cursor, [rows, portion.rows].concat());
    }
    assert_eq!((rows.len(), export(&cursor).done), (1, true), "of a, only what is below its tombstone would be left");
}

#[test]
fn h9_deletes_and_expiries_travel_and_hide_at_the_target_what_they_hid_at_the_source() {
    let (source, target) = (Fixture::new(), Fixture::new());
    let expiring = Stored::Put { value: "x".into(), expire_at: Some(ts(8)) };
    put(&source.store, &[("deleted", 3, value("x")), ("expires", 4, expiring), ("stays", 5, value("y"))]);
    put(&source.store, &[("deleted", 6, Stored::Tombstone)]);
    let whole = Interval::all();
    // Snapshots from 2 on are kept.
    import(&target.store, &everything(&source.store, SHARD, &whole, 2), true, &whole, RowSum::default());
    let seen = |fixture: &Fixture, shard, at| {
        let snapshot = fixture.store.snapshot();
        ["deleted", "expires", "stays"].map(|name| snapshot.visible(shard, &key(name), ts(at)).unwrap())
    };
    for at in 2..10 {
        assert_eq!(seen(&source, SHARD, at), seen(&target, TARGET, at), "at {at}");
    }
    assert_eq!(seen(&target, TARGET, 9)[0], Some((ts(6), Stored::Tombstone)));
}

#[test]
fn h19_what_was_cleared_up_is_there_for_a_read_that_has_begun() {
    let fixture = Fixture::new();
    put(&fixture.store, &[("a", 1, value("x")), ("b", 1, value("y")), ("b", 2, value("z"))]);
    let mut batch = fixture.store.batch();
    batch.put_record(SHARD, b"b", RecordKind::TxnMarker, b"n", "r".into()).unwrap();
    batch.put_lock(SHARD, &key("b"), "l".into());
    batch.commit().unwrap();
    fixture.store.flush().unwrap();
    let begun = fixture.store.snapshot();
    let rows = |snapshot: &drover_mvcc::StoreSnapshot| {
        let export =
            |kind| snapshot.export(kind, SHARD, &Interval::all(), ts(0), b"", budget(usize::MAX)).unwrap().rows;
        [export(RowKind::Version), export(RowKind::Record)].concat().len()
    };

    let mut batch = fixture.store.batch();
    batch.empty(SHARD, &interval("b", None));
    batch.commit().unwrap();
    fixture.store.flush().unwrap();
    fixture.store.compact().unwrap();
    assert_eq!(rows(&fixture.store.snapshot()), 1, "it is cleared up");
    assert_eq!(rows(&begun), 4);
    assert_eq!(begun.visible(SHARD, &key("b"), ts(2)).unwrap(), Some((ts(2), value("z"))));
    assert_eq!(begun.lock(SHARD, &key("b")).unwrap(), Some("l".into()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Rows of every kind are sorted by their route key before anything else, so an interval of route keys holds all that belongs
    /// to them: what is copied, and what is cleared up.
    #[test]
    fn h10_an_interval_holds_the_rows_of_every_kind_of_its_route_keys_and_of_no_others(
        names in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..4), 1..6),
        (start, end) in (proptest::collection::vec(any::<u8>(), 0..3), proptest::collection::vec(any::<u8>(), 1..3)),
        family in 1u8..,
        suffix in proptest::collection::vec(any::<u8>(), 0..4),
        name in proptest::collection::vec(any::<u8>(), 0..4),
    ) {
        let end = if start < end { drover_keys::End::Key(end.into()) } else { drover_keys::End::Unbounded };
        let interval = Interval::new(start, end).unwrap();
        let fixture = Fixture::new();
        let mut batch = fixture.store.batch();
        let kinds = [RecordKind::Idempotency, RecordKind::TxnOutcome, RecordKind::TxnMarker];
        for route_key in &names {
            let plain = key(route_key.clone());
            let field = LogicalKey { family: drover_keys::KeyFamily(family), suffix: suffix.clone().into(), ..plain.clone() };
            for logical in &[plain, field] {
                batch.put_version(SHARD, logical, ts(1), &value("x")).unwrap();
                batch.put_lock(SHARD, logical, "l".into());
            }
            for kind in kinds {
                batch.put_record(SHARD, route_key, kind, &name, "r".into()).unwrap();
            }
        }
        batch.commit().unwrap();
        let inside = names.iter().filter(|name| interval.contains(name)).count();
        let of = |keys: usize| keys * (2 + kinds.len());
        prop_assert_eq!(everything(&fixture.store, SHARD, &interval, 0).len(), of(inside));

        let mut batch = fixture.store.batch();
        batch.empty(SHARD, &interval);
        batch.commit().unwrap();
        prop_assert!(everything(&fixture.store, SHARD, &interval, 0).is_empty());
        prop_assert_eq!(everything(&fixture.store, SHARD, &Interval::all(), 0).len(), of(names.len() - inside));
        for route_key in &names {
            let lock = fixture.store.snapshot().lock(SHARD, &key(route_key.clone())).unwrap();
            prop_assert_eq!(lock.is_none(), interval.contains(route_key));
        }
    }
}

#[test]
fn a_row_larger_than_the_budget_travels_alone() {
    let fixture = Fixture::new();
    put(&fixture.store, &[("a", 1, value(vec![1; 9_000])), ("b", 1, value("y"))]);
    let portion =
        fixture.store.snapshot().export(RowKind::Version, SHARD, &Interval::all(), ts(0), b"", budget(10)).unwrap();
    assert_eq!((portion.rows.len(), portion.done), (1, false));
}

#[test]
fn what_is_emptied_is_gone_and_its_neighbours_stay() {
    let fixture = Fixture::new();
    let rows = |fixture: &Fixture| everything(&fixture.store, SHARD, &Interval::all(), 0).len();
    put(&fixture.store, &[("a", 1, value("x")), ("b", 1, value("x")), ("c", 1, value("x"))]);
    let mut batch = fixture.store.batch();
    batch.set_tracking(armed(&interval("b", Some("c"))));
    batch.put_record(SHARD, b"b", RecordKind::TxnMarker, b"n", "r".into()).unwrap();
    batch.put_lock(SHARD, &key("b"), "l".into());
    batch.commit().unwrap();
    assert_eq!(rows(&fixture), 4);
    let tracked =
        |fixture: &Fixture| fixture.store.snapshot().export_tracked(SHARD, JOB, 0, budget(99)).unwrap().rows.len();
    assert_eq!(tracked(&fixture), 1);

    let mut batch = fixture.store.batch();
    batch.put_version(SHARD, &key("b"), ts(2), &value("late")).unwrap();
    batch.empty(SHARD, &interval("b", Some("c")));
    batch.empty_tracker(SHARD, JOB);
    batch.put_version(SHARD, &key("a"), ts(2), &value("next to it")).unwrap();
    batch.commit().unwrap();
    assert_eq!((rows(&fixture), tracked(&fixture)), (3, 0));
    assert_eq!(fixture.store.snapshot().lock(SHARD, &key("b")).unwrap(), None);
    fixture.store.flush().unwrap();
    let fixture = fixture.reopen();
    assert_eq!((rows(&fixture), tracked(&fixture)), (3, 0));

    let mut batch = fixture.store.batch();
    batch.empty(SHARD, &Interval::all());
    batch.commit().unwrap();
    assert_eq!(rows(&fixture), 0);
}

#[test]
fn rows_outside_of_all_that_is_kept_are_found_in_every_family() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    put(store, &[("b", 1, value("v")), ("d", 1, value("v")), ("d", 2, value("v")), ("h", 1, Stored::Tombstone)]);
    let in_shard = |parts: &[(&'static str, &'static str)]| -> Vec<(ShardId, Interval)> {
        parts.iter().map(|(start, end)| (SHARD, interval(start, Some(end)))).collect()
    };
    let strays = |kept: &[(ShardId, Interval)]| store.snapshot().strays(kept, &[]).unwrap();
    for (kept, expect) in [
        (&[("a", "z")][..], 0),
        (&[("b", "c"), ("d", "e"), ("h", "i")], 0),
        (&[("h", "i"), ("a", "e")], 0),
        (&[("a", "e")], 1),
        (&[("c", "e")], 2),
        (&[("b", "c"), ("h", "i")], 1),
        (&[], 1),
    ] {
        assert_eq!(strays(&in_shard(kept)), expect, "{kept:?}");
    }
    assert_eq!(strays(&[(TARGET, Interval::all())]), 1, "of another shard");

    let kept = [(SHARD, interval("a", Some("p")))];
    let mut batch = store.batch();
    batch.put_lock(SHARD, &key("q"), "lock".into());
    batch.commit().unwrap();
    assert_eq!(strays(&kept), 1, "a lock");
    let mut batch = store.batch();
    batch.put_record(SHARD, b"q", RecordKind::Idempotency, b"op", "record".into()).unwrap();
    batch.commit().unwrap();
    assert_eq!(strays(&kept), 2, "a record as well");
    let mut batch = store.batch();
    batch.empty(SHARD, &interval("p", None));
    batch.set_tracking(armed(&Interval::all()));
    batch.put_version(SHARD, &key("b"), ts(3), &value("w")).unwrap();
    batch.commit().unwrap();
    assert_eq!(strays(&kept), 1, "the list of a job that is over");
    assert_eq!(store.snapshot().strays(&kept, &[(SHARD, JOB)]).unwrap(), 0);
}
