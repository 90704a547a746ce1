//! What survives crashes, and how checkpoints travel.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_keys::Interval;
use drover_mvcc::{StoreError, inspect_checkpoint};
use support::*;

fn word(n: u64) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(&n.to_be_bytes()))
}

#[test]
fn closing_without_a_flush_forgets_everything_after_the_last_one_in_all_families_alike() {
    let fixture = Fixture::new();
    apply(&fixture.store, 1, 0);
    assert_eq!(fixture.store.durable_applied_state(), None);
    assert_eq!(fixture.store.flush().unwrap(), word(1));
    for n in 2..50 {
        apply(&fixture.store, n, 0);
    }
    assert_eq!(fixture.store.durable_applied_state(), word(1));
    let fixture = fixture.reopen();
    assert_eq!(state(&fixture.store), Some(1));
    assert_eq!(fixture.store.durable_applied_state(), word(1));
}

#[test]
fn rows_of_the_catalog_are_written_removed_kept_and_counted() {
    let fixture = Fixture::new();
    let row = |name: &'static str, value: &'static str| (Bytes::from(name), Bytes::from(value));
    let put = |rows: &[(&str, Option<&'static str>)]| {
        let mut batch = fixture.store.batch();
        for (name, value) in rows {
            batch.put_catalog_row(name.as_bytes(), value.map(Bytes::from));
        }
        batch.commit().unwrap();
    };
    let digest = || fixture.store.snapshot().digest(&[], &[]).unwrap();
    let empty = digest();
    put(&[("b", Some("1")), ("a", Some("2")), ("", Some("3"))]);
    assert_eq!(fixture.store.catalog_rows().unwrap(), [row("", "3"), row("a", "2"), row("b", "1")]);
    let three = digest();
    assert_eq!(three.rows, empty.rows + 3);
    put(&[("a", None), ("b", Some("4"))]);
    let two = digest();
    assert_eq!(two.rows, empty.rows + 2);
    put(&[("b", Some("1")), ("a", Some("2"))]);
    assert_eq!(digest(), three);
    put(&[("a", None), ("b", Some("4"))]);
    fixture.store.flush().unwrap();
    put(&[("c", Some("5"))]);
    let fixture = fixture.reopen();
    assert_eq!(fixture.store.catalog_rows().unwrap(), [row("", "3"), row("b", "4")]);
}

#[test]
fn a_store_that_was_never_flushed_comes_back_empty() {
    let fixture = Fixture::new();
    apply(&fixture.store, 1, 0);
    let fixture = fixture.reopen();
    assert_eq!(state(&fixture.store), None);
}

#[test]
fn flushes_in_the_background_are_atomic_too() {
    let fixture = Fixture::new();
    let created = fixture.store.stats().live_sst_bytes;
    // Until RocksDB has flushed by itself, because the data memtable is full; those of the other families stay tiny. It
    // holds writers up when four memtables wait, so this ends.
    let mut written = 0;
    while fixture.store.stats().live_sst_bytes == created {
        written += 1;
        apply(&fixture.store, written, 1 << 20);
    }
    let fixture = fixture.reopen();
    let at = state(&fixture.store).expect("a flush has ended");
    assert!(at <= written);
    assert_eq!(versions(&fixture.store, "filler"), (1..=at).rev().collect::<Vec<_>>());
}

/// Says that it is over, also when a check fails: the other thread would go on for good.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_flush_beside_a_writer_reports_no_more_than_it_made_durable() {
    let fixture = Fixture::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                apply(&fixture.store, n, 0);
            }
        });
        let _over = SetOnDrop(&done);
        for round in 0..5 {
            let reported = fixture.store.flush().unwrap();
            let (crashed, copied) = (fixture.path(&format!("crash-{round}")), fixture.path(&format!("copy-{round}")));
            let contained = fixture.store.checkpoint(&copied).unwrap();
            assert!(contained >= reported, "the checkpoint is not older than the flush before it");
            fixture.env.install(&copied, &crashed).unwrap();
            let store = fixture.env.open(&crashed).unwrap();
            assert_eq!(state(&store).map(|n| n.to_be_bytes().to_vec()), contained.map(|b| b.to_vec()));
        }
    });
}

#[test]
fn a_checkpoint_is_a_store_of_its_own_that_later_writes_do_not_touch() {
    let fixture = Fixture::new();
    for n in 1..=7 {
        apply(&fixture.store, n, 0);
    }
    let copy = fixture.path("copy");
    assert_eq!(fixture.store.checkpoint(&copy).unwrap(), word(7));
    assert_eq!(fixture.store.durable_applied_state(), word(7));
    apply(&fixture.store, 8, 0);
    fixture.store.compact().unwrap();

    let before = names(&copy);
    let info = inspect_checkpoint(&copy).unwrap();
    assert_eq!(info.applied_state, word(7));
    assert_eq!(info.rows, 7 + 1 + 1 + 3, "versions, lock, record, control rows");
    assert!(info.files >= 4 && info.bytes > 0, "{info:?}");
    assert_eq!(names(&copy), before, "looking changes nothing");
    assert_eq!(state(&fixture.env.open(&copy).unwrap()), Some(7));
}

fn names(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    files_ending(dir, "")
}

#[test]
fn a_received_checkpoint_takes_the_place_of_a_closed_store_only() {
    let Fixture { root, env, store } = Fixture::new();
    let (live, copy) = (store.dir().to_owned(), root.path().join("copy"));
    apply(&store, 1, 0);
    store.checkpoint(&copy).unwrap();
    apply(&store, 2, 0);
    store.flush().unwrap();
    let snapshot = store.snapshot();
    drop(store);
    // A reader still has it.
    assert!(matches!(env.install(&copy, &live), Err(StoreError::InUse { .. })));
    assert!(matches!(env.destroy(&live), Err(StoreError::InUse { .. })));
    assert!(matches!(env.open(&live), Err(StoreError::InUse { .. })));
    assert!(!env.wait_closed(&live, Duration::ZERO));
    std::thread::scope(|scope| {
        scope.spawn(|| drop(snapshot));
        assert!(env.wait_closed(&live, Duration::from_secs(60)));
    });
    env.install(&copy, &live).unwrap();
    let store = env.open(&live).unwrap();
    assert_eq!(state(&store), Some(1));
    assert!(!copy.exists());
    drop(store);
    env.destroy(&live).unwrap();
    assert_eq!(state(&env.open(&live).unwrap()), None, "a new store");
}

#[test]
fn a_store_is_open_once_even_across_environments() {
    let fixture = Fixture::new();
    assert!(matches!(fixture.env.open(fixture.store.dir()), Err(StoreError::InUse { .. })));
    let other = env().open(fixture.store.dir());
    assert!(matches!(other, Err(StoreError::InUse { .. })), "{other:?}");
    apply(&fixture.store, 1, 0);
    assert_eq!(state(&fixture.store), Some(1), "the first is not disturbed");
}

#[test]
fn stores_of_a_newer_format_and_foreign_directories_are_refused_untouched() {
    let Fixture { root, env, store } = Fixture::new();
    let dir = store.dir().to_owned();
    apply(&store, 1, 0);
    let copy = root.path().join("copy");
    store.checkpoint(&copy).unwrap();
    drop(store);
    std::fs::write(dir.join("FORMAT"), "drover-store 2\n").unwrap();
    let before = names(&dir);
    let refused = env.open(&dir).unwrap_err();
    assert!(matches!(refused, StoreError::NewerFormat { found: 2, known: 1, .. }), "{refused}");
    assert_eq!(names(&dir), before);
    std::fs::remove_file(dir.join("FORMAT")).unwrap();
    assert!(matches!(env.open(&dir), Err(StoreError::NotAStore { .. })));
    for bad in ["drover-store 2\n", "what"] {
        std::fs::write(copy.join("FORMAT"), bad).unwrap();
        assert!(inspect_checkpoint(&copy).is_err());
        assert!(env.install(&copy, &dir).is_err());
    }
    assert!(matches!(inspect_checkpoint(root.path()), Err(StoreError::NotAStore { .. })));
}

#[test]
fn statistics_follow_what_happens() {
    let fixture = Fixture::new();
    let mut batch = fixture.store.batch();
    batch.put_version(SHARD, &key("a"), ts(1), &value(vec![1; 1 << 20])).unwrap();
    batch.commit().unwrap();
    let snapshot = fixture.store.snapshot();
    let filled = fixture.store.stats();
    assert!(filled.memtable_bytes >= 1 << 20, "{filled:?}");
    assert_eq!(filled.snapshots, 1);
    drop(snapshot);
    fixture.store.flush().unwrap();
    let flushed = fixture.store.stats();
    assert_eq!(flushed.snapshots, 0);
    assert!(flushed.live_sst_bytes > filled.live_sst_bytes && flushed.memtable_bytes < 1 << 20, "{flushed:?}");
    assert!(!flushed.write_stopped && flushed.background_errors == 0, "{flushed:?}");
    assert_eq!(fixture.store.approximate_bytes(), flushed.live_sst_bytes + flushed.memtable_bytes);
}

#[test]
fn reads_of_an_empty_store_find_nothing() {
    let fixture = Fixture::new();
    assert_eq!(state(&fixture.store), None);
    for reverse in [false, true] {
        assert_eq!(collect(&fixture.store, &Interval::all(), u64::MAX, reverse), []);
    }
}
