//! Garbage collection in a real store: what goes, what stays, and that nobody can tell.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_keys::{Interval, LogicalKey, ShardId};
use drover_mvcc::{Digest, DigestScope, GcRule, GcRules, GroupStore, MetaKey, RecordKind, Stored};
use proptest::prelude::*;
use support::*;

fn digest(store: &Arc<GroupStore>, safe_point: u64) -> Digest {
    let scope = DigestScope { shard: SHARD, interval: Interval::all(), safe_point: ts(safe_point) };
    store.snapshot().digest(&[scope], &[MetaKey::GroupState]).unwrap()
}

fn history() -> Vec<(&'static str, u64, Stored)> {
    vec![
        ("alive", 1, value("1")),
        ("alive", 5, value("5")),
        ("alive", 7, value("7")),
        ("alive", 12, value("12")),
        ("dead", 2, value("2")),
        ("dead", 6, Stored::Tombstone),
        ("expired", 3, Stored::Put { value: "3".into(), expire_at: Some(ts(4)) }),
        ("revived", 2, value("2")),
        ("revived", 6, Stored::Tombstone),
        ("revived", 11, value("11")),
    ]
}

#[test]
fn compaction_keeps_the_newest_version_at_or_below_the_safe_point_and_all_above_it() {
    let fixture = Fixture::new();
    put(&fixture.store, &history());
    fixture.store.set_gc(rule(Interval::all(), 10, false));
    fixture.store.compact().unwrap();
    assert_eq!(versions(&fixture.store, "alive"), [12, 7]);
    assert_eq!(versions(&fixture.store, "dead"), [0; 0], "tombstone and all under it");
    assert_eq!(versions(&fixture.store, "revived"), [11]);
    // An expired version still stands above whatever it replaced: it is the callers who judge expiry.
    assert_eq!(versions(&fixture.store, "expired"), [3]);
}

#[test]
fn rows_outside_every_rule_and_in_pinned_intervals_stay_as_they_are() {
    let fixture = Fixture::new();
    for (rules, why) in [
        (GcRules::default(), "no rule"),
        (rule(Interval::all(), 10, true), "pinned"),
        (rule(interval("x", None), 10, false), "another interval"),
        (rule(interval("a", Some("alive")), 10, false), "an interval that ends before"),
        (
            GcRules(vec![GcRule { shard: ShardId(8), interval: Interval::all(), safe_point: ts(10), pinned: false }]),
            "another shard",
        ),
    ] {
        put(&fixture.store, &history());
        fixture.store.flush().unwrap();
        fixture.store.set_gc(rules);
        fixture.store.compact().unwrap();
        assert_eq!(versions(&fixture.store, "alive"), [12, 7, 5, 1], "{why}");
        assert_eq!(versions(&fixture.store, "dead"), [6, 2], "{why}");
    }
}

#[test]
fn a_digest_covers_rows_of_every_kind() {
    let fixture = Fixture::new();
    let mut digests = vec![digest(&fixture.store, 0)];
    assert_eq!(digests[0], Digest::default());
    let mut change = |write: &dyn Fn(&mut drover_mvcc::Batch<'_>)| {
        let mut batch = fixture.store.batch();
        write(&mut batch);
        batch.commit().unwrap();
        digests.push(digest(&fixture.store, 0));
    };
    change(&|batch| batch.put_version(SHARD, &key("a"), ts(1), &value("x")).unwrap());
    change(&|batch| batch.put_version(SHARD, &field("a", 1, "s"), ts(1), &value("x")).unwrap());
    change(&|batch| batch.put_version(ShardId(8), &key("a"), ts(1), &value("x")).unwrap());
    change(&|batch| batch.put_version(SHARD, &key("a"), ts(2), &Stored::Tombstone).unwrap());
    change(&|batch| batch.put_lock(SHARD, &key("a"), "x".into()));
    change(&|batch| batch.put_record(SHARD, b"a", RecordKind::Idempotency, b"n", "x".into()).unwrap());
    change(&|batch| batch.put_meta(MetaKey::GroupState, "x".into()));
    for (n, digest) in digests.iter().enumerate() {
        assert_eq!(digest.rows, n as u64);
        assert!(!digests[..n].iter().any(|d| d.hash == digest.hash), "change {n} shows");
    }
    // Where replicas stand in their logs is no part of their state.
    let mut batch = fixture.store.batch();
    batch.put_applied_state("x".into());
    batch.commit().unwrap();
    assert_eq!(digest(&fixture.store, 0), *digests.last().unwrap());
}

#[derive(Debug, Clone)]
enum Action {
    Put { key: u8, tombstone: bool },
    Flush,
    Compact,
    Advance,
}

fn an_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        10 => (0u8..4, any::<bool>()).prop_map(|(key, tombstone)| Action::Put { key, tombstone }),
        4 => Just(Action::Flush),
        1 => Just(Action::Compact),
        2 => Just(Action::Advance),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn nobody_can_tell_a_store_that_collects_from_one_that_does_not(
        actions in proptest::collection::vec(an_action(), 1..80), reopen: bool,
    ) {
        let (mut fixture, hoarder) = (Fixture::new(), Fixture::new());
        // Value at each commit; a tombstone and nothing are alike.
        let mut model: BTreeMap<(u8, u64), Option<Stored>> = BTreeMap::new();
        let (mut now, mut safe_point) = (1u64, 0u64);
        for action in actions {
            match action {
                Action::Put { key: name, tombstone } => {
                    now += 1;
                    let stored = if tombstone { Stored::Tombstone } else { value(now.to_be_bytes().to_vec()) };
                    for store in [&fixture.store, &hoarder.store] {
                        let mut batch = store.batch();
                        batch.put_version(SHARD, &key(vec![name]), ts(now), &stored).unwrap();
                        batch.commit().unwrap();
                    }
                    model.insert((name, now), Some(stored).filter(|s| *s != Stored::Tombstone));
                }
                Action::Flush => drop(fixture.store.flush().unwrap()),
                Action::Compact => fixture.store.compact().unwrap(),
                Action::Advance => {
                    safe_point = now;
                    fixture.store.set_gc(rule(Interval::all(), safe_point, false));
                }
            }
        }
        prop_assert_eq!(digest(&fixture.store, safe_point), digest(&hoarder.store, safe_point));
        if reopen {
            fixture.store.flush().unwrap();
            fixture = fixture.reopen();
            prop_assert_eq!(digest(&fixture.store, safe_point), digest(&hoarder.store, safe_point));
        }
        let snapshot = fixture.store.snapshot();
        for at in safe_point..=now {
            for name in 0..4u8 {
                let expect = model.range((name, 0)..=(name, at)).next_back().and_then(|(_, stored)| stored.clone());
                let row: LogicalKey = key(vec![name]);
                let got = snapshot.visible(SHARD, &row, ts(at)).unwrap().map(|(_, stored)| stored);
                prop_assert_eq!(got.filter(|s| *s != Stored::Tombstone), expect, "key {} at {}", name, at);
            }
            let live = |store: &Arc<GroupStore>, reverse| {
                let mut rows = collect(store, &Interval::all(), at, reverse);
                rows.retain(|(_, _, stored)| *stored != Stored::Tombstone);
                rows
            };
            for reverse in [false, true] {
                prop_assert_eq!(live(&fixture.store, reverse), live(&hoarder.store, reverse));
            }
        }
    }
}
