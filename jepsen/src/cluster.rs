//! The nodes of a run: configuration, processes, signals.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use drover_client::{Client, GroupId, NodeId};
use drover_testkit::cluster::{http_get, spawn};
use rustix::process::{Pid, Signal, kill_process};
use toml::{Table, Value};

use crate::disk::Disks;
use crate::net::Net;

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
}

/// What a node is doing, as far as the harness made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There is a process.
    Running,
    /// It was stopped with SIGSTOP.
    Paused,
    /// There is none.
    Down,
}

#[derive(Debug)]
struct Process {
    state: State,
    child: Option<Child>,
}

/// The nodes. Dropping them kills every process.
#[derive(Debug)]
pub struct Cluster {
    plan: Plan,
    processes: Vec<Mutex<Process>>,
    /// The disks, if the nodes have some of their own.
    pub disks: Option<Disks>,
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
        let processes = (0..plan.nodes).map(|_| Mutex::new(Process { state: State::Down, child: None })).collect();
        let disks = plan.own_disks.then(|| Disks::new(&plan.dir, plan.nodes)).transpose();
        let disks = disks.context("disks of their own for the nodes")?;
        let cluster = Cluster { plan, processes, disks, net };
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
        replicas(self.plan.nodes, group)
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
        let log = std::fs::read(self.log_path(node)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// The file that says by how much the clock of a node is wrong.
    pub fn clock_path(&self, node: u64) -> PathBuf {
        self.plan.dir.join(format!("n{node}.clock"))
    }

    fn config(&self, id: &str, node: u64) -> Table {
        let addresses = self.net.addresses(node);
        let mut root = Table::new();
        put(&mut root, "node.id", int(node));
        put(&mut root, "node.data_dir", self.data_dir(node).display().to_string().into());
        put(&mut root, "node.grpc_listen", addresses.listen.into());
        put(&mut root, "node.admin_listen", addresses.admin.into());
        put(&mut root, "cluster.id", id.into());
        let nodes = self.nodes().into_iter().map(|other| {
            let addresses = self.net.addresses(other);
            table([("id", int(other)), ("grpc", addresses.advertise.into()), ("admin", addresses.admin.into())])
        });
        put(&mut root, "bootstrap.nodes", nodes.collect::<Vec<_>>().into());
        let groups = Self::groups().into_iter().map(|group| {
            let holders: Vec<Value> = self.replicas(group.0).into_iter().map(int).collect();
            table([("id", int(group.0)), ("replicas", holders.into())])
        });
        put(&mut root, "bootstrap.groups", groups.collect::<Vec<_>>().into());
        put(&mut root, "bootstrap.routes", routes().into());
        for (name, value) in &self.plan.settings {
            put(&mut root, name, value.clone());
        }
        root
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

    /// Starts a node that is down; does nothing if it is not. Returns before it is ready.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_node(&self, node: u64) -> Result<()> {
        self.start_with(node, &[])
    }

    /// As [`Cluster::start_node`], with variables for this start alone.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_with(&self, node: u64, variables: &[(&str, String)]) -> Result<()> {
        if self.state(node) != State::Down {
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
        command.envs(self.plan.environment.iter().cloned()).envs(variables.iter().cloned());
        if self.plan.environment.iter().any(|(name, _)| name == "LD_PRELOAD") {
            command.env("FAKETIME_TIMESTAMP_FILE", self.clock_path(node));
        }
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let mut process = self.process(node);
        let child = spawn(command).with_context(|| format!("starting node {node}"))?;
        self.net.runs_as(node, Some(child.id()));
        *process = Process { state: State::Running, child: Some(child) };
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
        let Process { state, child: Some(child) } = &mut *process else { return Ok(false) };
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
    pub async fn leader(client: &Client, group: GroupId) -> Option<u64> {
        let groups = client.groups().await.ok()?;
        groups.iter().find(|info| info.group_id == group.0).map(|info| info.leader).filter(|leader| *leader != 0)
    }

    /// Hands leadership over.
    ///
    /// # Errors
    /// If it did not come to that.
    pub async fn transfer(client: &Client, group: GroupId, to: u64) -> Result<()> {
        client.transfer_leader(group, NodeId(to)).await.map(drop).map_err(|error| anyhow!("{error}"))
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

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes() {
            let _ = self.kill(node);
        }
    }
}

/// Three of the nodes, another three for each group; all of them if there are no more.
fn replicas(nodes: u64, group: u64) -> Vec<u64> {
    let mut holders: Vec<u64> = (0..nodes.min(3)).map(|n| (group - 1 + n) % nodes + 1).collect();
    holders.sort_unstable();
    holders
}

fn routes() -> Vec<Value> {
    let starts = std::iter::once("").chain(CUTS);
    let ends = CUTS.iter().map(Some).chain(std::iter::once(None));
    let groups = (0..).map(|n| 2 + n % DATA_GROUPS);
    let routes = starts.zip(ends).zip(groups);
    routes
        .map(|((start, end), group)| {
            let mut fields = vec![("start", start.into()), ("group", int(group))];
            fields.extend(end.map(|end| ("end", (*end).into())));
            table(fields)
        })
        .collect()
}

fn put(root: &mut Table, path: &str, value: Value) {
    let (section, name) = path.split_once('.').expect("a setting is called section.name");
    let section = root.entry(section).or_insert_with(|| Table::new().into());
    section.as_table_mut().expect("only tables stand at the top").insert(name.to_owned(), value);
}

fn table<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Table(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn int(number: u64) -> Value {
    Value::Integer(i64::try_from(number).expect("these numbers are small"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_on_three_nodes_each_and_not_all_on_the_same() {
        assert_eq!(replicas(5, 1), [1, 2, 3]);
        assert_eq!(replicas(5, 4), [1, 4, 5]);
        assert_eq!(replicas(3, 2), [1, 2, 3]);
        assert_eq!(replicas(1, 4), [1]);
    }

    #[test]
    fn routes_tile_the_keys_and_the_prefixes_lie_in_different_groups() {
        let routes = routes();
        let ends: Vec<Option<&str>> = routes.iter().map(|route| route.get("end").and_then(Value::as_str)).collect();
        let starts: Vec<&str> = routes.iter().filter_map(|route| route["start"].as_str()).collect();
        assert_eq!(starts[0], "");
        assert!(starts[1..].iter().zip(&ends).all(|(start, end)| Some(*start) == *end) && ends.last() == Some(&None));
        let group = |key: &str| {
            let at = starts.partition_point(|start| *start <= key) - 1;
            routes[at]["group"].as_integer()
        };
        let mut groups: Vec<_> = RANGES.iter().map(|prefix| group(prefix)).collect();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), 3);
    }
}
