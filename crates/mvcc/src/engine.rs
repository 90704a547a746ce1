//! RocksDB as this store sets it up. The layout (families, their names, the prefix rule) is part of the format.

use std::ffi::CStr;
use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor, CompactOptions,
    DBCompressionType, DBRawIteratorWithThreadMode, DBWithThreadMode, LogLevel, Options, SingleThreaded,
    SliceTransform, SnapshotWithThreadMode, properties,
};

use crate::env::EnvResources;
use crate::error::StoreError;
use crate::gc::{GcFilterFactory, GcState};

pub(crate) type Db = DBWithThreadMode<SingleThreaded>;
pub(crate) type RawIter<'a> = DBRawIteratorWithThreadMode<'a, Db>;
pub(crate) type Snapshot<'a> = SnapshotWithThreadMode<'a, Db>;

/// Bytes of the version stamp at the end of a data key.
const STAMP_BYTES: usize = 8;
/// Largest memtable of a family. Families flush together, so none may be much smaller than the others: a small one
/// would make all of them flush. Memory is taken as it fills.
const MEMTABLE_BYTES: usize = 32 << 20;
/// Step in which a memtable takes memory.
const ARENA_BLOCK_BYTES: usize = 256 << 10;
/// Part of a data memtable that is a filter over its keys. Taken at once, so it counts for idle groups.
const MEMTABLE_FILTER_RATIO: f64 = 0.01;
const MEMTABLES_PER_FAMILY: i32 = 4;
/// Flushed files of a family that are compacted together.
const COMPACTION_FILES: u64 = 4;
const BLOCK_BYTES: usize = 8 << 10;
const FILTER_BITS_PER_KEY: f64 = 10.0;
const INFO_LOG_BYTES: usize = 2 << 20;
const INFO_LOG_FILES: usize = 2;
const MANIFEST_BYTES: usize = 16 << 20;
/// Written bytes after which the kernel is asked to start writing back, so that an fsync has less to do.
const BYTES_PER_SYNC: u64 = 1 << 20;
/// From format 6 on, block checksums cover the position of the block: a block in the wrong place is found out.
const TABLE_FORMAT: i32 = 6;

/// Column families. User keys reach `Data`, `Locks` and `Records` only, behind a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Data,
    Locks,
    Records,
    Meta,
    Tracker,
}

impl Family {
    pub const ALL: [Family; 5] = [Family::Data, Family::Locks, Family::Records, Family::Meta, Family::Tracker];

    /// The name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Family::Data => "data",
            Family::Locks => "locks",
            Family::Records => "records",
            Family::Meta => "meta",
            Family::Tracker => "tracker",
        }
    }
}

/// The handle of `family`.
pub(crate) fn handle(db: &Db, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name()).expect("every family was named when the database was opened")
}

/// Opens or creates the database in `dir`.
pub(crate) fn open(dir: &Path, env: &EnvResources, gc: &Arc<GcState>) -> Result<Db, StoreError> {
    let mut options = database_options(env)?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    let families = Family::ALL.map(|family| descriptor(family, env, Some(gc)));
    Ok(Db::open_cf_descriptors(&options, dir, families)?)
}

/// Opens the database in `dir` without the right to change it, and with every file looked at.
pub(crate) fn open_read_only(dir: &Path, env: &EnvResources) -> Result<Db, StoreError> {
    let mut options = database_options(env)?;
    options.set_max_open_files(-1);
    let families = Family::ALL.map(|family| descriptor(family, env, None));
    Ok(Db::open_cf_descriptors_read_only(&options, dir, families, false)?)
}

/// Rewrites all rows, through the garbage collector.
pub(crate) fn compact(db: &Db) {
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    options.set_exclusive_manual_compaction(false);
    for family in Family::ALL {
        db.compact_range_cf_opt(handle(db, family), None::<&[u8]>, None::<&[u8]>, &options);
    }
}

/// Compacts the families in which as many flushed files have come together as RocksDB itself would wait for.
pub(crate) fn compact_due(db: &Db) {
    for family in Family::ALL.into_iter().filter(|&family| flushed_files(db, family) >= COMPACTION_FILES) {
        db.compact_range_cf(handle(db, family), None::<&[u8]>, None::<&[u8]>);
    }
}

/// Files of one family that were flushed and not compacted since.
pub(crate) fn flushed_files(db: &Db, family: Family) -> u64 {
    property(db, family, &properties::num_files_at_level(0))
}

/// An integer property of one family; 0 if RocksDB does not tell.
pub(crate) fn property(db: &Db, family: Family, name: &CStr) -> u64 {
    db.property_int_value_cf(handle(db, family), name).ok().flatten().unwrap_or(0)
}

fn database_options(env: &EnvResources) -> Result<Options, StoreError> {
    // The log is the Raft log: what was not flushed when the process ends is replayed from there, and must vanish from
    // here as a whole. There is no setter for this option in the bindings.
    let mut options = Options::default().get_options_from_string("avoid_flush_during_shutdown=true")?;
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    options.set_env(&env.env);
    options.set_write_buffer_manager(&env.write_buffers);
    options.set_max_open_files(i32::try_from(env.options.max_open_files).unwrap_or(i32::MAX));
    options.set_max_background_jobs(i32::try_from(env.options.background_threads).unwrap_or(i32::MAX));
    options.set_max_file_opening_threads(1);
    // A collector must see all versions of a key in one go; a subcompaction may start between two of them.
    options.set_max_subcompactions(1);
    options.set_bytes_per_sync(BYTES_PER_SYNC);
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_skip_stats_update_on_db_open(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(INFO_LOG_FILES);
    options.set_max_manifest_file_size(MANIFEST_BYTES);
    Ok(options)
}

fn descriptor(family: Family, env: &EnvResources, gc: Option<&Arc<GcState>>) -> ColumnFamilyDescriptor {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&env.block_cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_format_version(TABLE_FORMAT);
    table.set_bloom_filter(FILTER_BITS_PER_KEY, false);
    table.set_optimize_filters_for_memory(true);
    // Index and filter blocks count against the cache, so that memory does not grow with the data.
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut options = Options::default();
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_arena_block_size(ARENA_BLOCK_BYTES);
    options.set_max_write_buffer_number(MEMTABLES_PER_FAMILY);
    options.set_level_zero_file_num_compaction_trigger(COMPACTION_FILES as i32);
    options.set_disable_auto_compactions(env.options.in_step);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    if family == Family::Data {
        // Filters are over rows, since a read of a key asks for any version of it; and over versions, since each one that is
        // written into a range that moves, or copied, is looked for first, and is not there.
        options.set_prefix_extractor(SliceTransform::create("drover.row", strip_stamp, Some(has_stamp)));
        options.set_memtable_prefix_bloom_ratio(MEMTABLE_FILTER_RATIO);
        options.set_memtable_whole_key_filtering(true);
        if let Some(gc) = gc {
            options.set_compaction_filter_factory(GcFilterFactory::new(gc.clone()));
        }
    }
    options.set_block_based_table_factory(&table);
    ColumnFamilyDescriptor::new(family.name(), options)
}

fn strip_stamp(key: &[u8]) -> &[u8] {
    &key[..key.len().saturating_sub(STAMP_BYTES)]
}

fn has_stamp(key: &[u8]) -> bool {
    key.len() >= STAMP_BYTES
}
