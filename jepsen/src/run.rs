//! One run: a cluster, clients, nemeses; then everything is healed, read once more and judged.

mod after;
mod setup;
mod worker;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, PATIENCE, Plan};
use crate::event::{Event, Recorder};
use crate::judge::{self, Results};
use crate::nemesis::{Fault, Nemesis, Pace, Target};
use crate::net::Net;
use crate::ownership::{self, Ownership};
use crate::routes::{self, Maps, Row};
use crate::workload::{Clients, Generator, Kind, bound_to, final_reads, set_up};
use crate::{edn, event, say};

use after::{compare_replicas, nothing_left, settle, wait_for_owners};
use setup::{RemoveDir, clean_work, environment, settings, stamp};
use worker::{Worker, hot_keys};

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// What a run is to do; kept as `test.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Test {
    /// What clients do.
    pub workloads: Vec<String>,
    /// What breaks; may be empty.
    pub nemeses: Vec<Fault>,
    /// For how long, in seconds.
    pub time_s: u64,
    /// Operations a second in all.
    pub rate: u64,
    /// Nodes.
    pub nodes: u64,
    /// Clients of each workload.
    pub clients: u64,
    /// Of everything that is drawn.
    pub seed: u64,
    /// Whom kills and pauses may meet; empty: anybody.
    #[serde(default)]
    pub targets: Vec<String>,
    /// `netns`, `loopback` or none.
    #[serde(default)]
    pub net: Option<String>,
    /// Settings of the nodes, as `section.name=value`.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Variables of the nodes' processes, as `NAME=value`.
    #[serde(default)]
    pub environment: Vec<String>,
}

impl Test {
    /// A name for its folder.
    pub fn name(&self) -> String {
        let faults: Vec<&str> = self.nemeses.iter().map(|fault| fault.name()).collect();
        let faults = if faults.is_empty() { "none".to_owned() } else { faults.join("+") };
        format!("{}-{faults}", self.workloads.join("+"))
    }

    fn kinds(&self) -> Result<Vec<Kind>> {
        let kinds = self.workloads.iter().map(|name| {
            let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            Kind::by_name(name).ok_or_else(|| anyhow!("there is no workload {name}; there are {}", known.join(", ")))
        });
        kinds.collect()
    }
}

/// What was seen besides the history; kept as `facts.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// What the network was.
    pub network: String,
    /// What did not recover, or was not right then.
    pub problems: Vec<String>,
    /// How long the nodes took to be ready when all was healed, in milliseconds.
    pub ready_after_ms: Option<u64>,
    /// How long jobs and locks took then.
    pub settled_after_ms: Option<u64>,
    /// When the nemeses stopped, in nanoseconds since the run began.
    pub healed_at: u64,
    /// Lines of the logs at WARN or above, by their text without what differs, and how often.
    pub loud: BTreeMap<String, u64>,
    /// How many versions of the map of routes were looked at.
    pub maps_seen: u64,
    /// How many owners of keys were seen, each since another version.
    #[serde(default)]
    pub owners_seen: u64,
    /// Which group each version of the map that was looked at names for which range.
    #[serde(default)]
    pub maps: BTreeMap<u64, Vec<Row>>,
    /// Who owned what, by the nodes' logs; none for a run from before they were looked at.
    #[serde(default)]
    pub ownership: Option<Ownership>,
}

impl Facts {
    /// Takes what the logs say that lie in a run's folder.
    pub(crate) fn take_logs(&mut self, dir: &Path, test: &Test, history: &[Event]) {
        self.loud = loud_lines(dir, test.nodes);
        // A clock that was wrong tells nothing of the order of things on different nodes.
        let clocks_agree = !test.nemeses.contains(&Fault::Clock);
        let logs = ownership::read(dir, test.nodes);
        self.ownership = Some(ownership::judge(&logs, &self.maps, history, clocks_agree));
    }
}

/// Where everything of a run lies.
#[derive(Debug, Clone)]
pub struct Places {
    /// The server.
    pub drover: PathBuf,
    /// The store of all runs.
    pub store: PathBuf,
    /// Where the nodes store while they run.
    pub work: PathBuf,
}

/// Runs a test; its folder, and what was found.
///
/// # Errors
/// If it could not be run. What was found is no error.
pub async fn run(test: &Test, places: &Places, stop: &CancellationToken) -> Result<(PathBuf, Results)> {
    let kinds = test.kinds()?;
    let dir = places.store.join(test.name()).join(stamp(SystemTime::now()));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    std::fs::write(dir.join("test.json"), serde_json::to_string_pretty(test)?)?;
    let net = Net::new(test.nodes, test.net.as_deref()).await?;
    let mut facts = Facts { network: net.describe(), ..Facts::default() };
    say(&format!("{}: {} nodes over {}", test.name(), test.nodes, facts.network));
    let work = places.work.join(format!("drover-jepsen-{}", std::process::id()));
    clean_work(&places.work);
    let _removed = RemoveDir(work.clone());
    let plan = Plan {
        nodes: test.nodes,
        binary: places.drover.clone(),
        settings: settings(test)?,
        environment: environment(test, &work)?,
        own_disks: test.nemeses.iter().any(|fault| fault.needs_disks()),
        preload: test.nemeses.iter().any(|fault| fault.needs_preload()),
        dir: work,
    };
    for node in (1..=test.nodes).filter(|_| test.nemeses.contains(&Fault::Clock)) {
        std::fs::create_dir_all(&plan.dir)?;
        std::fs::write(plan.dir.join(format!("n{node}.clock")), "+0")?;
    }
    let cluster = Arc::new(Cluster::start(plan, net).await?);
    let recorder = Arc::new(Recorder::new());
    let driven = drive(test, &kinds, &cluster, &recorder, &mut facts, stop).await;
    // Whatever happened, the logs and the history are kept.
    let finished = cluster.finish(&dir);
    let history = recorder.history();
    facts.take_logs(&dir, test, &history);
    event::save(&dir.join("history.jsonl"), &history)?;
    edn::save(&dir.join("history.edn"), &history)?;
    if let Err(error) = driven {
        facts.problems.push(format!("{error:#}"));
    }
    std::fs::write(dir.join("facts.json"), serde_json::to_string_pretty(&facts)?)?;
    finished?;
    let results = judge::judge(test, &facts, &history)?;
    judge::write(&dir, test, &results, &history)?;
    Ok((dir, results))
}

async fn drive(
    test: &Test,
    kinds: &[Kind],
    cluster: &Arc<Cluster>,
    recorder: &Arc<Recorder>,
    facts: &mut Facts,
    stop: &CancellationToken,
) -> Result<()> {
    let client = cluster.client(None, DEADLINE).await?;
    wait_for_owners(&client).await?;
    let mut doors = Vec::new();
    for node in cluster.nodes() {
        doors.push(cluster.client(Some(node), DEADLINE).await?);
    }
    for kind in kinds {
        let filled = set_up(*kind, &client.with_deadline(PATIENCE)).await;
        filled.map_err(|error| anyhow!("{} could not be set up: {error}", kind.name()))?;
    }
    let (halt, healed) = (stop.child_token(), CancellationToken::new());
    let mut clients = JoinSet::new();
    let mut keys: Vec<(Kind, Arc<AtomicU64>)> = Vec::new();
    let processes = Arc::new(AtomicU64::new(test.clients * kinds.len() as u64));
    for (place, kind) in kinds.iter().enumerate() {
        let shared = Arc::new(AtomicU64::new(0));
        keys.push((*kind, Arc::clone(&shared)));
        for number in 0..test.clients {
            let node = bound_to(*kind, number, test.nodes);
            let own = cluster.client(node, DEADLINE).await?;
            let worker = Worker {
                kind: *kind,
                process: place as u64 * test.clients + number,
                node,
                generator: Generator::new(*kind, test.seed, number, test.clients),
                clients: Clients { own, doors: doors.clone(), turn: number },
                recorder: Arc::clone(recorder),
                processes: Arc::clone(&processes),
                keys: Arc::clone(&shared),
                pause: Duration::from_secs_f64((test.clients * kinds.len() as u64) as f64 / test.rate.max(1) as f64),
            };
            clients.spawn(worker.run(halt.clone()));
        }
    }
    let maps = Arc::new(Maps::default());
    let watcher = tokio::spawn(routes::watch(doors.clone(), Arc::clone(&maps), healed.clone()));
    let mut nemeses = JoinSet::new();
    let breaking = halt.child_token();
    let hot = {
        let keys = keys.clone();
        Arc::new(move || hot_keys(&keys)) as Arc<dyn Fn() -> Vec<String> + Send + Sync>
    };
    for (number, fault) in test.nemeses.iter().enumerate() {
        let nemesis = Nemesis {
            cluster: Arc::clone(cluster),
            client: cluster.client(None, Duration::from_secs(5)).await?,
            recorder: Arc::clone(recorder),
            targets: test.targets.iter().filter_map(|name| Target::by_name(name)).collect(),
            pace: Pace::default(),
            hot: Arc::clone(&hot),
            tried: Arc::default(),
        };
        nemeses.spawn(nemesis.run(*fault, number, test.seed, breaking.clone()));
    }
    stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(test.time_s))).await;
    breaking.cancel();
    while let Some(ended) = nemeses.join_next().await {
        ended.context("a nemesis")?;
    }
    let mended = Instant::now();
    facts.healed_at = recorder.history().last().map_or(0, |event| event.time);
    cluster.heal()?;
    cluster.wait_ready(PATIENCE).await?;
    facts.ready_after_ms = Some(millis(mended));
    // Clients go on for a moment after everything is well: what was put off is in their way then, if at all.
    tokio::time::sleep(Duration::from_secs(1)).await;
    halt.cancel();
    while let Some(ended) = clients.join_next().await {
        ended.context("a client")?;
    }
    settle(&client, facts).await;
    facts.settled_after_ms = Some(millis(mended));
    for (kind, keys) in &keys {
        let process = processes.fetch_add(1, Ordering::Relaxed);
        let own = Clients { own: client.clone(), doors: doors.clone(), turn: 0 };
        let read = final_reads(*kind, &own, recorder, keys.load(Ordering::Relaxed), process).await;
        if let Err(why) = read {
            facts.problems.push(format!("the last reads of {}: {why}", kind.name()));
        }
    }
    nothing_left(cluster, facts).await;
    compare_replicas(&client, facts).await;
    healed.cancel();
    watcher.await.context("the watcher of routes")?;
    (facts.maps_seen, facts.owners_seen) = (maps.seen(), maps.owners_seen());
    facts.maps = maps.rows();
    facts.problems.extend(maps.problems());
    if stop.is_cancelled() {
        bail!("interrupted");
    }
    Ok(())
}

fn loud_lines(dir: &Path, nodes: u64) -> BTreeMap<String, u64> {
    let mut loud = BTreeMap::new();
    for node in 1..=nodes {
        let Ok(log) = std::fs::read(dir.join(format!("n{node}.log"))) else { continue };
        for line in judge::loud(&String::from_utf8_lossy(&log)) {
            *loud.entry(line).or_default() += 1;
        }
    }
    loud
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Cancels at the first SIGINT or SIGTERM, so that everything is removed; ends the process at the second.
pub fn stop_by_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?;
        signal_hook::flag::register(signal, Arc::clone(&asked))?;
    }
    let stop = token.clone();
    tokio::spawn(async move {
        while !asked.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        stop.cancel();
    });
    Ok(token)
}

/// A seed for those who give none.
pub fn any_seed() -> u64 {
    rand::rng().random_range(0..1_000_000)
}
