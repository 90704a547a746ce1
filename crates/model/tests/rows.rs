//! The rows of the model are what RocksDB holds: the same history leaves the same rows, sums, lists and locks in both.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use drover_fsm::codec::txn::{Lock, TxnMarker};
use drover_fsm::moving::MovedRows;
use drover_hlc::Timestamp;
use drover_keys::{End, Interval, JobId, LogicalKey, ShardId};
use drover_kv::{Attempt, TxnId, TxnRef, Update};
use drover_model::rows::Rows;
use drover_mvcc::{
    Batch, ExportBudget, GcRule, GcRules, GroupStore, RawRow, RecordKind, RowKind, RowSum, StoreEnv, StoreEnvOptions,
    Stored, Tracking,
};
use proptest::prelude::*;

const SHARD: ShardId = ShardId(1);
const COPY: ShardId = ShardId(9);
const JOB: JobId = JobId(3);
const KEYS: [&str; 4] = ["a", "c", "c\0", "e"];
/// One row in each portion.
const ONE: ExportBudget = ExportBudget { bytes: 1, scanned_bytes: usize::MAX };

#[derive(Debug, Clone)]
enum Write {
    Version { key: usize, at: u64, is_value: bool },
    Marker { key: usize, attempt: u32 },
    Lock { key: usize, start_ts: u64 },
    Unlock { key: usize },
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (0..KEYS.len(), 1..12u64, any::<bool>()).prop_map(|(key, at, is_value)| Write::Version { key, at, is_value }),
        1 => (0..KEYS.len(), 1..4u32).prop_map(|(key, attempt)| Write::Marker { key, attempt }),
        1 => (0..KEYS.len(), 1..12u64).prop_map(|(key, start_ts)| Write::Lock { key, start_ts }),
        1 => (0..KEYS.len()).prop_map(|key| Write::Unlock { key }),
    ]
}

fn moving() -> Interval {
    Interval::new("b", End::Key("d".into())).unwrap()
}

fn tracking() -> Tracking {
    Tracking { job: JOB, shard: SHARD, interval: moving(), rows: 0, bytes: 0, change: RowSum::default() }
}

/// Everything of an interval that a copy holds, one row at a time.
fn all_of(mut portion: impl FnMut(RowKind, &Bytes) -> (Vec<RawRow>, Bytes, bool)) -> Vec<RawRow> {
    let (mut all, mut cursor, mut kind) = (Vec::new(), Bytes::new(), RowKind::Version);
    loop {
        let (rows, next, done) = portion(kind, &cursor);
        assert!(rows.len() <= 1, "a portion ends after the first row: {rows:?}");
        all.extend(rows);
        match (done, kind) {
            (false, _) => cursor = next,
            (true, RowKind::Version) => (kind, cursor) = (RowKind::Record, Bytes::new()),
            (true, RowKind::Record) => return all,
        }
    }
}

/// Writes the same into both.
fn write(batch: &mut Batch<'_>, rows: &mut Rows, write: &Write) {
    match write {
        Write::Version { key, at, is_value } => {
            let (key, at) = (Bytes::from_static(KEYS[*key].as_bytes()), Timestamp::from_raw(*at));
            let value = match is_value {
                true => Stored::Put { value: "v".into(), expire_at: None },
                false => Stored::Tombstone,
            };
            batch.put_version(SHARD, &LogicalKey::plain(key.clone()), at, &value).unwrap();
            rows.put_version(SHARD, &key, at, &value);
        }
        Write::Marker { key, attempt } => {
            let (key, id) = (Bytes::from_static(KEYS[*key].as_bytes()), TxnId([1; 16]));
            let attempt = Attempt { number: *attempt, coordinator: 1 };
            let marker = TxnMarker { start_ts: Timestamp::ZERO, attempt, commit_ts: None, fingerprint: None };
            batch.put_record(SHARD, &key, RecordKind::TxnMarker, &id.0, marker.encode()).unwrap();
            rows.put_marker(SHARD, &key, id, &marker);
            assert_eq!(rows.marker(SHARD, &key, id), Some(marker));
        }
        Write::Lock { key, start_ts } => {
            let key = Bytes::from_static(KEYS[*key].as_bytes());
            let lock = Lock {
                txn: TxnRef { id: TxnId([1; 16]), attempt: Attempt { number: 1, coordinator: 1 } },
                primary: "z".into(),
                start_ts: Timestamp::from_raw(*start_ts),
                expire_at: Timestamp::MAX,
                fingerprint: 7,
                update: Update::Delete,
            };
            let logical = LogicalKey::plain(key.clone());
            let was_free = batch.lock(SHARD, &logical).unwrap().is_none();
            batch.put_lock(SHARD, &logical, lock.encode());
            assert_eq!(rows.put_lock(SHARD, &key, lock), was_free);
        }
        Write::Unlock { key } => {
            let key = Bytes::from_static(KEYS[*key].as_bytes());
            let logical = LogicalKey::plain(key.clone());
            let was_locked = batch.lock(SHARD, &logical).unwrap().is_some();
            batch.delete_lock(SHARD, &logical);
            assert_eq!(rows.unlock(SHARD, &key), was_locked);
        }
    }
}

/// Holds what is in a shard of both against each other.
fn compare(store: &Arc<GroupStore>, rows: &Rows, shard: ShardId, safe_point: Timestamp) {
    let snapshot = store.snapshot();
    for interval in [moving(), Interval::all()] {
        assert_eq!(snapshot.sum(shard, &interval, safe_point).unwrap(), rows.sum(shard, &interval, safe_point));
        let stored = all_of(|kind, after| {
            let portion = snapshot.export(kind, shard, &interval, safe_point, after, ONE).unwrap();
            (portion.rows, portion.cursor, portion.done)
        });
        let held = all_of(|kind, after| {
            let portion = rows.export(kind, shard, &interval, safe_point, after, 1);
            (portion.rows, portion.cursor, portion.done)
        });
        assert_eq!(stored, held, "{interval}");
        let mut oldest: Option<Timestamp> = None;
        let mut visit = |_, lock: Bytes| {
            let start_ts = Lock::decode(lock).unwrap().start_ts;
            oldest = Some(oldest.map_or(start_ts, |oldest| oldest.min(start_ts)));
            ControlFlow::Continue(())
        };
        snapshot.scan_locks(shard, &interval, &mut visit).unwrap();
        assert_eq!(oldest, rows.oldest_lock(shard, &interval), "{interval}");
        let Ok(is_locked) = MovedRows::is_locked(rows, shard, &interval);
        assert_eq!(is_locked, oldest.is_some(), "{interval}");
    }
    for (key, at) in KEYS.iter().flat_map(|key| (safe_point.raw()..13).map(move |at| (key, at))) {
        let (key, at) = (Bytes::from_static(key.as_bytes()), Timestamp::from_raw(at));
        let live = |version: Option<(Timestamp, Stored)>| version.filter(|(_, value)| *value != Stored::Tombstone);
        let stored = snapshot.visible(shard, &LogicalKey::plain(key.clone()), at).unwrap();
        assert_eq!(live(stored), live(rows.visible(shard, &key, at)), "{key:?} as of {at:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_same_history_leaves_the_same_in_memory_and_in_rocksdb(
        before in proptest::collection::vec(any_write(), 0..20),
        after in proptest::collection::vec(any_write(), 0..20),
        safe_point in 0..13u64,
    ) {
        let safe_point = Timestamp::from_raw(safe_point);
        let dir = tempfile::tempdir().unwrap();
        let store = StoreEnv::new(StoreEnvOptions::default()).unwrap().open(&dir.path().join("store")).unwrap();
        let mut rows = Rows::default();
        let mut batch = store.batch();
        before.iter().for_each(|one| write(&mut batch, &mut rows, one));
        batch.set_tracking(vec![tracking()]);
        rows.set_tracking(vec![tracking()]);
        after.iter().for_each(|one| write(&mut batch, &mut rows, one));
        prop_assert_eq!(batch.tracking(), rows.tracking());
        batch.commit().unwrap();
        compare(&store, &rows, SHARD, safe_point);

        let all = ExportBudget { bytes: 1 << 20, ..ONE };
        for from in 0..=rows.tracking()[0].rows {
            let listed = store.snapshot().export_tracked(SHARD, JOB, from, all).unwrap();
            let listed = (listed.rows, listed.next, listed.done);
            prop_assert_eq!(listed, rows.export_tracked(SHARD, JOB, from, usize::MAX), "from {}", from);
        }

        // The copy, as a target takes it in, the last row of it twice.
        let mut copied = all_of(|kind, after| {
            let portion = store.snapshot().export(kind, SHARD, &moving(), safe_point, after, ONE).unwrap();
            (portion.rows, portion.cursor, portion.done)
        });
        copied.extend(copied.last().cloned());
        let mut batch = store.batch();
        for row in &copied {
            let Ok(sum) = rows.import(COPY, row, false);
            prop_assert_eq!(batch.import(COPY, row, false).unwrap(), sum);
        }
        batch.commit().unwrap();
        compare(&store, &rows, COPY, Timestamp::ZERO);
        prop_assert_eq!(rows.sum(COPY, &moving(), safe_point), rows.sum(SHARD, &moving(), safe_point));

        // Garbage is collected in the range, and what a pin protects is not.
        let rule = |shard, safe_point, pinned| GcRule { shard, interval: moving(), safe_point, pinned };
        let rules = GcRules(vec![rule(SHARD, safe_point, false), rule(COPY, Timestamp::from_raw(20), true)]);
        rows.collect(&rules);
        store.set_gc(rules);
        store.flush().unwrap();
        store.compact().unwrap();
        compare(&store, &rows, SHARD, Timestamp::ZERO);
        compare(&store, &rows, COPY, Timestamp::ZERO);

        // The source gives the range up.
        let mut batch = store.batch();
        MovedRows::empty(&mut batch, SHARD, &moving());
        MovedRows::empty_tracker(&mut batch, SHARD, JOB);
        rows.empty(SHARD, &moving());
        rows.empty_tracker(SHARD, JOB);
        batch.commit().unwrap();
        compare(&store, &rows, SHARD, safe_point);
        compare(&store, &rows, COPY, Timestamp::ZERO);
        let listed = store.snapshot().export_tracked(SHARD, JOB, 0, all).unwrap();
        prop_assert_eq!((listed.rows, listed.next, listed.done), rows.export_tracked(SHARD, JOB, 0, usize::MAX));
    }
}
