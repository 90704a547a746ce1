//! A client of a workload, and where clients are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::cluster::RANGES;
use crate::event::{Recorder, Type, Who};
use crate::workload::{Clients, Generator, Kind, perform};

/// A client.
pub(super) struct Worker {
    pub kind: Kind,
    pub process: u64,
    pub node: Option<u64>,
    pub generator: Generator,
    pub clients: Clients,
    pub recorder: Arc<Recorder>,
    /// Numbers that no client has had.
    pub processes: Arc<AtomicU64>,
    pub keys: Arc<AtomicU64>,
    /// Mean time from one operation to the next.
    pub pause: Duration,
}

impl Worker {
    /// Asks until `halt`.
    pub async fn run(mut self, halt: CancellationToken) {
        let mut next = Instant::now();
        loop {
            // Exponential, so that clients do not fall into step.
            next += self.pause.mul_f64(-(1.0 - self.generator.pause()).ln());
            next = next.max(Instant::now().checked_sub(self.pause * 4).unwrap_or(next));
            let wait = next.saturating_duration_since(Instant::now());
            if halt.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            let ask = self.generator.next(self.keys.load(Ordering::Relaxed));
            self.keys.fetch_max(self.generator.keys(), Ordering::Relaxed);
            let who = Who { process: self.process, workload: self.kind.name(), node: self.node };
            self.recorder.invoke(&who, ask.f, ask.value.clone());
            let ended = perform(self.kind, &self.clients, &ask).await;
            self.clients.turn = self.clients.turn.wrapping_mul(5).wrapping_add(3);
            self.generator.saw(&ended.value);
            let kind = ended.kind;
            self.recorder.end(&who, ask.f, ended);
            if kind == Type::Info {
                self.process = self.processes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Keys that clients are at, to divide routes at.
pub(super) fn hot_keys(keys: &[(Kind, Arc<AtomicU64>)]) -> Vec<String> {
    let of = |kind: &Kind, n: u64| -> Vec<String> {
        let all = |name: &str| RANGES.iter().map(|range| format!("{range}/{name}/{n:06}")).collect();
        match kind {
            Kind::Append => all("append"),
            Kind::Wr => all("wr"),
            Kind::Register => all("reg"),
            Kind::Delete => all("del"),
            Kind::Stale => all("stale"),
            Kind::Counter => all("count"),
            Kind::Monotonic => all("mono"),
            Kind::LongFork => all("fork"),
            Kind::Predicate => all("pred"),
            Kind::Bank => ["1", "3", "5", "7"].map(|n| format!("bank/{n}")).to_vec(),
            Kind::Set => ["c", "f", "m", "p", "u"].map(|letter| format!("set/{letter}")).to_vec(),
        }
    };
    keys.iter().flat_map(|(kind, n)| of(kind, n.load(Ordering::Relaxed))).collect()
}
