//! Several replicas of one group in one process. Messages go straight from one Raft to the other, if the link between
//! them is not cut and both take part.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use drover_fsm::{FsmStateMachine, Grant};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, Interval, NodeId, ReplicaId, RouteId, ShardId};
use drover_kv::{Error, Outcome, ReadAnswer, ReadOp, Reason, WriteOp};
use drover_mvcc::{StoreEnv, StoreEnvOptions};
use drover_raftgroup::{ClockLead, Group, GroupOptions, GroupParts, GroupRaft};
use drover_raftlog::{LogOptions, NodeLog};
use drover_rafttypes::{Node, SnapshotDir, TypeConfig, Vote};
use futures::StreamExt;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Script, Source, observed, put};

const GROUP: GroupId = GroupId(2);

/// Settings under which nobody stands for election by himself while a test is busy.
pub fn patient() -> GroupOptions {
    GroupOptions { election_min_ms: 1_000, election_max_ms: 2_500, lease_margin_ms: 200, ..GroupOptions::default() }
}

/// Who takes part, and which links are cut.
#[derive(Default)]
struct Links {
    rafts: Mutex<BTreeMap<u64, GroupRaft>>,
    cut: Mutex<BTreeSet<(u64, u64)>>,
    /// How many snapshots were sent.
    snapshots: AtomicUsize,
    delivered: AtomicU64,
}

impl Links {
    fn reach(&self, from: u64, to: u64) -> Result<GroupRaft, Unreachable<TypeConfig>> {
        let cut = self.cut.lock().contains(&(from.min(to), from.max(to)));
        let raft = self.rafts.lock().get(&to).cloned().filter(|_| !cut);
        raft.ok_or_else(|| Unreachable::from_string("the link is cut"))
    }
}

#[derive(Clone)]
struct Factory {
    from: u64,
    links: Arc<Links>,
}

struct Link {
    from: u64,
    to: u64,
    links: Arc<Links>,
}

impl RaftNetworkFactory<TypeConfig> for Factory {
    type Network = Link;

    async fn new_client(&mut self, to: u64, _node: &Node) -> Link {
        Link { from: self.from, to, links: Arc::clone(&self.links) }
    }
}

impl Link {
    /// Delivers a message and brings the answer back. A cut in between loses the answer.
    async fn call<T, E: std::error::Error + 'static>(
        &self,
        option: &RPCOption,
        deliver: impl AsyncFnOnce(GroupRaft) -> Result<T, E>,
    ) -> Result<T, Unreachable<TypeConfig>> {
        let raft = self.links.reach(self.from, self.to)?;
        self.links.delivered.fetch_add(1, Ordering::SeqCst);
        let answer = tokio::time::timeout(option.soft_ttl(), deliver(raft)).await;
        self.links.reach(self.from, self.to)?;
        answer.map_err(|error| Unreachable::new(&error))?.map_err(|error| Unreachable::new(&error))
    }
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(&option, async |raft| raft.append_entries(request).await).await?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(&option, async |raft| raft.vote(request).await).await?)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(&option, async |raft| raft.pre_vote(request).await).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotDir>,
        _cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let raft = self.links.reach(self.from, self.to)?;
        self.links.snapshots.fetch_add(1, Ordering::Relaxed);
        let copy = snapshot.snapshot.path().with_extension(format!("for-{}", self.to));
        copy_files(snapshot.snapshot.path(), &copy).map_err(|error| Unreachable::new(&error))?;
        let copy = SnapshotOf::<TypeConfig, SnapshotDir> { meta: snapshot.meta, snapshot: SnapshotDir::new(copy) };
        Ok(raft.install_full_snapshot(vote, copy).await.map_err(|error| Unreachable::new(&error))?)
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        Ok(self.call(&option, async |raft| raft.handle_transfer_leader(request).await).await?)
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(Duration::from_millis(10))))
    }
}

struct Replica {
    group: Arc<Group>,
    log: NodeLog,
    duties: JoinHandle<()>,
    stop: CancellationToken,
}

pub struct Cluster {
    pub script: Arc<Script>,
    dir: PathBuf,
    options: GroupOptions,
    links: Arc<Links>,
    replicas: BTreeMap<u64, Replica>,
    /// For how long the machine was suspended, in milliseconds.
    suspended_ms: Arc<AtomicU64>,
}

impl Cluster {
    /// Founds a group of `size` replicas in `dir`, and waits until all of them have applied what its first leader did.
    pub async fn found(dir: &std::path::Path, size: u64, options: GroupOptions) -> Self {
        let options = GroupOptions { housekeeping_interval: Duration::from_secs(3_600), ..options };
        let (script, links, replicas) = (Script::new(), Arc::default(), BTreeMap::new());
        let suspended_ms = Arc::default();
        let mut cluster = Self { script, dir: dir.to_owned(), options, links, replicas, suspended_ms };
        for id in 1..=size {
            cluster.start(id).await;
        }
        let voters = (1..=size).map(|id| (id, Node::new(format!("127.0.0.1:{id}"), ReplicaId(id)))).collect();
        cluster.group(1).initialize(voters).await.unwrap();
        let leader = cluster.written_by_leader(&(1..=size).collect::<Vec<_>>(), "founded", "").await;
        cluster.caught_up(leader).await;
        cluster
    }

    /// Starts a replica, which takes part when this returns.
    pub async fn start(&mut self, id: u64) {
        let dir = self.dir.join(id.to_string());
        let log = NodeLog::open(&made(&dir).join("log"), LogOptions::default()).unwrap();
        let env = StoreEnv::new(StoreEnvOptions::default()).unwrap();
        let (state_machine, fsm) = loop {
            match FsmStateMachine::open(env.clone(), &dir.join("state"), GROUP) {
                Ok(opened) => break opened,
                // The tasks of the replica that was stopped are still letting go of it.
                Err(error) if error.to_string().contains("in use") => {
                    tokio::time::sleep(Duration::from_millis(5)).await
                }
                Err(error) => panic!("{error}"),
            }
        };
        let group = Group::open(GroupParts {
            group: GROUP,
            node: NodeId(id),
            log: log.group(GROUP),
            state_machine,
            fsm,
            network: Factory { from: id, links: Arc::clone(&self.links) },
            timestamps: Arc::new(Source(Arc::clone(&self.script))),
            clock_lead: self.clock_lead(),
            options: self.options.clone(),
        })
        .await
        .unwrap();
        group.run().await;
        self.links.rafts.lock().insert(id, group.raft().clone());
        let grant = Grant {
            interval: Interval::all(),
            route: RouteId(1),
            shard: ShardId(1),
            acquired_version: CatalogVersion::FIRST,
        };
        let stop = CancellationToken::new();
        let duties = tokio::spawn(Arc::clone(&group).run_duties(drover_raftgroup::granted(vec![grant]), stop.clone()));
        self.replicas.insert(id, Replica { group, log, duties, stop });
    }

    fn clock_lead(&self) -> ClockLead {
        let suspended_ms = Arc::clone(&self.suspended_ms);
        Arc::new(move || Duration::from_millis(suspended_ms.load(Ordering::SeqCst)))
    }

    /// Lets the machine have been suspended: clocks that count that are ahead by so much more.
    #[allow(dead_code, reason = "only some of the tests that share this file do so")]
    pub fn suspend(&self, time: Duration) {
        self.suspended_ms.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Stops a replica. What it has on disk stays.
    pub async fn stop(&mut self, id: u64) {
        self.links.rafts.lock().remove(&id);
        let Replica { group, log, duties, stop } = self.replicas.remove(&id).unwrap();
        stop.cancel();
        duties.await.unwrap();
        group.shutdown().await;
        drop(group);
        log.close().unwrap();
    }

    pub async fn close(mut self) {
        for id in self.replicas.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }

    pub fn cut(&self, a: u64, b: u64) {
        self.links.cut.lock().insert((a.min(b), a.max(b)));
    }

    /// How many messages have been delivered.
    pub fn delivered(&self) -> u64 {
        self.links.delivered.load(Ordering::SeqCst)
    }

    pub fn heal(&self) {
        self.links.cut.lock().clear();
    }

    /// How many snapshots were sent.
    #[allow(dead_code, reason = "only some of the tests that share this file ask")]
    pub fn snapshots(&self) -> usize {
        self.links.snapshots.load(Ordering::Relaxed)
    }

    pub fn group(&self, id: u64) -> &Arc<Group> {
        &self.replicas[&id].group
    }

    /// The leader, and the two others.
    pub fn roles(&self) -> [u64; 3] {
        let leader = self.replicas.keys().copied().find(|id| self.group(*id).is_leader()).unwrap();
        let mut others = self.replicas.keys().copied().filter(|id| *id != leader);
        [leader, others.next().unwrap(), others.next().unwrap()]
    }

    /// Waits until one of `ids` leads and has written `key`, and returns it.
    pub async fn written_by_leader(&self, ids: &[u64], key: &str, value: &str) -> u64 {
        loop {
            let leads = ids.iter().copied().find(|id| self.group(*id).is_leader());
            match leads {
                None => tokio::time::sleep(Duration::from_millis(10)).await,
                Some(leader) => match self.put(leader, key, value).await {
                    Ok(_) => return leader,
                    // Elections may follow upon each other, and a new group owns nothing yet.
                    Err(error) if matches!(error.reason, Reason::NotLeader | Reason::RouteMoved) => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    Err(error) => panic!("{error}"),
                },
            }
        }
    }

    /// Lets `candidate` stand for election as soon as its own promises permit, and again until it or another one of
    /// `ids` leads and has written `key`; returns that one.
    pub async fn elected(&self, candidate: u64, ids: &[u64], key: &str, value: &str) -> u64 {
        tokio::select! {
            leader = self.written_by_leader(ids, key, value) => leader,
            () = self.stand(candidate, ids) => unreachable!("it goes on for ever"),
        }
    }

    /// As [`Cluster::elected`], without a write: until `candidate` leads.
    pub async fn leads(&self, candidate: u64) {
        let only = [candidate];
        tokio::select! {
            _ = self.group(candidate).led() => {}
            () = self.stand(candidate, &only) => unreachable!("it goes on for ever"),
        }
    }

    /// Lets `candidate` stand for election whenever none of `ids` leads.
    async fn stand(&self, candidate: u64, ids: &[u64]) {
        loop {
            if !ids.iter().any(|id| self.group(*id).is_leader()) {
                self.group(candidate).raft().trigger().elect(true).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every replica has applied what `leader` has.
    pub async fn caught_up(&self, leader: u64) {
        let reached = *self.group(leader).fsm().applied_log_id().borrow();
        for replica in self.replicas.values() {
            replica.group.fsm().applied_log_id().wait_for(|applied| *applied >= reached).await.unwrap();
        }
    }

    pub async fn put(&self, id: u64, key: &str, value: &str) -> Result<Timestamp, Error> {
        let op = WriteOp { kind: put(key, value), observed_version: observed(), idempotency: None };
        match self.group(id).write(op, super::soon()).await? {
            Outcome::Written { commit_ts } => Ok(commit_ts),
            other => panic!("a put was answered with {other:?}"),
        }
    }

    /// What a replica serves as the latest value of a key within `patience`.
    pub async fn get(&self, id: u64, key: &str, patience: Duration) -> Result<Option<String>, Error> {
        let op = ReadOp::Get { key: key.to_owned().into(), read_ts: None };
        match self.group(id).read(op, observed(), Instant::now() + patience).await? {
            ReadAnswer::Get { version, .. } => Ok(version.map(|v| String::from_utf8(v.value.to_vec()).unwrap())),
            other => panic!("a get was answered with {other:?}"),
        }
    }
}

/// The files of a checkpoint lie next to each other.
fn copy_files(from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

fn made(dir: &std::path::Path) -> &std::path::Path {
    std::fs::create_dir_all(dir).unwrap();
    dir
}
