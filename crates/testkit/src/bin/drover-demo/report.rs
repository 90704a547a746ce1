use std::fmt;
use std::time::Duration;

use drover_keys::{GroupId, NodeId};
use drover_testkit::ledger::Audit;
use drover_testkit::workload::LoadReport;

use crate::histogram;
use crate::moving::MoveOutcome;

/// What the demonstration found.
pub struct Report {
    /// Records in the data set.
    pub records: usize,
    /// How the load went.
    pub load: LoadReport,
    /// Writes that were acknowledged, refused, and of unknown fate.
    pub tally: (usize, usize, usize),
    /// The group whose leader was killed, and that leader.
    pub killed: (GroupId, NodeId),
    /// How long the group acknowledged nothing.
    pub outage: Option<Duration>,
    /// The node everything was read through, and how long that took.
    pub read: (NodeId, Duration),
    /// Ledger against what was read.
    pub audit: Audit,
    /// How half of the group's data moved.
    pub moved: MoveOutcome,
    /// Ledger against what was read when it had moved.
    pub audit_after_move: Audit,
    /// For each group: whether the digests of all replicas are equal, and over how many rows.
    pub digests: Vec<(GroupId, bool, u64)>,
}

impl Report {
    /// Whether all is as it must be.
    pub fn is_good(&self) -> bool {
        let (acknowledged, refused, unknown) = self.tally;
        // With the client's retries, killing a leader costs latency and no write.
        let all_written = acknowledged == self.records && refused == 0 && unknown == 0;
        let loaded = all_written && self.audit.is_clean() && self.outage.is_some();
        let moved = self.moved.seen.errors == 0
            && self.moved.seen.flaws.is_empty()
            && self.moved.flaws.is_empty()
            && self.audit_after_move.is_clean();
        loaded && moved && self.digests.iter().all(|(_, equal, _)| *equal)
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

impl Report {
    fn write_move(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MoveOutcome { moved, page_bytes, killed, killed_after_bytes, seen, flaws } = &self.moved;
        let bytes = moved.bytes.max(*page_bytes);
        writeln!(
            f,
            "moved          {} from group {} to group {} in {:.1} s, {:.1} MB/s",
            megabytes(bytes),
            moved.source,
            moved.target,
            moved.took.as_secs_f64(),
            bytes as f64 / 1e6 / moved.took.as_secs_f64(),
        )?;
        let after = megabytes(*killed_after_bytes);
        writeln!(f, "leader killed  node {killed}, which led the default group, when {after} were copied")?;
        let (writes, reads) = (seen.writes.moving.len(), seen.reads.moving.len());
        writeln!(f, "meanwhile      eight clients: {writes} writes, {reads} reads, {} errors", seen.errors)?;
        if let Some(error) = &seen.first_error {
            writeln!(f, "first error    {error}")?;
        }
        let longest = |pause: Option<u64>| pause.map_or("unknown".to_owned(), |us| ms(Duration::from_micros(us)));
        let (write, read) = (seen.writes.pause_us(0), seen.reads.pause_us(0));
        writeln!(f, "longest        {} for a write, {} for a read", longest(write), longest(read))?;
        for line in histogram::lines(&seen.writes, &seen.reads) {
            writeln!(f, "{line}")?;
        }
        let (missing, wrong) = (flaws.missing + seen.flaws.missing, flaws.wrong + seen.flaws.wrong);
        writeln!(f, "read back      {} acknowledged writes: {missing} missing, {wrong} wrong", seen.acknowledged)?;
        for flaw in seen.flaws.described.iter().chain(&flaws.described) {
            writeln!(f, "               {flaw}")?;
        }
        writeln!(f, "records again  {}", self.audit_after_move)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (acknowledged, refused, unknown) = self.tally;
        let (group, node) = self.killed;
        let latency = |percentile| ms(self.load.latency(percentile));
        writeln!(f, "records        {} written, {refused} refused, {unknown} unknown", acknowledged)?;
        writeln!(
            f,
            "throughput     {:.0} writes/s over {:.1} s",
            self.load.per_second(),
            self.load.took.as_secs_f64()
        )?;
        writeln!(f, "latency        p50 {}  p99 {}  p99.9 {}", latency(50.0), latency(99.0), latency(99.9))?;
        let outage = self.outage.map_or("no write was acknowledged after the kill".to_owned(), |outage| {
            format!("no write acknowledged for {}", ms(outage))
        });
        writeln!(f, "leader killed  node {node}, which led group {group}: {outage}")?;
        writeln!(
            f,
            "read back      through node {} in {:.1} s: {}",
            self.read.0,
            self.read.1.as_secs_f64(),
            self.audit
        )?;
        self.write_move(f)?;
        for (group, equal, rows) in &self.digests {
            let verdict = if *equal { "replicas equal" } else { "REPLICAS DIFFER" };
            writeln!(f, "group {group}        {verdict}, {rows} rows")?;
        }
        write!(f, "verdict        {}", if self.is_good() { "everything is there and right" } else { "FAILED" })
    }
}
