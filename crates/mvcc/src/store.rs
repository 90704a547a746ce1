//! The store of one group replica.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_keys::{Interval, ShardId};
use parking_lot::Mutex;
use rocksdb::{FlushOptions, WriteBatch, WriteOptions};

use crate::batch::Batch;
use crate::bounds::PhysicalRange;
use crate::checkpoint;
use crate::engine::{self, Db, Family, handle};
use crate::env::{EnvResources, OpenDir};
use crate::error::StoreError;
use crate::format::{self, Contents};
use crate::gc::{GcRules, GcState};
use crate::install::{parent, sync_dir};
use crate::meta::{APPLIED_KEY, FORMAT_KEY, MetaKey};
use crate::snapshot::StoreSnapshot;
use crate::stats::StoreStats;
use crate::view::{Caching, View};

/// One RocksDB, the state of one group replica. Closed when the last handle and snapshot is dropped; what was not flushed
/// is gone then, as after a crash.
pub struct GroupStore {
    db: Db,
    gc: Arc<GcState>,
    /// The applied state as of the last flush that this store waited for.
    durable: Mutex<Option<Bytes>>,
    /// Batches written, and how many of them a flush has covered for sure.
    commits: AtomicU64,
    durable_commits: AtomicU64,
    flushing: Mutex<()>,
    writing: AtomicBool,
    resources: Arc<EnvResources>,
    /// Last: the directory is free when everything else is gone.
    dir: OpenDir,
}

impl std::fmt::Debug for GroupStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GroupStore").field("dir", &self.dir.path()).finish_non_exhaustive()
    }
}

impl GroupStore {
    pub(crate) fn open(dir: OpenDir, resources: &Arc<EnvResources>) -> Result<Arc<Self>, StoreError> {
        let path = dir.path();
        if format::check(path)? == Contents::Nothing {
            std::fs::create_dir_all(path).map_err(|e| StoreError::io("creating", path, &e))?;
            sync_dir(parent(path))?;
            format::write(path)?;
        }
        let gc = Arc::new(GcState::default());
        let db = engine::open(path, resources, &gc).map_err(|e| locked_elsewhere(path, e))?;
        let store = Self {
            db,
            gc,
            durable: Mutex::new(None),
            commits: AtomicU64::new(0),
            durable_commits: AtomicU64::new(0),
            flushing: Mutex::new(()),
            writing: AtomicBool::new(false),
            resources: resources.clone(),
            dir,
        };
        store.check_format_inside()?;
        *store.durable.lock() = store.applied_state()?;
        Ok(Arc::new(store))
    }

    /// The number inside agrees with the file, or is written if the database is new.
    fn check_format_inside(&self) -> Result<(), StoreError> {
        match self.meta_row(FORMAT_KEY)? {
            Some(bytes) => checkpoint::check_format(self.dir.path(), &bytes),
            None if self.applied_state()?.is_some() => {
                Err(StoreError::Corruption { message: "the format number is missing from the meta family".to_owned() })
            }
            None => {
                let mut batch = WriteBatch::default();
                batch.put_cf(handle(&self.db, Family::Meta), FORMAT_KEY, format::CURRENT.to_be_bytes());
                self.write(batch)?;
                self.flush().map(|_| ())
            }
        }
    }

    /// Where it lives.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Everything committed until now, for as long as it is held. Cheap; holding it long keeps old files on disk.
    pub fn snapshot(self: &Arc<Self>) -> StoreSnapshot {
        StoreSnapshot::new(self.clone())
    }

    /// A batch of writes that sees itself. Nothing is written before [`Batch::commit`].
    ///
    /// # Panics
    /// If another batch of this store exists: apply is the only writer.
    pub fn batch(&self) -> Batch<'_> {
        assert!(!self.writing.swap(true, Ordering::Acquire), "a store has one writer, and that one batch at a time");
        Batch::new(self)
    }

    /// A control row as last committed.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> {
        self.meta_row(key.as_bytes())
    }

    /// All rows of the catalog as last committed, name and value, in the order of their names.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn catalog_rows(&self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut rows = Vec::new();
        View::frozen(self.db()).each(Family::Meta, &PhysicalRange::catalog(), Caching::Bypass, |key, value| {
            rows.push((Bytes::copy_from_slice(&key[1..]), Bytes::copy_from_slice(value)));
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        Ok(rows)
    }

    /// The encoded `AppliedState` as last committed; `None` if nothing was applied.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn applied_state(&self) -> Result<Option<Bytes>, StoreError> {
        self.meta_row(APPLIED_KEY)
    }

    /// The encoded `AppliedState` that a crash cannot take away any more: as of the last [`GroupStore::flush`], or of the
    /// opening. What is on disk may be newer, never older.
    pub fn durable_applied_state(&self) -> Option<Bytes> {
        self.durable.lock().clone()
    }

    /// Makes everything committed so far durable, over all families at once, and returns the applied state that is
    /// durable now. Lets garbage collection act on the rules set so far. Blocks on the disk; commits may go on.
    ///
    /// # Errors
    /// Those of the disk. What is durable is then what was durable before, or more.
    pub fn flush(&self) -> Result<Option<Bytes>, StoreError> {
        let _one_at_a_time = self.flushing.lock();
        // Taken before the flush begins: what is committed meanwhile may or may not be covered.
        let commits = self.commits.load(Ordering::Acquire);
        let rules = self.gc.latest();
        let applied = self.applied_state()?;
        let mut options = FlushOptions::default();
        options.set_wait(true);
        match self.resources.options.in_step {
            // All at once are numbered by where they lie in memory. Nothing can happen between two of them.
            true => Family::ALL
                .into_iter()
                .try_for_each(|family| self.db.flush_cf_opt(handle(&self.db, family), &options))?,
            false => self.db.flush_cfs_opt(&Family::ALL.map(|family| handle(&self.db, family)), &options)?,
        }
        self.durable_commits.store(commits, Ordering::Release);
        self.gc.activate(rules);
        self.durable.lock().clone_from(&applied);
        if self.resources.options.in_step {
            engine::compact_due(&self.db);
        }
        Ok(applied)
    }

    /// Makes a copy of the store in `dir`, which does not exist and whose parent does, on the same file system; files are
    /// hard links. Returns the applied state inside, which is at or above that of the last flush. Blocks on the disk.
    ///
    /// # Errors
    /// Those of the disk. `dir` is then not a store, if it exists.
    pub fn checkpoint(&self, dir: &Path) -> Result<Option<Bytes>, StoreError> {
        self.flush()?;
        checkpoint::create(&self.db, dir, &self.resources)
    }

    /// Replaces the rules of garbage collection. They follow from what is committed, and act once a flush covers that;
    /// a pin, or a rule that is left out, holds at once for compactions that begin later.
    ///
    /// # Panics
    /// If intervals overlap.
    pub fn set_gc(&self, rules: GcRules) {
        let durable = self.durable_commits.load(Ordering::Acquire) == self.commits.load(Ordering::Acquire);
        self.gc.publish(&rules, durable || !guards::on(Guard::CollectBehindFlush));
    }

    /// Flushes and rewrites everything, which removes all that the rules permit to remove. Blocks for as long as it takes
    /// to copy the store.
    ///
    /// # Errors
    /// Those of the flush. Failures of the rewriting show in [`GroupStore::stats`] and fail later commits.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.flush()?;
        engine::compact(&self.db);
        Ok(())
    }

    /// Bytes of live table files and of memtables.
    pub fn approximate_bytes(&self) -> u64 {
        let stats = self.stats();
        stats.live_sst_bytes + stats.memtable_bytes
    }

    /// Bytes that the versions of an interval take in table files; an estimate, without what is only in memory yet.
    pub fn approximate_interval_bytes(&self, shard: ShardId, interval: &Interval) -> u64 {
        let PhysicalRange { lower, upper } = PhysicalRange::new(shard, interval);
        let Some(upper) = upper else { return 0 };
        let ranges = [rocksdb::Range::new(&lower, &upper)];
        self.db.get_approximate_sizes_cf(handle(&self.db, Family::Data), &ranges).iter().sum()
    }

    /// Figures for metrics.
    pub fn stats(&self) -> StoreStats {
        StoreStats::of(&self.db)
    }

    pub(crate) fn db(&self) -> &Db {
        &self.db
    }

    /// Writes a batch, not durably.
    pub(crate) fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options)?;
        // After the write: a flush that reads the counter covers what it counts.
        self.commits.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The batch that was handed out is gone.
    pub(crate) fn writer_done(&self) {
        self.writing.store(false, Ordering::Release);
    }

    fn meta_row(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.db.get_pinned_cf(handle(&self.db, Family::Meta), key)?.map(|value| Bytes::copy_from_slice(&value)))
    }
}

/// RocksDB's lock file is held by another process, or by an environment of its own in this one.
fn locked_elsewhere(path: &Path, error: StoreError) -> StoreError {
    match error {
        StoreError::Io { message } if message.contains("/LOCK:") => StoreError::InUse { path: path.to_owned() },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use drover_hlc::Timestamp;
    use drover_keys::{Interval, LogicalKey, ShardId};

    use super::*;
    use crate::{GcRule, StoreEnv, StoreEnvOptions, Stored};

    #[test]
    fn collection_waits_for_a_flush_that_covers_the_safe_point_whatever_rocksdb_flushes_by_itself() {
        let root = tempfile::tempdir().unwrap();
        let env = StoreEnv::new(StoreEnvOptions::default()).unwrap();
        let store = env.open(&root.path().join("live")).unwrap();
        let (shard, key) = (ShardId(1), LogicalKey::plain("k"));
        let oldest = || store.snapshot().visible(shard, &key, Timestamp::from_raw(1)).unwrap();
        let mut batch = store.batch();
        for at in 1..=3 {
            batch.put_version(shard, &key, Timestamp::from_raw(at), &Stored::Tombstone).unwrap();
        }
        batch.commit().unwrap();
        let safe_point = Timestamp::from_raw(3);
        store.set_gc(GcRules(vec![GcRule { shard, interval: Interval::all(), safe_point, pinned: false }]));
        engine::compact(&store.db);
        assert!(oldest().is_some(), "a crash could still forget the safe point");
        store.flush().unwrap();
        engine::compact(&store.db);
        assert_eq!(oldest(), None);
    }

    #[test]
    fn stores_in_step_that_are_written_alike_have_the_same_files_and_no_compaction_is_due() {
        let root = tempfile::tempdir().unwrap();
        let env = StoreEnv::new(StoreEnvOptions { in_step: true, ..StoreEnvOptions::default() }).unwrap();
        let stores = ["one", "other"].map(|name| env.open(&root.path().join(name)).unwrap());
        let mut rewritten = false;
        for at in 1..=20_u64 {
            let files = stores.each_ref().map(|store| {
                let mut batch = store.batch();
                for key in 0..at {
                    let key = LogicalKey::plain(format!("{key}"));
                    batch.put_version(ShardId(1), &key, Timestamp::from_raw(at), &Stored::Tombstone).unwrap();
                }
                batch.commit().unwrap();
                store.flush().unwrap();
                assert!(Family::ALL.into_iter().all(|family| engine::flushed_files(&store.db, family) < 4));
                let files = store.db.live_files().unwrap();
                rewritten |= files.iter().any(|file| file.level > 0);
                let mut files: Vec<_> = files.into_iter().map(|file| (file.name, file.size)).collect();
                files.sort();
                files
            });
            assert_eq!(files[0], files[1], "flush {at}");
        }
        assert!(rewritten);
    }
}
