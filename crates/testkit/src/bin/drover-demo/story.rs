//! What happens, in order.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use drover_client::{Client, ClientBuilder, Routes, ScanQuery};
use drover_keys::{End, GroupId, Interval, NodeId};
use drover_testkit::Cluster;
use drover_testkit::cluster::{PATIENCE, Split};
use drover_testkit::ledger::{Fate, Ledger};
use drover_testkit::wait::wait_until;
use drover_testkit::workload::{Load, LoadReport};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::Args;
use crate::moving::{self, Half};
use crate::outage::OutageWatch;
use crate::report::Report;

/// Keys and values of the data set.
pub type Records = Vec<(Bytes, Bytes)>;

/// Runs the demonstration; `false` if anything was missing or wrong.
pub async fn tell(args: &Args) -> Result<bool> {
    let rows = read_rows(args)?;
    say(&format!("{} records from {}", rows.len(), args.data.display()))?;
    let cluster = start(&rows).await?;
    let outcome = act(args, &cluster, &rows).await;
    if !matches!(outcome, Ok(true)) {
        cluster.mark_failed();
    }
    outcome
}

async fn act(args: &Args, cluster: &Cluster, rows: &Records) -> Result<bool> {
    let client = client(&cluster.endpoints()).connect().await?;
    let group = busiest_group(&client.routes().await?, rows);
    let victim = cluster.leader(group, PATIENCE).await?;

    let ledger = Arc::new(Ledger::new());
    let watch = Arc::new(OutageWatch::new(intervals_of(&client.routes().await?, group)?));
    let load = load_with_kill(args, cluster, rows, &ledger, &watch, victim).await?;

    cluster.wait_ready(PATIENCE).await?;
    for group in cluster.groups() {
        cluster.wait_caught_up(group, PATIENCE).await?;
    }
    let reader = reader_but(cluster, victim);
    let began = Instant::now();
    let found = read_back(cluster, reader, rows.len()).await?;
    let read = (reader, began.elapsed());
    let audit = ledger.audit(&found);

    let half = half_of(cluster, &client.routes().await?, group, rows)?;
    let moved = moving::move_half(cluster, &client, &half, args.page_megabytes).await?;
    for group in cluster.groups() {
        cluster.wait_caught_up(group, PATIENCE).await?;
    }
    let reader = reader_but(cluster, moved.killed);
    let mut found = read_back(cluster, reader, rows.len()).await?;
    found.retain(|key, _| !key.starts_with(&half.pages));
    let report = Report {
        records: rows.len(),
        tally: ledger.tally(),
        load,
        killed: (group, victim),
        outage: watch.longest(),
        read,
        audit,
        moved,
        audit_after_move: ledger.audit(&found),
        digests: compare(cluster, reader).await?,
    };
    say(&format!("\n{report}"))?;
    Ok(report.is_good())
}

/// To standard output; progress bars go to standard error.
fn say(text: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Lines of `key;rest`; later lines with a key that was there before are left out.
fn read_rows(args: &Args) -> Result<Records> {
    let text = std::fs::read_to_string(&args.data).with_context(|| format!("reading {}", args.data.display()))?;
    let pairs = text.lines().filter_map(|line| line.split_once(';'));
    let rows: BTreeMap<Bytes, Bytes> =
        pairs.map(|(key, value)| (Bytes::from(key.to_owned()), Bytes::from(value.to_owned()))).collect();
    let mut rows: Records = rows.into_iter().collect();
    rows.truncate(args.records.unwrap_or(usize::MAX));
    ensure!(rows.len() >= 100, "{} holds fewer than 100 records", args.data.display());
    // In an order that has nothing to do with the keys, so that all groups have work all the time.
    rows.sort_by_cached_key(|(key, _)| scatter(key));
    Ok(rows)
}

/// FNV-1a: an order that has nothing to do with that of the keys.
fn scatter(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Three nodes and three data groups that share the records evenly.
async fn start(rows: &Records) -> Result<Cluster> {
    let bar = spinner("starting three nodes");
    let mut keys: Vec<&Bytes> = rows.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    let cuts = [1, 2].map(|n| keys[keys.len() * n / 3].to_vec());
    let cluster = Cluster::builder().nodes(3).data_groups(3).split(Split::At(cuts.into())).start().await?;
    bar.finish_with_message("three nodes, three data groups, ready");
    Ok(cluster)
}

fn client(endpoints: &[String]) -> ClientBuilder {
    // Longer than an election and a restart: a killed leader shall cost latency and no errors.
    Client::builder().endpoints(endpoints).deadline(Duration::from_secs(30))
}

fn intervals_of(routes: &Routes, group: GroupId) -> Result<Vec<Interval>> {
    let of_group = routes.routes.iter().filter(|route| route.group_id == group.0);
    let end = |end: &Option<Bytes>| end.clone().map_or(End::Unbounded, End::Key);
    Ok(of_group.map(|route| Interval::new(route.start.clone(), end(&route.end))).collect::<Result<_, _>>()?)
}

/// The upper half of the group's records, and another data group that gets it.
fn half_of(cluster: &Cluster, routes: &Routes, group: GroupId, rows: &Records) -> Result<Half> {
    let route = intervals_of(routes, group)?.into_iter().next().context("the group has no route")?;
    let target = cluster.data_groups().into_iter().find(|other| *other != group).context("there is one data group")?;
    Half::of(&route, group, target, rows)
}

fn busiest_group(routes: &Routes, rows: &Records) -> GroupId {
    let group_of = |key: &Bytes| {
        let route = routes.routes.iter().rev().find(|route| route.start <= key);
        route.map_or(GroupId::DEFAULT, |route| GroupId(route.group_id))
    };
    let mut counts: BTreeMap<GroupId, usize> = BTreeMap::new();
    for (key, _) in rows {
        *counts.entry(group_of(key)).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(GroupId::DEFAULT, |(group, _)| group)
}

/// Loads everything; kills the victim after two fifths of the records and starts it again after three.
async fn load_with_kill(
    args: &Args,
    cluster: &Cluster,
    rows: &Records,
    ledger: &Arc<Ledger>,
    watch: &Arc<OutageWatch>,
    victim: NodeId,
) -> Result<LoadReport> {
    let client = client(&cluster.endpoints()).connect().await?;
    let bar = progress("loading", rows.len());
    let done = Arc::new(AtomicUsize::new(0));
    let on_row = {
        let (bar, done, watch) = (bar.clone(), done.clone(), watch.clone());
        Arc::new(move |key: &Bytes, fate: Fate| {
            watch.ended(key, fate);
            done.fetch_add(1, Ordering::Relaxed);
            bar.inc(1);
        })
    };
    let load = Load { rows: rows.clone().into_iter(), on_row };
    let clients = vec![client; args.clients.max(1)];
    let stop = CancellationToken::new();
    let nemesis = async {
        reach(&done, rows.len() * 2 / 5).await?;
        watch.killed();
        cluster.node(victim).kill()?;
        bar.println(format!("node {victim} killed with SIGKILL"));
        reach(&done, rows.len() * 3 / 5).await?;
        cluster.node(victim).start()?;
        bar.println(format!("node {victim} started again"));
        anyhow::Ok(())
    };
    let (report, killed) = tokio::join!(load.run(clients, ledger, &stop), nemesis);
    killed?;
    bar.finish();
    Ok(report)
}

async fn reach(done: &AtomicUsize, count: usize) -> Result<()> {
    let what = format!("{count} records to be written");
    let patience = Duration::from_secs(600);
    wait_until(&what, patience, async || {
        let now = done.load(Ordering::Relaxed);
        if now >= count { Ok(()) } else { Err(format!("{now} records")) }
    })
    .await?;
    Ok(())
}

/// A node that was not killed, so that what it reads has gone over the network.
fn reader_but(cluster: &Cluster, victim: NodeId) -> NodeId {
    cluster.node_ids().into_iter().find(|id| *id != victim).unwrap_or(victim)
}

async fn read_back(cluster: &Cluster, reader: NodeId, records: usize) -> Result<BTreeMap<Bytes, Bytes>> {
    let client = client(&[cluster.node(reader).grpc_address()]).only_these_endpoints().connect().await?;
    let bar = progress("reading back", records);
    let mut found = BTreeMap::new();
    let mut scan = client.scan(ScanQuery::new(Interval::all()));
    while let Some(page) = scan.next_page().await? {
        bar.inc(page.count);
        found.extend(page.entries.into_iter().map(|entry| (entry.key, entry.version.value)));
    }
    bar.finish();
    Ok(found)
}

async fn compare(cluster: &Cluster, from: NodeId) -> Result<Vec<(GroupId, bool, u64)>> {
    let bar = spinner("comparing replicas");
    let mut digests = Vec::new();
    for group in cluster.groups() {
        let answer = cluster.compare_digests(from, group).await?;
        let rows = answer.digests.iter().map(|digest| digest.rows).max().unwrap_or(0);
        digests.push((group, answer.equal, rows));
    }
    bar.finish_with_message("replicas compared");
    Ok(digests)
}

fn progress(what: &'static str, length: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:14} [{wide_bar}] {pos}/{len} {per_sec} {eta}");
    let bar = ProgressBar::new(length as u64).with_message(what);
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

pub fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
