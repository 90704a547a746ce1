use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_client::Client;
use hdrhistogram::Histogram;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fate_of;
use crate::ledger::{Fate, Ledger};

/// Told of every row that has ended, and how.
pub type OnRow = Arc<dyn Fn(&Bytes, Fate) + Send + Sync>;

/// Puts rows, each once, and keeps a ledger of them.
pub struct Load<I> {
    /// What to put; endless for a load that is stopped from outside.
    pub rows: I,
    /// Told of every row that has ended, and how.
    pub on_row: OnRow,
}

/// How a load went.
#[derive(Debug, Clone)]
pub struct LoadReport {
    /// From the first row to the last.
    pub took: Duration,
    /// How long acknowledged writes took, in microseconds.
    pub latency_us: Histogram<u64>,
}

impl LoadReport {
    /// Acknowledged writes a second.
    pub fn per_second(&self) -> f64 {
        self.latency_us.len() as f64 / self.took.as_secs_f64()
    }

    /// The latency below which this percentage of the acknowledged writes stayed.
    pub fn latency(&self, percentile: f64) -> Duration {
        Duration::from_micros(self.latency_us.value_at_percentile(percentile))
    }
}

impl<I: Iterator<Item = (Bytes, Bytes)> + Send + 'static> Load<I> {
    /// Puts rows with one task for each client until there are no more, or `stop`.
    ///
    /// # Panics
    /// If a key comes twice.
    pub async fn run(self, clients: Vec<Client>, ledger: &Arc<Ledger>, stop: &CancellationToken) -> LoadReport {
        let began = Instant::now();
        let rows = Arc::new(Mutex::new(self.rows));
        let mut tasks = JoinSet::new();
        for client in clients {
            tasks.spawn(load(client, rows.clone(), ledger.clone(), self.on_row.clone(), stop.clone()));
        }
        let mut latency_us = histogram();
        while let Some(part) = tasks.join_next().await {
            latency_us.add(part.expect("a client does not panic")).expect("both have the same bounds");
        }
        LoadReport { took: began.elapsed(), latency_us }
    }
}

/// Up to an hour, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are valid")
}

async fn load<I: Iterator<Item = (Bytes, Bytes)>>(
    client: Client,
    rows: Arc<Mutex<I>>,
    ledger: Arc<Ledger>,
    on_row: OnRow,
    stop: CancellationToken,
) -> Histogram<u64> {
    let mut latency_us = histogram();
    while !stop.is_cancelled() {
        let Some((key, value)) = rows.lock().await.next() else { break };
        ledger.attempt(key.clone(), value.clone());
        let sent = Instant::now();
        let fate = match client.put(key.clone(), value).await {
            Ok(_) => {
                latency_us.saturating_record(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
                Fate::Acknowledged
            }
            Err(error) => fate_of(&error),
        };
        ledger.end(&key, fate);
        on_row(&key, fate);
    }
    latency_us
}
