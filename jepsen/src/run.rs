//! One run: a cluster, clients, nemeses; then everything is healed, read once more and judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use drover_client::{Client, JobAction, JobFilter, JobId, JobPhase};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, PATIENCE, Plan, RANGES};
use crate::event::{Recorder, Type, Who};
use crate::judge::{self, Results};
use crate::nemesis::{Fault, Nemesis, Pace, Target};
use crate::net::Net;
use crate::routes::{self, Maps};
use crate::workload::{Clients, Generator, Kind, bound_to, final_reads, perform, set_up};
use crate::{edn, event, say};

/// How long a client waits for an answer.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long jobs and locks may take to come to their end when all is healed.
const AFTER_HEALING: Duration = Duration::from_secs(120);

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
        dir: work,
        settings: settings(test)?,
        environment: environment(test)?,
        own_disks: test.nemeses.iter().any(|fault| matches!(fault, Fault::Power | Fault::DiskFull)),
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
    facts.loud = loud_lines(&dir, test.nodes);
    let history = recorder.history();
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
    compare_replicas(&client, facts).await;
    healed.cancel();
    watcher.await.context("the watcher of routes")?;
    (facts.maps_seen, facts.owners_seen) = (maps.seen(), maps.owners_seen());
    facts.problems.extend(maps.problems());
    if stop.is_cancelled() {
        bail!("interrupted");
    }
    Ok(())
}

struct Worker {
    kind: Kind,
    process: u64,
    node: Option<u64>,
    generator: Generator,
    clients: Clients,
    recorder: Arc<Recorder>,
    /// Numbers that no client has had.
    processes: Arc<AtomicU64>,
    keys: Arc<AtomicU64>,
    /// Mean time from one operation to the next.
    pause: Duration,
}

impl Worker {
    async fn run(mut self, halt: CancellationToken) {
        let mut next = Instant::now();
        loop {
            // Exponential, so that clients do not fall into step.
            next += self.pause.mul_f64(-(1.0 - self.generator.pause()).ln());
            next = next.max(Instant::now().checked_sub(self.pause * 4).unwrap_or(next));
            let wait = next.saturating_duration_since(Instant::now());
            if halt.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
            let ask = self.generator.next(self.keys.load(Ordering::Relaxed));
            self.keys.fetch_max(self.generator.keys(), Ordering::Relaxed);
            let who = Who { process: self.process, workload: self.kind.name(), node: self.node };
            self.recorder.invoke(&who, ask.f, ask.value.clone());
            let ended = perform(self.kind, &self.clients, &ask).await;
            self.clients.turn = self.clients.turn.wrapping_mul(5).wrapping_add(3);
            self.generator.saw(&ended.value);
            let kind = ended.kind;
            self.recorder.end(&who, ask.f, ended);
            if kind == Type::Info {
                self.process = self.processes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Keys that clients are at, to divide routes at.
fn hot_keys(keys: &[(Kind, Arc<AtomicU64>)]) -> Vec<String> {
    let of = |kind: &Kind, n: u64| -> Vec<String> {
        let all = |name: &str| RANGES.iter().map(|range| format!("{range}/{name}/{n:06}")).collect();
        match kind {
            Kind::Append => all("append"),
            Kind::Wr => all("wr"),
            Kind::Register => all("reg"),
            Kind::Delete => all("del"),
            Kind::Stale => all("stale"),
            Kind::Counter => all("count"),
            Kind::Monotonic => all("mono"),
            Kind::LongFork => all("fork"),
            Kind::Predicate => all("pred"),
            Kind::Bank => ["1", "3", "5", "7"].map(|n| format!("bank/{n}")).to_vec(),
            Kind::Set => ["c", "f", "m", "p", "u"].map(|letter| format!("set/{letter}")).to_vec(),
        }
    };
    keys.iter().flat_map(|(kind, n)| of(kind, n.load(Ordering::Relaxed))).collect()
}

/// Waits until every range is served.
async fn wait_for_owners(client: &Client) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for key in ["a", "d", "k", "p", "set/k", "z"] {
        while let Err(error) = client.get(format!("{key}/ready")).await {
            if Instant::now() > until {
                bail!("the cluster does not serve {key}: {error}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Waits until every job has come to its end and no transaction holds a lock.
async fn settle(client: &Client, facts: &mut Facts) {
    let until = Instant::now() + AFTER_HEALING;
    let filter = JobFilter { ended: Some(false), ..JobFilter::default() };
    loop {
        let left = match client.jobs(&filter).await {
            Ok(jobs) if jobs.is_empty() => break,
            Ok(jobs) => {
                for job in jobs.iter().filter_map(|status| status.job.as_ref()) {
                    // What was broken when they failed is mended.
                    if job.phase() == JobPhase::Failed {
                        let _ = client.change_job(JobId(job.job_id), JobAction::Retry, "jepsen").await;
                    }
                    if job.paused {
                        let _ = client.change_job(JobId(job.job_id), JobAction::Resume, "jepsen").await;
                    }
                }
                format!("{jobs:?}")
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            facts.problems.push(format!("a move does not end within {} s of healing: {left}", AFTER_HEALING.as_secs()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    loop {
        let left = match client.prepared_transactions(None).await {
            Ok((left, _)) if left.is_empty() => break,
            Ok((left, _)) => format!("{left:?}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            facts.problems.push(format!("locks are left {} s after healing: {left}", AFTER_HEALING.as_secs()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The replicas of every group hold the same.
async fn compare_replicas(client: &Client, facts: &mut Facts) {
    let until = Instant::now() + AFTER_HEALING;
    for group in Cluster::groups() {
        loop {
            let seen = match client.with_deadline(Duration::from_secs(30)).compare_digests(group).await {
                Ok(answer) if answer.equal => break,
                // Not all of them answered.
                Ok(answer) if answer.digests.iter().any(|digest| !digest.error.is_empty()) => format!("{answer:?}"),
                Ok(answer) => {
                    facts.problems.push(format!("the replicas of group {group} differ: {answer:?}"));
                    break;
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                facts.problems.push(format!("the replicas of group {group} cannot be compared: {seen}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

fn settings(test: &Test) -> Result<BTreeMap<String, toml::Value>> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: toml::Value| drop(all.insert(name.to_owned(), value));
    if test.workloads.iter().any(|name| name == Kind::Delete.name()) {
        set("storage.gc_retention_ms", "3s".into());
        set("storage.flush_interval_ms", "500ms".into());
        set("limits.default_deadline_ms", "3s".into());
    }
    if test.nemeses.iter().any(|fault| matches!(fault, Fault::Power | Fault::DiskFull)) {
        set("disk.reserve_bytes", "64MiB".into());
        set("disk.check_interval_ms", "100ms".into());
    }
    if test.nemeses.contains(&Fault::Snapshot) {
        set("raft.snapshot_entries", 100.into());
        set("raft.log_retention_entries", 0.into());
        set("raft.purge_batch_entries", 1.into());
        set("storage.flush_interval_ms", "300ms".into());
    }
    for setting in &test.settings {
        let (name, value) = setting.split_once('=').ok_or_else(|| anyhow!("{setting} is no section.name=value"))?;
        let value = value.parse::<i64>().map_or_else(|_| toml::Value::from(value), toml::Value::from);
        set(name, value);
    }
    Ok(all)
}

fn environment(test: &Test) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all = test.environment.iter().map(|text| pair(text).ok_or_else(|| anyhow!("{text} is no NAME=value")));
    let mut all = all.collect::<Result<Vec<_>>>()?;
    if test.nemeses.contains(&Fault::Clock) {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        if !Path::new(library).exists() {
            bail!("the clock cannot be changed without {library} (package libfaketime)");
        }
        // Only the time of day is wrong: leases and timers run by the clock that goes on.
        let fixed = [("LD_PRELOAD", library), ("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")];
        all.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        all.push(("FAKETIME_CACHE_DURATION".to_owned(), "1".to_owned()));
    }
    Ok(all)
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

/// The time of day in UTC, as a name of a folder.
fn stamp(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    // Days since 0000-03-01, by the calendar's cycles of 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{millis:03}Z")
}

/// Removes what runs left whose process is gone.
fn clean_work(work: &Path) {
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("drover-jepsen-").and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let alive = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        if !alive.is_ok_and(|name| name.trim().starts_with("drover-jepsen")) {
            crate::disk::unmount_below(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

struct RemoveDir(PathBuf);

impl Drop for RemoveDir {
    fn drop(&mut self) {
        crate::disk::unmount_below(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_called_after_the_time_of_day() {
        let at = |seconds, ms| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms);
        assert_eq!(stamp(at(0, 0)), "19700101T000000.000Z");
        assert_eq!(stamp(at(1_709_210_096, 7)), "20240229T123456.007Z");
        assert_eq!(stamp(at(1_735_689_599, 0)), "20241231T235959.000Z");
    }
}
