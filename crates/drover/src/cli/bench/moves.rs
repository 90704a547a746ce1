//! `drover bench move`: a range moves back and forth between two groups while clients write and read it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use bytesize::ByteSize;
use drover_bench::{Clients, MoveTerms, Moved, Rows, Stage, Traffic, load, move_range, route_over, verify};
use drover_client::{Client, End as Bound, GroupId, Interval};
use indicatif::{ProgressBar, ProgressStyle};

use super::move_report::{Loaded, MoveReport};
use crate::cli::exit::{End, UsageError};
use crate::cli::notation::parse_duration;
use crate::cli::output::Output;
use crate::cli::{Global, notice};

/// A megabyte of the figures here.
pub const MEGABYTE: u64 = 1_000_000;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Size of the range: its values, in megabytes (1,000,000 bytes)
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    megabytes: u64,
    /// Size of each value
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(12..))]
    value_bytes: u32,
    /// Writers, and as many readers, of the moving range, each with one request under way; 0: nobody uses it
    #[arg(long, default_value_t = 1)]
    clients: u64,
    /// How many keys of the range, drawn at random, each request writes or reads at one moment
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    keys: u16,
    /// How often the range moves, there and back in turn
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    moves: u32,
    /// How long is measured before the first move
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How long the clients run before that
    #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
    warm_up: Duration,
    /// How long a request of a client may take before it counts as failed
    #[arg(long, default_value = "5s", value_parser = parse_duration, value_name = "DURATION")]
    deadline: Duration,
    /// The other group; if left out, any that is not the default group
    #[arg(long, value_name = "GROUP")]
    to_group: Option<GroupId>,
    /// How long writes may be held back [default: as `drover route move`]
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    max_pause: Option<Duration>,
    /// How fast the range may be copied, 0 for no limit [default: as `drover route move`]
    #[arg(long, value_name = "SIZE")]
    max_rate: Option<ByteSize>,
    /// Leave the range where it is in the end, with its rows
    #[arg(long)]
    keep: bool,
}

/// The range and the two groups between which it moves.
struct Place {
    interval: Interval,
    groups: [GroupId; 2],
}

pub async fn run(global: &Global, args: Args, output: &mut Output) -> anyhow::Result<End> {
    let client = global.connect().await?;
    let (rows, interval) = new_rows(&args)?;
    let place = Place { groups: groups(&client, &interval, args.to_group).await?, interval };
    let loaded = fill(&client, &rows).await?;
    let stage = Stage::default();
    let clients = Clients { writers: args.clients, readers: args.clients, keys: args.keys.into() };
    let traffic = Traffic::start(&client.with_deadline(args.deadline), &rows, clients, &stage);
    if args.clients > 0 {
        baseline(&args, &stage).await;
    } else {
        stage.advance();
        stage.advance();
    }
    let moves = move_all(global, &args, &client, &place, &stage).await;
    let seen = traffic.end().await?;
    let flaws = read_back(&client, &rows).await?;
    // What clients saw is told even if a move has failed.
    let report = MoveReport { loaded, baseline_s: args.seconds, moves: moves.0, seen, flaws, rows: rows.count() };
    report.print(global.json, &args.shown(), output)?;
    output.flush()?;
    if !args.keep {
        remove(&client, &place.interval).await?;
    }
    moves.1?;
    report.complaints().for_each(|complaint| notice(&complaint));
    Ok(if report.is_good() { End::Done } else { End::No })
}

impl Args {
    /// What was asked for, as it stands in the report.
    fn shown(&self) -> serde_json::Value {
        serde_json::json!({
            "megabytes": self.megabytes,
            "value_bytes": self.value_bytes,
            "writers": self.clients,
            "readers": self.clients,
            "keys": self.keys,
        })
    }
}

/// Rows of their own for each run: what one before left behind does not count, and neither do its old versions.
fn new_rows(args: &Args) -> anyhow::Result<(Arc<Rows>, Interval)> {
    let name: u32 = rand::random();
    let count = (args.megabytes * MEGABYTE / u64::from(args.value_bytes)).max(1);
    if args.clients.max(1).saturating_mul(args.keys.into()) > count {
        let (clients, keys) = (args.clients, args.keys);
        return Err(UsageError(format!("{count} rows are too few for {clients} writers of {keys} keys each")).into());
    }
    let (start, end) = (format!("bench-move/{name:08x}/"), format!("bench-move/{name:08x}0"));
    let interval = Interval::new(start.clone(), Bound::Key(end.into()))?;
    Ok((Rows::new(count, args.value_bytes as usize, move |n| Bytes::from(format!("{start}{n:012}"))), interval))
}

/// The group that has the range and the one it is to be moved to.
async fn groups(client: &Client, interval: &Interval, to: Option<GroupId>) -> anyhow::Result<[GroupId; 2]> {
    let (_, source) = route_over(&client.routes().await?, interval)?;
    let known = client.groups().await?;
    let others = known.iter().map(|group| GroupId(group.group_id)).filter(|group| *group != source);
    let found = match to {
        Some(to) => Some(to).filter(|to| *to != source),
        None => others.filter(|group| *group != GroupId::DEFAULT).min(),
    };
    let other = found.ok_or_else(|| {
        UsageError(format!("the range is in group {source}: there has to be another group that it can move to"))
    })?;
    Ok([source, other])
}

async fn fill(client: &Client, rows: &Arc<Rows>) -> anyhow::Result<Loaded> {
    let bar = bytes_bar("loading", rows.bytes());
    let began = Instant::now();
    let shown = bar.clone();
    load(client, rows, move |bytes| shown.inc(bytes)).await.map_err(|error| anyhow!("loading: {error}"))?;
    bar.finish_and_clear();
    Ok(Loaded { bytes: rows.bytes(), took: began.elapsed() })
}

async fn baseline(args: &Args, stage: &Stage) {
    let bar = ProgressBar::new(args.seconds).with_message("without a move");
    tokio::time::sleep(args.warm_up).await;
    stage.advance();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    for _ in 0..args.seconds {
        tick.tick().await;
        bar.inc(1);
    }
    stage.advance();
    bar.finish_and_clear();
}

/// Moves the range there and back; the moves that were made, and what ended them.
async fn move_all(
    global: &Global,
    args: &Args,
    client: &Client,
    place: &Place,
    stage: &Stage,
) -> (Vec<Moved>, anyhow::Result<()>) {
    let bar = ProgressBar::new(u64::from(args.moves));
    bar.set_style(style("{msg:16} {bar:30} {pos}/{len} eta {eta}"));
    let max_bytes_per_second = args.max_rate.map(|rate| rate.as_u64());
    let terms = MoveTerms { max_pause: args.max_pause, max_bytes_per_second };
    let (mut moves, actor) = (Vec::new(), global.actor());
    for n in 0..args.moves as usize {
        let target = place.groups[(n + 1) % 2];
        stage.advance();
        let moved = move_range(client, &place.interval, target, terms, &actor, |status| {
            let copied = status.progress.as_ref().map_or(0, |progress| progress.bytes_copied);
            bar.set_message(format!("copied {} MB", copied / MEGABYTE));
        });
        let moved = moved.await;
        stage.advance();
        match moved {
            Ok(moved) => moves.push(moved),
            Err(error) => return (moves, Err(anyhow::Error::from(error).context(format!("move {}", n + 1)))),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    (moves, Ok(()))
}

async fn read_back(client: &Client, rows: &Arc<Rows>) -> anyhow::Result<drover_bench::Flaws> {
    let bar = ProgressBar::new(rows.count()).with_message("reading back");
    let shown = bar.clone();
    let flaws = verify(client, rows, move || shown.inc(1)).await.map_err(|error| anyhow!("reading back: {error}"))?;
    bar.finish_and_clear();
    Ok(flaws)
}

async fn remove(client: &Client, interval: &Interval) -> anyhow::Result<()> {
    let bar = ProgressBar::new_spinner().with_message("removing the rows");
    client.delete_range(interval.clone(), |_| bar.tick()).await.context("removing the rows")?;
    bar.finish_and_clear();
    Ok(())
}

fn bytes_bar(what: &'static str, bytes: u64) -> ProgressBar {
    ProgressBar::new(bytes).with_message(what).with_style(style("{msg:16} {bar:30} {bytes}/{total_bytes} eta {eta}"))
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is a constant")
}
