use std::time::Duration;

use drover_fsm::ValidationLimits;
use drover_guards::{self as guards, Guard};
use drover_kv::Limits;

/// Settings of a Raft group.
#[derive(Debug, Clone)]
pub struct GroupOptions {
    /// How often a leader tells its followers that it is there, in milliseconds.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing for a random time between these two stands for election. The upper one is also the
    /// lease: how long a voter refuses other candidates.
    pub election_min_ms: u64,
    /// See `election_min_ms`.
    pub election_max_ms: u64,
    /// By how much the leader's own view of its lease is shorter than what the voters promised, and by how much a
    /// restarted voter waits longer, in milliseconds. Covers the drift of clock rates.
    pub lease_margin_ms: u64,
    /// Sizes above which answers are refused.
    pub limits: Limits,
    /// Bytes of writes under way before further ones wait.
    pub max_inflight_bytes: u32,
    /// Bytes after which an entry is closed.
    pub max_entry_bytes: u32,
    /// Operations after which an entry is closed.
    pub max_entry_ops: usize,
    /// Entries under way, from the request for their timestamps until they are applied. Each has to be at least as large as
    /// those before it together, so that a write under light load does not wait, and entries are large under heavy load.
    pub max_entries_inflight: usize,
    /// Timestamp requests under way.
    pub max_timestamp_requests: usize,
    /// How long a batch waits for its timestamps.
    pub timestamp_timeout: Duration,
    /// Keys that one batch of a range delete covers.
    pub delete_range_keys: u64,
    /// Rows that the leader looks at to find them.
    pub delete_range_scan_rows: u64,
    /// What the ranges that one transaction has read in this group may hold: apply, or a refresh, looks at each key of them.
    pub validation: ValidationLimits,
    /// For how long the outcome of a transaction is remembered, counted from the snapshot that it reads. One that is older is
    /// refused.
    pub txn_max_age: Duration,
    /// How often the state machine is flushed if something was applied.
    pub flush_interval: Duration,
    /// Applied entries after which it is flushed early.
    pub flush_entries: u64,
    /// Log entries kept behind the flush for followers that lag.
    pub log_keep_entries: u64,
    /// Log entries removed at a time.
    pub purge_batch_entries: u64,
    /// How long versions that were overwritten stay readable.
    pub retention: Duration,
    /// How often the safe point and the record horizon move.
    pub housekeeping_interval: Duration,
    /// How long a leader holds a request for a range whose copy is complete here and waits to be activated.
    pub hold_arriving: Duration,
    /// How many requests it holds for that at once. The others are refused, and come again.
    pub max_held_requests: usize,
    /// Longest time that a snapshot may take to send.
    pub snapshot_timeout: Duration,
    /// A learner may vote when it is at most this many entries behind.
    pub learner_max_lag: u64,
    /// For how long a leader that hands over admits nothing while its successor gets the last entries.
    pub transfer_catch_up: Duration,
}

impl GroupOptions {
    /// For how long a replica that starts with a history keeps silent: it has forgotten the lease it may have given.
    pub fn silence_after_restart(&self) -> Duration {
        Duration::from_millis(self.election_max_ms.saturating_add(self.lease_margin_ms))
    }
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 600,
            lease_margin_ms: 100,
            limits: Limits::default(),
            max_inflight_bytes: 64 << 20,
            max_entry_bytes: 1 << 20,
            max_entry_ops: 512,
            max_entries_inflight: 4,
            max_timestamp_requests: 4,
            timestamp_timeout: Duration::from_secs(5),
            delete_range_keys: 1_000,
            delete_range_scan_rows: 100_000,
            validation: ValidationLimits { max_rows: 100_000, max_keys: 1_000_000 },
            txn_max_age: Duration::from_secs(300),
            flush_interval: Duration::from_secs(30),
            flush_entries: 50_000,
            log_keep_entries: 50_000,
            purge_batch_entries: 256,
            retention: Duration::from_secs(600),
            housekeeping_interval: Duration::from_secs(10),
            hold_arriving: Duration::from_millis(500),
            max_held_requests: 10_000,
            snapshot_timeout: Duration::from_secs(600),
            learner_max_lag: 1_000,
            transfer_catch_up: Duration::from_millis(500),
        }
    }
}

impl GroupOptions {
    /// How old the last answer of a quorum may be for a leader to trust its lease. Zero, so that it asks a quorum, if the
    /// lease was measured by a clock that stood still.
    pub(crate) fn lease(&self, trusts_clock: bool) -> Duration {
        if !trusts_clock && guards::on(Guard::SuspendWatch) {
            return Duration::ZERO;
        }
        let margin_ms = if guards::on(Guard::LeaseMargin) { self.lease_margin_ms } else { 0 };
        Duration::from_millis(self.election_max_ms - margin_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_trusts_less_than_the_voters_promised_and_nothing_after_a_suspension() {
        let options = GroupOptions { election_max_ms: 600, lease_margin_ms: 100, ..GroupOptions::default() };
        assert_eq!(options.lease(true), Duration::from_millis(500));
        assert_eq!(options.lease(false), Duration::ZERO);
    }

    #[test]
    fn a_restarted_voter_speaks_only_when_every_lease_that_it_gave_is_over() {
        for (election_max_ms, lease_margin_ms) in [(600, 100), (2_000, 1), (300, 299)] {
            let options = GroupOptions { election_max_ms, lease_margin_ms, ..GroupOptions::default() };
            assert!(options.silence_after_restart() > Duration::from_millis(election_max_ms));
        }
    }
}
