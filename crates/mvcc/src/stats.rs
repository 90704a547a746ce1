//! Figures about a store, for metrics.

use rocksdb::properties;

use crate::engine::{Db, Family, property};

/// What a store holds and how it does. All figures are approximate and of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Table files of the present state.
    pub live_sst_bytes: u64,
    /// All table files, with those that only snapshots and iterators still need.
    pub total_sst_bytes: u64,
    /// Memory of rows that are not flushed, or still being flushed.
    pub memtable_bytes: u64,
    /// RocksDB snapshots held.
    pub snapshots: u64,
    /// Bytes that compactions are behind.
    pub pending_compaction_bytes: u64,
    /// Compactions at work.
    pub running_compactions: u64,
    /// Whether writes stand still until flushes or compactions catch up.
    pub write_stopped: bool,
    /// The rate that writes are slowed down to; 0 if they are not.
    pub delayed_write_bytes_per_s: u64,
    /// Flushes and compactions that failed since the store was opened.
    pub background_errors: u64,
}

impl StoreStats {
    pub(crate) fn of(db: &Db) -> Self {
        let sum = |name| Family::ALL.iter().map(|&family| property(db, family, name)).sum();
        let whole = |name| property(db, Family::Data, name);
        Self {
            live_sst_bytes: sum(properties::LIVE_SST_FILES_SIZE),
            total_sst_bytes: sum(properties::TOTAL_SST_FILES_SIZE),
            memtable_bytes: sum(properties::CUR_SIZE_ALL_MEM_TABLES),
            snapshots: whole(properties::NUM_SNAPSHOTS),
            pending_compaction_bytes: sum(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
            running_compactions: whole(properties::NUM_RUNNING_COMPACTIONS),
            write_stopped: whole(properties::IS_WRITE_STOPPED) != 0,
            delayed_write_bytes_per_s: whole(properties::ACTUAL_DELAYED_WRITE_RATE),
            background_errors: whole(properties::BACKGROUND_ERRORS),
        }
    }
}
