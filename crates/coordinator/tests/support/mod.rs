//! Two groups of one node with the real log and state machine, a coordinator before them, and a source of timestamps that does
//! something while it is asked.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

pub mod moving;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::{Route, RouteMap, RouteState};
use drover_coordinator::{Coordinator, CoordinatorOptions, Dispatcher, GroupDirectory, Replica, RouteCache};
use drover_fsm::{FsmStateMachine, Grant};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{CatalogVersion, ClusterId, End, GroupId, Interval, NodeId, ReplicaId, RouteId, ShardId, StoreId};
use drover_kv::{
    Attempt, Error, Mutation, Outcome, ReadAnswer, ReadOp, ReadSet, TxnDecide, TxnId, TxnPrepare, TxnRef, TxnStatus,
    TxnWrite, Update, WriteKind, WriteOp,
};
use drover_mvcc::{StoreEnv, StoreEnvOptions};
use drover_oracle::OracleNetwork;
use drover_raftgroup::{Group, GroupOptions, GroupParts, TimestampSource};
use drover_raftlog::{LogOptions, NodeLog};
use drover_rafttypes::Node;
use drover_transport::{PeerIdentities, PeerOptions, PeerPool};
use drover_wire::CommitRequest;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use moving::*;

/// Owns the keys below "m".
pub const LEFT: GroupId = GroupId(2);
/// Owns the others.
pub const RIGHT: GroupId = GroupId(3);
pub const V1: Option<CatalogVersion> = Some(CatalogVersion::FIRST);
pub const TTL: Duration = Duration::from_secs(10);

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// What happens between the moment at which the coordinator's timestamp is fixed and the one at which it gets it.
pub type Hook = Box<dyn Fn(Timestamp) -> BoxFuture<'static, ()> + Send + Sync>;

/// Issues timestamps one after the other.
pub struct Clock {
    pub next: AtomicU64,
    pub hook: Mutex<Option<Arc<Hook>>>,
    /// Groups get no timestamps while this is set.
    pub held: watch::Sender<bool>,
    pub asked: watch::Sender<usize>,
}

impl Clock {
    pub fn issue(&self, count: u64) -> Timestamp {
        Timestamp::from_raw(self.next.fetch_add(count, Ordering::SeqCst))
    }

    /// Lets time pass, and a little more.
    pub fn advance(&self, by: Duration) {
        let now = Timestamp::from_raw(self.next.load(Ordering::SeqCst));
        let ms = now.physical().unix_ms() + u64::try_from(by.as_millis()).unwrap() + 1;
        self.next.store(Timestamp::new(PhysicalMs::new(ms).unwrap(), 0).raw(), Ordering::SeqCst);
    }
}

pub struct ForGroups(Arc<Clock>);

impl TimestampSource for ForGroups {
    fn timestamps(&self, count: u32, _deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        let clock = Arc::clone(&self.0);
        clock.asked.send_modify(|asked| *asked += 1);
        let mut held = clock.held.subscribe();
        async move {
            held.wait_for(|held| !*held).await.unwrap();
            Ok(clock.issue(u64::from(count)))
        }
        .boxed()
    }
}

pub struct ForCoordinator(Arc<Clock>);

impl TimestampSource for ForCoordinator {
    fn timestamps(&self, count: u32, _deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        let clock = Arc::clone(&self.0);
        async move {
            let issued = clock.issue(u64::from(count));
            let hook = clock.hook.lock().clone();
            if let Some(hook) = hook {
                hook(issued).await;
            }
            Ok(issued)
        }
        .boxed()
    }
}

/// An oracle on another node, as an oracle client sees it.
pub struct OverNetwork(pub Arc<Clock>);

impl OracleNetwork for OverNetwork {
    fn candidates(&self) -> Vec<NodeId> {
        vec![NodeId(1)]
    }

    fn ask(&self, _: NodeId, count: u32, _: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        std::future::ready(Ok(self.0.issue(u64::from(count)))).boxed()
    }
}

pub struct Fixture {
    pub coordinator: Arc<Coordinator>,
    pub clock: Arc<Clock>,
    pub groups: BTreeMap<GroupId, Arc<Group>>,
    _stop: tokio_util::sync::DropGuard,
    _log: NodeLog,
    _dir: tempfile::TempDir,
}

pub fn side(id: GroupId) -> Interval {
    match id {
        LEFT => Interval::new("", End::Key("m".into())).unwrap(),
        _ => Interval::new("m", End::Unbounded).unwrap(),
    }
}

pub async fn open(
    dir: &Path,
    id: GroupId,
    log: &NodeLog,
    clock: &Arc<Clock>,
    peers: &Arc<PeerPool>,
    options: GroupOptions,
) -> Arc<Group> {
    let env = StoreEnv::new(StoreEnvOptions::default()).unwrap();
    let (state_machine, fsm) = FsmStateMachine::open(env, &dir.join(id.to_string()), id).unwrap();
    let group = Group::open(GroupParts {
        group: id,
        node: NodeId(1),
        log: log.group(id),
        state_machine,
        fsm,
        network: peers.raft_network(id),
        timestamps: Arc::new(ForGroups(Arc::clone(clock))),
        clock_lead: drover_raftgroup::clock_lead(),
        options: GroupOptions { housekeeping_interval: Duration::from_secs(3_600), ..options },
    })
    .await
    .unwrap();
    group.run().await;
    group.initialize(BTreeMap::from([(1, Node::new("127.0.0.1:1", ReplicaId(1)))])).await.unwrap();
    group
}

impl Fixture {
    pub async fn new() -> Self {
        let options = CoordinatorOptions { txn_lock_ttl: TTL, ..CoordinatorOptions::default() };
        Self::with(options, GroupOptions::default()).await
    }

    pub async fn with(options: CoordinatorOptions, group_options: GroupOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = NodeLog::open(&dir.path().join("log"), LogOptions::default()).unwrap();
        let peer_options = PeerOptions::new(ClusterId([1; 16]), NodeId(1), StoreId([1; 16]));
        let peers = PeerPool::new(peer_options, PeerIdentities::open(dir.path().join("peers")).unwrap());
        let clock = Arc::new(Clock {
            next: AtomicU64::new(Timestamp::new(PhysicalMs::new(1_000_000).unwrap(), 1).raw()),
            hook: Mutex::new(None),
            held: watch::Sender::new(false),
            asked: watch::Sender::new(0),
        });
        let (stop, directory) = (CancellationToken::new(), Arc::new(GroupDirectory::default()));
        let (mut groups, mut routes) = (BTreeMap::new(), Vec::new());
        for id in [LEFT, RIGHT] {
            let group = open(dir.path(), id, &log, &clock, &peers, group_options.clone()).await;
            let (route, shard) = (RouteId(id.0), ShardId(id.0));
            let grant = Grant { interval: side(id), route, shard, acquired_version: CatalogVersion::FIRST };
            tokio::spawn(Arc::clone(&group).run_duties(drover_raftgroup::granted(vec![grant]), stop.clone()));
            let mut applied = group.fsm().applied_log_id();
            while !group.fsm().state().bootstrapped || !group.is_leader() {
                let _ = tokio::time::timeout(Duration::from_millis(20), applied.changed()).await;
            }
            directory.set(id, Replica::Running(Arc::clone(&group)));
            directory.set_members(id, vec![NodeId(1)]);
            routes.push(Route { id: route, interval: side(id), group: id, shard, state: RouteState::Active });
            groups.insert(id, group);
        }
        let cache = RouteCache::new(RouteMap::new(CatalogVersion::FIRST, routes).unwrap());
        let dispatcher = Arc::new(Dispatcher::new(NodeId(1), directory, peers, cache));
        let source = Arc::new(ForCoordinator(Arc::clone(&clock)));
        let coordinator = Arc::new(Coordinator::new(dispatcher, source, options));
        Self { coordinator, clock, groups, _stop: stop.drop_guard(), _log: log, _dir: dir }
    }

    pub fn on_timestamp(&self, hook: impl Fn(Timestamp) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.clock.hook.lock() = Some(Arc::new(Box::new(hook)));
    }

    pub fn group(&self, key: &str) -> Arc<Group> {
        Arc::clone(&self.groups[if key < "m" { &LEFT } else { &RIGHT }])
    }

    pub async fn put(&self, key: &'static str, value: &'static str) -> Result<Outcome, Error> {
        put(&self.group(key), key, value).await
    }

    /// The value of a key as of `at`, without seeing to locks.
    pub async fn value_at(&self, key: &'static str, at: Timestamp) -> Result<Option<Bytes>, Error> {
        read(&self.group(key), key, at).await
    }

    /// A timestamp that the coordinator knows to have been issued.
    pub async fn now(&self) -> Timestamp {
        self.coordinator.fresh(soon()).await.unwrap()
    }

    pub async fn commit(&self, request: CommitRequest) -> Result<Timestamp, Error> {
        self.coordinator.commit(request, soon()).await
    }

    /// Waits until no lock is left: those of a commit that failed go after it was answered.
    pub async fn unlocked(&self) {
        for group in self.groups.values() {
            let mut applied = group.fsm().applied_log_id();
            while group.fsm().state().locks > 0 {
                tokio::time::timeout_at(soon().into(), applied.changed()).await.expect("a lock is left").unwrap();
            }
        }
    }

    /// One attempt of another coordinator, which stops after its prepares.
    pub async fn prepare(&self, id: u8, start_ts: Timestamp, keys: &[&'static str]) -> TxnRef {
        let txn = TxnRef { id: TxnId([id; 16]), attempt: Attempt { number: 1, coordinator: 1 } };
        for key in keys {
            let prepare = TxnPrepare {
                txn,
                start_ts,
                primary: keys[0].into(),
                fingerprint: 0,
                ttl_ms: u64::try_from(TTL.as_millis()).unwrap(),
                supersedes: false,
                mutations: vec![set(key, "prepared")],
            };
            let kind = WriteKind::Txn(Box::new(TxnWrite::Prepare(prepare)));
            write(&self.group(key), kind).await.unwrap();
        }
        txn
    }

    /// The value of a key as of `at`, after seeing to locks.
    pub async fn coordinator_value(&self, key: &'static str, at: Timestamp) -> Option<Bytes> {
        let options = drover_wire::ReadOptions { read_ts: Some(at), timeout_ms: None };
        let get = drover_wire::Request::Get { key: key.into(), options };
        match self.coordinator.handle(get, soon()).await.unwrap() {
            drover_coordinator::Answer::Get { version, .. } => version.map(|version| version.value),
            other => panic!("{other:?}"),
        }
    }

    pub async fn status(&self, id: u8, primary: &'static str) -> TxnStatus {
        self.coordinator.txn_status(TxnId([id; 16]), &primary.into(), soon()).await.unwrap()
    }

    /// Tells how many timestamps the coordinator has asked for since.
    pub fn counting(&self) -> watch::Receiver<usize> {
        let (count, counted) = watch::channel(0);
        self.on_timestamp(move |_| {
            count.send_modify(|count| *count += 1);
            std::future::ready(()).boxed()
        });
        counted
    }

    /// Commits what another coordinator has prepared in the left group, at `commit_ts`.
    pub async fn decide(&self, txn: TxnRef, start_ts: Timestamp, keys: &[&'static str], commit_ts: Timestamp) {
        let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        let decide = TxnDecide { txn, start_ts, commit_ts, fingerprint: 0, keys, remote: Vec::new() };
        let kind = WriteKind::Txn(Box::new(TxnWrite::Decide(decide)));
        assert_eq!(write(&self.groups[&LEFT], kind).await, Ok(Outcome::TxnCommitted { commit_ts }));
    }

    /// Waits until the outcome of a transaction is known, and tells it.
    pub async fn outcome(&self, id: u8, primary: &'static str) -> TxnStatus {
        let mut applied = self.group(primary).fsm().applied_log_id();
        loop {
            match self.status(id, primary).await {
                TxnStatus::Nothing | TxnStatus::Prepared { .. } => {
                    tokio::time::timeout_at(soon().into(), applied.changed()).await.expect("no outcome").unwrap();
                }
                outcome => return outcome,
            }
        }
    }
}

pub async fn write(group: &Group, kind: WriteKind) -> Result<Outcome, Error> {
    group.write(WriteOp { kind, observed_version: V1, idempotency: None }, soon()).await
}

pub async fn put(group: &Group, key: &'static str, value: &'static str) -> Result<Outcome, Error> {
    write(group, WriteKind::Put { key: key.into(), value: value.into(), ttl_ms: None }).await
}

pub async fn read(group: &Group, key: &'static str, at: Timestamp) -> Result<Option<Bytes>, Error> {
    match group.read(ReadOp::Get { key: key.into(), read_ts: Some(at) }, V1, soon()).await? {
        ReadAnswer::Get { version, .. } => Ok(version.map(|version| version.value)),
        other => panic!("{other:?}"),
    }
}

pub fn set(key: &'static str, value: &'static str) -> Mutation {
    Mutation { key: key.into(), update: Update::Put { value: value.into(), ttl_ms: None } }
}

pub fn request(id: u8, start_ts: Timestamp, mutations: Vec<Mutation>, reads: &[&'static str]) -> CommitRequest {
    CommitRequest {
        id: TxnId([id; 16]),
        number: 1,
        start_ts,
        mutations,
        reads: ReadSet {
            keys: reads.iter().map(|key| Bytes::from_static(key.as_bytes())).collect(),
            intervals: vec![],
        },
        timeout_ms: None,
    }
}
