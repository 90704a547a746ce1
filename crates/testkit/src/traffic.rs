//! Clients that read and write for as long as something else happens, and what they saw: what benchmarks of changes have in
//! common.

use std::time::{Duration, Instant};

use anyhow::Context;
use drover_client::Client;
use hdrhistogram::Histogram;
use rand::{Rng, RngCore};
use tokio_util::sync::CancellationToken;

/// Which clients there are.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Nodes to start from.
    pub endpoints: Vec<String>,
    /// Clients that read and write, half and half, each with one request at a time.
    pub clients: usize,
    /// Keys they use: 0 up to this, as by [`key`].
    pub keys: u64,
    /// Size of what they write.
    pub value_bytes: usize,
}

/// Latencies of one phase, in microseconds.
pub struct Latencies {
    /// Of reads.
    pub gets: Histogram<u64>,
    /// Of writes.
    pub puts: Histogram<u64>,
    /// How many requests ended with an error.
    pub failed: u64,
    /// The first of those errors.
    pub first_error: Option<String>,
}

impl Latencies {
    fn new() -> anyhow::Result<Self> {
        // Up to a minute; what is longer counts as that.
        let empty = Histogram::new_with_max(60_000_000, 3)?;
        Ok(Self { gets: empty.clone(), puts: empty, failed: 0, first_error: None })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.gets.add(&other.gets)?;
        self.puts.add(&other.puts)?;
        self.failed += other.failed;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
        Ok(())
    }
}

/// The key with this number.
pub fn key(n: u64) -> String {
    format!("{n:012}")
}

impl Traffic {
    /// Runs the clients for as long as `work` takes.
    ///
    /// # Errors
    /// If no node answers, or `work` fails.
    pub async fn during<T>(
        &self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Latencies, Duration)> {
        let stop = CancellationToken::new();
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            let client = Client::connect(&self.endpoints).await.context("no node answers")?;
            clients.push(tokio::spawn(drive(client, self.keys, self.value_bytes, stop.clone())));
        }
        let began = Instant::now();
        let done = work.await;
        let took = began.elapsed();
        stop.cancel();
        let mut all = Latencies::new()?;
        for client in clients {
            all.add(&client.await??)?;
        }
        Ok((done?, all, took))
    }

    /// Runs the clients alone: three seconds that do not count, then `seconds`.
    ///
    /// # Errors
    /// If no node answers.
    pub async fn alone(&self, seconds: u64) -> anyhow::Result<Latencies> {
        for (seconds, counts) in [(3, false), (seconds, true)] {
            let pause = async {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                Ok(())
            };
            let ((), seen, _) = self.during(pause).await?;
            if counts {
                return Ok(seen);
            }
        }
        unreachable!("the second round counts")
    }
}

/// One client, until it is stopped.
async fn drive(client: Client, keys: u64, value_bytes: usize, stop: CancellationToken) -> anyhow::Result<Latencies> {
    let mut seen = Latencies::new()?;
    while !stop.is_cancelled() {
        let n = rand::rng().random_range(0..keys);
        let put = rand::rng().random_bool(0.5);
        let value = if put { value(value_bytes) } else { Vec::new() };
        let began = Instant::now();
        let done = match put {
            true => client.put(key(n), value).await.map(drop),
            false => client.get(key(n)).await.map(drop),
        };
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Err(error) = done {
            seen.failed += 1;
            seen.first_error.get_or_insert_with(|| error.to_string());
        }
        let histogram = if put { &mut seen.puts } else { &mut seen.gets };
        histogram.saturating_record(micros);
    }
    Ok(seen)
}

/// Bytes that do not compress.
pub fn value(bytes: usize) -> Vec<u8> {
    let mut value = vec![0; bytes];
    rand::rng().fill_bytes(&mut value);
    value
}

/// Both phases as a table in Markdown.
pub fn table(before: &Latencies, during: &Latencies) -> String {
    let head = "| requests | p50 ms before | p50 ms during | p99 ms before | p99 ms during | p99 during ÷ before |\n\
                |---|---:|---:|---:|---:|---:|\n";
    format!("{head}{}\n{}", row("get", &before.gets, &during.gets), row("put", &before.puts, &during.puts))
}

fn row(name: &str, before: &Histogram<u64>, during: &Histogram<u64>) -> String {
    let ms = |histogram: &Histogram<u64>, q| histogram.value_at_quantile(q) as f64 / 1_000.0;
    let ratio = ms(during, 0.99) / ms(before, 0.99);
    format!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {ratio:.2} |",
        ms(before, 0.5),
        ms(during, 0.5),
        ms(before, 0.99),
        ms(during, 0.99),
    )
}
