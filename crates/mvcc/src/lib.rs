#![allow(unused_variables, missing_docs, dead_code)]
mod error;
mod value;
use std::{ops::ControlFlow, path::Path, sync::Arc, time::Duration};
use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{Interval, LogicalKey, ShardId};
pub use error::StoreError;
pub use value::Stored;

#[derive(Debug, Clone)]
pub struct StoreEnvOptions {
    pub block_cache_bytes: usize,
    pub write_buffer_bytes: usize,
    pub background_threads: u32,
    pub max_open_files: u32,
}
impl Default for StoreEnvOptions {
    fn default() -> Self {
        Self { block_cache_bytes: 256 << 20, write_buffer_bytes: 128 << 20, background_threads: 2, max_open_files: 256 }
    }
}
#[derive(Clone)]
pub struct StoreEnv(());
impl StoreEnv {
    pub fn new(options: StoreEnvOptions) -> Result<Self, StoreError> { unimplemented!() }
    /// Opens or creates; completes an interrupted `install` or `destroy` first.
    pub fn open(&self, dir: &Path) -> Result<Arc<GroupStore>, StoreError> { unimplemented!() }
    /// Puts a received checkpoint in the place of the (closed) store at `live_dir`; crash-safe. Consumes `checkpoint_dir`.
    pub fn install(&self, checkpoint_dir: &Path, live_dir: &Path) -> Result<(), StoreError> { unimplemented!() }
    /// Removes the closed store at `dir`, if there is one; crash-safe.
    pub fn destroy(&self, dir: &Path) -> Result<(), StoreError> { unimplemented!() }
    /// Blocks until every handle and snapshot of the store at `dir` is gone, at most `timeout`; whether it is closed.
    pub fn wait_closed(&self, dir: &Path, timeout: Duration) -> bool { unimplemented!() }
}
pub struct GroupStore(());
impl GroupStore {
    pub fn snapshot(self: &Arc<Self>) -> StoreSnapshot { unimplemented!() }
    /// One at a time (asserted).
    pub fn batch(&self) -> Batch<'_> { unimplemented!() }
    pub fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    pub fn applied_state(&self) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    pub fn durable_applied_state(&self) -> Option<Bytes> { unimplemented!() }
    pub fn flush(&self) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    /// `dir` must not exist. The AppliedState contained, if anything was applied.
    pub fn checkpoint(&self, dir: &Path) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    /// Rules derived from what is committed; act once a flush covers them.
    pub fn set_gc(&self, rules: GcRules) { unimplemented!() }
    pub fn compact(&self) -> Result<(), StoreError> { unimplemented!() }
    pub fn approximate_bytes(&self) -> u64 { unimplemented!() }
    pub fn stats(&self) -> StoreStats { unimplemented!() }
    pub fn dir(&self) -> &Path { unimplemented!() }
}
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    pub sst_bytes: u64,
    pub memtable_bytes: u64,
    pub snapshots: u64,
    pub pending_compaction_bytes: u64,
    pub write_stopped: bool,
    pub delayed_write_bytes_per_s: u64,
    pub background_errors: u64,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GcRule {
    pub shard: ShardId,
    pub interval: Interval,
    pub safe_point: Timestamp,
    pub pinned: bool,
}
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcRules(pub Vec<GcRule>);
/// Kind of a row in the records family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    Idempotency,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetaKey {
    GroupState,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRow {
    pub route_key: Bytes,
    pub kind: RecordKind,
    pub name: Bytes,
    pub value: Bytes,
}
pub struct Batch<'a>(&'a ());
impl Batch<'_> {
    pub fn newest(&self, shard: ShardId, key: &LogicalKey) -> Result<Option<(Timestamp, Stored)>, StoreError> { unimplemented!() }
    pub fn visible(&self, shard: ShardId, key: &LogicalKey, at: Timestamp) -> Result<Option<(Timestamp, Stored)>, StoreError> { unimplemented!() }
    pub fn scan_visible(&self, shard: ShardId, interval: &Interval, at: Timestamp, visit: &mut dyn FnMut(Bytes, Timestamp, Stored) -> ControlFlow<()>) -> Result<(), StoreError> { unimplemented!() }
    pub fn put_version(&mut self, shard: ShardId, key: &LogicalKey, at: Timestamp, value: &Stored) { unimplemented!() }
    pub fn lock(&self, shard: ShardId, key: &LogicalKey) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    pub fn any_lock(&self, shard: ShardId, interval: &Interval) -> Result<bool, StoreError> { unimplemented!() }
    pub fn put_lock(&mut self, shard: ShardId, key: &LogicalKey, lock: Bytes) { unimplemented!() }
    pub fn delete_lock(&mut self, shard: ShardId, key: &LogicalKey) { unimplemented!() }
    pub fn record(&self, shard: ShardId, route_key: &[u8], kind: RecordKind, name: &[u8]) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    pub fn put_record(&mut self, shard: ShardId, route_key: &[u8], kind: RecordKind, name: &[u8], record: Bytes) { unimplemented!() }
    pub fn delete_record(&mut self, shard: ShardId, route_key: &[u8], kind: RecordKind, name: &[u8]) { unimplemented!() }
    pub fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    pub fn put_meta(&mut self, key: MetaKey, value: Bytes) { unimplemented!() }
    pub fn put_applied_state(&mut self, state: Bytes) { unimplemented!() }
    pub fn commit(self) -> Result<(), StoreError> { unimplemented!() }
}
pub struct StoreSnapshot(());
impl StoreSnapshot {
    pub fn newest(&self, shard: ShardId, key: &LogicalKey) -> Result<Option<(Timestamp, Stored)>, StoreError> { unimplemented!() }
    pub fn visible(&self, shard: ShardId, key: &LogicalKey, at: Timestamp) -> Result<Option<(Timestamp, Stored)>, StoreError> { unimplemented!() }
    pub fn scan(&self, shard: ShardId, interval: &Interval, at: Timestamp, reverse: bool, visit: &mut dyn FnMut(Bytes, Timestamp, Stored) -> ControlFlow<()>) -> Result<(), StoreError> { unimplemented!() }
    pub fn lock(&self, shard: ShardId, key: &LogicalKey) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    pub fn any_lock(&self, shard: ShardId, interval: &Interval) -> Result<bool, StoreError> { unimplemented!() }
    pub fn record(&self, shard: ShardId, route_key: &[u8], kind: RecordKind, name: &[u8]) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    /// All records of rows in `interval`, in key order.
    pub fn scan_records(&self, shard: ShardId, interval: &Interval, visit: &mut dyn FnMut(RecordRow) -> ControlFlow<()>) -> Result<(), StoreError> { unimplemented!() }
    pub fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    pub fn applied_state(&self) -> Result<Option<Bytes>, StoreError> { unimplemented!() }
    /// Rows outside every scope count with safe point zero. `meta`: which replicated meta rows count.
    pub fn digest(&self, scopes: &[DigestScope], meta: &[MetaKey]) -> Result<Digest, StoreError> { unimplemented!() }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestScope {
    pub shard: ShardId,
    pub interval: Interval,
    pub safe_point: Timestamp,
}
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    pub hash: u128,
    pub rows: u64,
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointInfo {
    pub applied_state: Option<Bytes>,
    pub files: u64,
    pub bytes: u64,
    pub rows: u64,
}
/// Opens read-only, reads and verifies every block and row.
pub fn inspect_checkpoint(dir: &Path) -> Result<CheckpointInfo, StoreError> { unimplemented!() }
