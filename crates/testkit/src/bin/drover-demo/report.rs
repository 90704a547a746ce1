use std::fmt;
use std::time::Duration;

use drover_keys::{GroupId, NodeId};
use drover_testkit::ledger::Audit;
use drover_testkit::workload::LoadReport;

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
    /// For each group: whether the digests of all replicas are equal, and over how many rows.
    pub digests: Vec<(GroupId, bool, u64)>,
}

impl Report {
    /// Whether all is as it must be.
    pub fn is_good(&self) -> bool {
        let (acknowledged, refused, unknown) = self.tally;
        // With the client's retries, killing a leader costs latency and no write.
        let all_written = acknowledged == self.records && refused == 0 && unknown == 0;
        all_written && self.audit.is_clean() && self.outage.is_some() && self.digests.iter().all(|(_, equal, _)| *equal)
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
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
        for (group, equal, rows) in &self.digests {
            let verdict = if *equal { "replicas equal" } else { "REPLICAS DIFFER" };
            writeln!(f, "group {group}        {verdict}, {rows} rows")?;
        }
        write!(f, "verdict        {}", if self.is_good() { "everything is there and right" } else { "FAILED" })
    }
}
