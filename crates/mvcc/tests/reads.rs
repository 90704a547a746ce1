//! Reads of batches and snapshots against a model, and the work they cost.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{End, Interval, KeyFamily, LogicalKey, ShardId};
use drover_mvcc::{Batch, LockVisit, MetaKey, RecordKind, RecordPlace, RecordRow, StoreError, Stored};
use proptest::prelude::*;
use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
use support::*;

/// Versions by row and descending timestamp.
type Model = BTreeMap<(u64, LogicalKey), BTreeMap<u64, Stored>>;

#[derive(Debug, Clone)]
enum Action {
    Put(u64, LogicalKey, u64, Stored),
    Commit,
    Flush,
    Compact,
    Reopen,
}

fn a_key() -> impl Strategy<Value = LogicalKey> {
    let part = proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(b'a'), Just(0xff)], 0..3);
    (part.clone(), prop_oneof![4 => Just(0u8), 1 => Just(1u8), 1 => Just(255u8)], part).prop_map(
        |(route_key, family, suffix)| LogicalKey {
            route_key: route_key.into(),
            family: KeyFamily(family),
            suffix: if family == 0 { Bytes::new() } else { suffix.into() },
        },
    )
}

fn a_version() -> impl Strategy<Value = Stored> {
    prop_oneof![
        3 => (any::<[u8; 2]>(), proptest::option::of(0u64..20)).prop_map(|(value, expiry)| Stored::Put {
            value: Bytes::copy_from_slice(&value),
            expire_at: expiry.map(Timestamp::from_raw),
        }),
        1 => Just(Stored::Tombstone),
    ]
}

fn a_shard() -> impl Strategy<Value = u64> {
    prop_oneof![Just(1u64), Just(2), Just(u64::MAX)]
}

fn an_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        12 => (a_shard(), a_key(), 0u64..24, a_version()).prop_map(|(s, k, t, v)| Action::Put(s, k, t, v)),
        3 => Just(Action::Commit),
        1 => Just(Action::Flush),
        1 => Just(Action::Compact),
        1 => Just(Action::Reopen),
    ]
}

fn an_interval() -> impl Strategy<Value = Interval> {
    (a_key(), proptest::option::of(a_key())).prop_filter_map("reversed", |(start, end)| {
        Interval::new(start.route_key, end.map_or(End::Unbounded, |e| End::Key(e.route_key))).ok()
    })
}

fn visible(model: &Model, shard: u64, key: &LogicalKey, at: u64) -> Option<(Timestamp, Stored)> {
    let (commit_ts, stored) = model.get(&(shard, key.clone()))?.range(..=at).next_back()?;
    Some((ts(*commit_ts), stored.clone()))
}

fn scanned(model: &Model, shard: u64, interval: &Interval, at: u64) -> Vec<(Bytes, Timestamp, Stored)> {
    model
        .range((Bound::Included((shard, key(Bytes::new()))), Bound::Unbounded))
        .take_while(|((s, _), _)| *s == shard)
        .filter(|((_, key), _)| key.family == KeyFamily::PLAIN && interval.contains(&key.route_key))
        .filter_map(|((_, key), _)| {
            visible(model, shard, key, at).map(|(commit_ts, stored)| (key.route_key.clone(), commit_ts, stored))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn batches_and_snapshots_answer_like_a_map_of_versions(
        actions in proptest::collection::vec(an_action(), 1..60),
        shard in a_shard(), interval in an_interval(), at in 0u64..26,
    ) {
        let mut fixture = Fixture::new();
        let (mut committed, mut pending): (Model, Vec<(u64, LogicalKey, u64, Stored)>) = Default::default();
        for action in actions {
            match action {
                Action::Put(shard, key, at, stored) => pending.push((shard, key, at, stored)),
                Action::Commit | Action::Flush | Action::Compact | Action::Reopen => {
                    let mut seen = committed.clone();
                    let mut batch = fixture.store.batch();
                    for (shard, key, at, stored) in pending.drain(..) {
                        batch.put_version(ShardId(shard), &key, ts(at), &stored).unwrap();
                        seen.entry((shard, key.clone())).or_default().insert(at, stored);
                        let newest = batch.newest(ShardId(shard), &key).unwrap();
                        prop_assert_eq!(newest, visible(&seen, shard, &key, u64::MAX));
                    }
                    let mut rows = Vec::new();
                    batch.scan_visible(ShardId(shard), &interval, ts(at), &mut |key, commit_ts, stored| {
                        rows.push((key, commit_ts, stored));
                        ControlFlow::Continue(())
                    }).unwrap();
                    prop_assert_eq!(rows, scanned(&seen, shard, &interval, at));
                    for (shard, key) in seen.keys() {
                        let got = batch.visible(ShardId(*shard), key, ts(at)).unwrap();
                        prop_assert_eq!(got, visible(&seen, *shard, key, at));
                    }
                    // Snapshots know nothing of a batch that is not committed.
                    let before = fixture.store.snapshot();
                    batch.commit().unwrap();
                    for (shard, key) in seen.keys() {
                        let got = before.newest(ShardId(*shard), key).unwrap();
                        prop_assert_eq!(got, visible(&committed, *shard, key, u64::MAX));
                    }
                    drop(before);
                    committed = seen;
                    match action {
                        Action::Flush => drop(fixture.store.flush().unwrap()),
                        Action::Compact => fixture.store.compact().unwrap(),
                        Action::Reopen => {
                            fixture.store.flush().unwrap();
                            fixture = fixture.reopen();
                        }
                        Action::Put(..) | Action::Commit => {}
                    }
                }
            }
        }
        let snapshot = fixture.store.snapshot();
        for (shard, key) in committed.keys() {
            prop_assert_eq!(snapshot.visible(ShardId(*shard), key, ts(at)).unwrap(), visible(&committed, *shard, key, at));
        }
        let mut expect = scanned(&committed, shard, &interval, at);
        for reverse in [false, true] {
            let mut rows = Vec::new();
            snapshot.scan(ShardId(shard), &interval, ts(at), reverse, &mut |key, commit_ts, stored| {
                rows.push((key, commit_ts, stored));
                ControlFlow::Continue(())
            }).unwrap();
            prop_assert_eq!(&rows, &expect, "reverse: {}", reverse);
            expect.reverse();
        }
    }
}

#[test]
fn a_scan_stops_where_its_visitor_says() {
    let fixture = Fixture::new();
    put(&fixture.store, &[("a", 1, value("1")), ("b", 1, value("2")), ("c", 1, value("3"))]);
    for (reverse, expect) in [(false, "a"), (true, "c")] {
        let mut seen = Vec::new();
        let mut first = |key: Bytes, _, _| {
            seen.push(key);
            ControlFlow::Break(())
        };
        fixture.store.snapshot().scan(SHARD, &Interval::all(), ts(9), reverse, &mut first).unwrap();
        assert_eq!(seen, [expect]);
    }
    let mut count = 0;
    let mut first = |_: Bytes, _, _| {
        count += 1;
        ControlFlow::Break(())
    };
    fixture.store.batch().scan_visible(SHARD, &Interval::all(), ts(9), &mut first).unwrap();
    assert_eq!(count, 1);
}

/// Rows that RocksDB's iterators went over.
fn rows_touched(read: impl FnOnce()) -> u64 {
    set_perf_stats(PerfStatsLevel::EnableCount);
    let mut perf = PerfContext::default();
    perf.reset();
    read();
    let touched = perf.metric(PerfMetric::InternalKeySkippedCount)
        + perf.metric(PerfMetric::NextOnMemtableCount)
        + perf.metric(PerfMetric::SeekOnMemtableCount);
    set_perf_stats(PerfStatsLevel::Disable);
    touched
}

#[test]
fn a_key_with_many_versions_costs_reads_and_scans_a_handful_of_steps() {
    const VERSIONS: u64 = 100_000;
    let fixture = Fixture::new();
    let mut batch = fixture.store.batch();
    for name in ["a", "z"] {
        batch.put_version(SHARD, &key(name), ts(1), &value("cold")).unwrap();
    }
    for at in 1..=VERSIONS {
        batch.put_version(SHARD, &key("hot"), ts(at), &value(at.to_be_bytes().to_vec())).unwrap();
    }
    batch.commit().unwrap();
    for flushed in [false, true] {
        if flushed {
            fixture.store.flush().unwrap();
        }
        let snapshot = fixture.store.snapshot();
        for at in [1, 2, VERSIONS / 2, VERSIONS] {
            let expect = Some((ts(at), value(at.to_be_bytes().to_vec())));
            let point = rows_touched(|| assert_eq!(snapshot.visible(SHARD, &key("hot"), ts(at)).unwrap(), expect));
            assert!(point <= 4, "point read at {at}: {point} rows");
            for reverse in [false, true] {
                let scan = rows_touched(|| {
                    let rows = collect(&fixture.store, &Interval::all(), at, reverse);
                    assert_eq!(rows.len(), 3);
                    assert_eq!(rows[1].1, at);
                });
                assert!(scan <= 60, "scan at {at}, reverse {reverse}, flushed {flushed}: {scan} rows");
            }
        }
    }
}

#[test]
fn reads_of_absent_keys_are_answered_by_the_row_filter() {
    let fixture = Fixture::new();
    let mut batch = fixture.store.batch();
    for n in 0..2_000u32 {
        batch.put_version(SHARD, &key(n.to_be_bytes().to_vec()), ts(1), &value("x")).unwrap();
    }
    batch.commit().unwrap();
    fixture.store.flush().unwrap();
    set_perf_stats(PerfStatsLevel::EnableCount);
    let mut perf = PerfContext::default();
    perf.reset();
    let snapshot = fixture.store.snapshot();
    for n in 10_000..11_000u32 {
        assert_eq!(snapshot.newest(SHARD, &key(n.to_be_bytes().to_vec())).unwrap(), None);
    }
    let (answered, passed) = (perf.metric(PerfMetric::BloomSstMissCount), perf.metric(PerfMetric::BloomSstHitCount));
    assert!(answered > 900, "the filter answered {answered} of 1,000 reads, and let {passed} pass");
}

#[test]
fn control_state_is_out_of_reach_of_every_key_record_and_lock() {
    let fixture = Fixture::new();
    let mut batch = fixture.store.batch();
    batch.put_applied_state("applied".into());
    batch.put_meta(MetaKey::GroupState, "group".into());
    // Shard 0 and short keys give the physical keys that come closest to one-byte tags.
    for shard in [ShardId(0), ShardId(u64::MAX), ShardId(0x0200_0000_0000_0000)] {
        for route_key in [&b""[..], b"\x01", b"\x02", b"\x03", b"\xff"] {
            let row = key(Bytes::copy_from_slice(route_key));
            batch.put_version(shard, &row, ts(u64::MAX), &value("user")).unwrap();
            batch.put_lock(shard, &row, "user".into());
            batch.put_record(shard, route_key, RecordKind::Idempotency, b"", "user".into()).unwrap();
        }
    }
    assert_eq!(batch.meta(MetaKey::GroupState).unwrap().unwrap(), "group");
    batch.commit().unwrap();
    fixture.store.flush().unwrap();
    let snapshot = fixture.store.snapshot();
    assert_eq!(snapshot.applied_state().unwrap().unwrap(), "applied");
    assert_eq!(snapshot.meta(MetaKey::GroupState).unwrap().unwrap(), "group");
    assert_eq!(fixture.store.meta(MetaKey::GroupState).unwrap().unwrap(), "group");
}

/// What a scan of locks shows, as `key=lock`.
fn locks(scan: &mut dyn FnMut(&mut LockVisit<'_>) -> Result<(), StoreError>) -> Vec<String> {
    let mut found = Vec::new();
    scan(&mut |key, lock| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.push(format!("{}={}", text(&key), text(&lock)));
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    found
}

#[test]
fn locks_and_records_of_a_batch_shadow_what_is_committed() {
    let fixture = Fixture::new();
    let (a, b) = (key("a"), key("b"));
    let outcome = RecordKind::Idempotency;
    let mut batch = fixture.store.batch();
    batch.put_lock(SHARD, &a, "first".into());
    batch.put_lock(SHARD, &key("c"), "kept".into());
    batch.put_record(SHARD, b"a", outcome, b"op", "done".into()).unwrap();
    let all = |batch: &Batch<'_>, interval| locks(&mut |visit| batch.scan_locks(SHARD, &interval, visit));
    assert_eq!(all(&batch, Interval::all()), ["a=first", "c=kept"]);
    batch.commit().unwrap();

    let mut batch = fixture.store.batch();
    assert_eq!(batch.lock(SHARD, &a).unwrap().unwrap(), "first");
    batch.delete_lock(SHARD, &a);
    batch.put_lock(SHARD, &b, "second".into());
    batch.delete_record(SHARD, b"a", outcome, b"op").unwrap();
    assert_eq!((batch.lock(SHARD, &a).unwrap(), batch.record(SHARD, b"a", outcome, b"op").unwrap()), (None, None));
    batch.put_lock(SHARD, &key("d"), "last".into());
    assert_eq!(all(&batch, Interval::all()), ["b=second", "c=kept", "d=last"]);
    assert_eq!(all(&batch, interval("a", Some("b"))), Vec::<String>::new());
    assert_eq!(all(&batch, interval("b", Some("d"))), ["b=second", "c=kept"]);
    let other = ShardId(SHARD.0 + 1);
    assert_eq!(locks(&mut |visit| batch.scan_locks(other, &Interval::all(), visit)), Vec::<String>::new());
    let mut seen = 0;
    let first = &mut |_, _| {
        seen += 1;
        std::ops::ControlFlow::Break(())
    };
    batch.scan_locks(SHARD, &Interval::all(), first).unwrap();
    assert_eq!(seen, 1);
    // Another reader still sees the old state.
    let before = fixture.store.snapshot();
    assert_eq!(locks(&mut |visit| before.scan_locks(SHARD, &interval("a", Some("b")), visit)), ["a=first"]);
    batch.commit().unwrap();

    let snapshot = fixture.store.snapshot();
    assert_eq!(
        locks(&mut |visit| snapshot.scan_locks(SHARD, &interval("a", Some("d")), visit)),
        ["b=second", "c=kept"]
    );
    assert_eq!(snapshot.lock(SHARD, &b).unwrap().unwrap(), "second");
    assert_eq!(snapshot.record(SHARD, b"a", outcome, b"op").unwrap(), None);
}

#[test]
fn records_are_listed_by_route_key_within_their_interval() {
    let fixture = Fixture::new();
    let mut batch = fixture.store.batch();
    for (route_key, name) in [("b", "2"), ("a", "1"), ("b", "1"), ("c", "1")] {
        batch.put_record(SHARD, route_key.as_bytes(), RecordKind::Idempotency, name.as_bytes(), "v".into()).unwrap();
    }
    batch.put_record(ShardId(8), b"b", RecordKind::Idempotency, b"x", "v".into()).unwrap();
    batch.commit().unwrap();
    let look = |from: Option<&RecordPlace>| {
        let mut seen = Vec::new();
        let snapshot = fixture.store.snapshot();
        let mut visit = |row: RecordRow| {
            seen.push((row.route_key.clone(), row.name.clone(), row.place()));
            ControlFlow::Continue(())
        };
        snapshot.scan_records(SHARD, &interval("a", Some("c")), from, &mut visit).unwrap();
        seen
    };
    let all = look(None);
    let seen: Vec<(Bytes, Bytes)> = all.iter().map(|(key, name, _)| (key.clone(), name.clone())).collect();
    let expect: Vec<(Bytes, Bytes)> = [("a", "1"), ("b", "1"), ("b", "2")].map(|(k, n)| (k.into(), n.into())).into();
    assert_eq!(seen, expect);
    // From each of them on, that one included.
    for (at, (_, _, place)) in all.iter().enumerate() {
        assert_eq!(look(Some(place)), all[at..], "{place:?}");
    }
}

#[test]
fn a_batch_that_is_dropped_leaves_no_trace_and_makes_room_for_the_next() {
    let fixture = Fixture::new();
    let mut batch = fixture.store.batch();
    batch.put_version(SHARD, &key("a"), ts(1), &value("x")).unwrap();
    batch.put_applied_state("1".into());
    drop(batch);
    assert_eq!(versions(&fixture.store, "a"), [0; 0]);
    assert_eq!(fixture.store.applied_state().unwrap(), None);
    drop(fixture.store.batch());
}

#[test]
#[should_panic(expected = "one batch at a time")]
fn a_second_batch_beside_the_first_is_a_defect_of_the_caller() {
    let fixture = Fixture::new();
    let _first = fixture.store.batch();
    let _second = fixture.store.batch();
}
