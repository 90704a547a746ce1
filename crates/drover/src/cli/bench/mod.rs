//! `drover bench`: a closed loop of clients against Drover or etcd, and, as `drover bench move`, clients of a range that moves.
//!
//! Each client sends its next request when the last one is answered; keys are drawn evenly. Both systems are treated
//! alike: one connection to each endpoint, the same keys written beforehand, the same loop, linearizable reads. Latency
//! is measured around the call, from the closed loop's view: with a fixed number of clients it says how long requests
//! take at the throughput that was reached, not at another.

mod cas;
mod etcd;
mod move_report;
mod moves;
mod report;
mod target;
mod txn;

use std::time::Duration;

use anyhow::Context;
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
use cas::Versions;
use report::{Kind, Report, Sample};
use target::Target;
use txn::{Ran, Transactions};

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
    /// Compare-and-set on a version that is known already; on etcd a Txn that compares the revision and puts.
    Cas,
    /// Transactions that read and write one key; on etcd a get and a Txn that compares and puts.
    Rmw,
    /// Transactions that read and write two keys of one group.
    TxnOneGroup,
    /// Transactions that read and write two keys of two groups.
    TxnTwoGroups,
    /// Transfers between two of --accounts accounts; at the end all are added up in one snapshot.
    Bank,
}

impl Mix {
    fn is_transactional(self) -> bool {
        matches!(self, Mix::Rmw | Mix::TxnOneGroup | Mix::TxnTwoGroups | Mix::Bank)
    }
}

/// Whether Drover's writes carry idempotency keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keyed {
    On,
    Off,
}

/// What else than the loop of clients.
#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Moves a range back and forth between two groups while clients use it, and reports what they saw
    Move(moves::Args),
}

#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Clients, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    clients: u32,
    /// Keys, drawn evenly
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Accounts of the bank, spread evenly over the keys
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(2..))]
    accounts: u64,
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

pub async fn run(global: &Global, mut args: Args, output: &mut Output) -> anyhow::Result<End> {
    if let Some(What::Move(args)) = args.what.take() {
        return moves::run(global, args, output).await;
    }
    if args.target == System::Etcd && !matches!(args.mix, Mix::Put | Mix::Get | Mix::Half | Mix::Cas | Mix::Rmw) {
        return Err(UsageError("of etcd, only put, get, 50-50, cas and rmw are measured".to_owned()).into());
    }
    let target = Target::connect(global, args.target, args.idempotency_keys == Keyed::On).await?;
    if !args.no_prefill {
        prefill(&target, &args).await?;
    }
    let work = Work::prepare(target, &args).await?;
    let report = measure(&work, &args).await?;
    if args.mix == Mix::Bank {
        work.transactions()?.audit().await?;
    }
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

async fn measure(work: &Work, args: &Args) -> anyhow::Result<Report> {
    let from = Instant::now() + args.warm_up;
    let to = from + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        clients.spawn(one_client(work.clone(), args.clone(), number, from, to));
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
async fn one_client(work: Work, args: Args, number: u32, from: Instant, to: Instant) -> anyhow::Result<Sample> {
    let mut random =
        StdRng::seed_from_u64(args.seed.wrapping_add(u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut sample = Sample::new()?;
    // Filling values is not what is measured: a few are enough, as neither system compresses across values.
    let values: Vec<Bytes> = (0..4).map(|_| random_value(&mut random, args.value_bytes)).collect();
    while Instant::now() < to {
        let kind = kind_of(args.mix, &mut random);
        let value = values[random.random_range(0..values.len())].clone();
        let (begun, result) = if kind.is_transaction() {
            work.transaction(number as usize, kind, value, &mut random).await?
        } else {
            work.request(number as usize, kind, random.random_range(0..args.keys), value).await
        };
        let ended = Instant::now();
        if (from..to).contains(&ended) {
            sample.record(kind, ended - begun, result);
        }
    }
    Ok(sample)
}

fn kind_of(mix: Mix, random: &mut StdRng) -> Kind {
    match mix {
        Mix::Put => Kind::Put,
        Mix::Get => Kind::Get,
        Mix::Half if random.random_bool(0.5) => Kind::Put,
        Mix::Half => Kind::Get,
        Mix::Cas => Kind::Cas,
        Mix::Rmw => Kind::Rmw,
        Mix::TxnOneGroup => Kind::TxnOne,
        Mix::TxnTwoGroups => Kind::TxnTwo,
        Mix::Bank => Kind::Bank,
    }
}

/// What the clients work on.
#[derive(Clone)]
struct Work {
    target: Target,
    /// If that is what is measured, and on Drover.
    transactions: Option<Transactions>,
    /// If comparisons are what is measured.
    versions: Option<Versions>,
    keys: u64,
}

impl Work {
    async fn prepare(target: Target, args: &Args) -> anyhow::Result<Work> {
        let transactions = match &target {
            Target::Drover(client) if args.mix.is_transactional() => {
                Some(Transactions::on(client.clone(), args.keys, args.accounts).await?)
            }
            Target::Drover(_) | Target::Etcd(_) => None,
        };
        let versions = match args.mix {
            Mix::Cas => Some(Versions::read(&target, args.keys).await?),
            _ => None,
        };
        let work = Work { target, transactions, versions, keys: args.keys };
        if args.mix == Mix::Bank {
            work.transactions()?.open_accounts().await?;
        }
        Ok(work)
    }

    fn transactions(&self) -> anyhow::Result<&Transactions> {
        self.transactions.as_ref().context("these transactions are measured on Drover only")
    }

    /// Draws and runs a transaction until it is committed; when it began.
    ///
    /// # Errors
    /// If its keys cannot be drawn. That it failed is part of what is returned.
    async fn transaction(
        &self,
        client: usize,
        kind: Kind,
        value: Bytes,
        random: &mut StdRng,
    ) -> anyhow::Result<(Instant, anyhow::Result<Ran>)> {
        if let Target::Etcd(etcd) = &self.target {
            let key = key(random.random_range(0..self.keys));
            let begun = Instant::now();
            return Ok((begun, txn::read_modify_write_etcd(etcd, client, key, value).await));
        }
        let transactions = self.transactions()?;
        let numbers = transactions.draw(kind, random)?;
        let amount = txn::draw_amount(random);
        let begun = Instant::now();
        let ran = match (kind, &numbers[..]) {
            (Kind::Bank, [from, to]) => transactions.transfer(*from, *to, amount).await,
            _ => transactions.read_modify_write(&numbers, &value).await,
        };
        Ok((begun, ran))
    }

    /// Sends a single request; when it was sent.
    async fn request(&self, client: usize, kind: Kind, number: u64, value: Bytes) -> (Instant, anyhow::Result<Ran>) {
        if let Some(versions) = &self.versions {
            return versions.compare_and_set(&self.target, client, number, value).await;
        }
        let begun = Instant::now();
        let result = match kind {
            Kind::Get => self.target.get(client, key(number)).await,
            _ => self.target.put(client, key(number), value).await,
        };
        (begun, result.map(|kept| Ran { kept, runs: 1 }))
    }
}
