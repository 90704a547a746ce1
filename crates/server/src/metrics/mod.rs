//! What a node counts and measures, in the form Prometheus reads.
//!
//! # Model
//!
//! [`Metrics`] owns one registry and a handle for each family. Code that handles an event writes to its family. Totals that
//! others keep (the Raft log, links, the kernel) are copied in by *samplers*, closures that run before each scrape:
//! [`Metrics::on_scrape`] with [`follow_total`] for counters and `set` for gauges.
//!
//! Names start with `drover_`, and end in their unit; labels have few values (`group`, `peer`, `method`, `reason`), never keys.

mod parking;
mod process;
mod replica;
mod requests;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

pub use parking::ParkingMetrics;
pub use replica::{ReplicaMetrics, ReplicaSample};
pub use requests::{RequestMetrics, RequestTimer};

use crate::disk::DiskState;

type Sampler = Box<dyn Fn(&Metrics) + Send>;

/// Every family of the node.
pub struct Metrics {
    registry: Registry,
    samplers: Mutex<Vec<Sampler>>,
    /// Client requests.
    pub requests: RequestMetrics,
    /// Writes that wait while their range changes hands.
    pub parking: ParkingMetrics,
    /// Times that the driver of a job ended badly.
    pub failed_drivers: IntCounter,
    /// Replicas of groups.
    pub replicas: ReplicaMetrics,
    /// The Raft log of the node.
    pub raftlog: RaftLogMetrics,
    /// The file system of the data directory.
    pub disk: DiskMetrics,
    /// Connections to other nodes.
    pub links: LinkMetrics,
    /// The node's hybrid logical clock.
    pub clock: ClockMetrics,
    process: process::ProcessMetrics,
}

/// The Raft log of the node.
pub struct RaftLogMetrics {
    /// Times that the log was forced to disk.
    pub fsyncs: IntCounter,
    /// Entries appended, over all groups.
    pub appends: IntCounter,
    /// Bytes appended.
    pub bytes: IntCounter,
    /// Time spent writing and forcing to disk, in microseconds.
    pub write_micros: IntCounter,
}

/// The file system of the data directory.
pub struct DiskMetrics {
    /// Bytes that can still be written.
    pub free_bytes: IntGauge,
    /// Bytes of the files in the directory.
    pub used_bytes: IntGauge,
    /// 1 while writes are refused.
    pub full: IntGauge,
}

/// Connections to other nodes; label `peer` is a node id.
pub struct LinkMetrics {
    /// 1 while the connection stands.
    pub connected: IntGaugeVec,
    /// Times that it was made.
    pub connects: IntCounterVec,
    /// Messages; label `direction` is `in` or `out`.
    pub messages: IntCounterVec,
    /// Bytes; label `direction` is `in` or `out`.
    pub bytes: IntCounterVec,
}

/// The node's hybrid logical clock.
pub struct ClockMetrics {
    /// Physical half of the highest timestamp seen, in Unix milliseconds.
    pub last_physical_ms: IntGauge,
    /// By how many milliseconds this machine's clock is ahead of it.
    pub ahead_ms: IntGauge,
    /// Timestamps that were too far ahead of this machine's clock.
    pub refused: IntCounter,
}

/// Registers families under checked names.
pub(crate) struct Families<'a>(&'a Registry);

impl Families<'_> {
    fn add<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let family = made.expect("names, labels and buckets are constants, and a test makes them all");
        self.0.register(Box::new(family.clone())).expect("no name is used twice, and a test registers them all");
        family
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: Vec<f64>) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels))
    }
}

impl Metrics {
    /// All families, at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let families = Families(&registry);
        Self {
            samplers: Mutex::new(Vec::new()),
            requests: RequestMetrics::register(&families),
            parking: ParkingMetrics::register(&families),
            failed_drivers: families.counter(
                "drover_migration_failed_drivers_total",
                "Times that what drives the move of a range ended badly here",
            ),
            replicas: ReplicaMetrics::register(&families),
            raftlog: RaftLogMetrics::register(&families),
            disk: DiskMetrics::register(&families),
            links: LinkMetrics::register(&families),
            clock: ClockMetrics::register(&families),
            process: process::ProcessMetrics::register(&families),
            registry,
        }
    }

    /// Runs `sample` before each scrape. It must not block for long, and not call [`Metrics::on_scrape`] or [`Metrics::render`].
    pub fn on_scrape(&self, sample: impl Fn(&Metrics) + Send + 'static) {
        self.samplers.lock().push(Box::new(sample));
    }

    /// Everything in Prometheus' text format, sampled now.
    ///
    /// # Errors
    /// If a family contradicts itself: a defect.
    pub fn render(&self) -> prometheus::Result<String> {
        // Held while sampling, so that two scrapes at once do not add the same difference twice.
        let samplers = self.samplers.lock();
        for sample in samplers.iter() {
            sample(self);
        }
        self.process.sample();
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        String::from_utf8(out).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl RaftLogMetrics {
    fn register(families: &Families<'_>) -> Self {
        Self {
            fsyncs: families.counter("drover_raftlog_fsyncs_total", "Times that the Raft log was forced to disk"),
            appends: families.counter("drover_raftlog_appends_total", "Entries appended to the Raft log"),
            bytes: families.counter("drover_raftlog_appended_bytes_total", "Bytes appended to the Raft log"),
            write_micros: families.counter(
                "drover_raftlog_write_microseconds_total",
                "Time spent writing the Raft log and forcing it to disk",
            ),
        }
    }
}

impl DiskMetrics {
    fn register(families: &Families<'_>) -> Self {
        Self {
            free_bytes: families.gauge("drover_disk_free_bytes", "Bytes that can still be written"),
            used_bytes: families.gauge("drover_disk_used_bytes", "Bytes of the files in the data directory"),
            full: families.gauge("drover_disk_full", "1 while writes are refused for want of space"),
        }
    }

    /// Takes over what the watch found.
    pub fn set(&self, state: DiskState) {
        self.free_bytes.set(gauge_value(state.free_bytes));
        self.used_bytes.set(gauge_value(state.used_bytes));
        self.full.set(state.full.into());
    }
}

impl ClockMetrics {
    fn register(families: &Families<'_>) -> Self {
        Self {
            last_physical_ms: families.gauge(
                "drover_clock_last_seen_unix_ms",
                "Physical half of the highest timestamp that the node has seen, in Unix milliseconds",
            ),
            ahead_ms: families.gauge(
                "drover_clock_ahead_ms",
                "By how many milliseconds this machine's clock is ahead of the highest timestamp seen",
            ),
            refused: families.counter(
                "drover_clock_refused_total",
                "Timestamps that were too far ahead of this machine's clock to be taken note of",
            ),
        }
    }
}

impl LinkMetrics {
    fn register(families: &Families<'_>) -> Self {
        Self {
            connected: families.gauges("drover_link_connected", "1 while the connection to a node stands", &["peer"]),
            connects: families.counters("drover_link_connects_total", "Connections made to a node", &["peer"]),
            messages: families.counters(
                "drover_link_messages_total",
                "Messages exchanged with a node",
                &["peer", "direction"],
            ),
            bytes: families.counters("drover_link_bytes_total", "Bytes exchanged with a node", &["peer", "direction"]),
        }
    }
}

/// Brings a counter up to a total that someone else keeps. A total that went back (its keeper started anew) adds nothing.
pub fn follow_total(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// A number of any size as the value of a gauge.
pub fn gauge_value(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// From 50 µs to about 26 s, each twice the one before.
fn latency_buckets() -> Vec<f64> {
    (0..20).map(|n| 50e-6 * f64::from(1u32 << n)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_registered_once_with_a_name_of_ours() {
        let metrics = Metrics::new();
        metrics.requests.start("Get").finish(Ok(()));
        metrics.requests.start("Get").finish(Err(drover_kv::Reason::Timeout));
        metrics.replicas.observe(drover_keys::GroupId(1), &ReplicaSample::default());
        metrics.links.connected.with_label_values(&["2"]).set(1);
        let text = metrics.render().unwrap();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("drover_"), "{line}");
        }
        for name in [
            "drover_request_seconds_bucket",
            "drover_request_errors_total",
            "drover_parked_requests_total",
            "drover_replica_is_leader",
            "drover_disk_full",
        ] {
            assert!(text.contains(name), "{name}: {text}");
        }
    }

    #[test]
    fn samplers_run_at_each_scrape_and_totals_are_not_counted_twice() {
        let metrics = Metrics::new();
        let total = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(5));
        let source = total.clone();
        metrics.on_scrape(move |m| {
            follow_total(&m.raftlog.fsyncs, source.load(std::sync::atomic::Ordering::Relaxed));
        });
        for (now, expect) in [(5, 5), (5, 5), (9, 9), (2, 9)] {
            total.store(now, std::sync::atomic::Ordering::Relaxed);
            let text = metrics.render().unwrap();
            assert!(text.contains(&format!("drover_raftlog_fsyncs_total {expect}\n")), "{now}: {text}");
        }
    }

    #[test]
    fn the_disk_is_shown_as_the_watch_found_it() {
        let metrics = Metrics::new();
        metrics.disk.set(DiskState { free_bytes: 3, used_bytes: u64::MAX, full: true, exhausted: false });
        let text = metrics.render().unwrap();
        assert!(text.contains("drover_disk_free_bytes 3\n") && text.contains("drover_disk_full 1\n"), "{text}");
    }
}
