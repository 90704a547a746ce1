//! One node with the default group and two groups that own keys, over the real log and state machine, and a migrator. What is
//! copied goes through this node's own service, which a test slows down or holds back.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::job::{JobEvent, JobOptions, SplitJob};
use drover_catalog::{
    Bootstrap, BootstrapNode, CatalogCommandKind, CatalogReply, CatalogSettings, MOVES_RANGES, MOVES_SINCE,
    RegisterNode, RequestId, Route, RouteMap, RouteState, StartJob,
};
use drover_coordinator::{Answer, Coordinator, CoordinatorOptions, Dispatcher, GroupDirectory, Replica, RouteCache};
use drover_fsm::moving::MoveStep;
use drover_fsm::{FsmStateMachine, Grant, decode_export, decode_import_request, encode_exported, encode_import_answer};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{
    CatalogVersion, ClusterId, End, GroupId, Interval, JobId, NodeId, ReplicaId, RouteId, ShardId, StoreId,
};
use drover_kv::{Error, WriteKind};
use drover_migrator::{Cluster, ClusterParts, Migrator, MigratorOptions};
use drover_mvcc::{StoreEnv, StoreEnvOptions};
use drover_raftgroup::{Group, GroupOptions, GroupParts, TimestampSource};
use drover_raftlog::{LogOptions, NodeLog};
use drover_rafttypes::Node;
use drover_transport::{NodeService, PeerIdentities, PeerOptions, PeerPool, RaftEndpoint};
use drover_wire::proto::v1;
use drover_wire::{Request, WriteOptions};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const ME: NodeId = NodeId(1);
/// Owns the keys below "m".
pub const LEFT: GroupId = GroupId(2);
/// Owns the others.
pub const RIGHT: GroupId = GroupId(3);
const GROUPS: [GroupId; 3] = [GroupId::DEFAULT, LEFT, RIGHT];
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub fn range(start: &'static str, end: &'static str) -> Interval {
    Interval::new(start, if end.is_empty() { End::Unbounded } else { End::Key(end.into()) }).unwrap()
}

/// Issues timestamps one after the other.
struct Clock(AtomicU64);

impl TimestampSource for Clock {
    fn timestamps(&self, count: u32, _deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        let first = Timestamp::from_raw(self.0.fetch_add(u64::from(count), Ordering::SeqCst));
        std::future::ready(Ok(first)).boxed()
    }
}

/// What this node does for the migrator.
pub struct Here {
    directory: Arc<GroupDirectory>,
    dir: PathBuf,
    /// How much longer it takes to take a portion in.
    pub import_takes: Duration,
    /// What is not taken in for now.
    pub held: watch::Sender<Held>,
    /// How many portions came here.
    pub came: AtomicUsize,
}

/// Which portions of a copy are held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Nothing,
    /// The one that closes the import.
    Last,
    All,
}

#[tonic::async_trait]
impl NodeService for Here {
    fn raft(&self, _: GroupId, _: ReplicaId) -> Option<Arc<dyn RaftEndpoint>> {
        None
    }

    async fn group_call(&self, _: v1::GroupRequest) -> v1::GroupResponse {
        unreachable!("groups are asked through the coordinator")
    }

    async fn timestamps(&self, _: u32) -> Result<Timestamp, Error> {
        unreachable!("timestamps are asked through the coordinator")
    }

    fn export(
        &self,
        request: v1::ExportRangeVersionsRequest,
    ) -> BoxStream<'static, Result<v1::ExportRangeVersionsResponse, Error>> {
        let request = decode_export(request).unwrap();
        let group = self.directory.serving(request.group).unwrap();
        group.export(request).map_ok(|portion| encode_exported(&portion)).boxed()
    }

    async fn import(&self, request: v1::ImportRangeVersionsRequest) -> Result<v1::ImportRangeVersionsResponse, Error> {
        self.came.fetch_add(1, Ordering::SeqCst);
        let group = self.directory.serving(GroupId(request.group_id))?;
        let command = decode_import_request(request)?;
        let last = matches!(&command.step, MoveStep::ImportChunk(chunk) if chunk.close.is_some());
        let passes = |held: &Held| *held == Held::Nothing || (*held == Held::Last && !last);
        self.held.subscribe().wait_for(passes).await.unwrap();
        tokio::time::sleep(self.import_takes).await;
        let import = group.import(command, soon()).await?;
        Ok(encode_import_answer(&import))
    }

    fn snapshot_staging_dir(&self, group: GroupId) -> PathBuf {
        self.dir.join(format!("snapshots-{group}"))
    }
}

pub struct Fixture {
    pub coordinator: Arc<Coordinator>,
    pub groups: BTreeMap<GroupId, Arc<Group>>,
    pub directory: Arc<GroupDirectory>,
    pub here: Arc<Here>,
    cluster: Arc<Cluster>,
    _stop: DropGuard,
    _log: NodeLog,
    _dir: tempfile::TempDir,
}

fn side(id: GroupId) -> Interval {
    if id == LEFT { range("", "m") } else { range("m", "") }
}

fn routes() -> Vec<Route> {
    let route = |id: GroupId| Route {
        id: RouteId(id.0),
        interval: side(id),
        group: id,
        shard: ShardId(id.0),
        state: RouteState::Active,
    };
    [LEFT, RIGHT].map(route).into()
}

async fn open(dir: &Path, id: GroupId, log: &NodeLog, clock: &Arc<Clock>, peers: &Arc<PeerPool>) -> Arc<Group> {
    let env = StoreEnv::new(StoreEnvOptions::default()).unwrap();
    let (state_machine, fsm) = FsmStateMachine::open(env, &dir.join(id.to_string()), id).unwrap();
    let group = Group::open(GroupParts {
        group: id,
        node: ME,
        log: log.group(id),
        state_machine,
        fsm,
        network: peers.raft_network(id),
        timestamps: Arc::clone(clock) as Arc<dyn TimestampSource>,
        clock_lead: drover_raftgroup::clock_lead(),
        options: GroupOptions { housekeeping_interval: Duration::from_secs(3_600), ..GroupOptions::default() },
    })
    .await
    .unwrap();
    group.run().await;
    group.initialize(BTreeMap::from([(ME.0, Node::new("127.0.0.1:1", ReplicaId(1)))])).await.unwrap();
    group
}

impl Fixture {
    /// `import_takes`: how much longer it takes to take a portion in.
    pub async fn new(import_takes: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = NodeLog::open(&dir.path().join("log"), LogOptions::default()).unwrap();
        let peer_options = PeerOptions::new(ClusterId([1; 16]), ME, StoreId([1; 16]));
        let peers = PeerPool::new(peer_options, PeerIdentities::open(dir.path().join("peers")).unwrap());
        let now = Timestamp::new(PhysicalMs::new(1_000_000).unwrap(), 1).raw();
        let clock = Arc::new(Clock(AtomicU64::new(now)));
        let (stop, directory) = (CancellationToken::new(), Arc::new(GroupDirectory::default()));
        let mut groups = BTreeMap::new();
        for id in GROUPS {
            let group = open(dir.path(), id, &log, &clock, &peers).await;
            let of_group = routes().into_iter().filter(|route| route.group == id);
            let grants = of_group.map(|route| Grant {
                interval: route.interval,
                route: route.id,
                shard: route.shard,
                acquired_version: CatalogVersion::FIRST,
            });
            let grants = drover_raftgroup::granted(grants.collect());
            tokio::spawn(Arc::clone(&group).run_duties(grants, stop.clone()));
            let mut applied = group.fsm().applied_log_id();
            while !group.fsm().state().bootstrapped || !group.is_leader() {
                let _ = tokio::time::timeout(Duration::from_millis(20), applied.changed()).await;
            }
            directory.set(id, Replica::Running(Arc::clone(&group)));
            directory.set_members(id, vec![ME]);
            groups.insert(id, group);
        }
        let cache = RouteCache::new(RouteMap::new(CatalogVersion::FIRST, routes()).unwrap());
        tokio::spawn(follow(Arc::clone(&groups[&GroupId::DEFAULT]), Arc::clone(&cache), stop.clone()));
        let dispatcher = Arc::new(Dispatcher::new(ME, Arc::clone(&directory), Arc::clone(&peers), cache));
        let coordinator = Arc::new(Coordinator::new(dispatcher, clock, CoordinatorOptions::default()));
        let here = Arc::new(Here {
            directory: Arc::clone(&directory),
            dir: dir.path().to_owned(),
            import_takes,
            held: watch::Sender::new(Held::Nothing),
            came: AtomicUsize::new(0),
        });
        let cluster = Cluster::new(ClusterParts {
            node: ME,
            coordinator: Arc::clone(&coordinator),
            peers,
            here: Arc::clone(&here) as Arc<dyn NodeService>,
        });
        let (_stop, _log, _dir) = (stop.drop_guard(), log, dir);
        let fixture = Self { coordinator, groups, directory, here, cluster, _stop, _log, _dir };
        fixture.found().await;
        fixture
    }

    /// Creates the catalog, and registers this node.
    async fn found(&self) {
        let address = BootstrapNode { address: "a:1".to_owned(), admin_address: "a:2".to_owned() };
        let bootstrap = Bootstrap {
            settings: CatalogSettings::default(),
            routes: routes(),
            groups: GROUPS.map(|id| (id, BTreeSet::from([ME]))).into(),
            nodes: BTreeMap::from([(ME, address)]),
        };
        self.catalog(CatalogCommandKind::Bootstrap(Box::new(bootstrap))).await;
        self.register(&[MOVES_RANGES]).await;
    }

    /// Registers this node as one that can do that.
    pub async fn register(&self, capabilities: &[&str]) {
        let register = RegisterNode {
            node: Some(ME),
            store: StoreId([1; 16]),
            address: "a:1".to_owned(),
            admin_address: "a:2".to_owned(),
            version: MOVES_SINCE,
            capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
        };
        self.catalog(CatalogCommandKind::RegisterNode(register)).await;
    }

    /// Drives jobs until the guard is dropped.
    pub fn drive(&self, options: MigratorOptions) -> DropGuard {
        let stop = CancellationToken::new();
        let migrator = Migrator::new(Arc::clone(&self.cluster), options);
        tokio::spawn(migrator.run(Arc::clone(self.default_group()), stop.clone()));
        stop.drop_guard()
    }

    pub fn default_group(&self) -> &Arc<Group> {
        &self.groups[&GroupId::DEFAULT]
    }

    pub async fn catalog(&self, kind: CatalogCommandKind) -> CatalogReply {
        let request = RequestId(rand::random());
        self.coordinator.catalog(request, "test".to_owned(), kind, soon()).await.unwrap()
    }

    /// Begins to move `interval` to `target`.
    pub async fn start(&self, interval: Interval, target: GroupId, options: JobOptions) -> JobId {
        let catalog = Arc::clone(&self.default_group().fsm().catalog().borrow());
        let (expected_version, route) = {
            let map = catalog.routes().unwrap();
            (map.version(), map.route_of(interval.start()).id)
        };
        let start = StartJob { expected_version, route, interval, target, options };
        match self.catalog(CatalogCommandKind::StartJob(start)).await {
            CatalogReply::Job(job) => job.id,
            other => panic!("{other:?}"),
        }
    }

    /// Somebody asks something of a job.
    pub async fn ask(&self, job: JobId, event: JobEvent) {
        self.catalog(CatalogCommandKind::JobEvent { job, epoch: None, event }).await;
    }

    /// Waits until a job is as it is wanted.
    pub async fn job(&self, id: JobId, is: impl Fn(&SplitJob) -> bool) -> SplitJob {
        let mut catalog = self.default_group().fsm().catalog();
        let wanted = catalog.wait_for(|catalog| catalog.job(id).is_some_and(|job| is(job)));
        let found = tokio::time::timeout_at(soon().into(), wanted).await.map(|known| Arc::clone(&known.unwrap()));
        match found {
            Ok(catalog) => SplitJob::clone(catalog.job(id).unwrap()),
            Err(_) => panic!("{:?}", self.default_group().fsm().catalog().borrow().job(id)),
        }
    }

    /// Waits until a group's state is as it is wanted.
    pub async fn state(&self, group: GroupId, is: impl Fn(&drover_fsm::GroupState) -> bool) {
        let group = &self.groups[&group];
        let mut applied = group.fsm().applied_log_id();
        while !is(&group.fsm().state()) {
            let changed = tokio::time::timeout_at(soon().into(), applied.changed());
            changed.await.unwrap_or_else(|_| panic!("{:?}", group.fsm().state().moves)).unwrap();
        }
    }

    /// What a job waits for, as its driver said last.
    pub fn waits_for(&self, job: JobId) -> String {
        self.directory.jobs().get(&[job]).pop().map(|known| known.waits_for).unwrap_or_default()
    }

    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<(), Error> {
        let kind = WriteKind::Put { key: key.into(), value: value.into(), ttl_ms: None };
        let request = Request::Write { kind, options: WriteOptions::default() };
        match self.coordinator.handle(request, soon()).await? {
            Answer::Written { .. } => Ok(()),
            other => panic!("{other:?}"),
        }
    }
}

/// Lets the coordinator know what becomes of the routes.
async fn follow(group: Arc<Group>, routes: Arc<RouteCache>, stop: CancellationToken) {
    let mut catalog = group.fsm().catalog();
    loop {
        routes.follow(&catalog.borrow_and_update());
        tokio::select! {
            () = stop.cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
        }
    }
}
