//! The measurement of `drover bench move` on a Redis Cluster, for `scripts/bench-move`: the same rows under the same traffic, and
//! `redis-cli --cluster reshard` moves the slots that hold them back and forth between two servers.

#![allow(clippy::print_stdout, reason = "the figures are what the program is for")]

mod cluster;
mod resp;
mod slots;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use clap::Parser;
use drover_bench::{Clients, Flaws, Latencies, Rows, Seen, Stage, Traffic, at_rank, fill, verify};
use serde_json::{Value, json};

use crate::cluster::RedisCluster;

/// Moves slots of a Redis Cluster back and forth while clients use their keys. Prints one JSON object; ends with 1 if a
/// client saw an error, or an acknowledged write is missing.
#[derive(Debug, Parser)]
struct Args {
    /// The servers between which slots move; the first has slot 0 and those after it.
    #[arg(long, required = true, value_delimiter = ',')]
    servers: Vec<String>,
    /// Ids of these servers, in the same order.
    #[arg(long, required = true, value_delimiter = ',')]
    ids: Vec<String>,
    /// What moves slots.
    #[arg(long, default_value = "redis-cli")]
    redis_cli: PathBuf,
    /// How many slots the rows are spread over; all of them move. One if requests have more than one key.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u16).range(1..4096))]
    slots: u16,
    /// Size of all values, in megabytes (1,000,000 bytes).
    #[arg(long, default_value_t = 100)]
    megabytes: u64,
    /// Size of each value.
    #[arg(long, default_value_t = 1024)]
    value_bytes: u32,
    /// Writers, and as many readers.
    #[arg(long, default_value_t = 1)]
    clients: u64,
    /// How many keys, drawn at random, each request writes or reads at one moment.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    keys: u16,
    /// How often the slots move.
    #[arg(long, default_value_t = 4)]
    moves: u32,
    /// How long is measured before the first move.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// As `drover bench move`: how long a request may take, and how long clients run before anything counts.
const DEADLINE: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(2);

async fn reshard(args: &Args, from: usize, to: usize) -> Result<Duration> {
    let began = Instant::now();
    let mut command = tokio::process::Command::new(&args.redis_cli);
    command.args(["--cluster", "reshard", &args.servers[from], "--cluster-from", &args.ids[from]]);
    command.args(["--cluster-to", &args.ids[to], "--cluster-slots", &args.slots.to_string(), "--cluster-yes"]);
    let ended = command.output().await.context("redis-cli cannot be run")?;
    let text = String::from_utf8_lossy(&ended.stdout);
    let last = text.lines().last().unwrap_or_default();
    ensure!(ended.status.success(), "redis-cli: {last} {}", String::from_utf8_lossy(&ended.stderr));
    Ok(began.elapsed())
}

async fn run(args: &Args) -> Result<bool> {
    ensure!(args.servers.len() == 2 && args.ids.len() == 2, "slots move between two servers");
    ensure!(args.keys == 1 || args.slots == 1, "keys of different slots cannot be in one request: --slots 1");
    let store = RedisCluster::new(&args.servers[0], DEADLINE);
    let tags = slots::tags(args.slots);
    let count = args.megabytes * 1_000_000 / u64::from(args.value_bytes);
    let rows = Rows::new(count, args.value_bytes as usize, move |n| {
        Bytes::from(format!("bench-move/{{{}}}/{n:012}", tags[(n % tags.len() as u64) as usize]))
    });
    let began = Instant::now();
    fill(&store, &rows, |_| {}).await.map_err(|error| anyhow!("loading: {error}"))?;
    let load = began.elapsed();
    let stage = Stage::default();
    let clients = Clients { writers: args.clients, readers: args.clients, keys: args.keys.into() };
    let traffic = Traffic::start(&store, &rows, clients, &stage);
    tokio::time::sleep(if args.clients == 0 { Duration::ZERO } else { WARM_UP }).await;
    stage.advance();
    tokio::time::sleep(Duration::from_secs(if args.clients == 0 { 0 } else { args.seconds })).await;
    stage.advance();
    let mut took_ms = Vec::new();
    for n in 0..args.moves as usize {
        stage.advance();
        took_ms.push(reshard(args, n % 2, (n + 1) % 2).await?.as_millis() as u64);
        stage.advance();
    }
    took_ms.sort_unstable();
    let seen = traffic.end().await?;
    let flaws = verify(&store, &rows, || {}).await.map_err(|error| anyhow!("reading back: {error}"))?;
    println!("{}", report(args, &rows, load, &took_ms, &seen, &flaws));
    Ok(seen.errors == 0 && seen.flaws.is_empty() && flaws.is_empty())
}

/// Figures are called as by `drover bench move --json`.
fn report(args: &Args, rows: &Arc<Rows>, load: Duration, took_ms: &[u64], seen: &Seen, flaws: &Flaws) -> Value {
    let mut object = json!({
        "megabytes": args.megabytes,
        "value_bytes": args.value_bytes,
        "writers": args.clients,
        "readers": args.clients,
        "keys": args.keys,
        "slots": args.slots,
        "rows": rows.count(),
        "load_mb_per_second": rows.bytes() as f64 / 1e6 / load.as_secs_f64(),
        "moves": took_ms.len(),
        "total_p50_ms": at_rank(took_ms, 0.5),
        "total_max_ms": at_rank(took_ms, 1.0),
        "acknowledged": seen.acknowledged,
        "missing": flaws.missing + seen.flaws.missing,
        "wrong": flaws.wrong + seen.flaws.wrong,
        "errors": seen.errors,
        "first_error": seen.first_error,
    });
    let mut add = |name: String, value: Value| object[name] = value;
    let mut kind = |kind: &str, latencies: &Latencies| {
        let pauses = latencies.pauses_us();
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            add(format!("{kind}_pause_{name}_us"), at_rank(&pauses, share).into());
        }
        for (when, latencies) in [("before", &latencies.baseline), ("during", &latencies.moving)] {
            add(format!("{kind}_{when}_count"), latencies.len().into());
            for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
                add(format!("{kind}_{when}_{name}_us"), latencies.value_at_quantile(quantile).into());
            }
        }
    };
    kind("write", &seen.writes);
    kind("read", &seen.reads);
    object
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
