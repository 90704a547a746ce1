use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::target::Kept;
use super::txn::Ran;
use super::{Args, Output, System};

/// Longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 120_000_000;
/// Decimal digits to which latencies are kept.
const DIGITS: u8 = 3;

/// What a request was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Put,
    Get,
    Cas,
    /// A transaction that reads and writes one key.
    Rmw,
    /// A transaction that reads and writes two keys of one group.
    TxnOne,
    /// A transaction that reads and writes two keys of two groups.
    TxnTwo,
    /// A transfer between two accounts.
    Bank,
}

impl Kind {
    const COUNT: usize = 7;
    const ALL: [Kind; Kind::COUNT] =
        [Kind::Put, Kind::Get, Kind::Cas, Kind::Rmw, Kind::TxnOne, Kind::TxnTwo, Kind::Bank];

    /// Whether it is a transaction, which may be run several times.
    pub fn is_transaction(self) -> bool {
        matches!(self, Kind::Rmw | Kind::TxnOne | Kind::TxnTwo | Kind::Bank)
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::Cas => "cas",
            Kind::Rmw => "rmw",
            Kind::TxnOne => "txn-one-group",
            Kind::TxnTwo => "txn-two-groups",
            Kind::Bank => "bank",
        }
    }
}

/// What one client measured.
#[derive(Debug)]
pub struct Sample {
    latencies_us: [Histogram<u64>; Kind::COUNT],
    /// Requests that were answered, but not as hoped.
    missed: u64,
    /// Runs of transactions until they were committed.
    runs: u64,
    failed: u64,
    first_failure: Option<String>,
}

impl Sample {
    pub fn new() -> anyhow::Result<Self> {
        let one = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?;
        let latencies_us = std::array::from_fn(|_| one.clone());
        Ok(Self { latencies_us, missed: 0, runs: 0, failed: 0, first_failure: None })
    }

    /// Counts one request. Failed ones have no latency.
    pub fn record(&mut self, kind: Kind, latency: Duration, result: anyhow::Result<Ran>) {
        match result {
            Ok(Ran { kept, runs }) => {
                let latency_us = u64::try_from(latency.as_micros()).unwrap_or(LONGEST_US);
                self.latencies_us[kind as usize].saturating_record(latency_us);
                self.missed += u64::from(kept == Kept::No);
                self.runs += if kind.is_transaction() { runs } else { 0 };
            }
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// What all clients measured together.
#[derive(Debug)]
pub struct Report {
    total: Sample,
    measured: Duration,
    pub failed: u64,
    pub first_failure: Option<String>,
}

impl Report {
    pub fn new(measured: Duration) -> anyhow::Result<Self> {
        Ok(Self { total: Sample::new()?, measured, failed: 0, first_failure: None })
    }

    pub fn add(&mut self, sample: &Sample) -> anyhow::Result<()> {
        for (total, part) in self.total.latencies_us.iter_mut().zip(&sample.latencies_us) {
            total.add(part)?;
        }
        self.total.missed += sample.missed;
        self.total.runs += sample.runs;
        self.failed += sample.failed;
        if self.first_failure.is_none() {
            self.first_failure.clone_from(&sample.first_failure);
        }
        Ok(())
    }

    fn kinds(&self) -> impl Iterator<Item = (Kind, &Histogram<u64>)> {
        Kind::ALL.into_iter().zip(&self.total.latencies_us).filter(|(_, latencies)| !latencies.is_empty())
    }

    /// The share of a transaction's runs that ended in a conflict, and were run again; `None` without transactions.
    fn abort_share(&self) -> Option<f64> {
        let answered: u64 = self.kinds().filter(|(kind, _)| kind.is_transaction()).map(|(_, kept)| kept.len()).sum();
        (self.total.runs > 0).then(|| 1.0 - answered as f64 / self.total.runs as f64)
    }

    fn per_second(&self, requests: u64) -> f64 {
        requests as f64 / self.measured.as_secs_f64()
    }

    pub fn print(&self, as_json: bool, args: &Args, output: &mut Output) -> std::io::Result<()> {
        if as_json {
            return output.json(&self.json(args));
        }
        let rows = self.kinds().map(|(kind, latencies)| {
            let ms = |quantile| format!("{:.2}", latencies.value_at_quantile(quantile) as f64 / 1_000.0);
            vec![
                kind.name().to_owned(),
                latencies.len().to_string(),
                format!("{:.0}", self.per_second(latencies.len())),
                ms(0.5),
                ms(0.99),
                ms(0.999),
                ms(1.0),
            ]
        });
        output.table(&["request", "count", "per second", "p50 ms", "p99 ms", "p99.9 ms", "max ms"], rows.collect())?;
        output.line(&format!("{} failed, {} answered otherwise than hoped", self.failed, self.total.missed))?;
        match self.abort_share() {
            Some(share) => output.line(&format!("{:.2} % of the runs of transactions met a conflict", share * 100.0)),
            None => Ok(()),
        }
    }

    fn json(&self, args: &Args) -> Value {
        let answered: u64 = self.total.latencies_us.iter().map(Histogram::len).sum();
        let kinds: Map<String, Value> = self
            .kinds()
            .map(|(kind, latencies)| {
                let us = |quantile| latencies.value_at_quantile(quantile);
                let figures = json!({
                    "count": latencies.len(),
                    "per_second": self.per_second(latencies.len()),
                    "mean_us": latencies.mean(),
                    "p50_us": us(0.5),
                    "p99_us": us(0.99),
                    "p999_us": us(0.999),
                    "max_us": us(1.0),
                });
                (kind.name().to_owned(), figures)
            })
            .collect();
        json!({
            "target": if args.target == System::Drover { "drover" } else { "etcd" },
            "clients": args.clients,
            "keys": args.keys,
            "value_bytes": args.value_bytes,
            "seconds": args.seconds,
            "requests": answered,
            "per_second": self.per_second(answered),
            "failed": self.failed,
            "missed": self.total.missed,
            "abort_share": self.abort_share(),
            "by_request": kinds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_add_up_and_failures_have_no_latency() {
        let mut report = Report::new(Duration::from_secs(2)).unwrap();
        for (ms, kept) in [(1, Kept::Yes), (3, Kept::No)] {
            let mut sample = Sample::new().unwrap();
            sample.record(Kind::Get, Duration::from_millis(ms), Ok(Ran { kept, runs: 1 }));
            sample.record(Kind::Put, Duration::from_millis(900), Err(anyhow::anyhow!("broken {ms}")));
            report.add(&sample).unwrap();
        }
        let kinds: Vec<_> = report.kinds().map(|(kind, latencies)| (kind, latencies.len())).collect();
        assert_eq!(kinds, [(Kind::Get, 2)]);
        assert_eq!(report.per_second(2), 1.0);
        assert_eq!((report.failed, report.total.missed), (2, 1));
        assert_eq!(report.first_failure.as_deref(), Some("broken 1"));
        assert_eq!(report.abort_share(), None);
    }

    #[test]
    fn runs_that_met_a_conflict_are_a_share_of_all_runs() {
        let mut report = Report::new(Duration::from_secs(1)).unwrap();
        let mut sample = Sample::new().unwrap();
        for runs in [1, 1, 3] {
            sample.record(Kind::Bank, Duration::from_millis(1), Ok(Ran { kept: Kept::Yes, runs }));
        }
        report.add(&sample).unwrap();
        assert_eq!(report.abort_share(), Some(1.0 - 3.0 / 5.0));
    }

    #[test]
    fn a_latency_beyond_the_longest_is_kept_as_the_longest() {
        let mut sample = Sample::new().unwrap();
        sample.record(Kind::Put, Duration::MAX, Ok(Ran { kept: Kept::Yes, runs: 1 }));
        assert_eq!(sample.latencies_us[Kind::Put as usize].len(), 1);
    }
}
