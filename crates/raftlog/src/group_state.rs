use std::ops::Range;

use drover_keys::GroupId;
use drover_rafttypes::{Entry, LogId, Vote};
use parking_lot::Mutex;

use crate::cache::EntryCache;
use crate::engine::Recovered;
use crate::error::LogError;

/// One group's log as its handles see it: what was asked for, durable or not.
#[derive(Debug)]
pub struct GroupState {
    /// The last durable vote.
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    /// Index of the first entry, if there is one.
    pub first: u64,
    /// The last entry, or `purged`.
    pub last: Option<LogId>,
    /// The committed log id that was saved last; may not be written yet.
    pub committed: Option<LogId>,
    pub cache: EntryCache,
    /// Changes whenever entries disappear, so that a read that took several steps can tell.
    pub generation: u64,
    /// The group was removed from this node: its handles are void.
    pub removed: bool,
}

impl GroupState {
    pub fn new(recovered: &Recovered, cache_bytes: usize) -> Self {
        Self {
            vote: recovered.vote,
            purged: recovered.window.purged,
            first: recovered.window.first,
            last: recovered.window.last,
            committed: recovered.window.committed,
            cache: EntryCache::new(cache_bytes),
            generation: 0,
            removed: false,
        }
    }

    /// The indexes that are present.
    pub fn range(&self) -> Range<u64> {
        match self.last {
            Some(last) if self.last != self.purged => self.first..last.index + 1,
            _ => 0..0,
        }
    }

    /// Adds entries that follow the log. A log that never had an entry may start anywhere.
    ///
    /// # Errors
    /// If they leave a hole; nothing is added then.
    pub fn append(&mut self, group: GroupId, entries: Vec<Entry>, write: u64) -> Result<(), LogError> {
        let first = entries.first().map_or(0, |entry| entry.log_id.index);
        let expected = self.last.map_or(first, |id| id.index + 1);
        let wrong = entries.iter().zip(expected..).find(|(entry, index)| entry.log_id.index != *index);
        if let Some((entry, expected)) = wrong {
            return Err(LogError::Hole { group, expected, got: entry.log_id.index });
        }
        if self.last == self.purged {
            self.first = first;
        }
        for entry in entries {
            self.last = Some(entry.log_id);
            self.cache.push(entry, write);
        }
        Ok(())
    }

    /// Drops everything behind `last`. Returns whether there was anything.
    ///
    /// # Errors
    /// If that would cut into what was purged.
    pub fn truncate_after(&mut self, group: GroupId, last: Option<LogId>) -> Result<bool, LogError> {
        let keep = last.map(|id| id.index);
        let purged = self.purged.map(|id| id.index);
        if keep >= self.last.map(|id| id.index) {
            return Ok(false);
        }
        if keep < purged {
            return Err(LogError::Purged { group, index: purged.unwrap_or_default() });
        }
        self.last = last;
        self.cache.truncate_after(keep);
        self.generation += 1;
        Ok(true)
    }

    /// Drops everything up to `upto`, which may lie behind the end. Returns whether that is news.
    pub fn purge(&mut self, upto: LogId) -> bool {
        if Some(upto.index) <= self.purged.map(|id| id.index) {
            return false;
        }
        self.purged = Some(upto);
        self.first = upto.index + 1;
        if self.last.is_none_or(|last| last.index <= upto.index) {
            self.last = Some(upto);
        }
        self.cache.purge(upto.index);
        self.generation += 1;
        true
    }
}

/// One group's log, shared by its handles and the writer.
#[derive(Debug)]
pub struct GroupCell {
    pub id: GroupId,
    pub state: Mutex<GroupState>,
}
