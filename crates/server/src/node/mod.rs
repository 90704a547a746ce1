//! The node: everything composed.
//!
//! Order matters twice. At the start the ports come first, so that a port in use is noticed before anything is opened,
//! and a replica's messages are delivered only when it takes part in its group. At the end leadership goes first, then
//! the requests that were admitted finish, then the replicas stop, then the log is closed.

mod build;
mod catalog;
mod clock;
mod endpoint;
mod locks;
mod membership;
mod peers;
mod presence;
mod relief;
mod replicas;
mod serve;
mod status;
mod strays;
mod surroundings;
mod topology;

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_coordinator::{
    Coordinator, CoordinatorOptions, Dispatcher, GroupDirectory, ParkingLimits, Replica, RouteCache,
};
use drover_oracle::OracleClient;
use drover_raftgroup::SharedTimestamps;
use drover_raftlog::{LogDir, LogError, LogOptions, NodeLog};
use drover_seams::{blocking, is_simulated};
use drover_transport::{IdentityError, LeaseTerms, PeerIdentities, PeerOptions, PeerPool, Tuning};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::admin::{AdminServer, ReadinessSlot};
use crate::config::Config;
use crate::datadir::{DataDir, DataDirError};
use crate::disk::DiskWatch;
use crate::lifecycle::{Drain, Ended, Shutdown};
use crate::listen::{ListenError, listen_for_nodes};
use crate::metrics::Metrics;
use crate::services::{Front, FrontParts};

pub use build::version as build_version;
pub use clock::{NodeClock, SystemClock, shift_clock};
pub use presence::CAPABILITIES;
pub use status::NodeView;
pub use surroundings::{OpenLog, Surroundings};

use catalog::Followed;
use clock::Observed;
use peers::{OraclePeers, PeerService};
use replicas::{ReplicaParts, Replicas, Successors, TimeParts};
use topology::TopologyCache;

/// Why a node ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A port cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The configuration cannot be the first catalog of a cluster.
    #[error("bootstrap: {0}")]
    Bootstrap(#[from] drover_kv::Error),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// The Raft log cannot be opened.
    #[error("the Raft log cannot be opened; no replica of this node takes part in its group: {0}")]
    Log(#[from] LogError),
    /// The stores of the replicas cannot be set up.
    #[error("the stores of this node cannot be set up: {0}")]
    Store(#[from] drover_mvcc::StoreError),
    /// The file of peers cannot be read.
    #[error("the file that remembers the peers cannot be used: {0}")]
    Peers(#[from] IdentityError),
    /// An address is not one, or a server failed.
    #[error("the gRPC server failed: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The cluster does not want this node.
    #[error("the cluster refuses this node: {0}")]
    Refused(drover_kv::Error),
    /// A part of the node ended that must not.
    #[error("{0}")]
    Failed(String),
}

/// How a node that was asked to stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that was begun was finished.
    Drained,
    /// The time for the drain was over, or it was asked a second time.
    CutOff,
}

/// How long the parts of a node may take to end after the drain.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs a node until it is asked to stop. `data` stays locked for as long.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn run(config: Config, data: DataDir, shutdown: Shutdown) -> Result<Stopped, NodeError> {
    run_in(config, data, shutdown, Surroundings::machine()).await
}

/// As [`run`], in other surroundings than the machine's own. A simulated node has no admin port.
///
/// # Errors
/// As [`run`].
pub async fn run_in(
    config: Config,
    data: DataDir,
    shutdown: Shutdown,
    surroundings: Surroundings,
) -> Result<Stopped, NodeError> {
    let Surroundings { wall, clock_lead, open_log, stores_in_step, observe } = surroundings;
    let started = Instant::now();
    let stop = CancellationToken::new();
    let admin = match is_simulated() {
        true => None,
        false => Some(AdminServer::bind(config.node.admin_listen).await?),
    };
    let grpc = listen_for_nodes("node.grpc_listen", config.node.grpc_listen).await?;
    let metrics = Arc::new(Metrics::new());
    let readiness = Arc::new(ReadinessSlot::new());
    let admin = admin.map(|admin| {
        let (readiness, metrics) = (Arc::clone(&readiness), Arc::clone(&metrics));
        tokio::spawn(admin.serve(readiness, metrics, stop.clone().cancelled_owned()))
    });

    let watch = DiskWatch::start(data.root().to_owned(), config.disk.reserve_bytes.0, config.disk.check_interval)
        .map_err(|source| NodeError::Io { what: "the free space of the data directory cannot be asked for", source })?;
    let data = Arc::new(data);
    // A simulated log lies in no folder.
    let found = if is_simulated() { LogDir::Unused } else { NodeLog::look(&data.raftlog())? };
    data.expect_log(found)?;
    // The log comes first: whoever has noted replicas has a log.
    let log = Arc::new(open_raftlog(&config, &data, open_log).await?);
    let records = Arc::new(data.replicas(replicas::founding(&config), found)?);
    let directory = Arc::new(GroupDirectory::default());
    for group in &config.bootstrap.groups {
        directory.set_members(group.id, group.replicas.clone());
    }
    // Before the port answers: a replica that is not there yet must not be taken for one that does not exist.
    for group in records.here().into_keys() {
        directory.set(group, Replica::Starting);
    }
    let peers = PeerPool::new(peer_options(&config, &data), PeerIdentities::open(data.peers())?);
    for node in &config.bootstrap.nodes {
        peers.set_address(node.id, node.grpc.as_str());
    }
    let routes = RouteCache::unknown();
    let configured = config.bootstrap.nodes.iter().map(|node| node.id).filter(|node| *node != config.node.id).collect();
    let topology = TopologyCache::new(Arc::clone(&directory), Arc::clone(&peers), configured);
    let (cluster, by_replica) = (config.cluster.id, Arc::default());
    let followed = Followed { cluster, routes: Arc::clone(&routes), topology, by_replica };
    let clock = NodeClock::new(millis(config.oracle.max_clock_step), Arc::clone(&wall));
    let service = PeerService::new(
        Arc::clone(&directory),
        Arc::clone(&routes),
        watch.subscribe(),
        data.snapshots(),
        Arc::clone(&clock),
    );
    let oracle =
        OracleClient::start(Arc::new(OraclePeers::new(config.node.id, Arc::clone(&directory), Arc::clone(&peers))));
    let dispatcher = Dispatcher::new(config.node.id, Arc::clone(&directory), Arc::clone(&peers), Arc::clone(&routes));
    let timestamps: SharedTimestamps = Arc::new(Observed::new(oracle.clone(), Arc::clone(&clock)));
    let coordinator = Coordinator::new(Arc::new(dispatcher), Arc::clone(&timestamps), coordinator_options(&config));
    let parking = Arc::clone(&metrics);
    coordinator.parking().observe(Arc::new(move |event| parking.parking.note(event)));
    let front = Front::new(FrontParts {
        coordinator: Arc::new(coordinator),
        metrics: Arc::clone(&metrics),
        max_requests: usize::try_from(config.limits.max_requests).unwrap_or(usize::MAX),
        default_deadline: config.limits.default_deadline,
        max_commit: config.txn.max_deadline,
        disk: watch.subscribe(),
    });
    let view = NodeView {
        node: config.node.id,
        grpc_address: config.advertised_grpc().as_str().to_owned(),
        admin_address: config.advertised_admin().as_str().to_owned(),
        started,
        directory: Arc::clone(&directory),
        records: Arc::clone(&records),
        topology: Arc::clone(&followed.topology),
        disk: watch.subscribe(),
        disk_reserve_bytes: config.disk.reserve_bytes.0,
        front: Arc::clone(&front),
        clock: Arc::clone(&clock),
    };
    readiness.set(view.clone());
    observe(&view);
    let readiness_view = view.clone();
    serve::export(&metrics, &log, &peers, &directory, watch.subscribe(), clock);
    let known = tokio::sync::watch::Sender::new(false);
    let registered = known.subscribe();
    let announced = presence::announce(
        presence::Announcement {
            node: config.node.id,
            store: data.store_id(),
            address: config.advertised_grpc().as_str().to_owned(),
            admin_address: config.advertised_admin().as_str().to_owned(),
            version: build::version().map_err(NodeError::Failed)?,
            cluster: config.cluster.id,
            seeds: seeds(&config, &data),
        },
        Arc::clone(front.coordinator()),
        view.clone(),
        known,
        stop.clone(),
    );
    let (server, health) = serve::start(&config, grpc, view, Arc::clone(&service), Arc::clone(&peers), stop.clone())?;

    let parts = ReplicaParts {
        data: Arc::clone(&data),
        records,
        log: Arc::clone(&log),
        service: Arc::clone(&service),
        directory,
        peers,
        coordinator: Arc::clone(front.coordinator()),
        followed: followed.clone(),
        registered,
        time: TimeParts { oracle, timestamps, wall, clock_lead },
        stores_in_step,
    };
    let (replaced, pool) = (parts.peers.replaced(), Arc::clone(&parts.peers));
    let replicas = Arc::new(Replicas::new(&config, seeds(&config, &data), parts)?);
    let me = config.advertised_grpc().as_str().to_owned();
    tokio::spawn(topology::remember(followed.topology.subscribe(), Arc::clone(&data), stop.clone()));
    tokio::spawn(catalog::follow_nodes(me, seeds(&config, &data), followed, stop.clone()));
    replicas.start(&stop).await;
    tokio::spawn(Arc::clone(&replicas).host(stop.clone()));
    tokio::spawn(locks::tend(Arc::clone(front.coordinator()), config.txn.lock_ttl, stop.clone()));
    tokio::spawn(relief::relieve(Arc::clone(&replicas), watch.subscribe(), stop.clone()));
    let leaving = CancellationToken::new();
    tokio::spawn(tell_health(health.clone(), readiness_view, leaving.clone()));
    let node = Node { front, service, replicas: Arc::clone(&replicas), peers: pool, health, leaving };
    let failure = fail(server, log, tokio::spawn(announced), replaced);
    let ended = shutdown.run(&node, failure).await;

    stop.cancel();
    let closing = async {
        replicas.stop().await;
        if let Some(admin) = admin
            && let Ok(Err(error)) = admin.await
        {
            tracing::warn!(%error, "the admin server did not end cleanly");
        }
    };
    let closed = tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_ok();
    match ended {
        Ended::Failed(error) => Err(error),
        Ended::Drained if closed => Ok(Stopped::Drained),
        Ended::Drained | Ended::TimedOut | Ended::Forced => Ok(Stopped::CutOff),
    }
}

async fn open_raftlog(config: &Config, data: &DataDir, open: OpenLog) -> Result<NodeLog, NodeError> {
    let storage = &config.storage;
    let options = LogOptions {
        queue_bytes: u32::try_from(storage.raftlog_queue_bytes.0).unwrap_or(u32::MAX),
        file_bytes: storage.raftlog_file_bytes.0,
        reclaim_bytes: storage.raftlog_max_bytes.0,
        ..LogOptions::default()
    };
    let dir = data.raftlog();
    blocking::aside(move || open(&dir, options))
        .await
        .map_err(|error| NodeError::Failed(format!("opening the Raft log did not finish: {error}")))?
        .map_err(NodeError::Log)
}

fn peer_options(config: &Config, data: &DataDir) -> PeerOptions {
    let server = &config.server;
    let window = u32::try_from(server.http2_stream_window_bytes.0).unwrap_or(u32::MAX);
    let batch = usize::try_from(config.limits.batch_bytes.0).unwrap_or(usize::MAX);
    let tuning = Tuning::default();
    PeerOptions {
        cluster_id: config.cluster.id,
        node_id: config.node.id,
        store_id: data.store_id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        grpc_address: config.advertised_grpc().as_str().to_owned(),
        admin_address: config.advertised_admin().as_str().to_owned(),
        lease: LeaseTerms {
            promise_ms: millis(config.raft.election_max),
            trust_ms: millis(config.raft.election_max.saturating_sub(config.raft.lease_margin)),
        },
        tuning: Tuning {
            keep_alive_interval_ms: millis(server.http2_keepalive_interval),
            keep_alive_timeout_ms: millis(server.http2_keepalive_timeout),
            // The largest entry, and room for what stands around it.
            max_message_bytes: tuning.max_message_bytes.max(batch.saturating_mul(2)),
            stream_window_bytes: window.max(tuning.stream_window_bytes),
            snapshot_bytes_per_second: Some(config.raft.snapshot_bytes_per_second.0),
            ..tuning
        },
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn coordinator_options(config: &Config) -> CoordinatorOptions {
    CoordinatorOptions {
        limits: config.request_limits(),
        txn_lock_ttl: config.txn.lock_ttl,
        scan_rows: config.limits.scan_rows,
        parking: ParkingLimits {
            requests: usize::try_from(config.limits.max_parked_requests).unwrap_or(usize::MAX),
            bytes: usize::try_from(config.limits.parked_bytes.0).unwrap_or(usize::MAX),
        },
        ..CoordinatorOptions::default()
    }
}

/// Completes if the node cannot go on: its server ended, its log failed, or the cluster does not want it.
async fn fail(
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    log: Arc<NodeLog>,
    announced: tokio::task::JoinHandle<Option<drover_kv::Error>>,
    mut replaced: tokio::sync::watch::Receiver<Option<drover_kv::Error>>,
) -> NodeError {
    let refused = async {
        match announced.await {
            Ok(Some(error)) => NodeError::Refused(error),
            // The node is being stopped.
            Ok(None) => std::future::pending().await,
            Err(error) => NodeError::Failed(format!("the node's announcements ended: {error}")),
        }
    };
    let replaced = async {
        match replaced.wait_for(Option::is_some).await.map(|known| known.clone()) {
            Ok(Some(error)) => NodeError::Refused(error),
            Ok(None) | Err(_) => std::future::pending().await,
        }
    };
    let log_failed = async {
        loop {
            if let Some(error) = log.failure() {
                return NodeError::Failed(format!("the Raft log of this node failed: {error}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        ended = server => match ended {
            Ok(Ok(())) => NodeError::Failed("the gRPC server ended by itself".to_owned()),
            Ok(Err(error)) => NodeError::Grpc(error),
            Err(error) => NodeError::Failed(format!("the gRPC server ended: {error}")),
        },
        error = log_failed => error,
        error = refused => error,
        error = replaced => error,
    }
}

/// The parts of a node that take part in its end.
struct Node {
    front: Arc<Front>,
    service: Arc<PeerService>,
    replicas: Arc<Replicas>,
    peers: Arc<PeerPool>,
    health: tonic_health::server::HealthReporter,
    /// Cancelled when the node begins to stop: from then on it is not healthy, whatever its replicas are.
    leaving: CancellationToken,
}

/// How often the health service is told whether the node is ready.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);

/// The services that the standard health service knows; the empty name is the node as a whole.
const SERVICES: [&str; 6] =
    ["", "drover.v1.Kv", "drover.v1.Txn", "drover.v1.Cluster", "drover.v1.Distribution", "drover.v1.Compat"];

async fn set_health(health: &tonic_health::server::HealthReporter, ready: bool) {
    let status = if ready { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}

/// Lets the standard health service say what `/readyz` says, until the node begins to stop.
async fn tell_health(health: tonic_health::server::HealthReporter, view: NodeView, leaving: CancellationToken) {
    let mut told = None;
    loop {
        let ready = crate::admin::Readiness::checks(&view).iter().all(|check| check.ok);
        if told != Some(ready) {
            set_health(&health, ready).await;
            told = Some(ready);
        }
        tokio::select! {
            () = leaving.cancelled() => return,
            () = tokio::time::sleep(HEALTH_INTERVAL) => {}
        }
    }
}

/// How long the others may take to hear that this node leaves, and to say whether they stay.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long handing over leadership may take before requests are refused all the same.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(5);

impl Drain for Node {
    fn drain(&self) -> BoxFuture<'_, ()> {
        async move {
            self.leaving.cancel();
            set_health(&self.health, false).await;
            // Of two nodes that begin to leave at the same time at least one hears of the other before it chooses a successor.
            let staying = self.peers.leave((Instant::now() + TELL_TIMEOUT).into()).await;
            let staying = Successors::Staying(&staying);
            self.replicas.hand_over(staying, HAND_OVER_TIMEOUT).await;
            self.front.drain().await;
            // What came here meanwhile, from a node that had not heard yet that this one leaves.
            self.replicas.hand_over(staying, HAND_OVER_TIMEOUT).await;
            self.service.idle().await;
        }
        .boxed()
    }
}

/// Where other nodes may be: those that the configuration names, and those that this node last knew.
fn seeds(config: &Config, data: &DataDir) -> Vec<String> {
    let me = config.advertised_grpc();
    let created = config.bootstrap.nodes.iter().map(|node| &node.grpc);
    let configured = created.chain(&config.cluster.join.0).map(|address| address.as_str().to_owned());
    let mut seeds: Vec<String> =
        configured.chain(data.known_nodes()).filter(|address| address != me.as_str()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    seeds
}
