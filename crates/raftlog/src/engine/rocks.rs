//! The log in a RocksDB of its own.
//!
//! | key | value |
//! |---|---|
//! | group (8 bytes, big-endian), `0` | vote |
//! | group, `1` | window |
//! | group, `2`, index (8 bytes, big-endian) | entry |
//! | zeros (9 bytes) | number of the last batch (8 bytes, little-endian) |
//!
//! A batch is one write to the write-ahead log with one `fdatasync`. Recovery accepts an incomplete last record of the
//! write-ahead log and nothing else that is wrong with it. RocksDB checks a checksum for every record of its
//! write-ahead log and every block of its tables.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use drover_keys::GroupId;
use drover_rafttypes::Entry;
use rocksdb::{DB, DBCompressionType, DBRecoveryMode, Direction, IteratorMode, Options, ReadOptions, WriteBatch};
use rocksdb::{ErrorKind, WriteOptions};

use super::mark::RewrittenEnd;
use super::noted::{OF_ALL, RawEngine, batch_from_record};
use super::{Change, Recovered, check_read};
use crate::error::{LogError, Place};
use crate::record::{
    entry_from_record, vote_from_record, vote_to_record, weight, window_from_record, window_to_record,
};

const VOTE: u8 = 0;
const WINDOW: u8 = 1;
const ENTRY: u8 = 2;
/// The number of the last batch, under a group that does not exist.
const BATCH: u8 = 0;
const PAST_ALL: u8 = 3;

/// See the module's description.
pub struct RocksLog {
    db: DB,
    dir: PathBuf,
}

impl RocksLog {
    /// Opens or creates the database in `dir`.
    ///
    /// # Errors
    /// If it is damaged, cannot be read, or open elsewhere.
    pub fn open(dir: &Path) -> Result<Self, LogError> {
        let db = DB::open(&options(), dir).map_err(|e| convert(Place::file(dir), "open", &e))?;
        Ok(Self { db, dir: dir.to_owned() })
    }

    fn place(&self, group: GroupId) -> Place {
        Place { group: Some(group), file: Some(self.dir.clone()), offset: None }
    }

    fn get(&self, group: GroupId, kind: u8) -> Result<Option<Bytes>, LogError> {
        let value = self.db.get(key(group, kind)).map_err(|e| convert(self.place(group), "read", &e))?;
        Ok(value.map(Bytes::from))
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(4);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(4);
    options
}

fn convert(place: Place, doing: &'static str, error: &rocksdb::Error) -> LogError {
    match error.kind() {
        ErrorKind::Corruption => LogError::corrupt(place, error),
        ErrorKind::IOError if error.as_ref().contains("No space left") || error.as_ref().contains("File too large") => {
            LogError::DiskFull { place, detail: error.to_string() }
        }
        _ => LogError::engine(place, doing, error),
    }
}

fn key(group: GroupId, kind: u8) -> [u8; 9] {
    let mut key = [kind; 9];
    key[..8].copy_from_slice(&group.0.to_be_bytes());
    key
}

fn entry_key(group: GroupId, index: u64) -> [u8; 17] {
    let mut bytes = [0; 17];
    bytes[..9].copy_from_slice(&key(group, ENTRY));
    bytes[9..].copy_from_slice(&index.to_be_bytes());
    bytes
}

fn add(batch: &mut WriteBatch, group: GroupId, change: &Change) {
    match change {
        Change::Append(records) => {
            for (index, record) in records.iter() {
                batch.put(entry_key(group, index), record);
            }
        }
        Change::Purge { through } => batch.delete_range(&entry_key(group, 0)[..], &entry_key(group, through + 1)[..]),
        Change::Window(window) => batch.put(key(group, WINDOW), window_to_record(window)),
        Change::Vote(vote) => batch.put(key(group, VOTE), vote_to_record(vote)),
        Change::Remove => batch.delete_range(key(group, VOTE), key(group, PAST_ALL)),
    }
}

impl RawEngine for RocksLog {
    fn write(&self, changes: &[(GroupId, Change)], number: u64) -> Result<u64, LogError> {
        let mut batch = WriteBatch::default();
        for (group, change) in changes {
            add(&mut batch, *group, change);
        }
        batch.put(key(OF_ALL, BATCH), number.to_le_bytes());
        let bytes = batch.size_in_bytes() as u64;
        let mut durably = WriteOptions::default();
        durably.set_sync(true);
        self.db.write_opt(batch, &durably).map_err(|e| convert(Place::file(&self.dir), "write", &e))?;
        Ok(bytes)
    }

    fn read(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let mut bounds = ReadOptions::default();
        bounds.set_iterate_upper_bound(entry_key(group, range.end));
        let start = entry_key(group, range.start);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for item in self.db.iterator_opt(IteratorMode::From(&start, Direction::Forward), bounds) {
            let (_, value) = item.map_err(|e| convert(self.place(group), "read", &e))?;
            let record = Bytes::from(value);
            let entry = entry_from_record(record).map_err(|e| LogError::corrupt(self.place(group), e))?;
            bytes += weight(&entry);
            entries.push(entry);
            if bytes >= max_bytes {
                break;
            }
        }
        check_read(group, &range, &entries)?;
        Ok(entries)
    }

    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        let mut groups = Vec::new();
        let mut next = Some(OF_ALL.0 + 1);
        while let Some(from) = next {
            let start = key(GroupId(from), VOTE);
            let Some(item) = self.db.iterator(IteratorMode::From(&start, Direction::Forward)).next() else { break };
            let (found, _) = item.map_err(|e| convert(Place::file(&self.dir), "read", &e))?;
            let id = found.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            let Some(id) = id else {
                return Err(LogError::corrupt(Place::file(&self.dir), "a key is too short to be one of the log's"));
            };
            groups.push(GroupId(id));
            next = id.checked_add(1);
        }
        Ok(groups)
    }

    fn recover(&self, group: GroupId) -> Result<Recovered, LogError> {
        let corrupt = |e| LogError::corrupt(self.place(group), e);
        let vote = self.get(group, VOTE)?.map(vote_from_record).transpose().map_err(corrupt)?;
        let window = self.get(group, WINDOW)?.map(window_from_record).transpose().map_err(corrupt)?;
        Ok(Recovered { vote, window: window.unwrap_or_default() })
    }

    fn last_batch(&self) -> Result<u64, LogError> {
        let Some(record) = self.get(OF_ALL, BATCH)? else { return Ok(0) };
        batch_from_record(&record).ok_or_else(|| LogError::corrupt(Place::file(&self.dir), "a batch without a number"))
    }

    fn end(&self) -> Place {
        Place::file(&self.dir)
    }

    fn rewritten_end(_: &Path) -> Result<RewrittenEnd, LogError> {
        // RocksDB knows its tables by a manifest.
        Ok(RewrittenEnd::default())
    }
}
