//! Transactions over two groups with the real log and state machine, and a source of timestamps that does something while it
//! is asked.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::{Route, RouteMap, RouteState};
use drover_coordinator::txn::LockSweep;
use drover_coordinator::{Coordinator, CoordinatorOptions, Dispatcher, GroupDirectory, Replica, RouteCache};
use drover_fsm::moving::MoveStep;
use drover_fsm::{Command, FsmStateMachine, Grant, MoveCommand};
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::{
    CatalogVersion, ClusterId, End, GroupId, Interval, JobEpoch, JobId, NodeId, ReplicaId, RouteId, ShardId, StoreId,
};
use drover_kv::{
    Attempt, Error, Expectation, Mutation, Outcome, ReadAnswer, ReadOp, ReadSet, Reason, RollbackCause, TxnDecide,
    TxnId, TxnPrepare, TxnRef, TxnRollback, TxnStatus, TxnWrite, Update, WriteKind, WriteOp,
};
use drover_mvcc::{StoreEnv, StoreEnvOptions};
use drover_oracle::{OracleClient, OracleNetwork};
use drover_raftgroup::{Group, GroupOptions, GroupParts, TimestampSource};
use drover_raftlog::{LogOptions, NodeLog};
use drover_rafttypes::{ControlReply, Node};
use drover_transport::{LeaseTerms, PeerIdentities, PeerOptions, PeerPool, Tuning};
use drover_wire::CommitRequest;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Owns the keys below "m".
const LEFT: GroupId = GroupId(2);
/// Owns the others.
const RIGHT: GroupId = GroupId(3);
const V1: Option<CatalogVersion> = Some(CatalogVersion::FIRST);
const TTL: Duration = Duration::from_secs(10);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// What happens between the moment at which the coordinator's timestamp is fixed and the one at which it gets it.
type Hook = Box<dyn Fn(Timestamp) -> BoxFuture<'static, ()> + Send + Sync>;

/// Issues timestamps one after the other.
struct Clock {
    next: AtomicU64,
    hook: Mutex<Option<Arc<Hook>>>,
    /// Groups get no timestamps while this is set.
    held: watch::Sender<bool>,
    asked: watch::Sender<usize>,
}

impl Clock {
    fn issue(&self, count: u64) -> Timestamp {
        Timestamp::from_raw(self.next.fetch_add(count, Ordering::SeqCst))
    }

    /// Lets time pass, and a little more.
    fn advance(&self, by: Duration) {
        let now = Timestamp::from_raw(self.next.load(Ordering::SeqCst));
        let ms = now.physical().unix_ms() + u64::try_from(by.as_millis()).unwrap() + 1;
        self.next.store(Timestamp::new(PhysicalMs::new(ms).unwrap(), 0).raw(), Ordering::SeqCst);
    }
}

struct ForGroups(Arc<Clock>);

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

struct ForCoordinator(Arc<Clock>);

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
struct OverNetwork(Arc<Clock>);

impl OracleNetwork for OverNetwork {
    fn candidates(&self) -> Vec<NodeId> {
        vec![NodeId(1)]
    }

    fn ask(&self, _: NodeId, count: u32, _: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        std::future::ready(Ok(self.0.issue(u64::from(count)))).boxed()
    }
}

struct Fixture {
    coordinator: Arc<Coordinator>,
    clock: Arc<Clock>,
    groups: BTreeMap<GroupId, Arc<Group>>,
    _stop: tokio_util::sync::DropGuard,
    _log: NodeLog,
    _dir: tempfile::TempDir,
}

fn side(id: GroupId) -> Interval {
    match id {
        LEFT => Interval::new("", End::Key("m".into())).unwrap(),
        _ => Interval::new("m", End::Unbounded).unwrap(),
    }
}

async fn open(dir: &Path, id: GroupId, log: &NodeLog, clock: &Arc<Clock>, peers: &Arc<PeerPool>) -> Arc<Group> {
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
        options: GroupOptions { housekeeping_interval: Duration::from_secs(3_600), ..GroupOptions::default() },
    })
    .await
    .unwrap();
    group.run().await;
    group.initialize(BTreeMap::from([(1, Node::new("127.0.0.1:1", ReplicaId(1)))])).await.unwrap();
    group
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = NodeLog::open(&dir.path().join("log"), LogOptions::default()).unwrap();
        let options = PeerOptions {
            cluster_id: ClusterId([1; 16]),
            node_id: NodeId(1),
            store_id: StoreId([1; 16]),
            version: "test".to_owned(),
            grpc_address: String::new(),
            admin_address: String::new(),
            lease: LeaseTerms::default(),
            tuning: Tuning::default(),
        };
        let peers = PeerPool::new(options, PeerIdentities::open(dir.path().join("peers")).unwrap());
        let clock = Arc::new(Clock {
            next: AtomicU64::new(Timestamp::new(PhysicalMs::new(1_000_000).unwrap(), 1).raw()),
            hook: Mutex::new(None),
            held: watch::Sender::new(false),
            asked: watch::Sender::new(0),
        });
        let (stop, directory) = (CancellationToken::new(), Arc::new(GroupDirectory::default()));
        let (mut groups, mut routes) = (BTreeMap::new(), Vec::new());
        for id in [LEFT, RIGHT] {
            let group = open(dir.path(), id, &log, &clock, &peers).await;
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
        let options = CoordinatorOptions { txn_lock_ttl: TTL, ..CoordinatorOptions::default() };
        let source = Arc::new(ForCoordinator(Arc::clone(&clock)));
        let coordinator = Arc::new(Coordinator::new(dispatcher, source, options));
        Self { coordinator, clock, groups, _stop: stop.drop_guard(), _log: log, _dir: dir }
    }

    fn on_timestamp(&self, hook: impl Fn(Timestamp) -> BoxFuture<'static, ()> + Send + Sync + 'static) {
        *self.clock.hook.lock() = Some(Arc::new(Box::new(hook)));
    }

    fn group(&self, key: &str) -> Arc<Group> {
        Arc::clone(&self.groups[if key < "m" { &LEFT } else { &RIGHT }])
    }

    async fn put(&self, key: &'static str, value: &'static str) -> Result<Outcome, Error> {
        put(&self.group(key), key, value).await
    }

    /// The value of a key as of `at`, without seeing to locks.
    async fn value_at(&self, key: &'static str, at: Timestamp) -> Result<Option<Bytes>, Error> {
        read(&self.group(key), key, at).await
    }

    /// A timestamp that the coordinator knows to have been issued.
    async fn now(&self) -> Timestamp {
        self.coordinator.fresh(soon()).await.unwrap()
    }

    async fn commit(&self, request: CommitRequest) -> Result<Timestamp, Error> {
        self.coordinator.commit(request, soon()).await
    }

    /// Waits until no lock is left: those of a commit that failed go after it was answered.
    async fn unlocked(&self) {
        for group in self.groups.values() {
            let mut applied = group.fsm().applied_log_id();
            while group.fsm().state().locks > 0 {
                tokio::time::timeout_at(soon().into(), applied.changed()).await.expect("a lock is left").unwrap();
            }
        }
    }

    /// One attempt of another coordinator, which stops after its prepares.
    async fn prepare(&self, id: u8, start_ts: Timestamp, keys: &[&'static str]) -> TxnRef {
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
}

async fn write(group: &Group, kind: WriteKind) -> Result<Outcome, Error> {
    group.write(WriteOp { kind, observed_version: V1, idempotency: None }, soon()).await
}

async fn put(group: &Group, key: &'static str, value: &'static str) -> Result<Outcome, Error> {
    write(group, WriteKind::Put { key: key.into(), value: value.into(), ttl_ms: None }).await
}

async fn read(group: &Group, key: &'static str, at: Timestamp) -> Result<Option<Bytes>, Error> {
    match group.read(ReadOp::Get { key: key.into(), read_ts: Some(at) }, V1, soon()).await? {
        ReadAnswer::Get { version, .. } => Ok(version.map(|version| version.value)),
        other => panic!("{other:?}"),
    }
}

fn set(key: &'static str, value: &'static str) -> Mutation {
    Mutation { key: key.into(), update: Update::Put { value: value.into(), ttl_ms: None } }
}

fn request(id: u8, start_ts: Timestamp, mutations: Vec<Mutation>, reads: &[&'static str]) -> CommitRequest {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_changed_before_the_commit_timestamp_is_a_conflict() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    fixture.put("a", "changed").await.unwrap();
    let error = fixture.commit(request(1, start_ts, vec![set("z", "1")], &["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
    // With a snapshot from after the change, and once the lock of the first is gone, it comes through.
    fixture.unlocked().await;
    let start_ts = fixture.now().await;
    let commit_ts = fixture.commit(request(2, start_ts, vec![set("z", "1")], &["a"])).await.unwrap();
    assert_eq!(fixture.value_at("z", commit_ts).await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_between_refresh_and_commit_timestamp_is_noticed() {
    let fixture = Fixture::new().await;
    fixture.put("a", "read").await.unwrap();
    let start_ts = fixture.now().await;
    // Whenever the coordinator is on its way to a timestamp that is already fixed.
    let left = fixture.group("a");
    fixture.on_timestamp(move |_| {
        let left = Arc::clone(&left);
        async move { put(&left, "a", "changed").await.map(|_| ()).unwrap() }.boxed()
    });
    let commit_ts = fixture.commit(request(1, start_ts, vec![set("z", "1")], &["a"])).await.unwrap();
    assert_eq!(fixture.value_at("z", commit_ts).await.unwrap().unwrap(), "1");
    assert_eq!(fixture.value_at("a", commit_ts).await.unwrap().unwrap(), "read", "it rests on what was read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_was_read_while_locks_were_set_stays_as_it_was() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let (right, clock, seen) = (fixture.group("z"), Arc::clone(&fixture.clock), Arc::new(Mutex::new(Vec::new())));
    let notes = Arc::clone(&seen);
    fixture.on_timestamp(move |_| {
        let (right, clock, notes) = (Arc::clone(&right), Arc::clone(&clock), Arc::clone(&notes));
        async move {
            let at = clock.issue(1);
            let value = read(&right, "z", at).await;
            notes.lock().push((at, value));
        }
        .boxed()
    });
    fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await.unwrap();
    *fixture.clock.hook.lock() = None;
    // Not through the locks: they are versions by now.
    fixture.unlocked().await;
    let seen = std::mem::take(&mut *seen.lock());
    assert!(!seen.is_empty());
    for (at, before) in seen {
        match before {
            // A lock was in the way: nothing was served.
            Err(error) => assert_eq!(error.reason, Reason::Locked, "{error}"),
            Ok(before) => assert_eq!(fixture.coordinator_value("z", at).await, before, "at {at}"),
        }
    }
}

impl Fixture {
    /// The value of a key as of `at`, after seeing to locks.
    async fn coordinator_value(&self, key: &'static str, at: Timestamp) -> Option<Bytes> {
        let options = drover_wire::ReadOptions { read_ts: Some(at), timeout_ms: None };
        let get = drover_wire::Request::Get { key: key.into(), options };
        match self.coordinator.handle(get, soon()).await.unwrap() {
            drover_coordinator::Answer::Get { version, .. } => version.map(|version| version.value),
            other => panic!("{other:?}"),
        }
    }

    async fn status(&self, id: u8, primary: &'static str) -> TxnStatus {
        self.coordinator.txn_status(TxnId([id; 16]), &primary.into(), soon()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_answered_before_the_decision_is_in_the_log() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    // From the commit timestamp on the groups get none, so that nothing more gets into a log until they do.
    let clock = Arc::clone(&fixture.clock);
    fixture.on_timestamp(move |_| {
        clock.held.send_replace(true);
        std::future::ready(()).boxed()
    });
    let clock = Arc::clone(&fixture.clock);
    tokio::spawn(async move {
        clock.held.subscribe().wait_for(|held| *held).await.unwrap();
        let asked = *clock.asked.borrow();
        clock.asked.subscribe().wait_for(|now| *now > asked).await.unwrap();
        // Somebody who does not wait for the decision has answered long before this.
        tokio::time::sleep(Duration::from_millis(300)).await;
        clock.held.send_replace(false);
    });
    let commit_ts = fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await.unwrap();
    match fixture.status(1, "a").await {
        TxnStatus::Committed { commit_ts: recorded, .. } => assert_eq!(recorded, commit_ts),
        other => panic!("it was acknowledged, and is {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_sent_again_gets_the_first_answer_whatever_has_changed_since() {
    let fixture = Fixture::new().await;
    for (id, mutations) in [(1, vec![set("a", "1")]), (2, vec![set("a", "2"), set("z", "2")])] {
        let start_ts = fixture.now().await;
        let request = request(id, start_ts, mutations, &["b"]);
        let commit_ts = fixture.commit(request.clone()).await.unwrap();
        fixture.put("b", "changed").await.unwrap();
        for number in [1, 2, 3] {
            let again = CommitRequest { number, ..request.clone() };
            assert_eq!(fixture.commit(again).await, Ok(commit_ts), "{id}, {number}");
        }
        let other = CommitRequest { mutations: vec![set("a", "other")], number: 2, ..request };
        let error = fixture.commit(other).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnReused, false), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_later_attempt_is_certain_because_the_earlier_ones_are_settled_first() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    fixture.put("a", "changed").await.unwrap();
    for (id, mutations) in [(1, vec![set("b", "1")]), (2, vec![set("b", "1"), set("z", "1")])] {
        let second = CommitRequest { number: 2, ..request(id, start_ts, mutations.clone(), &["a"]) };
        let error = fixture.commit(second).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
        // The first attempt arrives late.
        let error = fixture.commit(request(id, start_ts, mutations, &[])).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnAborted, false), "{error}");
    }
    assert_eq!(fixture.coordinator_value("b", fixture.now().await).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_and_writers_settle_what_a_lost_coordinator_left_when_its_time_is_over() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let lost = fixture.prepare(7, start_ts, &["a", "z"]).await;
    // A read of a snapshot from before it does not care.
    assert_eq!(fixture.coordinator_value("z", start_ts).await, None);
    let (listed, _) = fixture.coordinator.prepared(Bytes::new(), 1_000, soon()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].lock.txn, listed[0].keys.len()), (lost, 2));
    assert!(matches!(listed[0].status, TxnStatus::Prepared { .. }));
    // Others wait, and end when their own time is over. Nothing has happened then.
    let shortly = Instant::now() + Duration::from_millis(100);
    let put = drover_wire::Request::Write {
        kind: WriteKind::Put { key: "z".into(), value: "put".into(), ttl_ms: None },
        options: drover_wire::WriteOptions::default(),
    };
    let error = fixture.coordinator.handle(put.clone(), shortly).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{error}");
    let error = fixture.coordinator.resolve_txn(lost.id, false, soon()).await.unwrap_err();
    assert_eq!(error.reason, Reason::FailedPrecondition, "{error}");
    let conflict = fixture.commit(request(8, start_ts, vec![set("b", ""), set("z", "")], &[])).await.unwrap_err();
    assert_eq!(conflict.reason, Reason::TxnConflict, "{conflict}");
    fixture.clock.advance(TTL);
    fixture.coordinator.handle(put, soon()).await.unwrap();
    assert_eq!(fixture.coordinator_value("z", fixture.now().await).await.unwrap(), "put");
    assert_eq!(fixture.coordinator_value("a", fixture.now().await).await, None);
    assert_eq!(fixture.status(7, "a").await, TxnStatus::RolledBack { through: lost.attempt });
    fixture.unlocked().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_are_tended_and_settled_by_hand_through_the_same_protocol() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    fixture.prepare(7, start_ts, &["a", "z"]).await;
    let forced = fixture.coordinator.resolve_txn(TxnId([7; 16]), true, soon()).await.unwrap();
    assert!(matches!(forced, TxnStatus::RolledBack { .. }));
    fixture.prepare(8, start_ts, &["a", "z"]).await;
    fixture.clock.advance(TTL);
    for group in fixture.groups.values() {
        fixture.coordinator.tend_locks(group, &mut LockSweep::default(), soon()).await.unwrap();
    }
    fixture.unlocked().await;
    assert!(matches!(fixture.status(8, "a").await, TxnStatus::RolledBack { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_request_remembers_while_it_waits_is_less_than_what_a_commit_does() {
    let fixture = Fixture::new().await;
    let put = drover_wire::Request::Write {
        kind: WriteKind::Put { key: "a".into(), value: "1".into(), ttl_ms: None },
        options: drover_wire::WriteOptions::default(),
    };
    let start_ts = fixture.now().await;
    let commit = fixture.coordinator.commit(request(1, start_ts, vec![set("a", "1")], &[]), soon());
    let put = fixture.coordinator.handle(put, soon());
    let (put, commit) = (size_of_val(&put), size_of_val(&commit));
    assert!(put < commit, "{put} bytes, {commit} for a commit");
}

/// Keys on both sides, `each` on either, those of the left group first.
fn keys_on_both_sides(each: usize) -> [Vec<Bytes>; 2] {
    ["a", "z"].map(|side| (0..each).map(|n| format!("{side}{n:06}").into()).collect())
}

impl Fixture {
    /// As [`Fixture::prepare`], with many keys by one entry for each group; the first key is the primary.
    async fn prepare_many(&self, id: u8, start_ts: Timestamp, keys: &[Vec<Bytes>; 2]) -> TxnRef {
        let txn = TxnRef { id: TxnId([id; 16]), attempt: Attempt { number: 1, coordinator: 1 } };
        for (group, keys_there) in [LEFT, RIGHT].into_iter().zip(keys) {
            let update = || Update::Put { value: "prepared".into(), ttl_ms: None };
            let prepare = TxnPrepare {
                txn,
                start_ts,
                primary: keys[0][0].clone(),
                fingerprint: 0,
                ttl_ms: u64::try_from(TTL.as_millis()).unwrap(),
                supersedes: false,
                mutations: keys_there.iter().map(|key| Mutation { key: key.clone(), update: update() }).collect(),
            };
            write(&self.groups[&group], WriteKind::Txn(Box::new(TxnWrite::Prepare(prepare)))).await.unwrap();
        }
        txn
    }

    /// How many locks there are, and how many entries have been applied.
    fn locks_and_entries(&self) -> (u64, u64) {
        let of = |group: &Arc<Group>| {
            let index = group.fsm().applied_log_id().borrow().unwrap().index;
            (group.fsm().state().locks, index)
        };
        self.groups.values().map(of).fold((0, 0), |sum, (locks, index)| (sum.0 + locks, sum.1 + index))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_locks_of_a_lost_coordinator_are_cleared_in_one_round_by_few_entries() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let keys = keys_on_both_sides(5_000);
    let lost = fixture.prepare_many(7, start_ts, &keys).await;
    let (locks, before) = fixture.locks_and_entries();
    assert_eq!(locks, 10_000);
    fixture.clock.advance(TTL);
    for group in fixture.groups.values() {
        fixture.coordinator.tend_locks(group, &mut LockSweep::default(), soon()).await.unwrap();
    }
    let (locks, after) = fixture.locks_and_entries();
    assert_eq!(locks, 0);
    // A thousand keys by each entry, and the rollback of the primary, which takes its own lock away.
    assert_eq!(after - before, 11);
    let primary = std::str::from_utf8(&keys[0][0]).unwrap().to_owned().leak();
    assert_eq!(fixture.status(7, primary).await, TxnStatus::RolledBack { through: lost.attempt });
    let rows = all_rows(&fixture).await.unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_locks_of_a_committed_transaction_become_versions_by_few_entries() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let keys = keys_on_both_sides(2_500);
    let txn = fixture.prepare_many(7, start_ts, &keys).await;
    let commit_ts = fixture.now().await;
    // Its coordinator is lost behind the commit point: the locks elsewhere are left, and so are the keys in the record.
    let (keys, remote) = (keys[0].clone(), keys[1].clone());
    let decide = TxnDecide { txn, start_ts, commit_ts, fingerprint: 0, keys, remote };
    write(&fixture.groups[&LEFT], WriteKind::Txn(Box::new(TxnWrite::Decide(decide)))).await.unwrap();
    let (locks, before) = fixture.locks_and_entries();
    assert_eq!(locks, 2_500);
    fixture.clock.advance(TTL);
    let right = &fixture.groups[&RIGHT];
    fixture.coordinator.tend_locks(right, &mut LockSweep::default(), soon()).await.unwrap();
    let (locks, after) = fixture.locks_and_entries();
    assert_eq!((locks, after - before), (0, 3));
    assert_eq!(all_rows(&fixture).await.unwrap(), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_in_either_direction_clears_thousands_of_locks_that_it_meets_by_few_entries() {
    for reverse in [false, true] {
        let fixture = Fixture::new().await;
        let start_ts = fixture.now().await;
        let keys = keys_on_both_sides(2_500);
        fixture.prepare_many(7, start_ts, &keys).await;
        let (_, before) = fixture.locks_and_entries();
        fixture.clock.advance(TTL);
        assert_eq!(rows_of_scan(&fixture, reverse).await.unwrap(), 0);
        let (locks, after) = fixture.locks_and_entries();
        assert_eq!(locks, 0);
        // On each side one alone, and the others by thousands; the rollback.
        assert!(after - before <= 9, "{} entries, reverse: {reverse}", after - before);
    }
}

/// How many rows a scan shows.
async fn rows_of_scan(fixture: &Fixture, reverse: bool) -> Result<u64, Error> {
    let scan = drover_wire::ScanPageRequest {
        interval: Interval::all(),
        reverse,
        keys_only: false,
        count_only: true,
        limits: drover_kv::ScanLimits::default(),
        cursor: None,
        options: drover_wire::ReadOptions::default(),
    };
    match fixture.coordinator.handle(drover_wire::Request::Scan(scan), soon()).await? {
        drover_coordinator::Answer::Scan { count, cursor: None, .. } => Ok(count),
        other => panic!("{other:?}"),
    }
}

async fn all_rows(fixture: &Fixture) -> Result<u64, Error> {
    rows_of_scan(fixture, false).await
}

impl Fixture {
    /// Tells how many timestamps the coordinator has asked for since.
    fn counting(&self) -> watch::Receiver<usize> {
        let (count, counted) = watch::channel(0);
        self.on_timestamp(move |_| {
            count.send_modify(|count| *count += 1);
            std::future::ready(()).boxed()
        });
        counted
    }

    /// Commits what another coordinator has prepared in the left group, at `commit_ts`.
    async fn decide(&self, txn: TxnRef, start_ts: Timestamp, keys: &[&'static str], commit_ts: Timestamp) {
        let keys = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        let decide = TxnDecide { txn, start_ts, commit_ts, fingerprint: 0, keys, remote: Vec::new() };
        let kind = WriteKind::Txn(Box::new(TxnWrite::Decide(decide)));
        assert_eq!(write(&self.groups[&LEFT], kind).await, Ok(Outcome::TxnCommitted { commit_ts }));
    }

    /// Waits until the outcome of a transaction is known, and tells it.
    async fn outcome(&self, id: u8, primary: &'static str) -> TxnStatus {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_takes_no_timestamp_that_was_issued_before_it_asked_for_one() {
    let fixture = Fixture::new().await;
    let network = Arc::new(OverNetwork(Arc::clone(&fixture.clock)));
    let options = CoordinatorOptions { txn_lock_ttl: TTL, ..CoordinatorOptions::default() };
    let dispatcher = Arc::clone(fixture.coordinator.dispatcher());
    let other = Arc::new(Coordinator::new(dispatcher, OracleClient::start(network), options));
    let start_ts = other.fresh(soon()).await.unwrap();
    // What is read here, elsewhere and later, must stay as it is.
    let at = fixture.now().await;
    assert_eq!(fixture.coordinator_value("z", at).await, None);
    let commit = request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[]);
    let commit_ts = other.commit(commit, soon()).await.unwrap();
    assert_eq!(fixture.coordinator_value("z", at).await, None, "read at {at}, committed at {commit_ts}");
    assert_eq!(fixture.coordinator_value("z", fixture.now().await).await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_meets_the_lock_of_an_earlier_transaction_is_a_conflict_at_once() {
    let fixture = Fixture::new().await;
    let earlier = fixture.now().await;
    let holder = fixture.prepare(7, earlier, &["a"]).await;
    let start_ts = fixture.now().await;
    // Waiting would take all the time that the caller allows: the holder does nothing more.
    let error = fixture.commit(request(8, start_ts, vec![set("z", "1")], &["a"])).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
    assert!(error.message.contains(&holder.id.to_string()), "{error}");
    assert!(matches!(fixture.outcome(8, "z").await, TxnStatus::RolledBack { .. }));
    assert_eq!(fixture.value_at("z", fixture.now().await).await.unwrap(), None);
    assert!(matches!(fixture.status(7, "a").await, TxnStatus::Prepared { .. }), "the holder is left alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_waits_for_the_lock_of_a_later_transaction_and_sees_what_it_commits() {
    let fixture = Fixture::new().await;
    // The holder gets its commit timestamp before the one that waits, or after it, or is rolled back.
    for (id, before, committed) in [(10, true, true), (20, false, true), (30, false, false)] {
        let start_ts = fixture.now().await;
        let later = fixture.now().await;
        let holder = fixture.prepare(id, later, &["a"]).await;
        let first = fixture.now().await;
        let mut counted = fixture.counting();
        let (coordinator, commit) =
            (Arc::clone(&fixture.coordinator), request(id + 1, start_ts, vec![set("z", "1")], &["a"]));
        let mut waiting = tokio::spawn(async move { coordinator.commit(commit, soon()).await });
        // It asks for its commit timestamp, and then, whenever it meets the lock, for what time it is.
        let early = tokio::select! {
            counted = counted.wait_for(|count| *count >= 2) => counted.map(|_| None).unwrap(),
            ended = &mut waiting => Some(ended.unwrap()),
        };
        *fixture.clock.hook.lock() = None;
        let holder_ts = if before { first } else { fixture.now().await };
        match committed {
            true => fixture.decide(holder, later, &["a"], holder_ts).await,
            false => {
                let rollback =
                    TxnRollback { txn: holder, start_ts: later, primary: "a".into(), cause: RollbackCause::Asked };
                let kind = WriteKind::Txn(Box::new(TxnWrite::Rollback(rollback)));
                assert_eq!(write(&fixture.groups[&LEFT], kind).await, Ok(Outcome::TxnRolledBack));
            }
        }
        let ended = match early {
            Some(ended) => ended,
            None => waiting.await.unwrap(),
        };
        match (before, ended) {
            (true, ended) => {
                let error = ended.expect_err("what it has read was changed below its commit timestamp");
                assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
            }
            (false, ended) => assert!(ended.unwrap() < holder_ts, "{id}"),
        }
        fixture.unlocked().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_has_expired_since_it_was_read_is_a_change_in_one_group_and_in_several() {
    let fixture = Fixture::new().await;
    let put = WriteKind::Put { key: "a".into(), value: "1".into(), ttl_ms: Some(1_000) };
    write(&fixture.groups[&LEFT], put).await.unwrap();
    let start_ts = fixture.now().await;
    assert_eq!(fixture.value_at("a", start_ts).await.unwrap().unwrap(), "1");
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(fixture.value_at("a", fixture.now().await).await.unwrap(), None);
    let scanned = ReadSet { keys: vec![], intervals: vec![Interval::new("a", End::Key("c".into())).unwrap()] };
    for (id, written) in [(1, "z"), (3, "b")] {
        for (id, read) in [(id, None), (id + 1, Some(scanned.clone()))] {
            let request = request(id, start_ts, vec![set(written, "1")], &["a"]);
            let reads = read.unwrap_or_else(|| request.reads.clone());
            let error = fixture.commit(CommitRequest { reads, ..request }).await.unwrap_err();
            assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{id}: {error}");
            fixture.unlocked().await;
        }
    }
    // It has expired before the snapshot: nothing has changed since.
    let start_ts = fixture.now().await;
    fixture.commit(request(5, start_ts, vec![set("z", "1")], &["a"])).await.unwrap();
}

/// Each kind of write to "a", and what "a" is after it, if the transaction in front of it has set it to "prepared".
fn writes_to_a() -> [(drover_wire::Request, Option<&'static str>); 5] {
    use drover_wire::{Request, WriteOptions};
    let put = |value: &'static str| Update::Put { value: value.into(), ttl_ms: None };
    let one = |kind| Request::Write { kind, options: WriteOptions::default() };
    let cas = |expect, value| one(WriteKind::CompareAndSet { key: "a".into(), expect, update: put(value) });
    let range = Interval::new("a", End::Key("b".into())).unwrap();
    [
        (one(WriteKind::Put { key: "a".into(), value: "put".into(), ttl_ms: None }), Some("put")),
        (one(WriteKind::Delete { key: "a".into() }), None),
        (cas(Expectation::Value("prepared".into()), "met"), Some("met")),
        (cas(Expectation::Absent, "not met"), Some("prepared")),
        (Request::DeleteRange { interval: range, cursor: None, options: WriteOptions::default() }, None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_single_keys_wait_for_a_foreign_lock_and_are_not_pending_meanwhile() {
    let fixture = Fixture::new().await;
    for (id, (kind, expect)) in (10..).zip(writes_to_a()) {
        let start_ts = fixture.now().await;
        let holder = fixture.prepare(id, start_ts, &["a"]).await;
        // Until their own time is over, and then nothing has happened. No timestamp was asked for.
        let (shortly, asked) = (Instant::now() + Duration::from_millis(50), *fixture.clock.asked.borrow());
        let error = fixture.coordinator.handle(kind.clone(), shortly).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{kind:?}: {error}");
        assert_eq!(*fixture.clock.asked.borrow(), asked, "{kind:?}");
        let mut counted = fixture.counting();
        let (coordinator, waiting) = (Arc::clone(&fixture.coordinator), kind.clone());
        let waiting = tokio::spawn(async move { coordinator.handle(waiting, soon()).await });
        // It was turned away, and asks what time it is because of the lock.
        counted.wait_for(|count| *count >= 1).await.unwrap();
        *fixture.clock.hook.lock() = None;
        assert_eq!(fixture.group("a").leadership().unwrap().pending.len(), 0, "{kind:?}");
        assert!(!waiting.is_finished(), "{kind:?}");
        let commit_ts = fixture.now().await;
        fixture.decide(holder, start_ts, &["a"], commit_ts).await;
        waiting.await.unwrap().unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(fixture.value_at("a", commit_ts).await.unwrap().unwrap(), "prepared", "{kind:?}");
        let after = fixture.value_at("a", fixture.now().await).await.unwrap();
        assert_eq!(after.as_deref(), expect.map(str::as_bytes), "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_one_entry_holds_no_locks_and_waits_for_those_of_others() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let holder = fixture.prepare(7, start_ts, &["a"]).await;
    let shortly = Instant::now() + Duration::from_millis(50);
    let blind = |id| request(id, start_ts, vec![set("a", "blind"), set("b", "blind")], &[]);
    let error = fixture.coordinator.commit(blind(8), shortly).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::Timeout, false), "{error}");
    let mut counted = fixture.counting();
    let (coordinator, waiting) = (Arc::clone(&fixture.coordinator), blind(9));
    let waiting = tokio::spawn(async move { coordinator.commit(waiting, soon()).await });
    counted.wait_for(|count| *count >= 1).await.unwrap();
    *fixture.clock.hook.lock() = None;
    let commit_ts = fixture.now().await;
    fixture.decide(holder, start_ts, &["a"], commit_ts).await;
    let blind_ts = waiting.await.unwrap().unwrap();
    assert!(blind_ts > commit_ts);
    assert_eq!(fixture.value_at("a", fixture.now().await).await.unwrap().unwrap(), "blind");
    let again = blind(9);
    let start_ts = fixture.now().await;
    let holder = fixture.prepare(10, start_ts, &["a"]).await;
    assert_eq!(fixture.commit(again).await, Ok(blind_ts), "its outcome is recorded, whatever is locked by now");
    // One that has read the key waits as well, for nothing.
    let mut counted = fixture.counting();
    let (coordinator, waiting) =
        (Arc::clone(&fixture.coordinator), request(11, start_ts, vec![set("b", "lost")], &["a"]));
    let waiting = tokio::spawn(async move { coordinator.commit(waiting, soon()).await });
    counted.wait_for(|count| *count >= 1).await.unwrap();
    *fixture.clock.hook.lock() = None;
    fixture.decide(holder, start_ts, &["a"], fixture.now().await).await;
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::TxnConflict, false), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unknown_at_the_deadline_is_settled_without_anybody_waiting_for_it() {
    let fixture = Fixture::new().await;
    for (id, mutations) in [(1, vec![set("a", "1")]), (2, vec![set("a", "1"), set("z", "1")])] {
        let start_ts = fixture.now().await;
        // An earlier attempt may have been committed; nothing gets into a log until after the deadline.
        fixture.clock.held.send_replace(true);
        let second = CommitRequest { number: 2, ..request(id, start_ts, mutations.clone(), &[]) };
        let shortly = Instant::now() + Duration::from_millis(100);
        let error = fixture.coordinator.commit(second, shortly).await.unwrap_err();
        assert!(error.is_unknown(), "{error}");
        assert!(error.message.contains(&TxnId([id; 16]).to_string()), "{error}");
        assert_eq!(fixture.status(id, "a").await, TxnStatus::Nothing);
        fixture.clock.held.send_replace(false);
        let outcome = fixture.outcome(id, "a").await;
        assert!(matches!(outcome, TxnStatus::RolledBack { .. }), "{outcome:?}");
        fixture.unlocked().await;
        // The earlier attempt arrives late.
        let error = fixture.commit(request(id, start_ts, mutations, &[])).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnAborted, false), "{error}");
        assert_eq!(fixture.coordinator_value("a", fixture.now().await).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_another_transaction_was_committed_under_is_refused_wherever_they_meet() {
    let fixture = Fixture::new().await;
    let start_ts = fixture.now().await;
    let commit_ts = fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await.unwrap();
    fixture.unlocked().await;
    let strangers = [
        ("the same primary, one group", vec![set("a", "2")]),
        ("the same primary, several groups", vec![set("a", "2"), set("y", "2")]),
        ("another primary, which the first one has written", vec![set("z", "2"), set("b", "2")]),
        ("another primary, and a key that the first one has written", vec![set("c", "2"), set("z", "2")]),
    ];
    for (case, mutations) in strangers {
        let start_ts = fixture.now().await;
        let error = fixture.commit(request(1, start_ts, mutations, &[])).await.unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::TxnReused, false), "{case}: {error}");
        fixture.unlocked().await;
    }
    for (key, expect) in [("a", Some("1")), ("z", Some("1")), ("b", None), ("c", None), ("y", None)] {
        let value = fixture.coordinator_value(key, fixture.now().await).await;
        assert_eq!(value.as_deref(), expect.map(str::as_bytes), "{key}");
    }
    assert_eq!(fixture.commit(request(1, start_ts, vec![set("a", "1"), set("z", "1")], &[])).await, Ok(commit_ts));
}

/// Moves the keys from "x" on away from the group on the right, as far as this step.
async fn move_step(group: &Group, epoch: u64, step: MoveStep) {
    let leadership = group.leadership().unwrap();
    let command = Command::Move(Box::new(MoveCommand { job: JobId(1), epoch: JobEpoch(epoch), step }));
    let reply = group.propose(&leadership, command.encode(leadership.term).unwrap(), soon()).await.unwrap();
    assert_eq!(reply, ControlReply::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn h45_who_holds_locks_waits_for_no_fence() {
    let fixture = Fixture::new().await;
    let right = fixture.group("z");
    let interval = Interval::new("x", End::Unbounded).unwrap();
    move_step(&right, 1, MoveStep::ArmMigration { interval, target: GroupId(9) }).await;
    move_step(&right, 1, MoveStep::ApplyWriteFence).await;
    let (coordinator, start_ts) = (Arc::clone(&fixture.coordinator), fixture.now().await);
    let both = request(7, start_ts, vec![set("a", "both"), set("z", "both")], &[]);
    let committing = tokio::spawn(async move { coordinator.commit(both, soon()).await });
    // A fence on the left would be waiting for the lock on "a" now; so does a write.
    let put = drover_wire::Request::Write {
        kind: WriteKind::Put { key: "b".into(), value: "x".into(), ttl_ms: None },
        options: drover_wire::WriteOptions::default(),
    };
    fixture.coordinator.handle(put, soon()).await.unwrap();
    let mut applied = fixture.group("a").fsm().applied_log_id();
    let patience = Instant::now() + Duration::from_secs(10);
    for locked in [true, false, true, false] {
        let until = |group: &Group| (group.fsm().state().locks > 0) == locked;
        while !until(&fixture.group("a")) {
            tokio::time::timeout_at(patience.into(), applied.changed())
                .await
                .expect("the lock neither comes nor goes")
                .unwrap();
        }
    }
    assert!(!committing.is_finished(), "it is waiting for the fence without locks");
    move_step(&right, 2, MoveStep::Clear).await;
    let commit_ts = committing.await.unwrap().unwrap();
    fixture.unlocked().await;
    assert_eq!(fixture.value_at("z", commit_ts).await.unwrap().unwrap(), "both");
}
