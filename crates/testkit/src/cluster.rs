//! A cluster of real `drover server` processes on loopback.
//!
//! Nodes are numbered from 1. Group 1 is the default group, data groups are numbered from 2; by default they share the
//! key space evenly by first letter. Everything lies in one temporary folder (`node-1/`, `node-1.toml`, `node-1.log`, …)
//! that is kept, and its logs shown, if the test fails.

mod binary;
mod builder;
mod http;
mod leftovers;
mod links;
mod logs;
mod node;
mod ports;
mod spawn;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, ScanQuery};
use drover_keys::{GroupId, Interval, NodeId};
use drover_wire::proto::v1 as pb;
use drover_wire::proto::v1::cluster_client::ClusterClient;

pub use binary::{build_with_version, drover_binary};
pub use builder::{ClusterBuilder, Split};
pub use http::{HttpAnswer, get as http_get};
pub use leftovers::{Leftover, leftover_lines};
pub use logs::{LogLine, loud_lines};
pub use node::{Node, NodeState};
pub use ports::{Port, PortError};
pub use spawn::spawn;

use crate::wait::{WaitError, wait_until};

/// How long a cluster may take to start, elect or recover before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Why a cluster could not do what a test asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The binary could not be built or found.
    #[error("no drover binary: {0}")]
    Binary(String),
    /// Files or processes.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A new node was not admitted, or was given another number than the next.
    #[error("drover node join: {0}")]
    Refused(String),
    /// No free ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A process ended when it should run; the end of its log follows.
    #[error("node {node} ended with {status}\n{log}")]
    Exited {
        /// Which node.
        node: NodeId,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// The node is not in the state the call needs.
    #[error("node {node} is {state:?}")]
    State {
        /// Which node.
        node: NodeId,
        /// What it is.
        state: NodeState,
    },
    /// A condition did not come true.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// A client's call failed.
    #[error(transparent)]
    Client(#[from] drover_kv::Error),
    /// A call to a node failed.
    #[error("node {node}: {status}")]
    Call {
        /// Which node.
        node: NodeId,
        /// What it said.
        status: Box<tonic::Status>,
    },
}

impl ClusterError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> ClusterError {
        let what = what.into();
        move |source| ClusterError::Io { what, source }
    }
}

/// A running cluster. Dropping it kills every process.
#[derive(Debug)]
pub struct Cluster {
    dir: Option<tempfile::TempDir>,
    nodes: Vec<Node>,
    links: Option<Arc<links::Links>>,
    /// Of every node.
    settings: BTreeMap<String, toml::Value>,
    data_groups: u64,
    failed: AtomicBool,
}

impl Cluster {
    /// Describes a cluster: three nodes and three data groups unless told otherwise.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::default()
    }

    /// Keeps the files, and shows the ends of the logs, when the cluster is dropped. A panic does so by itself.
    pub fn mark_failed(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The folder everything lies in.
    pub fn dir(&self) -> &Path {
        self.dir.as_ref().expect("the folder is only given up on drop").path()
    }

    /// All nodes, lowest number first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The numbers of all nodes.
    pub fn node_ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(Node::id).collect()
    }

    /// One node.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn node(&self, id: NodeId) -> &Node {
        self.nodes.iter().find(|node| node.id() == id).expect("a node of this cluster")
    }

    /// Cuts the links between a node and all others, in both directions. Clients reach it. For clusters that were built
    /// [`ClusterBuilder::cuttable`].
    ///
    /// # Panics
    /// If it was not.
    pub fn cut_off(&self, node: NodeId) {
        let others = self.node_ids().into_iter().filter(|other| *other != node);
        self.links.as_ref().expect("the cluster was built cuttable").cut(node, others);
    }

    /// Mends all links.
    pub fn mend(&self) {
        if let Some(links) = &self.links {
            links.mend();
        }
    }

    /// Lets a new node join through `drover node join`, and starts it. Returns when it is ready.
    ///
    /// # Errors
    /// If it is not admitted, or does not become ready.
    pub async fn join(&mut self) -> Result<NodeId, ClusterError> {
        let node = self.admit().await?;
        let id = node.id();
        node.start()?;
        node.wait_ready(PATIENCE).await?;
        self.nodes.push(node);
        Ok(id)
    }

    async fn admit(&self) -> Result<Node, ClusterError> {
        let next = NodeId(self.nodes.iter().map(|node| node.id().0).max().unwrap_or(0) + 1);
        let node = Node::new(next, self.dir(), Port::take()?, Port::take()?);
        let arguments = ["node", "join", "--json", "--timeout", "60s", "--endpoints", &self.endpoints().join(",")];
        let mut command = tokio::process::Command::new(drover_binary()?);
        command.args(arguments).arg("--data-dir").arg(node.data_dir()).arg("--config").arg(node.config_path());
        command.args(["--grpc-listen", &node.grpc_address(), "--admin-listen", &node.admin_address()]);
        let ended = command.output().await.map_err(ClusterError::io("running drover node join"))?;
        let answer = String::from_utf8_lossy(&ended.stdout).into_owned();
        let expect = format!("\"node\":{next}");
        if !ended.status.success() || !answer.contains(&expect) {
            let why = format!("{answer}{}", String::from_utf8_lossy(&ended.stderr));
            return Err(ClusterError::Refused(why));
        }
        builder::add_settings(node.config_path(), &self.settings)?;
        Ok(node)
    }

    /// The data groups.
    pub fn data_groups(&self) -> Vec<GroupId> {
        (0..self.data_groups).map(|n| GroupId(GroupId::DEFAULT.0 + 1 + n)).collect()
    }

    /// The default group and the data groups.
    pub fn groups(&self) -> Vec<GroupId> {
        std::iter::once(GroupId::DEFAULT).chain(self.data_groups()).collect()
    }

    /// `host:port` of every node's gRPC service.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Node::grpc_address).collect()
    }

    /// A client that knows all nodes.
    ///
    /// # Errors
    /// If none answers.
    pub async fn client(&self) -> Result<Client, ClusterError> {
        Ok(Client::connect(self.endpoints()).await?)
    }

    /// A client that sends everything to one node, whoever leads.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn client_of(&self, node: NodeId) -> Result<Client, ClusterError> {
        let builder = Client::builder().endpoints([self.node(node).grpc_address()]);
        Ok(builder.only_these_endpoints().connect().await?)
    }

    /// Every row of the cluster, from one scan, every page of which is asked of the given node.
    ///
    /// # Errors
    /// If the scan fails.
    pub async fn all_rows(&self, through: NodeId) -> Result<BTreeMap<Bytes, Bytes>, ClusterError> {
        let mut scan = self.client_of(through).await?.scan(ScanQuery::new(Interval::all()));
        let mut rows = BTreeMap::new();
        while let Some(page) = scan.next_page().await? {
            rows.extend(page.entries.into_iter().map(|entry| (entry.key, entry.version.value)));
        }
        Ok(rows)
    }

    /// Waits until the replicas of every group have caught up, and fails the test unless their digests are equal.
    ///
    /// # Errors
    /// If a replica does not catch up or does not answer.
    ///
    /// # Panics
    /// If replicas differ.
    pub async fn assert_replicas_equal(&self) -> Result<(), ClusterError> {
        let running = self.nodes.iter().find(|node| node.state() == NodeState::Running);
        let from = running.map(Node::id).ok_or(ClusterError::State { node: NodeId(0), state: NodeState::Down })?;
        for group in self.groups() {
            self.wait_caught_up(group, PATIENCE).await?;
            let what = format!("digests of group {group} at one log index");
            let answer = wait_until(&what, PATIENCE, async || {
                let answer = self.compare_digests(from, group).await.map_err(|error| error.to_string())?;
                // A replica that got the entry with a snapshot has no digest of it, and never will: it says so, and that
                // another one is to be asked for.
                match answer.digests.iter().any(|digest| digest.error.starts_with("FAILED_PRECONDITION")) {
                    true => Err(format!("{answer:?}")),
                    false => Ok(answer),
                }
            })
            .await?;
            assert!(answer.equal, "the replicas of group {group} differ: {answer:?}");
        }
        Ok(())
    }

    /// Waits until every running node says that it is ready.
    ///
    /// # Errors
    /// If one ends or the bound passes.
    pub async fn wait_ready(&self, bound: Duration) -> Result<(), ClusterError> {
        for node in &self.nodes {
            if node.state() == NodeState::Running {
                node.wait_ready(bound).await?;
            }
        }
        Ok(())
    }

    /// Kills every node with SIGKILL at once.
    ///
    /// # Errors
    /// If a process cannot be killed.
    pub fn kill_all(&self) -> Result<(), ClusterError> {
        for node in &self.nodes {
            if node.state() != NodeState::Down {
                node.kill()?;
            }
        }
        Ok(())
    }

    /// Starts every node that is down, and waits until all are ready.
    ///
    /// # Errors
    /// If one does not become ready.
    pub async fn start_all(&self, bound: Duration) -> Result<(), ClusterError> {
        let down: Vec<&Node> = self.nodes.iter().filter(|node| node.state() == NodeState::Down).collect();
        for node in &down {
            node.start()?;
        }
        // One that ends at once is not passed over as one that is down.
        for node in down {
            node.wait_ready(bound).await?;
        }
        self.wait_ready(bound).await
    }

    /// What the cluster looks like from one node.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn status(&self, from: NodeId) -> Result<pb::GetStatusResponse, ClusterError> {
        let call = async { self.admin(from).await?.get_status(pb::GetStatusRequest {}).await };
        Ok(call.await.map_err(|status| call_error(from, status))?.into_inner())
    }

    /// What one node knows of itself.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn node_status(&self, node: NodeId) -> Result<pb::NodeStatus, ClusterError> {
        let call = async { self.admin(node).await?.get_node_status(pb::GetNodeStatusRequest {}).await };
        let answer = call.await.map_err(|status| call_error(node, status))?.into_inner();
        answer.node.ok_or_else(|| call_error(node, tonic::Status::internal("the answer holds no node")))
    }

    /// Compares the digests of all replicas of a group.
    ///
    /// # Errors
    /// If the node does not answer.
    pub async fn compare_digests(
        &self,
        from: NodeId,
        group: GroupId,
    ) -> Result<pb::CompareDigestsResponse, ClusterError> {
        let request = pb::CompareDigestsRequest { group_id: group.0, timeout_ms: 30_000 };
        let call = async { self.admin(from).await?.compare_digests(request).await };
        Ok(call.await.map_err(|status| call_error(from, status))?.into_inner())
    }

    /// Waits until a running node says that it leads the group, in a term no other running node exceeds.
    ///
    /// # Errors
    /// If none does within the bound.
    pub async fn leader(&self, group: GroupId, bound: Duration) -> Result<NodeId, ClusterError> {
        let what = format!("a leader of group {group}");
        Ok(wait_until(&what, bound, async || self.leader_now(group).await).await?)
    }

    /// Makes a running node the leader of the group.
    ///
    /// # Errors
    /// If it does not become that within the bound.
    pub async fn lead(&self, group: GroupId, node: NodeId, bound: Duration) -> Result<(), ClusterError> {
        let client = self.client().await?;
        let what = format!("node {node} to lead group {group}");
        Ok(wait_until(&what, bound, async || match self.leader_now(group).await {
            Ok(leader) if leader == node => Ok(()),
            Ok(leader) => match client.transfer_leader(group, node).await {
                Ok(_) => Err(format!("node {leader} leads it")),
                Err(error) => Err(error.to_string()),
            },
            Err(seen) => Err(seen),
        })
        .await?)
    }

    /// Lets different nodes lead these groups: who leads each of them then. Who leads the first one stays.
    ///
    /// # Errors
    /// If a node does not become a leader.
    ///
    /// # Panics
    /// If there are more groups than nodes.
    pub async fn spread<const N: usize>(&self, groups: [GroupId; N]) -> Result<[NodeId; N], ClusterError> {
        let mut free = self.node_ids();
        let mut leaders = [NodeId(0); N];
        for (place, group) in groups.into_iter().enumerate() {
            let leads = self.leader(group, PATIENCE).await?;
            let chosen = if free.contains(&leads) { leads } else { *free.first().expect("as many nodes as groups") };
            self.lead(group, chosen, PATIENCE).await?;
            free.retain(|node| *node != chosen);
            leaders[place] = chosen;
        }
        Ok(leaders)
    }

    /// Waits until no transaction holds a lock.
    ///
    /// # Errors
    /// If one does for longer than the bound.
    pub async fn wait_unlocked(&self, bound: Duration) -> Result<(), ClusterError> {
        let client = self.client().await?;
        Ok(wait_until("all locks to be gone", bound, async || {
            let (left, _) = client.prepared_transactions(None).await.map_err(|error| error.to_string())?;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await?)
    }

    /// Waits until all running replicas of the group have applied what is committed by now.
    ///
    /// # Errors
    /// If they have not within the bound.
    pub async fn wait_caught_up(&self, group: GroupId, bound: Duration) -> Result<(), ClusterError> {
        let what = format!("all replicas of group {group} to catch up");
        // Of one moment: of replicas that are asked one after the other while clients write, the first one asked has never applied
        // what the last one knows to be committed.
        let mut goal = None;
        Ok(wait_until(&what, bound, async || {
            let replicas = self.replicas(group).await;
            // Of a leader; others may know an older membership.
            let newest = replicas.iter().max_by_key(|(_, r)| (r.term, r.leader != 0, r.committed_index));
            let members = newest.map(|(_, r)| r.voters.clone()).unwrap_or_default();
            let running = self.nodes.iter().filter(|node| node.state() == NodeState::Running);
            let all_there = running.filter(|node| members.contains(&node.id().0)).count();
            let of_members = replicas.iter().filter(|(node, _)| members.contains(&node.0));
            let applied: Vec<u64> = of_members.map(|(_, r)| r.applied_index).collect();
            if all_there == 0 || applied.len() != all_there {
                return Err(format!("{} of {all_there} running nodes say what they have applied", applied.len()));
            }
            let committed = replicas.iter().map(|(_, r)| r.committed_index).max().unwrap_or(0);
            let goal = *goal.get_or_insert(committed);
            if applied.iter().all(|index| *index >= goal) {
                Ok(())
            } else {
                Err(format!("committed {goal}, applied {applied:?} on {all_there} running nodes"))
            }
        })
        .await?)
    }

    /// Every line at WARN or ERROR in the log of any node, unless it contains one of `allowed`.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub fn loud_lines(&self, allowed: &[&str]) -> Result<Vec<LogLine>, ClusterError> {
        let mut loud = Vec::new();
        for node in &self.nodes {
            let path = node.log_path();
            let bytes = std::fs::read(path).map_err(ClusterError::io(format!("reading {}", path.display())))?;
            loud.extend(loud_lines(node.id(), &String::from_utf8_lossy(&bytes), allowed));
        }
        Ok(loud)
    }

    /// Fails the test if a node logged at WARN or ERROR what is not allowed.
    ///
    /// # Panics
    /// With the lines.
    pub fn assert_quiet_logs(&self, allowed: &[&str]) {
        let loud = self.loud_lines(allowed).expect("the logs can be read");
        let lines: String = loud.iter().map(|line| format!("  {line}\n")).collect();
        assert!(loud.is_empty(), "unexpected lines in the logs:\n{lines}");
    }

    async fn leader_now(&self, group: GroupId) -> Result<NodeId, String> {
        let replicas = self.replicas(group).await;
        let newest = replicas.iter().map(|(_, replica)| replica.term).max();
        let leads = |replica: &pb::ReplicaStatus| {
            replica.role == pb::replica_status::Role::Leader as i32 && Some(replica.term) == newest
        };
        match replicas.iter().find(|(_, replica)| leads(replica)) {
            Some((node, _)) => Ok(*node),
            None => {
                Err(replicas.iter().map(|(id, r)| format!("node {id} role {} term {}; ", r.role, r.term)).collect())
            }
        }
    }

    /// The replicas of a group on the nodes that answer.
    async fn replicas(&self, group: GroupId) -> Vec<(NodeId, pb::ReplicaStatus)> {
        let mut replicas = Vec::new();
        for node in self.nodes.iter().filter(|node| node.state() == NodeState::Running) {
            if let Ok(status) = self.node_status(node.id()).await {
                let of_group = status.replicas.into_iter().filter(|replica| replica.group_id == group.0);
                replicas.extend(of_group.map(|replica| (node.id(), replica)));
            }
        }
        replicas
    }

    async fn admin(&self, node: NodeId) -> Result<ClusterClient<tonic::transport::Channel>, tonic::Status> {
        let address = format!("http://{}", self.node(node).grpc_address());
        let endpoint = tonic::transport::Endpoint::from_shared(address)
            .map_err(|e| tonic::Status::internal(e.to_string()))?
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(35));
        let channel = endpoint.connect().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
        Ok(ClusterClient::new(channel))
    }
}

fn call_error(node: NodeId, status: tonic::Status) -> ClusterError {
    ClusterError::Call { node, status: Box::new(status) }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            if node.state() != NodeState::Down
                && let Err(error) = node.kill()
            {
                eprintln!("{error}");
            }
        }
        if (std::thread::panicking() || self.failed.load(Ordering::Relaxed))
            && let Some(dir) = self.dir.take()
        {
            let kept: PathBuf = dir.keep();
            eprintln!("the cluster's files are kept in {}", kept.display());
            for node in &self.nodes {
                eprintln!("--- end of the log of node {}\n{}", node.id(), logs::tail(node.log_path()));
            }
        }
    }
}
