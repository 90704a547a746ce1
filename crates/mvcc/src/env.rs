//! What the stores of one node share, and the directories they live in.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rocksdb::{Cache, Env, WriteBufferManager};

use crate::error::StoreError;
use crate::install;
use crate::store::GroupStore;

/// Limits of all stores of a node together, except where said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEnvOptions {
    /// Memory for blocks read from disk, their indexes and filters.
    pub block_cache_bytes: usize,
    /// Memory for rows that are not flushed; beyond it the store that writes is flushed.
    pub write_buffer_bytes: usize,
    /// Threads that flush, and as many that compact.
    pub background_threads: u32,
    /// Table files each store keeps open.
    pub max_open_files: u32,
    /// Whether stores do nothing by themselves: they compact in [`GroupStore::flush`], before it returns. Which files there are
    /// and how large they are follows from what was written and flushed then. For simulations.
    pub in_step: bool,
}

impl Default for StoreEnvOptions {
    fn default() -> Self {
        Self {
            block_cache_bytes: 256 << 20,
            write_buffer_bytes: 128 << 20,
            background_threads: 2,
            max_open_files: 256,
            in_step: false,
        }
    }
}

/// The shared parts as RocksDB takes them.
pub(crate) struct EnvResources {
    pub options: StoreEnvOptions,
    pub block_cache: Cache,
    pub write_buffers: WriteBufferManager,
    pub env: Env,
}

impl EnvResources {
    pub fn new(options: StoreEnvOptions) -> Result<Self, StoreError> {
        Ok(Self {
            block_cache: Cache::new_lru_cache(options.block_cache_bytes),
            // Stalls are per store, by its own memtables: a busy group does not stop the others.
            write_buffers: WriteBufferManager::new_write_buffer_manager(options.write_buffer_bytes, false),
            env: Env::new()?,
            options,
        })
    }
}

/// The directories of open stores.
#[derive(Default)]
struct OpenDirs {
    dirs: Mutex<HashSet<PathBuf>>,
    closed: Condvar,
}

/// Marks a directory as open; held by the store in it, and let go when all of the store is closed.
pub(crate) struct OpenDir {
    path: PathBuf,
    registry: Arc<OpenDirs>,
}

impl OpenDir {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for OpenDir {
    fn drop(&mut self) {
        self.registry.dirs.lock().remove(&self.path);
        self.registry.closed.notify_all();
    }
}

/// Opens, replaces and removes the stores of one node. Cheap to clone; clones are the same environment.
#[derive(Clone)]
pub struct StoreEnv {
    resources: Arc<EnvResources>,
    open: Arc<OpenDirs>,
}

impl StoreEnv {
    /// An environment without stores. Thread pools are those of the process: environments of one process share them.
    ///
    /// # Errors
    /// If RocksDB cannot be set up.
    pub fn new(options: StoreEnvOptions) -> Result<Self, StoreError> {
        let threads = i32::try_from(options.background_threads).unwrap_or(i32::MAX).max(1);
        let mut resources = EnvResources::new(options)?;
        resources.env.set_background_threads(threads);
        resources.env.set_high_priority_background_threads(threads);
        Ok(Self { resources: Arc::new(resources), open: Arc::default() })
    }

    /// Opens the store in `dir`, or creates it; the parent of `dir` exists. Completes an interrupted
    /// [`StoreEnv::install`] or [`StoreEnv::destroy`] first. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if it is open, [`StoreError::NewerFormat`], [`StoreError::NotAStore`],
    /// [`StoreError::Corruption`], and those of the disk.
    pub fn open(&self, dir: &Path) -> Result<Arc<GroupStore>, StoreError> {
        let mark = self.mark_open(dir)?;
        install::recover(mark.path())?;
        GroupStore::open(mark, &self.resources)
    }

    /// Puts the checkpoint in `checkpoint_dir` in the place of the store at `live_dir`, if there is one. After a crash
    /// at any point, [`StoreEnv::open`] finds the old store or the new one. `checkpoint_dir` is gone afterwards; it lies
    /// on the same file system.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if the store at `live_dir` is open, [`StoreError::NotAStore`] and
    /// [`StoreError::NewerFormat`] if the checkpoint cannot be used, and those of the disk.
    pub fn install(&self, checkpoint_dir: &Path, live_dir: &Path) -> Result<(), StoreError> {
        let mark = self.mark_open(live_dir)?;
        install::replace(checkpoint_dir, mark.path(), |_| Ok(()))
    }

    /// Removes the store at `dir`, if there is one. A crash does not bring it back.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if it is open, and those of the disk.
    pub fn destroy(&self, dir: &Path) -> Result<(), StoreError> {
        let mark = self.mark_open(dir)?;
        install::remove(mark.path())
    }

    /// Blocks until every handle and snapshot of the stores at `dir` and below is gone, at most for `timeout`. Whether all
    /// are closed.
    pub fn wait_closed(&self, dir: &Path, timeout: Duration) -> bool {
        let path = absolute(dir);
        let deadline = Instant::now() + timeout;
        let mut dirs = self.open.dirs.lock();
        while dirs.iter().any(|open| open.starts_with(&path)) {
            if self.open.closed.wait_until(&mut dirs, deadline).timed_out() {
                return !dirs.iter().any(|open| open.starts_with(&path));
            }
        }
        true
    }

    fn mark_open(&self, dir: &Path) -> Result<OpenDir, StoreError> {
        let path = absolute(dir);
        if !self.open.dirs.lock().insert(path.clone()) {
            return Err(StoreError::InUse { path });
        }
        Ok(OpenDir { path, registry: self.open.clone() })
    }
}

fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}
