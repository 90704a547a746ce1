use drover_keys::GroupId;
use prometheus::{IntCounterVec, IntGaugeVec};

use super::{Families, follow_total, gauge_value};

/// What a replica shows of itself at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReplicaSample {
    /// Whether it leads its group.
    pub is_leader: bool,
    /// Raft term.
    pub term: u64,
    /// Highest log index known to be committed.
    pub committed_index: u64,
    /// Highest log index applied.
    pub applied_index: u64,
    /// Highest log index whose effects survive a crash without replay.
    pub flushed_index: u64,
    /// Highest log index removed from the log.
    pub purged_index: u64,
    /// Size of the state.
    pub state_bytes: u64,
    /// Entries with writes that it proposed as leader.
    pub proposed_entries: u64,
    /// Writes in them.
    pub proposed_operations: u64,
    /// Proofs of leadership for reads and timestamps.
    pub leadership_proofs: u64,
    /// Reads that waited for a pending write.
    pub waited_reads: u64,
    /// Requests that it held until a range was activated.
    pub held_requests: u64,
    /// Writes that it slowed down because the copy of their range did not keep up.
    pub slowed_writes: u64,
    /// How long it held them back, together, in microseconds.
    pub slowed_us: u64,
    /// Ranges that move away: each is pinned, and what is written into it is listed.
    pub leaving_ranges: u64,
    /// Of these, ranges with a fence.
    pub fenced_ranges: u64,
    /// Ranges that are copied here.
    pub arriving_ranges: u64,
    /// Moves that are over and remembered, so that nothing that comes late counts.
    pub ended_moves: u64,
    /// Locks of transactions.
    pub locks: u64,
}

/// Replicas of groups; label `group` is a group id.
pub struct ReplicaMetrics {
    is_leader: IntGaugeVec,
    term: IntGaugeVec,
    committed_index: IntGaugeVec,
    applied_index: IntGaugeVec,
    flushed_index: IntGaugeVec,
    purged_index: IntGaugeVec,
    apply_lag: IntGaugeVec,
    state_bytes: IntGaugeVec,
    proposed_entries: IntCounterVec,
    proposed_operations: IntCounterVec,
    leadership_proofs: IntCounterVec,
    waited_reads: IntCounterVec,
    held_requests: IntCounterVec,
    slowed_writes: IntCounterVec,
    slowed_us: IntCounterVec,
    leaving_ranges: IntGaugeVec,
    fenced_ranges: IntGaugeVec,
    arriving_ranges: IntGaugeVec,
    ended_moves: IntGaugeVec,
    locks: IntGaugeVec,
    stray_ranges: IntGaugeVec,
}

impl ReplicaMetrics {
    pub(super) fn register(families: &Families<'_>) -> Self {
        let gauge = |name: &str, help: &str| families.gauges(name, help, &["group"]);
        let counter = |name: &str, help: &str| families.counters(name, help, &["group"]);
        Self {
            is_leader: gauge("drover_replica_is_leader", "1 if the replica leads its group"),
            term: gauge("drover_replica_term", "Raft term"),
            committed_index: gauge("drover_replica_committed_index", "Highest log index known to be committed"),
            applied_index: gauge("drover_replica_applied_index", "Highest log index applied"),
            flushed_index: gauge(
                "drover_replica_flushed_index",
                "Highest log index that needs no replay after a crash",
            ),
            purged_index: gauge("drover_replica_purged_index", "Highest log index removed from the log"),
            apply_lag: gauge("drover_replica_apply_lag_entries", "Entries committed but not applied"),
            state_bytes: gauge("drover_replica_state_bytes", "Size of the replica's state"),
            proposed_entries: counter(
                "drover_replica_proposed_entries_total",
                "Entries with writes proposed as leader",
            ),
            proposed_operations: counter("drover_replica_proposed_operations_total", "Writes proposed as leader"),
            leadership_proofs: counter(
                "drover_replica_leadership_proofs_total",
                "Proofs of leadership for reads and timestamps",
            ),
            waited_reads: counter("drover_replica_waited_reads_total", "Reads that waited for a pending write"),
            held_requests: counter(
                "drover_replica_held_requests_total",
                "Requests held until a range that came to the group was activated",
            ),
            slowed_writes: counter(
                "drover_replica_slowed_writes_total",
                "Writes slowed down because the copy of their range did not keep up",
            ),
            slowed_us: counter(
                "drover_replica_slowed_microseconds_total",
                "How long writes were held back because the copy of their range did not keep up",
            ),
            leaving_ranges: gauge("drover_replica_leaving_ranges", "Ranges that move away from the group"),
            fenced_ranges: gauge("drover_replica_fenced_ranges", "Ranges that move away and are fenced"),
            arriving_ranges: gauge("drover_replica_arriving_ranges", "Ranges that are copied to the group"),
            ended_moves: gauge("drover_replica_ended_moves", "Moves that are over and still remembered"),
            locks: gauge("drover_replica_locks", "Locks of transactions that have prepared"),
            stray_ranges: gauge(
                "drover_replica_stray_ranges",
                "Places of the store that hold rows although the group neither owns nor copies them",
            ),
        }
    }

    /// Shows how a replica stands.
    pub fn observe(&self, group: GroupId, sample: &ReplicaSample) {
        let lag = sample.committed_index.saturating_sub(sample.applied_index);
        for (gauge, value) in [
            (&self.is_leader, u64::from(sample.is_leader)),
            (&self.term, sample.term),
            (&self.committed_index, sample.committed_index),
            (&self.applied_index, sample.applied_index),
            (&self.flushed_index, sample.flushed_index),
            (&self.purged_index, sample.purged_index),
            (&self.apply_lag, lag),
            (&self.state_bytes, sample.state_bytes),
            (&self.leaving_ranges, sample.leaving_ranges),
            (&self.fenced_ranges, sample.fenced_ranges),
            (&self.arriving_ranges, sample.arriving_ranges),
            (&self.ended_moves, sample.ended_moves),
            (&self.locks, sample.locks),
        ] {
            gauge.with_label_values(&[group.to_string()]).set(gauge_value(value));
        }
        for (counter, total) in [
            (&self.proposed_entries, sample.proposed_entries),
            (&self.proposed_operations, sample.proposed_operations),
            (&self.leadership_proofs, sample.leadership_proofs),
            (&self.waited_reads, sample.waited_reads),
            (&self.held_requests, sample.held_requests),
            (&self.slowed_writes, sample.slowed_writes),
            (&self.slowed_us, sample.slowed_us),
        ] {
            follow_total(&counter.with_label_values(&[group.to_string()]), total);
        }
    }

    /// Shows in how many places of a replica's store there are rows although nothing should be there; `None`: that could not be
    /// found out, so nothing is shown.
    pub fn observe_strays(&self, group: GroupId, strays: Option<u64>) {
        let label = [group.to_string()];
        match strays {
            Some(strays) => self.stray_ranges.with_label_values(&label).set(gauge_value(strays)),
            // It fails if there was nothing to be removed.
            None => drop(self.stray_ranges.remove_label_values(&label)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    use super::*;

    #[test]
    fn what_could_not_be_found_out_is_not_shown_as_nothing() {
        let metrics = Metrics::new();
        for (strays, shown) in
            [(Some(0), Some("0")), (Some(3), Some("3")), (None, None), (None, None), (Some(1), Some("1"))]
        {
            metrics.replicas.observe_strays(GroupId(2), strays);
            let text = metrics.render().unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("drover_replica_stray_ranges{group=\"2\"} "));
            assert_eq!(line, shown, "{strays:?}");
        }
    }

    #[test]
    fn lag_is_what_is_committed_and_not_applied() {
        let metrics = Metrics::new();
        for (committed_index, applied_index, lag) in [(9, 4, 5), (4, 4, 0), (3, 4, 0)] {
            let sample = ReplicaSample { committed_index, applied_index, ..ReplicaSample::default() };
            metrics.replicas.observe(GroupId(2), &sample);
            let expect = format!("drover_replica_apply_lag_entries{{group=\"2\"}} {lag}\n");
            assert!(metrics.render().unwrap().contains(&expect), "{committed_index} {applied_index}");
        }
    }
}
