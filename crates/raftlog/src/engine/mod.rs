//! What the log store asks of a storage engine, the two that can do it, and one in memory for simulations.

pub(crate) mod mark;
mod memory;
mod noted;
mod raft_engine;
mod rocks;
mod told;
pub(crate) mod torn;

#[cfg(test)]
mod conformance;

use std::ops::Range;
use std::path::Path;

use drover_keys::GroupId;
use drover_rafttypes::{Entry, Vote};

pub use self::memory::MemoryDisk;
use self::noted::Noted;
pub use self::raft_engine::RaftEngineLog;
pub use self::rocks::RocksLog;
use crate::error::{LogError, Place};
use crate::options::{EngineKind, LogOptions};
use crate::record::{Records, Window};

/// One change to one group.
#[derive(Debug, Clone)]
pub enum Change {
    /// Store entries; those already stored from the first one's index on are replaced.
    Append(Records),
    /// Entries up to here are not needed any more.
    Purge { through: u64 },
    /// Replace the window.
    Window(Window),
    /// Replace the vote.
    Vote(Vote),
    /// Forget the group altogether.
    Remove,
}

/// What an engine knows of a group besides its entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    pub vote: Option<Vote>,
    pub window: Window,
}

/// Synchronous storage of logs. One thread writes; any thread reads at the same time.
pub trait LogEngine: Send + Sync {
    /// Makes all changes, in their order, atomically and durably: when this returns they survive a loss of power.
    /// Returns the bytes written.
    ///
    /// # Errors
    /// After an error the engine must not be written to again.
    fn write(&self, changes: &[(GroupId, Change)]) -> Result<u64, LogError>;

    /// Entries from the start of `range`, consecutive, at least one, and no more once they weigh `max_bytes`.
    /// The range is not empty and lies within the group's window.
    fn read(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError>;

    /// Groups that have a vote or a window.
    fn groups(&self) -> Result<Vec<GroupId>, LogError>;

    /// Vote and window of a group.
    fn recover(&self, group: GroupId) -> Result<Recovered, LogError>;

    /// Gives disk space of purged entries back, if there is enough of it to be worth the work.
    fn reclaim(&self) -> Result<(), LogError> {
        Ok(())
    }
}

/// Opens the engine that `options` name.
///
/// # Errors
/// If files are damaged or cannot be read, or another process has the directory open.
pub fn open(dir: &Path, options: &LogOptions) -> Result<Box<dyn LogEngine>, LogError> {
    Ok(match options.engine {
        EngineKind::RaftEngine => Box::new(Noted::open(dir, || RaftEngineLog::open(dir, options))?),
        EngineKind::RocksDb => Box::new(Noted::open(dir, || RocksLog::open(dir))?),
    })
}

/// Reads what a log must contain if its window tells the truth, and compares.
///
/// # Errors
/// If the first or last entry is missing, damaged or another than the window says.
pub fn verify(engine: &dyn LogEngine, group: GroupId, window: &Window) -> Result<(), LogError> {
    let Some(last) = window.last.filter(|_| !window.is_empty()) else { return Ok(()) };
    let tail = engine.read(group, last.index..last.index + 1, 1)?;
    let found = tail.first().map(|entry| entry.log_id);
    if found != Some(last) {
        let detail = format!("the last entry is {found:?}, but {last:?} was written");
        return Err(LogError::corrupt(Place::group(group), detail));
    }
    engine.read(group, window.first..window.first + 1, 1)?;
    Ok(())
}

/// Checks that `entries` answers a read of `range`.
fn check_read(group: GroupId, range: &Range<u64>, entries: &[Entry]) -> Result<(), LogError> {
    let consecutive = entries.iter().zip(range.start..).all(|(entry, index)| entry.log_id.index == index);
    if entries.is_empty() || !consecutive {
        let found: Option<u64> = entries.iter().zip(range.start..).find(|(e, i)| e.log_id.index != *i).map(|(_, i)| i);
        let missing = found.unwrap_or(range.start);
        return Err(LogError::corrupt(Place::group(group), format!("entry {missing} is missing")));
    }
    Ok(())
}
