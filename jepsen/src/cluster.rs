//! The nodes of a run: configuration, processes, signals.

mod config;
mod place;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use drover_client::{Client, GroupId};
use drover_guards::CRASH_FILE;
use drover_testkit::cluster::{http_get, spawn};
use rustix::process::{Pid, Signal, kill_process};
use toml::Value;

use crate::disk::Disks;
use crate::net::Net;
use crate::preload::{BELOW, RIGHT, STEER, Steer};

/// Where the key space is cut at the start; the data groups take turns. A cut goes through the accounts of the bank and
/// two through the set.
pub const CUTS: [&str; 5] = ["bank/4", "h", "o", "set/j", "set/r"];
/// How the keys of most workloads begin: in three ranges, of three groups.
pub const RANGES: [&str; 3] = ["c", "k", "p"];
/// Data groups at the start, besides the default group.
pub const DATA_GROUPS: u64 = 3;
/// Longest time for a start or a recovery.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many nodes.
    pub nodes: u64,
    /// The server.
    pub binary: PathBuf,
    /// Where data and logs go.
    pub dir: PathBuf,
    /// Settings of every node, as `section.name`.
    pub settings: BTreeMap<String, Value>,
    /// Variables of every node's process.
    pub environment: Vec<(String, String)>,
    /// Whether each node gets a disk of its own, which can break.
    pub own_disks: bool,
    /// Whether a library lies in front of the nodes' C library that disturbs their files and clocks.
    pub preload: bool,
}

/// What a node is doing, as far as the harness made it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// There is a process.
    Running,
    /// It was stopped with SIGSTOP.
    Paused,
    /// There is none.
    #[default]
    Down,
}

#[derive(Debug, Default)]
struct Process {
    state: State,
    child: Option<Child>,
    /// Whether nobody may start it now.
    is_held: bool,
}

/// The nodes. Dropping them kills every process.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    processes: Vec<Mutex<Process>>,
    /// The number that each node goes by in the cluster: its own, until another one takes its place.
    ids: Mutex<Vec<u64>>,
    /// The disks, if the nodes have some of their own.
    pub disks: Option<Disks>,
    /// What steers the library in front of each node's C library, if there is one.
    steers: Vec<Steer>,
    /// The network, which goes last.
    pub net: Net,
}

impl Cluster {
    /// Writes the configuration and starts every node; returns when all are ready.
    ///
    /// # Errors
    /// If one does not become ready.
    pub async fn start(plan: Plan, net: Net) -> Result<Cluster> {
        std::fs::create_dir_all(&plan.dir).with_context(|| plan.dir.display().to_string())?;
        let processes = (0..plan.nodes).map(|_| Mutex::new(Process::default())).collect();
        let disks = plan.own_disks.then(|| Disks::new(&plan.dir, plan.nodes)).transpose();
        let disks = disks.context("disks of their own for the nodes")?;
        let ids = Mutex::new((1..=plan.nodes).collect());
        let steers = (1..=plan.nodes).filter(|_| plan.preload).map(|node| Steer::create(&steer_path(&plan, node)));
        let steers = steers.collect::<Result<_>>()?;
        let cluster = Cluster { plan, processes, ids, disks, steers, net };
        let id: [u8; 16] = rand::random();
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        for node in cluster.nodes() {
            std::fs::write(cluster.config_path(node), cluster.config(&id, node).to_string())?;
        }
        for node in cluster.nodes() {
            cluster.start_node(node)?;
        }
        cluster.wait_ready(PATIENCE).await?;
        Ok(cluster)
    }

    /// The numbers of the nodes.
    pub fn nodes(&self) -> Vec<u64> {
        (1..=self.plan.nodes).collect()
    }

    /// The nodes that hold a replica of a group at the start.
    pub fn replicas(&self, group: u64) -> Vec<u64> {
        config::replicas(self.plan.nodes, group)
    }

    /// The default group and the data groups.
    pub fn groups() -> Vec<GroupId> {
        (1..=1 + DATA_GROUPS).map(GroupId).collect()
    }

    /// Where the clients find a node.
    pub fn endpoint(&self, node: u64) -> String {
        self.net.addresses(node).advertise
    }

    /// Where the clients find the nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes().into_iter().map(|node| self.endpoint(node)).collect()
    }

    /// A client of all nodes, or one that sends everything to one of them.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn client(&self, only: Option<u64>, deadline: Duration) -> Result<Client> {
        let builder = Client::builder().deadline(deadline);
        let builder = match only {
            Some(node) => builder.endpoints([self.endpoint(node)]).only_these_endpoints(),
            None => builder.endpoints(self.endpoints()),
        };
        builder.connect().await.map_err(|error| anyhow!("no client: {error}"))
    }

    fn config_path(&self, node: u64) -> PathBuf {
        self.plan.dir.join(format!("n{node}.toml"))
    }

    /// Where a node stores.
    pub fn data_dir(&self, node: u64) -> PathBuf {
        self.plan.dir.join(format!("n{node}")).join("data")
    }

    /// What a node says.
    pub fn log_path(&self, node: u64) -> PathBuf {
        self.plan.dir.join(format!("n{node}.log"))
    }

    /// The end of what a node says.
    fn last_words(&self, node: u64) -> String {
        let log = self.said_since(node, 0);
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The file that says by how much the clock of a node is wrong.
    pub fn clock_path(&self, node: u64) -> PathBuf {
        self.plan.dir.join(format!("n{node}.clock"))
    }

    /// What disturbs the files and the monotonic clock of a node.
    ///
    /// # Errors
    /// If nothing lies in front of its C library.
    pub fn steer(&self, node: u64) -> Result<&Steer> {
        let at = usize::try_from(node - 1).expect("nodes are few");
        self.steers.get(at).context("no library lies in front of the nodes' C library")
    }

    fn process(&self, node: u64) -> std::sync::MutexGuard<'_, Process> {
        let at = usize::try_from(node - 1).expect("nodes are few");
        self.processes[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What a node is doing. One that ended by itself is down.
    pub fn state(&self, node: u64) -> State {
        let mut process = self.process(node);
        if process.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
            (process.state, process.child) = (State::Down, None);
        }
        process.state
    }

    /// Starts a node that is down; does nothing if it is not, or if somebody holds it. Returns before it is ready.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_node(&self, node: u64) -> Result<()> {
        if self.state(node) != State::Down || self.process(node).is_held {
            return Ok(());
        }
        if let Some(folder) = self.data_dir(node).parent() {
            std::fs::create_dir_all(folder)?;
        }
        let path = self.log_path(node);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| path.display().to_string())?;
        let copy = log.try_clone()?;
        let mut command = self.net.command(node, &self.plan.binary)?;
        command.arg("server").arg("--config").arg(self.config_path(node));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DROVER_")) {
            command.env_remove(name);
        }
        command.envs(self.plan.environment.iter().cloned()).env(CRASH_FILE, self.points_path(node));
        if self.plan.environment.iter().any(|(name, _)| name.starts_with("FAKETIME")) {
            command.env("FAKETIME_TIMESTAMP_FILE", self.clock_path(node));
        }
        if self.plan.preload {
            // As the kernel calls it.
            let below = self.data_dir(node).parent().map(std::fs::canonicalize).transpose()?.unwrap_or_default();
            command.env(STEER, steer_path(&self.plan, node)).env(BELOW, below.join("data"));
        }
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let mut process = self.process(node);
        let child = spawn(command).with_context(|| format!("starting node {node}"))?;
        self.net.runs_as(node, Some(child.id()));
        (process.state, process.child) = (State::Running, Some(child));
        Ok(())
    }

    /// Kills a node with SIGKILL; does nothing if it is down.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn kill(&self, node: u64) -> Result<()> {
        let mut process = self.process(node);
        if let Some(mut child) = process.child.take() {
            process.state = State::Down;
            self.net.runs_as(node, None);
            child.kill().with_context(|| format!("killing node {node}"))?;
            child.wait().with_context(|| format!("waiting for node {node}"))?;
        }
        Ok(())
    }

    /// Stops a running node with SIGSTOP; whether there was one.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn pause(&self, node: u64) -> Result<bool> {
        self.signal(node, State::Running, State::Paused, Signal::STOP)
    }

    /// Lets a stopped node go on; whether it was.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn resume(&self, node: u64) -> Result<bool> {
        self.signal(node, State::Paused, State::Running, Signal::CONT)
    }

    fn signal(&self, node: u64, from: State, to: State, signal: Signal) -> Result<bool> {
        let mut process = self.process(node);
        let Process { state, child: Some(child), .. } = &mut *process else { return Ok(false) };
        if *state != from {
            return Ok(false);
        }
        kill_process(Pid::from_child(child), signal).with_context(|| format!("a signal to node {node}"))?;
        *state = to;
        Ok(true)
    }

    /// Mends the network, lets every node go on, starts those that are down.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn heal(&self) -> Result<()> {
        self.net.change(crate::net::Faults::heal_all)?;
        for node in self.nodes() {
            self.resume(node)?;
            if let Some(steer) = self.steers.get(usize::try_from(node - 1).expect("nodes are few")) {
                steer.calm()?;
                steer.run_clock(RIGHT, Duration::ZERO)?;
            }
            if let Some(disks) = &self.disks {
                disks.free(node)?;
            }
            self.start_node(node)?;
        }
        Ok(())
    }

    /// Waits until every node says that it is ready.
    ///
    /// # Errors
    /// If one ends, or is not in time.
    pub async fn wait_ready(&self, bound: Duration) -> Result<()> {
        let until = Instant::now() + bound;
        for node in self.nodes() {
            let admin = self.net.addresses(node).admin;
            loop {
                let seen = match http_get(&admin, "/readyz").await {
                    Ok(answer) if answer.status == 200 => break,
                    Ok(answer) => format!("{} {}", answer.status, answer.body),
                    Err(error) => error.to_string(),
                };
                ensure!(self.state(node) != State::Down, "node {node} has ended by itself: {}", self.last_words(node));
                if Instant::now() > until {
                    bail!("node {node} is not ready within {} s: {seen}", bound.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn metrics(&self, node: u64) -> Result<String> {
        let answer = http_get(&self.net.addresses(node).admin, "/metrics").await;
        Ok(answer.with_context(|| format!("the metrics of node {node}"))?.body)
    }

    /// Who leads a group, as the nodes believe.
    pub async fn leader(&self, client: &Client, group: GroupId) -> Option<u64> {
        let groups = client.groups().await.ok()?;
        let leader = groups.iter().find(|info| info.group_id == group.0)?.leader;
        let at = self.ids().into_iter().position(|id| id == leader)?;
        Some(at as u64 + 1)
    }

    /// Lets a node end itself at points, or wait there, from now on; each line as the server reads it.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn arm(&self, node: u64, lines: &[String]) -> Result<()> {
        let path = self.points_path(node);
        // As a whole: half a name would be none.
        let whole = path.with_extension("points-new");
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&whole, text)
            .and_then(|()| std::fs::rename(&whole, &path))
            .with_context(|| path.display().to_string())
    }

    fn points_path(&self, node: u64) -> PathBuf {
        self.plan.dir.join(format!("n{node}.points"))
    }

    /// How much a node has said, in bytes.
    pub fn has_said(&self, node: u64) -> u64 {
        std::fs::metadata(self.log_path(node)).map_or(0, |data| data.len())
    }

    /// What a node has said behind so many bytes.
    pub fn said_since(&self, node: u64, from: u64) -> String {
        let mut bytes = Vec::new();
        // A log that cannot be read says nothing, which whoever waits for something finds out.
        if let Ok(mut log) = std::fs::File::open(self.log_path(node)) {
            let _ = log.seek(SeekFrom::Start(from)).and_then(|_| log.read_to_end(&mut bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Kills every process and copies the logs and configurations to a folder.
    ///
    /// # Errors
    /// If a file cannot be copied.
    pub fn finish(&self, store: &Path) -> Result<()> {
        for node in self.nodes() {
            self.kill(node)?;
        }
        for node in self.nodes() {
            for path in [self.log_path(node), self.config_path(node)] {
                let name = path.file_name().context("a file has a name")?;
                std::fs::copy(&path, store.join(name)).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }
}

fn steer_path(plan: &Plan, node: u64) -> PathBuf {
    plan.dir.join(format!("n{node}.steer"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes() {
            let _ = self.kill(node);
        }
    }
}
