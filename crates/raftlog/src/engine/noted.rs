//! An engine that notices when its newest files have become shorter than they were.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use drover_guards::{self as guards, Guard};
use drover_keys::GroupId;
use drover_rafttypes::Entry;

use super::mark::{Mark, RewrittenEnd};
use super::{Change, LogEngine, Recovered};
use crate::error::{LogError, Place};

/// Engines keep the number of the last batch under this group, which does not exist: groups are counted from one.
pub const OF_ALL: GroupId = GroupId(0);

/// Synchronous storage of logs whose batches are numbered. As [`LogEngine`] in all else.
pub trait RawEngine: Send + Sync {
    /// As [`LogEngine::write`], with the number of the batch.
    ///
    /// # Errors
    /// As [`LogEngine::write`].
    fn write(&self, changes: &[(GroupId, Change)], batch: u64) -> Result<u64, LogError>;

    /// As [`LogEngine::read`].
    ///
    /// # Errors
    /// As [`LogEngine::read`].
    fn read(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError>;

    /// As [`LogEngine::groups`].
    ///
    /// # Errors
    /// As [`LogEngine::groups`].
    fn groups(&self) -> Result<Vec<GroupId>, LogError>;

    /// As [`LogEngine::recover`].
    ///
    /// # Errors
    /// As [`LogEngine::recover`].
    fn recover(&self, group: GroupId) -> Result<Recovered, LogError>;

    /// As [`LogEngine::reclaim`].
    ///
    /// # Errors
    /// As [`LogEngine::reclaim`].
    fn reclaim(&self) -> Result<(), LogError> {
        Ok(())
    }

    /// The number of the last batch that is there; zero if there is none.
    ///
    /// # Errors
    /// If what stands there is no number, or it cannot be read.
    fn last_batch(&self) -> Result<u64, LogError>;

    /// Where the last batch ends.
    fn end(&self) -> Place;

    /// Where the rewritten files in `dir` end, which nobody writes to.
    ///
    /// # Errors
    /// If they cannot be read.
    fn rewritten_end(dir: &Path) -> Result<RewrittenEnd, LogError>
    where
        Self: Sized;
}

/// The number of a batch as an engine stores it.
pub fn batch_from_record(record: &[u8]) -> Option<u64> {
    record.try_into().ok().map(u64::from_le_bytes)
}

/// See the module's description.
pub struct Noted<E> {
    engine: E,
    dir: PathBuf,
    mark: Mark,
    batches: AtomicU64,
}

impl<E: RawEngine> Noted<E> {
    /// Opens an engine with `open` and compares what it finds with what was noted.
    ///
    /// # Errors
    /// [`LogError::CutOff`] if something that was durable is missing at its end; [`LogError::Corrupt`] if the note is damaged or
    /// missing; as `open`.
    pub fn open(dir: &Path, open: impl FnOnce() -> Result<E, LogError>) -> Result<Self, LogError> {
        let noted = Mark::open(dir)?;
        if guards::on(Guard::LogEndNoted)
            && let Some(mark) = &noted
        {
            check_rewritten(dir, mark.rewritten(), E::rewritten_end(dir)?)?;
        }
        let engine = open()?;
        let found = engine.last_batch()?;
        let mark = match noted {
            Some(mark) if found < mark.batch() && guards::on(Guard::LogEndNoted) => {
                return Err(LogError::CutOff { place: engine.end(), found, durable: mark.batch() });
            }
            Some(mark) => mark,
            None if found == 0 => Mark::create(dir)?,
            None => {
                let detail = "the note of how far the log is durable is missing beside it";
                return Err(LogError::corrupt(Place::file(dir), detail));
            }
        };
        Ok(Self { engine, dir: dir.to_owned(), mark, batches: AtomicU64::new(found) })
    }
}

fn check_rewritten(dir: &Path, noted: RewrittenEnd, found: RewrittenEnd) -> Result<(), LogError> {
    if (found.file, found.offset) >= (noted.file, noted.offset) {
        return Ok(());
    }
    let path = dir.join(format!("{:016}.rewrite", noted.file));
    if found.file < noted.file {
        return Err(LogError::corrupt(Place::file(&path), "the file is missing"));
    }
    let detail = format!("what follows is damaged or cut off, and it was durable up to byte {}", noted.offset);
    Err(LogError::corrupt(Place::at(&path, found.offset), detail))
}

impl<E: RawEngine> LogEngine for Noted<E> {
    fn write(&self, changes: &[(GroupId, Change)]) -> Result<u64, LogError> {
        let number = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.engine.write(changes, number)?;
        self.mark.note_batch(number)?;
        Ok(bytes)
    }

    fn read(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        self.engine.read(group, range, max_bytes)
    }

    fn groups(&self) -> Result<Vec<GroupId>, LogError> {
        self.engine.groups()
    }

    fn recover(&self, group: GroupId) -> Result<Recovered, LogError> {
        self.engine.recover(group)
    }

    fn reclaim(&self) -> Result<(), LogError> {
        self.engine.reclaim()?;
        self.mark.note_rewritten(E::rewritten_end(&self.dir)?)
    }
}
