//! The measurement behind `scripts/bench-splits`: gets and puts before, and while routes are divided one after the other.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use drover_client::{Client, Route, RouteId};
use hdrhistogram::Histogram;
use rand::Rng;
use tokio_util::sync::CancellationToken;

/// Divides routes of a running cluster in a row while clients read and write, and compares latencies with those before.
#[derive(Debug, Parser)]
struct Args {
    /// Nodes to start from.
    #[arg(long, env = "DROVER_ENDPOINTS", value_delimiter = ',', default_value = "127.0.0.1:7400")]
    endpoints: Vec<String>,
    /// Clients that read and write, half and half.
    #[arg(long, default_value_t = 16)]
    clients: usize,
    /// Keys they use.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// How long is measured before the first split, in seconds.
    #[arg(long, default_value_t = 20)]
    before: u64,
    /// How many splits.
    #[arg(long, default_value_t = 10_000)]
    splits: u64,
}

/// Latencies of one phase, in microseconds.
struct Latencies {
    gets: Histogram<u64>,
    puts: Histogram<u64>,
    failed: u64,
}

impl Latencies {
    fn new() -> anyhow::Result<Self> {
        // Up to a minute; what is longer counts as that.
        let empty = Histogram::new_with_max(60_000_000, 3)?;
        Ok(Self { gets: empty.clone(), puts: empty, failed: 0 })
    }

    fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.gets.add(&other.gets)?;
        self.puts.add(&other.puts)?;
        self.failed += other.failed;
        Ok(())
    }
}

fn key(n: u64) -> String {
    format!("{n:012}")
}

/// One client, until it is stopped.
async fn drive(client: Client, keys: u64, stop: CancellationToken) -> anyhow::Result<Latencies> {
    let mut seen = Latencies::new()?;
    let value = vec![b'v'; 256];
    while !stop.is_cancelled() {
        let n = rand::rng().random_range(0..keys);
        let put = rand::rng().random_bool(0.5);
        let began = Instant::now();
        let done = match put {
            true => client.put(key(n), value.clone()).await.map(drop),
            false => client.get(key(n)).await.map(drop),
        };
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Err(error) = done {
            eprintln!("failed: {error}");
            seen.failed += 1;
        }
        let histogram = if put { &mut seen.puts } else { &mut seen.gets };
        histogram.saturating_record(micros);
    }
    Ok(seen)
}

/// Runs the clients for as long as `work` takes.
async fn measured<T>(
    args: &Args,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Latencies, Duration)> {
    let stop = CancellationToken::new();
    let mut clients = Vec::new();
    for _ in 0..args.clients {
        clients.push(tokio::spawn(drive(Client::connect(&args.endpoints).await?, args.keys, stop.clone())));
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

/// The route that holds a key; routes are in key order.
fn holder<'a>(routes: &'a [Route], key: &[u8]) -> &'a Route {
    &routes[routes.partition_point(|route| route.start.as_ref() <= key) - 1]
}

/// Divides routes at `count` different keys, each split by the version that the one before it made.
async fn split_all(client: &Client, count: u64, keys: u64, done: &AtomicU64) -> anyhow::Result<()> {
    let first = client.routes().await?;
    let (mut version, mut routes) = (first.version, first.routes);
    for n in 0..count {
        // Spread over all keys, never twice the same, never a key that is used as such.
        let at = format!("{}x", key((n * 7_919) % keys));
        let place = routes.partition_point(|route| route.start.as_ref() <= at.as_bytes()) - 1;
        let route = RouteId(holder(&routes, at.as_bytes()).route_id);
        let split = client.split_route(version, route, at, "bench").await?;
        version = drover_client::CatalogVersion(split.version);
        let (Some(left), Some(right)) = (split.left, split.right) else { bail!("a split was answered without halves") };
        routes.splice(place..=place, [left, right]);
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
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

async fn run(args: &Args) -> anyhow::Result<bool> {
    if args.splits >= args.keys {
        bail!("there must be more keys ({}) than splits ({})", args.keys, args.splits);
    }
    let client = Client::connect(&args.endpoints).await.context("no node answers")?;
    let warm = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(())
    };
    measured(args, warm).await?;
    let quiet = async {
        tokio::time::sleep(Duration::from_secs(args.before)).await;
        Ok(())
    };
    let ((), before, _) = measured(args, quiet).await?;
    let done = Arc::new(AtomicU64::new(0));
    let progress = tokio::spawn({
        let (done, total) = (Arc::clone(&done), args.splits);
        async move {
            let bar = indicatif::ProgressBar::new(total);
            loop {
                bar.set_position(done.load(Ordering::Relaxed));
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    });
    let ((), during, took) = measured(args, split_all(&client, args.splits, args.keys, &done)).await?;
    progress.abort();
    let failed = before.failed + during.failed;
    println!(
        "{} splits in {:.1} s, {:.0} a second; {} clients, {} gets and {} puts before, {} and {} during, {failed} failed\n",
        args.splits,
        took.as_secs_f64(),
        args.splits as f64 / took.as_secs_f64(),
        args.clients,
        before.gets.len(),
        before.puts.len(),
        during.gets.len(),
        during.puts.len(),
    );
    println!("| requests | p50 ms before | p50 ms during | p99 ms before | p99 ms during | p99 during ÷ before |");
    println!("|---|---:|---:|---:|---:|---:|");
    println!("{}", row("get", &before.gets, &during.gets));
    println!("{}", row("put", &before.puts, &during.puts));
    Ok(failed == 0)
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(&args))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
