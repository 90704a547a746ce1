//! The log in TiKV's raft-engine.
//!
//! Entries are raft-engine entries of the region with the group's number; vote and window are its key-values `v` and
//! `w`. A batch is one raft-engine log batch, written and synced before it is reported.
//!
//! What raft-engine does not do by itself, and what is done about it here:
//!
//! - It has no truncation, and what was removed may come back after files were rewritten: the window, which is written
//!   with every batch and never deleted, decides what the log contains.
//! - Deleting a key-value may be undone by a restart: nothing is deleted, only overwritten.
//! - It panics on a failed fsync and on damage it did not expect: panics are caught. After one in a write the engine
//!   is leaked, since closing it would write again.
//! - It drops whatever follows a damaged batch in its newest file: see `torn.rs` and `noted.rs`.
//! - Of an error of the operating system it keeps little: see `told.rs`.
//! - A read may meet a file that is being given back: it is repeated while nothing is given back.
//! - It keeps disk space until [`RawEngine::reclaim`] is called.

use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use drover_keys::GroupId;
use drover_rafttypes::Entry;
use parking_lot::Mutex;
use protobuf2::reflect::MessageDescriptor;
use protobuf2::{Clear, CodedInputStream, CodedOutputStream, Message, ProtobufError, ProtobufResult, UnknownFields};
use raft_engine::internals::FilePipeLog;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use super::mark::RewrittenEnd;
use super::noted::{OF_ALL, RawEngine, batch_from_record};
use super::told::ToldFiles;
use super::torn::{check_newest_files, first_damage, newest_end};
use super::{Change, Recovered, check_read};
use crate::error::{LogError, Place};
use crate::options::LogOptions;
use crate::record::{entry_from_record, vote_from_record, vote_to_record, window_from_record, window_to_record};

const VOTE: &[u8] = b"v";
const WINDOW: &[u8] = b"w";
/// The number of the last batch, in a region of its own.
const BATCH: &[u8] = b"b";

type FileEngine = Engine<ToldFiles, FilePipeLog<ToldFiles>>;

/// See the module's description.
pub struct RaftEngineLog {
    /// `None` only while it is being dropped.
    engine: Option<FileEngine>,
    dir: PathBuf,
    reclaiming: Mutex<()>,
    broken: AtomicBool,
}

impl RaftEngineLog {
    /// Opens or creates the log in `dir`.
    ///
    /// # Errors
    /// If it is damaged, cannot be read, or open elsewhere.
    pub fn open(dir: &Path, options: &LogOptions) -> Result<Self, LogError> {
        let path = dir.to_str().ok_or_else(|| LogError::engine(Place::file(dir), "open", "the path is not UTF-8"))?;
        check_newest_files(dir)?;
        let config = Config {
            dir: path.to_owned(),
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_threads: 2,
            target_file_size: ReadableSize(options.file_bytes.min(options.reclaim_bytes)),
            purge_threshold: ReadableSize(options.reclaim_bytes),
            // A reused file holds old batches behind its end, which would look like damage.
            enable_log_recycle: false,
            ..Config::default()
        };
        let engine = guarded(Place::file(dir), "open", || Engine::open_with_file_system(config, Arc::new(ToldFiles)));
        let engine = engine.map_err(|error| match error {
            LogError::Corrupt { place, detail } => {
                LogError::Corrupt { place: first_damage(dir).unwrap_or(place), detail }
            }
            other => other,
        })?;
        Ok(Self {
            engine: Some(engine),
            dir: dir.to_owned(),
            reclaiming: Mutex::new(()),
            broken: AtomicBool::new(false),
        })
    }

    fn engine(&self) -> &FileEngine {
        self.engine.as_ref().expect("it is taken in drop only")
    }

    fn place(&self, group: GroupId) -> Place {
        Place { group: Some(group), file: Some(self.dir.clone()), offset: None }
    }

    fn fetch(&self, group: GroupId, range: &Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let mut slots = Vec::new();
        guarded(self.place(group), "read", || {
            self.engine().fetch_entries_to::<Slot>(group.0, range.start, range.end, Some(max_bytes), &mut slots)
        })?;
        let entries: Vec<Entry> = slots.into_iter().filter_map(|slot| slot.entry).collect();
        check_read(group, range, &entries)?;
        Ok(entries)
    }
}

impl Drop for RaftEngineLog {
    fn drop(&mut self) {
        let engine = self.engine.take();
        if self.broken.load(Ordering::Acquire) {
            std::mem::forget(engine);
        } else if catch_unwind(AssertUnwindSafe(|| drop(engine))).is_err() {
            tracing::error!(dir = %self.dir.display(), "closing the log store failed; what was durable still is");
        }
    }
}

/// Runs a call into raft-engine and turns its errors and panics into ours.
fn guarded<T>(place: Place, doing: &'static str, call: impl FnOnce() -> raft_engine::Result<T>) -> Result<T, LogError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(convert(place, doing, error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(LogError::engine(place, doing, text.unwrap_or("raft-engine panicked")))
        }
    }
}

fn convert(place: Place, doing: &'static str, error: raft_engine::Error) -> LogError {
    use raft_engine::Error;
    match error {
        Error::Io(e) => LogError::io(place, doing, e),
        Error::Corruption(_) | Error::Codec(_) | Error::Protobuf(_) | Error::EntryCompacted | Error::EntryNotFound => {
            LogError::corrupt(place, error)
        }
        Error::InvalidArgument(_) | Error::TryAgain(_) | Error::Full | Error::Other(_) => {
            LogError::engine(place, doing, error)
        }
    }
}

fn add(batch: &mut LogBatch, group: GroupId, change: &Change) -> raft_engine::Result<()> {
    match change {
        Change::Append(records) => {
            let slots: Vec<Slot> = records.iter().map(|(index, record)| Slot::to_write(index, record)).collect();
            batch.add_entries::<Slot>(group.0, &slots)?;
        }
        Change::Purge { through } => batch.add_command(group.0, Command::Compact { index: through + 1 }),
        Change::Window(window) => batch.put(group.0, WINDOW.to_vec(), window_to_record(window))?,
        Change::Vote(vote) => batch.put(group.0, VOTE.to_vec(), vote_to_record(vote))?,
        Change::Remove => batch.add_command(group.0, Command::Clean),
    }
    Ok(())
}

impl RawEngine for RaftEngineLog {
    fn write(&self, changes: &[(GroupId, Change)], number: u64) -> Result<u64, LogError> {
        let written = guarded(Place::file(&self.dir), "write", || {
            let mut batch = LogBatch::with_capacity(changes.len() + 1);
            for (group, change) in changes {
                add(&mut batch, *group, change)?;
            }
            batch.put(OF_ALL.0, BATCH.to_vec(), number.to_le_bytes().to_vec())?;
            self.engine().write(&mut batch, true)
        });
        if written.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        Ok(written? as u64)
    }

    fn read(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        self.fetch(group, &range, max_bytes).or_else(|_| {
            let _quiet = self.reclaiming.lock();
            self.fetch(group, &range, max_bytes)
        })
    }

    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        let known = |id: &u64| [VOTE, WINDOW].iter().any(|key| self.engine().get(*id, key).is_some());
        Ok(self.engine().raft_groups().into_iter().filter(known).map(GroupId).collect())
    }

    fn recover(&self, group: GroupId) -> Result<Recovered, LogError> {
        let corrupt = |e| LogError::corrupt(self.place(group), e);
        let get = |key| self.engine().get(group.0, key).map(Bytes::from);
        let vote = get(VOTE).map(vote_from_record).transpose().map_err(corrupt)?;
        let window = get(WINDOW).map(window_from_record).transpose().map_err(corrupt)?.unwrap_or_default();
        Ok(Recovered { vote, window })
    }

    fn reclaim(&self) -> Result<(), LogError> {
        let _reclaiming = self.reclaiming.lock();
        // The groups it returns are those that keep old files alive. It rewrites them itself when they go on doing so.
        guarded(Place::file(&self.dir), "reclaim", || self.engine().purge_expired_files()).map(|_| ())
    }

    fn last_batch(&self) -> Result<u64, LogError> {
        let Some(record) = self.engine().get(OF_ALL.0, BATCH) else { return Ok(0) };
        batch_from_record(&record).ok_or_else(|| LogError::corrupt(Place::file(&self.dir), "a batch without a number"))
    }

    fn end(&self) -> Place {
        newest_end(&self.dir, ".raftlog")
            .ok()
            .flatten()
            .map_or_else(|| Place::file(&self.dir), |(_, path, end)| Place::at(&path, end))
    }

    fn rewritten_end(dir: &Path) -> Result<RewrittenEnd, LogError> {
        let newest = newest_end(dir, ".rewrite")?;
        Ok(newest.map_or_else(RewrittenEnd::default, |(file, _, offset)| RewrittenEnd { file, offset }))
    }
}

/// An entry as raft-engine wants it: a rust-protobuf message that is nothing but the record's bytes.
#[derive(Clone, Default, PartialEq)]
struct Slot {
    index: u64,
    record: Bytes,
    entry: Option<Entry>,
    unknown: UnknownFields,
}

impl Slot {
    fn to_write(index: u64, record: Bytes) -> Self {
        Self { index, record, ..Self::default() }
    }
}

impl MessageExt for Slot {
    type Entry = Slot;

    fn index(slot: &Slot) -> u64 {
        slot.index
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.index)
    }
}

impl Clear for Slot {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for Slot {
    fn descriptor(&self) -> &'static MessageDescriptor {
        unimplemented!("raft-engine does not use reflection")
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, stream: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        let mut record = Vec::new();
        std::io::Read::read_to_end(stream, &mut record)?;
        let entry = entry_from_record(record.into())
            .map_err(|e| ProtobufError::IoError(std::io::Error::new(std::io::ErrorKind::InvalidData, e.to_string())))?;
        self.index = entry.log_id.index;
        self.entry = Some(entry);
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, stream: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        stream.write_raw_bytes(&self.record)
    }

    fn compute_size(&self) -> u32 {
        u32::try_from(self.record.len()).unwrap_or(u32::MAX)
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static DEFAULT: std::sync::OnceLock<Slot> = std::sync::OnceLock::new();
        DEFAULT.get_or_init(Slot::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_raft_engine_becomes_an_error_that_keeps_its_words() {
        let place = Place::file(Path::new("x"));
        let error = guarded::<()>(place, "write", || panic!("pipe::sync(): {}", "no")).unwrap_err();
        assert!(matches!(&error, LogError::Engine { detail, .. } if detail == "pipe::sync(): no"), "{error}");
    }

    #[test]
    fn a_record_that_is_none_is_an_error_of_the_message() {
        assert!(<Slot as Message>::parse_from_bytes(&[]).is_err());
        assert!(<Slot as Message>::parse_from_bytes(&[7, 7, 7]).is_err());
    }
}
