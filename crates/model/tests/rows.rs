//! The rows of the model are what RocksDB holds: the same history leaves the same sums, lists, copies and versions in both.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use drover_fsm::codec::txn::TxnMarker;
use drover_fsm::moving::MovedRows;
use drover_hlc::Timestamp;
use drover_keys::{End, Interval, JobId, LogicalKey, ShardId};
use drover_kv::{Attempt, TxnId};
use drover_model::rows::Rows;
use drover_mvcc::{
    ExportBudget, GcRule, GcRules, RawRow, RecordKind, RowKind, RowSum, StoreEnv, StoreEnvOptions, Stored, Tracking,
};
use proptest::prelude::*;

const SHARD: ShardId = ShardId(1);
const JOB: JobId = JobId(3);
const KEYS: [&str; 4] = ["a", "c", "c\0", "e"];
/// One row in each portion.
const ONE: ExportBudget = ExportBudget { bytes: 1, scanned_bytes: usize::MAX };

#[derive(Debug, Clone)]
enum Write {
    Version { key: usize, at: u64, is_value: bool },
    Marker { key: usize, attempt: u32 },
}

fn any_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (0..KEYS.len(), 1..12u64, any::<bool>()).prop_map(|(key, at, is_value)| Write::Version { key, at, is_value }),
        1 => (0..KEYS.len(), 1..4u32).prop_map(|(key, attempt)| Write::Marker { key, attempt }),
    ]
}

fn moving() -> Interval {
    Interval::new("b", End::Key("d".into())).unwrap()
}

fn tracking() -> Tracking {
    Tracking { job: JOB, shard: SHARD, interval: moving(), rows: 0, bytes: 0, change: RowSum::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

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
        for (place, write) in before.iter().chain(&after).enumerate() {
            if place == before.len() {
                batch.set_tracking(vec![tracking()]);
                rows.set_tracking(vec![tracking()]);
            }
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
                }
            }
        }
        prop_assert_eq!(batch.tracking(), rows.tracking());
        batch.commit().unwrap();

        let listed = store.snapshot().export_tracked(SHARD, JOB, 0, ExportBudget { bytes: 1 << 20, ..ONE }).unwrap();
        prop_assert_eq!((listed.rows, listed.next, listed.done), rows.export_tracked(SHARD, JOB, 0, usize::MAX));
        for collected in [false, true] {
            if collected {
                let rule = GcRule { shard: SHARD, interval: moving(), safe_point, pinned: false };
                rows.collect(&GcRules(vec![rule.clone()]));
                store.set_gc(GcRules(vec![rule]));
                store.flush().unwrap();
                store.compact().unwrap();
            }
            let snapshot = store.snapshot();
            prop_assert_eq!(snapshot.sum(SHARD, &moving(), safe_point).unwrap(), rows.sum(SHARD, &moving(), safe_point));
            for kind in [RowKind::Version, RowKind::Record] {
                let (mut stored, mut cursor): (Vec<RawRow>, _) = (Vec::new(), Bytes::new());
                loop {
                    let portion = snapshot.export(kind, SHARD, &moving(), safe_point, &cursor, ONE).unwrap();
                    stored.extend(portion.rows);
                    cursor = portion.cursor;
                    if portion.done {
                        break;
                    }
                }
                let (mut held, mut cursor): (Vec<RawRow>, _) = (Vec::new(), Bytes::new());
                loop {
                    let portion = rows.export(kind, SHARD, &moving(), safe_point, &cursor, 1);
                    held.extend(portion.rows);
                    cursor = portion.cursor;
                    if portion.done {
                        break;
                    }
                }
                prop_assert_eq!(stored, held);
            }
            for (key, at) in KEYS.iter().flat_map(|key| (safe_point.raw()..13).map(move |at| (key, at))) {
                let (key, at) = (Bytes::from_static(key.as_bytes()), Timestamp::from_raw(at));
                let live = |version: Option<(Timestamp, Stored)>| version.filter(|(_, value)| *value != Stored::Tombstone);
                let stored = snapshot.visible(SHARD, &LogicalKey::plain(key.clone()), at).unwrap();
                prop_assert_eq!(live(stored), live(rows.visible(SHARD, &key, at)));
            }
        }
    }
}
