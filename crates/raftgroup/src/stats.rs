use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters of one group on one node, since the process started.
#[derive(Debug, Default)]
pub struct GroupStats {
    entries: AtomicU64,
    operations: AtomicU64,
    lease_reads: AtomicU64,
    waited_reads: AtomicU64,
    held_requests: AtomicU64,
    slowed_writes: AtomicU64,
    slowed_us: AtomicU64,
    suspensions: AtomicU64,
}

/// [`GroupStats`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupStatsSnapshot {
    /// Entries proposed.
    pub entries: u64,
    /// Write operations proposed.
    pub operations: u64,
    /// Leadership proofs for reads.
    pub proofs: u64,
    /// Reads that waited for a pending write.
    pub waited_reads: u64,
    /// Requests that were held until a range was activated here.
    pub held_requests: u64,
    /// Writes that were slowed down because the copy of their range did not keep up.
    pub slowed_writes: u64,
    /// How long they were held back, together, in microseconds.
    pub slowed_us: u64,
    /// Times that the machine was found to have been suspended.
    pub suspensions: u64,
}

impl GroupStats {
    pub(crate) fn entry_proposed(&self, operations: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.operations.fetch_add(operations as u64, Ordering::Relaxed);
    }

    pub(crate) fn proof(&self) {
        self.lease_reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read_waited(&self) {
        self.waited_reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn write_slowed(&self, held: Duration) {
        self.slowed_writes.fetch_add(1, Ordering::Relaxed);
        self.slowed_us.fetch_add(u64::try_from(held.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn request_held(&self) {
        self.held_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn suspended(&self) {
        self.suspensions.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> GroupStatsSnapshot {
        GroupStatsSnapshot {
            entries: self.entries.load(Ordering::Relaxed),
            operations: self.operations.load(Ordering::Relaxed),
            proofs: self.lease_reads.load(Ordering::Relaxed),
            waited_reads: self.waited_reads.load(Ordering::Relaxed),
            held_requests: self.held_requests.load(Ordering::Relaxed),
            slowed_writes: self.slowed_writes.load(Ordering::Relaxed),
            slowed_us: self.slowed_us.load(Ordering::Relaxed),
            suspensions: self.suspensions.load(Ordering::Relaxed),
        }
    }
}
