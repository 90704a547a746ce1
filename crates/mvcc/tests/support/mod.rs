//! What the tests of the store share. Each test binary uses a part of it.
#![allow(dead_code)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{End, Interval, KeyFamily, LogicalKey, ShardId};
use drover_mvcc::{GcRule, GcRules, GroupStore, StoreEnv, StoreEnvOptions, Stored};

pub const SHARD: ShardId = ShardId(7);

pub fn env() -> StoreEnv {
    StoreEnv::new(StoreEnvOptions { block_cache_bytes: 8 << 20, ..StoreEnvOptions::default() }).unwrap()
}

pub struct Fixture {
    pub root: tempfile::TempDir,
    pub env: StoreEnv,
    pub store: Arc<GroupStore>,
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
        batch.put_version(SHARD, &key(*name), ts(*at), stored);
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

/// A copy of a directory, file by file, while it is in use: what a machine that stops now would find.
pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
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
