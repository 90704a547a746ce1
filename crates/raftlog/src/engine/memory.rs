//! A log in memory for simulations: what was written outlives the engine, as on a disk, for as long as the [`MemoryDisk`].
//!
//! Records stand in it as they do on disk. What has not been written when a simulated node crashes is lost with the node: see
//! [`crate::NodeLog::in_memory`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use drover_keys::GroupId;
use drover_rafttypes::{Entry, Vote};
use parking_lot::Mutex;

use super::{Change, LogEngine, Recovered, check_read};
use crate::error::{LogError, Place};
use crate::record::{
    Window, entry_from_record, vote_from_record, vote_to_record, weight, window_from_record, window_to_record,
};

#[derive(Debug, Default)]
struct Stored {
    vote: Option<Bytes>,
    window: Option<Bytes>,
    entries: BTreeMap<u64, Bytes>,
}

#[derive(Debug, Default)]
struct Disk {
    groups: Mutex<BTreeMap<GroupId, Stored>>,
    opened: AtomicBool,
}

/// Where the logs of a simulated node are while the node is up and while it is not. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct MemoryDisk(Arc<Disk>);

impl MemoryDisk {
    /// Opens the log.
    ///
    /// # Errors
    /// If it is open.
    pub(crate) fn open(&self) -> Result<MemoryLog, LogError> {
        if self.0.opened.swap(true, Ordering::SeqCst) {
            return Err(LogError::engine(Place::default(), "open", "it is open already"));
        }
        Ok(MemoryLog(Arc::clone(&self.0)))
    }
}

/// The engine over a [`MemoryDisk`].
#[derive(Debug)]
pub struct MemoryLog(Arc<Disk>);

impl Drop for MemoryLog {
    fn drop(&mut self) {
        self.0.opened.store(false, Ordering::SeqCst);
    }
}

impl Stored {
    fn change(&mut self, change: &Change) -> u64 {
        match change {
            Change::Append(records) => {
                drop(self.entries.split_off(&records.first()));
                self.entries.extend(records.iter());
                records.bytes() as u64
            }
            Change::Purge { through } => {
                let kept = through.checked_add(1).map(|kept| self.entries.split_off(&kept));
                self.entries = kept.unwrap_or_default();
                1
            }
            Change::Window(window) => self.window.insert(window_to_record(window).into()).len() as u64,
            Change::Vote(vote) => self.vote.insert(vote_to_record(vote).into()).len() as u64,
            Change::Remove => 1,
        }
    }
}

impl LogEngine for MemoryLog {
    fn write(&self, changes: &[(GroupId, Change)]) -> Result<u64, LogError> {
        let mut groups = self.0.groups.lock();
        let mut bytes = 0;
        for (group, change) in changes {
            bytes += groups.entry(*group).or_default().change(change);
            if matches!(change, Change::Remove) {
                groups.remove(group);
            }
        }
        Ok(bytes)
    }

    fn read(&self, group: GroupId, range: Range<u64>, max_bytes: usize) -> Result<Vec<Entry>, LogError> {
        let groups = self.0.groups.lock();
        let stored = groups.get(&group).into_iter().flat_map(|stored| stored.entries.range(range.clone()));
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (_, record) in stored {
            let corrupt = |error| LogError::corrupt(Place::group(group), error);
            let entry = entry_from_record(record.clone()).map_err(corrupt)?;
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
        let groups = self.0.groups.lock();
        let known = groups.iter().filter(|(_, stored)| stored.vote.is_some() || stored.window.is_some());
        Ok(known.map(|(group, _)| *group).collect())
    }

    fn recover(&self, group: GroupId) -> Result<Recovered, LogError> {
        let groups = self.0.groups.lock();
        let Some(stored) = groups.get(&group) else { return Ok(Recovered::default()) };
        let corrupt = |error| LogError::corrupt(Place::group(group), error);
        let vote: Option<Vote> = stored.vote.clone().map(vote_from_record).transpose().map_err(corrupt)?;
        let window: Option<Window> = stored.window.clone().map(window_from_record).transpose().map_err(corrupt)?;
        Ok(Recovered { vote, window: window.unwrap_or_default() })
    }
}
