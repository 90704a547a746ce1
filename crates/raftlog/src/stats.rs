use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of [`LogStats::batch_sizes`].
pub const BATCH_BUCKETS: usize = 12;

/// What a log store has done since it was opened. All counters only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Batches written, each with one fsync.
    pub fsyncs: u64,
    /// Calls of `append` that are durable.
    pub appends: u64,
    /// Entries that are durable.
    pub entries: u64,
    /// Bytes of the records of these entries.
    pub entry_bytes: u64,
    /// Bytes handed to the engine: records, votes, windows and framing, before compression by RocksDB, after compression
    /// by raft-engine.
    pub written_bytes: u64,
    /// Votes that are durable.
    pub votes: u64,
    /// Microseconds spent writing and syncing batches.
    pub write_micros: u64,
    /// Entries read from the engine because the cache did not hold them.
    pub engine_reads: u64,
    /// Batches by their number of requests: bucket `i` counts batches of up to `2^i`, the last one all larger ones.
    pub batch_sizes: [u64; BATCH_BUCKETS],
}

/// The counters behind [`LogStats`].
#[derive(Debug, Default)]
pub struct Counters {
    pub fsyncs: AtomicU64,
    pub appends: AtomicU64,
    pub entries: AtomicU64,
    pub entry_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub votes: AtomicU64,
    pub write_micros: AtomicU64,
    pub engine_reads: AtomicU64,
    batch_sizes: [AtomicU64; BATCH_BUCKETS],
}

/// Adds to a counter.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    /// Counts a batch of `requests` that was written.
    pub fn batch(&self, requests: usize, written_bytes: u64, took: Duration) {
        add(&self.fsyncs, 1);
        add(&self.written_bytes, written_bytes);
        add(&self.write_micros, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let bucket = requests.next_power_of_two().trailing_zeros() as usize;
        add(&self.batch_sizes[bucket.min(BATCH_BUCKETS - 1)], 1);
    }

    pub fn snapshot(&self) -> LogStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            fsyncs: get(&self.fsyncs),
            appends: get(&self.appends),
            entries: get(&self.entries),
            entry_bytes: get(&self.entry_bytes),
            written_bytes: get(&self.written_bytes),
            votes: get(&self.votes),
            write_micros: get(&self.write_micros),
            engine_reads: get(&self.engine_reads),
            batch_sizes: self.batch_sizes.each_ref().map(get),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_counted_in_the_bucket_of_the_next_power_of_two() {
        let counters = Counters::default();
        for requests in [1, 2, 3, 4, 5, 1 << 20] {
            counters.batch(requests, 10, Duration::from_micros(3));
        }
        let stats = counters.snapshot();
        assert_eq!(stats.batch_sizes[..4], [1, 1, 2, 1]);
        assert_eq!(stats.batch_sizes[BATCH_BUCKETS - 1], 1);
        assert_eq!((stats.fsyncs, stats.written_bytes, stats.write_micros), (6, 60, 18));
    }
}
