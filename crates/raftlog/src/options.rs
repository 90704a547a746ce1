/// Which storage engine keeps the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// TiKV's raft-engine: an append-only log with an index in memory.
    #[default]
    RaftEngine,
    /// RocksDB with a synchronous write-ahead log.
    RocksDb,
}

/// Sizes of a [`crate::NodeLog`].
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The engine. A directory stays with the engine that created it.
    pub engine: EngineKind,
    /// Bytes of entries that may wait for the writer, over all groups. A full queue makes `append` wait.
    pub queue_bytes: u32,
    /// Bytes of entries that one batch takes from the queue, at least one append.
    pub batch_bytes: usize,
    /// Bytes of entries kept in memory for each group. Entries that are not durable yet come on top.
    pub cache_bytes_per_group: usize,
    /// Bytes of entries that one bounded read returns, at least one entry.
    pub read_bytes: usize,
    /// Bytes that the engine may keep on disk before it reclaims what was purged.
    pub reclaim_bytes: u64,
    /// Bytes of one log file of the engine, at most `reclaim_bytes`.
    pub file_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        Self {
            engine: EngineKind::default(),
            queue_bytes: 64 << 20,
            batch_bytes: 8 * MIB,
            cache_bytes_per_group: 4 * MIB,
            read_bytes: 4 * MIB,
            reclaim_bytes: 512 << 20,
            file_bytes: 32 << 20,
        }
    }
}
