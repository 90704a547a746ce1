//! What the tests of the store share. Each test binary uses a part of it.
#![allow(dead_code)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{End, Interval, KeyFamily, LogicalKey, ShardId};
use drover_mvcc::{GcRule, GcRules, GroupStore, MetaKey, RecordKind, StoreEnv, StoreEnvOptions, Stored};

pub const SHARD: ShardId = ShardId(7);

pub fn env() -> StoreEnv {
    StoreEnv::new(StoreEnvOptions { block_cache_bytes: 8 << 20, ..StoreEnvOptions::default() }).unwrap()
}

/// Fields are dropped in this order: the store is closed before its directory goes.
pub struct Fixture {
    pub store: Arc<GroupStore>,
    pub env: StoreEnv,
    pub root: tempfile::TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let env = env();
        let store = env.open(&root.path().join("live")).unwrap();
        Self { root, env, store }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Closes the store without a flush and opens it again.
    pub fn reopen(self) -> Self {
        let Self { root, env, store } = self;
        let dir = store.dir().to_owned();
        drop(Arc::into_inner(store).expect("the test holds the only handle"));
        let store = env.open(&dir).unwrap();
        Self { root, env, store }
    }
}

pub fn ts(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

pub fn key(name: impl Into<Bytes>) -> LogicalKey {
    LogicalKey::plain(name)
}

pub fn field(name: &'static str, family: u8, suffix: &'static str) -> LogicalKey {
    LogicalKey { route_key: name.into(), family: KeyFamily(family), suffix: suffix.into() }
}

pub fn value(text: impl Into<Bytes>) -> Stored {
    Stored::Put { value: text.into(), expire_at: None }
}

pub fn interval(start: &'static str, end: Option<&'static str>) -> Interval {
    Interval::new(start, end.map_or(End::Unbounded, |e| End::Key(e.into()))).unwrap()
}

/// Commits these versions in one batch.
pub fn put(store: &GroupStore, rows: &[(&'static str, u64, Stored)]) {
    let mut batch = store.batch();
    for (name, at, stored) in rows {
        batch.put_version(SHARD, &key(*name), ts(*at), stored).unwrap();
    }
    batch.commit().unwrap();
}

pub fn rule(interval: Interval, safe_point: u64, pinned: bool) -> GcRules {
    GcRules(vec![GcRule { shard: SHARD, interval, safe_point: ts(safe_point), pinned }])
}

pub fn collect(store: &Arc<GroupStore>, interval: &Interval, at: u64, reverse: bool) -> Vec<(Bytes, u64, Stored)> {
    let mut rows = Vec::new();
    store
        .snapshot()
        .scan(SHARD, interval, ts(at), reverse, &mut |key, commit_ts, stored| {
            rows.push((key, commit_ts.raw(), stored));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

/// Every timestamp at which `name` still has a version.
pub fn versions(store: &Arc<GroupStore>, name: &'static str) -> Vec<u64> {
    let snapshot = store.snapshot();
    let mut found = Vec::new();
    let mut at = Some(Timestamp::MAX);
    while let Some(bound) = at {
        let next = snapshot.visible(SHARD, &key(name), bound).unwrap();
        found.extend(next.iter().map(|(commit_ts, _)| commit_ts.raw()));
        at = next.and_then(|(commit_ts, _)| commit_ts.prev());
    }
    found
}

pub fn files_ending(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .collect();
    files.sort();
    files
}

/// Applies entry `n`: one row, one lock, one record, one control row and the applied state, all saying `n`, and a filler
/// of `filler_bytes` if that is not 0.
pub fn apply(store: &GroupStore, n: u64, filler_bytes: usize) {
    let word = Bytes::copy_from_slice(&n.to_be_bytes());
    let mut batch = store.batch();
    if filler_bytes > 0 {
        batch.put_version(SHARD, &key("filler"), ts(n), &value(vec![7; filler_bytes])).unwrap();
    }
    batch.put_version(SHARD, &key("row"), ts(n), &value(word.clone())).unwrap();
    batch.put_lock(SHARD, &key("row"), word.clone());
    batch.put_record(SHARD, b"row", RecordKind::Idempotency, b"op", word.clone()).unwrap();
    batch.put_meta(MetaKey::GroupState, word.clone());
    batch.put_applied_state(word);
    batch.commit().unwrap();
}

/// The entry that the store as a whole is at; fails if families disagree.
pub fn state(store: &Arc<GroupStore>) -> Option<u64> {
    let snapshot = store.snapshot();
    let number = |bytes: Option<Bytes>| bytes.map(|b| u64::from_be_bytes(b.as_ref().try_into().unwrap()));
    let applied = number(snapshot.applied_state().unwrap());
    let newest = snapshot.newest(SHARD, &key("row")).unwrap();
    assert_eq!(newest.map(|(at, _)| at.raw()), applied, "data");
    assert_eq!(number(snapshot.lock(SHARD, &key("row")).unwrap()), applied, "locks");
    let record = snapshot.record(SHARD, b"row", RecordKind::Idempotency, b"op").unwrap();
    assert_eq!(number(record), applied, "records");
    assert_eq!(number(snapshot.meta(MetaKey::GroupState).unwrap()), applied, "meta");
    applied
}
