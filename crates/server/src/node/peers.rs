//! What this node does for its peers, and how it asks them for timestamps.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_coordinator::{GroupDirectory, RouteCache, is_misrouted};
use drover_fsm::{decode_catalog_command, decode_export, decode_import_request, encode_exported, encode_import_answer};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, NodeId, ReplicaId};
use drover_kv::{Error, Reason};
use drover_oracle::{Oracle, OracleNetwork};
use drover_transport::{NodeService, PeerPool, RaftEndpoint};
use drover_wire::proto::v1;
use drover_wire::{GroupOp, decode_group_request, encode_group_response, encode_route_delta};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::NodeClock;
use crate::disk::DiskState;
use crate::services::disk_full;

/// How long the oracle here may take for a request from a peer.
const TIMESTAMP_TIMEOUT: Duration = Duration::from_secs(1);

/// Most changes of routes that go along with a refusal.
const NEWER_ROUTES: usize = 64;

/// The replica that this node holds of a group, and where its messages go.
type Endpoint = (ReplicaId, Arc<dyn RaftEndpoint>);

/// Serves the peers of this node.
pub struct PeerService {
    directory: Arc<GroupDirectory>,
    routes: Arc<RouteCache>,
    /// Replicas that take part in their groups; one that still keeps silent is not here.
    endpoints: RwLock<HashMap<GroupId, Endpoint>>,
    oracle: RwLock<Option<Arc<Oracle>>>,
    disk: watch::Receiver<DiskState>,
    snapshots: PathBuf,
    clock: Arc<NodeClock>,
    /// Operations of peers at work here.
    calls: TaskTracker,
}

impl PeerService {
    /// A service without replicas; `snapshots` is the folder for arriving snapshots.
    pub fn new(
        directory: Arc<GroupDirectory>,
        routes: Arc<RouteCache>,
        disk: watch::Receiver<DiskState>,
        snapshots: PathBuf,
        clock: Arc<NodeClock>,
    ) -> Arc<Self> {
        let (endpoints, oracle) = (RwLock::default(), RwLock::default());
        Arc::new(Self { directory, routes, endpoints, oracle, disk, snapshots, clock, calls: TaskTracker::new() })
    }

    /// Completes at a moment when no operation of a peer is at work here. After the leadership was handed over new ones
    /// are refused at once, so that moment comes.
    pub async fn idle(&self) {
        self.calls.close();
        self.calls.wait().await;
    }

    /// Free space of this node.
    pub fn disk(&self) -> watch::Receiver<DiskState> {
        self.disk.clone()
    }

    /// From now on the messages to this replica of `group` are delivered.
    pub fn deliver(&self, group: GroupId, replica: ReplicaId, endpoint: Arc<dyn RaftEndpoint>) {
        self.endpoints.write().insert(group, (replica, endpoint));
    }

    /// The messages of `group` are no longer delivered.
    pub fn withdraw(&self, group: GroupId) {
        self.endpoints.write().remove(&group);
    }

    /// Makes the oracle of this node known, or that it has none any more.
    pub fn set_oracle(&self, oracle: Option<Arc<Oracle>>) {
        *self.oracle.write() = oracle;
    }
}

#[tonic::async_trait]
impl NodeService for PeerService {
    fn raft(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<dyn RaftEndpoint>> {
        let endpoints = self.endpoints.read();
        let (held, endpoint) = endpoints.get(&group)?;
        (*held == replica).then(|| Arc::clone(endpoint))
    }

    async fn group_call(&self, request: v1::GroupRequest) -> v1::GroupResponse {
        let _at_work = self.calls.token();
        let observed = CatalogVersion(request.observed_version);
        let answer = match decode_group_request(request) {
            Ok(call) if self.disk.borrow().full && needs_space(&call.op) => Err(disk_full()),
            Ok(call) => {
                let deadline = Instant::now() + Duration::from_millis(u64::from(call.timeout_ms));
                self.directory.serve(call, deadline).await
            }
            Err(error) => Err(error.into()),
        };
        let newer_routes = match &answer {
            Err(error) if is_misrouted(error.reason) => self.routes.since(observed, NEWER_ROUTES).unwrap_or_default(),
            Ok(_) | Err(_) => Vec::new(),
        };
        let mut response = encode_group_response(answer);
        response.newer_routes = newer_routes.iter().map(|delta| encode_route_delta(delta)).collect();
        response
    }

    async fn timestamps(&self, count: u32) -> Result<Timestamp, Error> {
        let oracle = self.oracle.read().clone();
        match oracle {
            Some(oracle) => {
                let first = oracle.timestamps(count, Instant::now() + TIMESTAMP_TIMEOUT).await?;
                self.clock.observe(first);
                Ok(first)
            }
            None => Err(Error::definite(Reason::NotLeader, "this node has no replica of the default group")),
        }
    }

    fn export(
        &self,
        request: v1::ExportRangeVersionsRequest,
    ) -> BoxStream<'static, Result<v1::ExportRangeVersionsResponse, Error>> {
        let found = decode_export(request).and_then(|request| Ok((self.directory.serving(request.group)?, request)));
        match found {
            Ok((group, request)) => group.export(request).map_ok(|portion| encode_exported(&portion)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn import(&self, request: v1::ImportRangeVersionsRequest) -> Result<v1::ImportRangeVersionsResponse, Error> {
        let _at_work = self.calls.token();
        if self.disk.borrow().full {
            return Err(disk_full());
        }
        let deadline = Instant::now() + Duration::from_millis(u64::from(request.timeout_ms));
        let group = self.directory.serving(GroupId(request.group_id))?;
        let import = group.import(decode_import_request(request)?, deadline).await?;
        Ok(encode_import_answer(&import))
    }

    fn snapshot_staging_dir(&self, group: GroupId) -> PathBuf {
        self.snapshots.join(group.to_string())
    }
}

/// Whether a request is refused while there is no space. One that does not decode is refused for that, elsewhere.
fn needs_space(op: &GroupOp) -> bool {
    match op {
        GroupOp::Write(_) => true,
        GroupOp::Catalog { command } => {
            decode_catalog_command(command.clone()).is_ok_and(|command| !command.kind.is_upkeep())
        }
        // What was begun is finished: the steps themselves need next to nothing, and free more.
        GroupOp::MoveStep { .. }
        | GroupOp::ObserveMove { .. }
        | GroupOp::SumRange { .. }
        | GroupOp::ForgetJobs { .. }
        | GroupOp::SlowWriters { .. }
        | GroupOp::Read { .. }
        | GroupOp::Digest { .. }
        | GroupOp::Describe { .. }
        | GroupOp::ReadCatalog { .. }
        | GroupOp::JudgeCatalog { .. }
        | GroupOp::JobProgress { .. } => false,
    }
}

/// How this node asks others for timestamps.
pub struct OraclePeers {
    node: NodeId,
    directory: Arc<GroupDirectory>,
    peers: Arc<PeerPool>,
}

impl OraclePeers {
    /// Asks over `peers`.
    pub fn new(node: NodeId, directory: Arc<GroupDirectory>, peers: Arc<PeerPool>) -> Self {
        Self { node, directory, peers }
    }
}

impl OracleNetwork for OraclePeers {
    fn candidates(&self) -> Vec<NodeId> {
        let mut nodes = self.directory.members(GroupId::DEFAULT).to_vec();
        nodes.retain(|node| *node != self.node);
        let leader = self.directory.running(GroupId::DEFAULT).and_then(|group| group.known_leader());
        nodes.sort_by_key(|node| Some(*node) != leader);
        nodes
    }

    fn ask(&self, node: NodeId, count: u32, deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        let peers = Arc::clone(&self.peers);
        async move { peers.timestamps(node, count, deadline.into()).await }.boxed()
    }
}
