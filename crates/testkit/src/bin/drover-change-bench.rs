//! The measurements behind `scripts/bench-splits`, `scripts/bench-replicas` and `scripts/bench-restart`: gets and puts before a
//! change, and while it is under way.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use drover_client::{Client, GroupId, NodeId, ReplicaState, Route, RouteId};
use drover_testkit::cluster::http_get;
use drover_testkit::traffic::{Latencies, Traffic, key, table, value};
use indicatif::ProgressBar;
use rustix::process::Pid;

/// Changes a running cluster while clients read and write, and compares their latencies with those before.
#[derive(Debug, Parser)]
struct Args {
    /// Nodes to start from.
    #[arg(long, global = true, env = "DROVER_ENDPOINTS", value_delimiter = ',', default_value = "127.0.0.1:7400")]
    endpoints: Vec<String>,
    /// Clients that read and write, half and half.
    #[arg(long, global = true, default_value_t = 16)]
    clients: usize,
    /// Keys they use.
    #[arg(long, global = true, default_value_t = 100_000)]
    keys: u64,
    /// How long is measured before the change, in seconds.
    #[arg(long, global = true, default_value_t = 20)]
    before: u64,
    #[command(subcommand)]
    change: Change,
}

#[derive(Debug, Subcommand)]
enum Change {
    /// Divides routes, one after the other.
    Splits {
        /// How many splits.
        #[arg(long, default_value_t = 10_000)]
        splits: u64,
    },
    /// Lets a node get a replica of the group that holds the keys.
    Replica {
        /// On this node.
        #[arg(long)]
        node: NodeId,
        /// Bytes that are written first.
        #[arg(long, default_value_t = 2 << 30)]
        bytes: u64,
    },
    /// Kills a node of `drover dev --restart` with SIGKILL, and waits until it is ready again.
    Restart {
        /// What `drover dev` wrote: `DIR/cluster.json`.
        #[arg(long)]
        cluster: PathBuf,
        /// This node.
        #[arg(long, default_value = "1")]
        node: NodeId,
        /// Bytes that are written first.
        #[arg(long, default_value_t = 1 << 30)]
        bytes: u64,
    },
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

async fn splits(args: &Args, traffic: &Traffic, splits: u64) -> anyhow::Result<bool> {
    if splits >= args.keys {
        bail!("there must be more keys ({}) than splits ({splits})", args.keys);
    }
    let client = Client::connect(&args.endpoints).await.context("no node answers")?;
    let before = traffic.alone(args.before).await?;
    let done = Arc::new(AtomicU64::new(0));
    let progress = show(ProgressBar::new(splits), Arc::clone(&done));
    let ((), during, took) = traffic.during(split_all(&client, splits, args.keys, &done)).await?;
    progress.abort();
    println!(
        "{splits} splits in {:.1} s, {:.0} a second; {}\n",
        took.as_secs_f64(),
        splits as f64 / took.as_secs_f64(),
        counts(args, &before, &during),
    );
    println!("{}", table(&before, &during));
    Ok(before.failed + during.failed == 0)
}

fn counts(args: &Args, before: &Latencies, during: &Latencies) -> String {
    format!(
        "{} clients, {} gets and {} puts before, {} and {} during, {} failed",
        args.clients,
        before.gets.len(),
        before.puts.len(),
        during.gets.len(),
        during.puts.len(),
        failures(before, during),
    )
}

fn failures(before: &Latencies, during: &Latencies) -> String {
    let first = before.first_error.as_ref().or(during.first_error.as_ref());
    let first = first.map(|error| format!(", the first: {error}")).unwrap_or_default();
    format!("{}{first}", before.failed + during.failed)
}

fn show(bar: ProgressBar, done: Arc<AtomicU64>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            bar.set_position(done.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
}

/// Clients that fill the store.
const LOADERS: u64 = 32;

/// Writes `bytes` in values of `value_bytes`, to the first keys.
async fn load(args: &Args, bytes: u64, value_bytes: usize) -> anyhow::Result<u64> {
    let rows = bytes / value_bytes as u64;
    let done = Arc::new(AtomicU64::new(0));
    let progress = show(ProgressBar::new(rows), Arc::clone(&done));
    let mut loaders = Vec::new();
    for loader in 0..LOADERS {
        let client = Client::connect(&args.endpoints).await.context("no node answers")?;
        let done = Arc::clone(&done);
        loaders.push(tokio::spawn(async move {
            for n in (loader..rows).step_by(LOADERS as usize) {
                client.put(key(n), value(value_bytes)).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
    }
    for loader in loaders {
        loader.await??;
    }
    progress.abort();
    Ok(rows)
}

/// Size of the values when a replica is added.
const VALUE_BYTES: usize = 4 << 10;

async fn replica(args: &Args, traffic: &Traffic, node: NodeId, bytes: u64) -> anyhow::Result<bool> {
    let client = Client::connect(&args.endpoints).await.context("no node answers")?;
    let keys = load(args, bytes, VALUE_BYTES).await?;
    let traffic = Traffic { keys, value_bytes: VALUE_BYTES, ..traffic.clone() };
    let routes = client.routes().await?.routes;
    let group = GroupId(holder(&routes, key(0).as_bytes()).group_id);
    let before = traffic.alone(args.before).await?;
    let added = async {
        client.add_replica(group, node, "bench").await?;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let groups = client.groups().await?;
            let info = groups.iter().find(|info| info.group_id == group.0).context("the group is gone")?;
            let added = info.replicas.iter().find(|replica| replica.node_id == node.0);
            if added.context("somebody called it off")?.state() == ReplicaState::Active {
                return Ok(());
            }
        }
    };
    let ((), during, took) = traffic.during(added).await?;
    let status = client.status().await?;
    let held = status.nodes.iter().filter(|status| status.node_id == node.0).flat_map(|status| &status.replicas);
    let state_bytes =
        held.filter(|replica| replica.group_id == group.0).map(|replica| replica.state_bytes).sum::<u64>();
    println!(
        "a replica of {:.2} GiB in {:.1} s, {:.1} MiB a second; {}\n",
        state_bytes as f64 / f64::from(1 << 30),
        took.as_secs_f64(),
        state_bytes as f64 / f64::from(1 << 20) / took.as_secs_f64(),
        counts(args, &before, &during),
    );
    println!("{}", table(&before, &during));
    Ok(before.failed + during.failed == 0)
}

/// Process and admin address of a node, as `drover dev` tells them.
fn process_of(cluster: &Path, node: NodeId) -> anyhow::Result<(Pid, String)> {
    let text = std::fs::read_to_string(cluster).with_context(|| format!("cannot read {}", cluster.display()))?;
    let told: serde_json::Value = serde_json::from_str(&text)?;
    let nodes = told["nodes"].as_array().context("no nodes are listed")?;
    let found = nodes.iter().find(|listed| listed["id"].as_u64() == Some(node.0)).context("the node is not listed")?;
    let pid = found["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let admin = found["admin"].as_str().context("the node has no admin address")?;
    Ok((pid.context("the node has no process")?, admin.to_owned()))
}

async fn restart(args: &Args, cluster: &Path, node: NodeId, bytes: u64) -> anyhow::Result<bool> {
    load(args, bytes, VALUE_BYTES).await?;
    let client = Client::connect(&args.endpoints).await.context("no node answers")?;
    let status = client.status().await?;
    let held = status.nodes.iter().find(|status| status.node_id == node.0).context("the node does not answer")?;
    let stored: u64 = held.replicas.iter().map(|replica| replica.state_bytes).sum();
    let (before, admin) = process_of(cluster, node)?;
    rustix::process::kill_process(before, rustix::process::Signal::KILL)?;
    let killed = Instant::now();
    loop {
        let is_another = process_of(cluster, node).is_ok_and(|(now, _)| now != before);
        if is_another && http_get(&admin, "/readyz").await.is_ok_and(|answer| answer.status == 200) {
            break;
        }
        if killed.elapsed() > Duration::from_secs(120) {
            bail!("the node is not ready after two minutes");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    println!(
        "node {node}: {:.2} GiB of state, {:.2} GiB in its directory; ready {:.2} s after SIGKILL, its new start included",
        gib(stored),
        gib(held.disk_used_bytes),
        killed.elapsed().as_secs_f64()
    );
    Ok(true)
}

async fn run(args: &Args) -> anyhow::Result<bool> {
    let Args { endpoints, clients, keys, .. } = args;
    let traffic = Traffic { endpoints: endpoints.clone(), clients: *clients, keys: *keys, value_bytes: 256 };
    match &args.change {
        Change::Splits { splits: count } => splits(args, &traffic, *count).await,
        Change::Replica { node, bytes } => replica(args, &traffic, *node, *bytes).await,
        Change::Restart { cluster, node, bytes } => restart(args, cluster, *node, *bytes).await,
    }
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
