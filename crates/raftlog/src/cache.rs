use std::collections::VecDeque;

use drover_rafttypes::Entry;

use crate::record::weight;

#[derive(Debug)]
struct Cached {
    entry: Entry,
    weight: usize,
    /// Number of the write that stores it.
    write: u64,
}

/// The newest entries of one log, without gaps up to its end.
///
/// An entry is dropped only when the write that stores it is durable. Writes are counted, rather than compared by index,
/// because an index may be written again after a truncation while its first write is still on its way.
#[derive(Debug, Default)]
pub struct EntryCache {
    entries: VecDeque<Cached>,
    bytes: usize,
    limit_bytes: usize,
    durable_write: u64,
}

impl EntryCache {
    /// A cache that keeps up to `limit_bytes` of durable entries.
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, ..Self::default() }
    }

    /// The lowest index it holds.
    pub fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|cached| cached.entry.log_id.index)
    }

    /// Adds the entry that follows.
    pub fn push(&mut self, entry: Entry, write: u64) {
        debug_assert!(self.entries.back().is_none_or(|last| last.entry.log_id.index + 1 == entry.log_id.index));
        let weight = weight(&entry);
        self.bytes += weight;
        self.entries.push_back(Cached { entry, weight, write });
    }

    /// Notes that writes up to `write` are durable, and makes room.
    pub fn written(&mut self, write: u64) {
        self.durable_write = self.durable_write.max(write);
        while self.bytes > self.limit_bytes && self.entries.front().is_some_and(|c| c.write <= self.durable_write) {
            self.pop_front();
        }
    }

    /// Drops everything behind `index`, or everything.
    pub fn truncate_after(&mut self, index: Option<u64>) {
        while self.entries.back().is_some_and(|c| Some(c.entry.log_id.index) > index) {
            if let Some(dropped) = self.entries.pop_back() {
                self.bytes -= dropped.weight;
            }
        }
    }

    /// Drops everything up to `index`.
    pub fn purge(&mut self, index: u64) {
        while self.first_index().is_some_and(|first| first <= index) {
            self.pop_front();
        }
    }

    /// Entries from `start`, which it holds, up to `end`, no more once they weigh `max_bytes`; at least one if
    /// `start < end`. Returns their weight.
    pub fn copy(&self, start: u64, end: u64, max_bytes: usize, into: &mut Vec<Entry>) -> usize {
        let Some(first) = self.first_index() else { return 0 };
        let from = usize::try_from(start - first).unwrap_or(usize::MAX).min(self.entries.len());
        let mut bytes = 0;
        for cached in self.entries.range(from..).take_while(|c| c.entry.log_id.index < end) {
            into.push(cached.entry.clone());
            bytes += cached.weight;
            if bytes >= max_bytes {
                break;
            }
        }
        bytes
    }

    fn pop_front(&mut self) {
        if let Some(dropped) = self.entries.pop_front() {
            self.bytes -= dropped.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_rafttypes::{LogId, Payload, decode_log_id};
    use drover_wire::proto::storage::v1 as pb;

    use super::*;

    fn log_id(index: u64) -> LogId {
        decode_log_id(&pb::LogId { term: 1, index })
    }

    fn blank(index: u64) -> Entry {
        Entry { log_id: log_id(index), payload: Payload::Blank }
    }

    fn held(cache: &EntryCache) -> Vec<u64> {
        cache.entries.iter().map(|c| c.entry.log_id.index).collect()
    }

    #[test]
    fn entries_that_are_not_durable_are_never_dropped() {
        let mut cache = EntryCache::new(0);
        for index in 1..=4 {
            cache.push(blank(index), index);
        }
        cache.written(2);
        assert_eq!(held(&cache), [3, 4]);
    }

    #[test]
    fn the_write_of_a_truncated_entry_does_not_make_its_successor_droppable() {
        let mut cache = EntryCache::new(0);
        cache.push(blank(1), 1);
        cache.push(blank(2), 1);
        cache.truncate_after(Some(1));
        cache.push(blank(2), 2);
        cache.written(1);
        assert_eq!(held(&cache), [2]);
    }

    #[test]
    fn a_copy_is_bounded_in_bytes_but_never_empty() {
        let mut cache = EntryCache::new(1 << 20);
        for index in 5..10 {
            cache.push(blank(index), 1);
        }
        let mut copied = Vec::new();
        assert_eq!(cache.copy(6, 9, 1, &mut copied), weight(&blank(6)));
        assert_eq!(copied, [blank(6)]);
        copied.clear();
        cache.copy(6, 9, usize::MAX, &mut copied);
        assert_eq!(copied, [blank(6), blank(7), blank(8)]);
    }

    #[test]
    fn purge_and_truncation_cut_both_ends() {
        let mut cache = EntryCache::new(1 << 20);
        for index in 1..=6 {
            cache.push(blank(index), 1);
        }
        cache.purge(2);
        cache.truncate_after(Some(4));
        assert_eq!(held(&cache), [3, 4]);
        cache.truncate_after(None);
        assert_eq!((held(&cache), cache.bytes), (vec![], 0));
    }
}
