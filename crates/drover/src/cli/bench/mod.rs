//! `drover bench`: a closed loop of clients against Drover or etcd.
//!
//! Each client sends its next request when the last one is answered; keys are drawn evenly. Both systems are treated
//! alike: one connection to each endpoint, the same keys written beforehand, the same loop, linearizable reads. Latency
//! is measured around the call, from the closed loop's view: with a fixed number of clients it says how long requests
//! take at the throughput that was reached, not at another.

mod etcd;
mod report;
mod target;

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use indicatif::ProgressBar;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::exit::{End, UsageError};
use super::notation::parse_duration;
use super::output::Output;
use super::{Global, notice};
use report::{Kind, Report, Sample};
use target::{Kept, Target};

/// Keys under way at once while they are written beforehand.
const PREFILL_PARALLEL: u64 = 256;

/// Which system is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum System {
    Drover,
    Etcd,
}

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    Put,
    Get,
    /// Half puts, half gets.
    #[value(name = "50-50")]
    Half,
    /// Compare-and-set on the version that a get before it (not measured) found.
    Cas,
}

/// Whether Drover's writes carry idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keyed {
    On,
    Off,
}

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Clients, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Keys, drawn evenly
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Size of each value
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// What the clients do
    #[arg(long, value_enum, default_value_t = Mix::Half)]
    mix: Mix,
    /// How long is measured
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long the loop runs before that
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    warm_up: Duration,
    /// The system behind --endpoints
    #[arg(long, value_enum, default_value_t = System::Drover)]
    target: System,
    /// Whether writes to Drover carry idempotency keys; without, one with an unknown outcome is not retried
    #[arg(long, value_enum, default_value_t = Keyed::On)]
    idempotency_keys: Keyed,
    /// The keys are there already
    #[arg(long)]
    no_prefill: bool,
    /// Seed of the drawing of keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub async fn run(global: &Global, args: Args, output: &mut Output) -> anyhow::Result<End> {
    if args.target == System::Etcd && args.mix == Mix::Cas {
        return Err(UsageError("compare-and-set is measured on Drover only".to_owned()).into());
    }
    let target = Target::connect(global, args.target, args.idempotency_keys == Keyed::On).await?;
    if !args.no_prefill {
        prefill(&target, &args).await?;
    }
    let report = measure(&target, &args).await?;
    report.print(global.json, &args, output)?;
    if let Some(first) = &report.first_failure {
        notice(&format!("{} requests failed; the first: {first}", report.failed));
        return Ok(End::No);
    }
    Ok(End::Done)
}

fn key(number: u64) -> Bytes {
    Bytes::from(format!("bench/{number:012}"))
}

fn random_value(random: &mut StdRng, bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    random.fill_bytes(&mut value);
    value.into()
}

async fn prefill(target: &Target, args: &Args) -> anyhow::Result<()> {
    let bar = ProgressBar::new(args.keys).with_message("writing the keys");
    let mut writers = JoinSet::new();
    for lane in 0..PREFILL_PARALLEL.min(args.keys) {
        let (target, bar) = (target.clone(), bar.clone());
        let (keys, bytes, seed) = (args.keys, args.value_bytes, args.seed);
        writers.spawn(async move {
            let mut random = StdRng::seed_from_u64(seed ^ (lane << 32));
            for number in (lane..keys).step_by(PREFILL_PARALLEL as usize) {
                target.put(lane as usize, key(number), random_value(&mut random, bytes)).await?;
                bar.inc(1);
            }
            anyhow::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    bar.finish_and_clear();
    Ok(())
}

async fn measure(target: &Target, args: &Args) -> anyhow::Result<Report> {
    let from = Instant::now() + args.warm_up;
    let to = from + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        clients.spawn(one_client(target.clone(), args.clone(), number, from, to));
    }
    let mut report = Report::new(Duration::from_secs(args.seconds))?;
    let whole = args.warm_up + Duration::from_secs(args.seconds);
    let bar = ProgressBar::new(whole.as_secs()).with_message("measuring");
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            client = clients.join_next() => match client {
                Some(client) => report.add(&client??)?,
                None => break,
            },
            _ = tick.tick() => bar.set_position(whole.saturating_sub(to.saturating_duration_since(Instant::now())).as_secs()),
        }
    }
    bar.finish_and_clear();
    Ok(report)
}

/// One client's loop. What is answered between `from` and `to` counts.
async fn one_client(target: Target, args: Args, number: u32, from: Instant, to: Instant) -> anyhow::Result<Sample> {
    let mut random =
        StdRng::seed_from_u64(args.seed.wrapping_add(u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut sample = Sample::new()?;
    // Filling values is not what is measured: a few are enough, as neither system compresses across values.
    let values: Vec<Bytes> = (0..4).map(|_| random_value(&mut random, args.value_bytes)).collect();
    while Instant::now() < to {
        let key = key(random.random_range(0..args.keys));
        let value = values[random.random_range(0..values.len())].clone();
        let kind = match args.mix {
            Mix::Put => Kind::Put,
            Mix::Get => Kind::Get,
            Mix::Half if random.random_bool(0.5) => Kind::Put,
            Mix::Half => Kind::Get,
            Mix::Cas => Kind::Cas,
        };
        let (begun, result) = one_request(&target, number as usize, kind, key, value).await;
        let ended = Instant::now();
        if (from..to).contains(&ended) {
            sample.record(kind, ended - begun, result);
        }
    }
    Ok(sample)
}

async fn one_request(
    target: &Target,
    client: usize,
    kind: Kind,
    key: Bytes,
    value: Bytes,
) -> (Instant, anyhow::Result<Kept>) {
    let version = match kind {
        Kind::Cas => target.version(key.clone()).await,
        Kind::Put | Kind::Get => Ok(None),
    };
    let begun = Instant::now();
    let result = match (kind, version) {
        (_, Err(error)) => Err(error),
        (Kind::Put, _) => target.put(client, key, value).await,
        (Kind::Get, _) => target.get(client, key).await,
        (Kind::Cas, Ok(version)) => target.compare_and_set(key, version, value).await,
    };
    (begun, result)
}
