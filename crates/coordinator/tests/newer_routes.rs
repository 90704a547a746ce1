//! A coordinator that knows an old map, before a node whose groups own their keys since a newer one.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::{Route, RouteDelta, RouteMap, RouteState};
use drover_coordinator::{Answer, Coordinator, CoordinatorOptions, Dispatcher, GroupDirectory, RouteCache};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, ClusterId, End, GroupId, Interval, NodeId, ReplicaId, RouteId, ShardId, StoreId};
use drover_kv::{Entry, Error, Outcome, ReadAnswer, ReadOp, Reason, ScanLimits, ScanPage, Versioned, WriteKind};
use drover_raftgroup::TimestampSource;
use drover_transport::{
    InternalServer, LeaseTerms, NodeService, PeerIdentities, PeerOptions, PeerPool, RaftEndpoint, Tuning,
    server_builder,
};
use drover_wire::proto::v1;
use drover_wire::{
    GroupAnswer, GroupOp, ReadOptions, Request, ScanPageRequest, WriteOptions, decode_group_request,
    encode_group_response, encode_route_delta,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

const ME: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
const LEFT: GroupId = GroupId(2);
const RIGHT: GroupId = GroupId(3);
const OLD: CatalogVersion = CatalogVersion(1);
const NEW: CatalogVersion = CatalogVersion(2);
const KEYS: [&str; 4] = ["a", "k", "m", "z"];

fn route(id: u64, group: GroupId, start: &'static str, end: Option<&'static str>) -> Route {
    let end = end.map_or(End::Unbounded, |end| End::Key(end.into()));
    let (interval, shard) = (Interval::new(start, end).unwrap(), ShardId(group.0));
    Route { id: RouteId(id), interval, group, shard, state: RouteState::Active }
}

/// One group has everything.
fn old_map() -> RouteMap {
    RouteMap::new(OLD, vec![route(1, LEFT, "", None)]).unwrap()
}

/// From "m" on another one has it.
fn delta() -> Arc<RouteDelta> {
    let upserted = vec![route(1, LEFT, "", Some("m")), route(2, RIGHT, "m", None)];
    Arc::new(RouteDelta { version: NEW, removed: Vec::new(), upserted })
}

/// The node of both groups. It refuses what was not routed by the new map.
struct Peer {
    /// Whether its refusals bring the change.
    tells: bool,
    /// Group and version of each request.
    asked: Mutex<Vec<(GroupId, CatalogVersion)>>,
}

impl Peer {
    fn version_of(op: &GroupOp) -> CatalogVersion {
        match op {
            GroupOp::Write(op) => op.observed_version.unwrap(),
            GroupOp::Read { observed_version, .. } => observed_version.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn answer(group: GroupId, op: GroupOp) -> GroupAnswer {
        let map = old_map().apply(&delta()).unwrap();
        let own = |key: &[u8]| assert_eq!(map.route_of(key).group, group, "{key:?} is not of this group");
        match op {
            GroupOp::Write(op) => {
                own(op.kind.record_key());
                GroupAnswer::Written(Outcome::Written { commit_ts: at(7) })
            }
            GroupOp::Read { op: ReadOp::BatchGet { keys, .. }, .. } => {
                keys.iter().for_each(|key| own(key));
                let versions = keys.into_iter().map(|key| Some(version(key))).collect();
                GroupAnswer::Read(ReadAnswer::BatchGet { versions })
            }
            GroupOp::Read { op: ReadOp::Scan(scan), .. } => {
                assert!(map.intersecting(&scan.interval).all(|route| route.group == group), "{:?}", scan.interval);
                let within = KEYS.iter().filter(|key| scan.interval.contains(key.as_bytes()));
                let mut entries: Vec<Entry> = within.map(|&key| entry(key)).collect();
                if scan.reverse {
                    entries.reverse();
                }
                GroupAnswer::Read(ReadAnswer::Scan(ScanPage { count: entries.len() as u64, entries, cursor: None }))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn at(raw: u64) -> Timestamp {
    Timestamp::from_raw(raw)
}

fn version(value: Bytes) -> Versioned {
    Versioned { value, commit_ts: at(3), expire_at: None }
}

fn entry(key: &'static str) -> Entry {
    Entry { key: key.into(), version: version(key.into()) }
}

#[tonic::async_trait]
impl NodeService for Peer {
    fn raft(&self, _group: GroupId, _replica: ReplicaId) -> Option<Arc<dyn RaftEndpoint>> {
        None
    }

    async fn group_call(&self, request: v1::GroupRequest) -> v1::GroupResponse {
        let call = decode_group_request(request).unwrap();
        let routed_by = Self::version_of(&call.op);
        self.asked.lock().push((call.group, routed_by));
        if routed_by >= NEW {
            return encode_group_response(Ok(Self::answer(call.group, call.op)));
        }
        let stale = Error::definite(Reason::StaleRoute, "owned since version 2; nothing happened");
        let newer_routes = if self.tells { vec![encode_route_delta(&delta())] } else { Vec::new() };
        v1::GroupResponse { newer_routes, ..encode_group_response(Err(stale)) }
    }

    async fn timestamps(&self, _count: u32) -> Result<Timestamp, Error> {
        Err(Error::definite(Reason::NotLeader, "no oracle here"))
    }

    fn export(
        &self,
        _request: v1::ExportRangeVersionsRequest,
    ) -> BoxStream<'static, Result<v1::ExportRangeVersionsResponse, Error>> {
        unreachable!("nothing moves")
    }

    async fn import(&self, _request: v1::ImportRangeVersionsRequest) -> Result<v1::ImportRangeVersionsResponse, Error> {
        unreachable!("nothing moves")
    }

    fn snapshot_staging_dir(&self, group: GroupId) -> PathBuf {
        panic!("no snapshot of group {group} is sent")
    }
}

/// Issues always the same timestamp.
struct Standing;

impl TimestampSource for Standing {
    fn timestamps(&self, _count: u32, _deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        Box::pin(std::future::ready(Ok(at(1_000))))
    }
}

/// A coordinator that knows the old map, and the node it talks to.
struct World {
    coordinator: Arc<Coordinator>,
    peer: Arc<Peer>,
    server: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    async fn start(tells: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pool = |node: NodeId| {
            let identities = PeerIdentities::open(dir.path().join(format!("peers-{node}"))).unwrap();
            PeerPool::new(options(node), identities)
        };
        let peer = Arc::new(Peer { tells, asked: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let internal = InternalServer::new(pool(PEER), Arc::<Peer>::clone(&peer));
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            server_builder(&Tuning::default()).add_service(internal).serve_with_incoming(incoming).await.unwrap();
        });
        let peers = pool(ME);
        peers.set_address(PEER, &address);
        let directory = Arc::new(GroupDirectory::default());
        [LEFT, RIGHT].into_iter().for_each(|group| directory.set_members(group, vec![PEER]));
        let dispatcher = Dispatcher::new(ME, directory, peers, RouteCache::new(old_map()));
        let coordinator = Coordinator::new(Arc::new(dispatcher), Arc::new(Standing), CoordinatorOptions::default());
        Self { coordinator: Arc::new(coordinator), peer, server, _dir: dir }
    }

    async fn handle(&self, request: Request, limit: Duration) -> Result<Answer, Error> {
        self.coordinator.handle(request, Instant::now() + limit).await
    }

    fn asked(&self) -> Vec<(GroupId, CatalogVersion)> {
        self.peer.asked.lock().clone()
    }
}

fn options(node_id: NodeId) -> PeerOptions {
    PeerOptions {
        lease: LeaseTerms { promise_ms: 600, trust_ms: 500 },
        tuning: Tuning { reconnect_min_ms: 10, reconnect_max_ms: 100, ..Tuning::default() },
        ..PeerOptions::new(ClusterId([1; 16]), node_id, StoreId([node_id.0 as u8; 16]))
    }
}

fn put(key: &'static str) -> Request {
    let kind = WriteKind::Put { key: key.into(), value: "v".into(), ttl_ms: None };
    // Without a name of the write: a refusal is certain, so that it may be sent again all the same.
    Request::Write { kind, options: WriteOptions { idempotency: None, timeout_ms: None } }
}

fn batch_get() -> Request {
    let keys = KEYS.iter().map(|&key| key.into()).collect();
    Request::BatchGet { keys, options: ReadOptions { read_ts: None, timeout_ms: None } }
}

fn scan(reverse: bool) -> Request {
    Request::Scan(ScanPageRequest {
        interval: Interval::all(),
        reverse,
        keys_only: false,
        count_only: false,
        limits: ScanLimits::default(),
        cursor: None,
        options: ReadOptions { read_ts: None, timeout_ms: None },
    })
}

/// Every kind of request, what it comes to, and where it goes by the new map.
fn table() -> [(Request, Answer, Vec<GroupId>); 5] {
    let read_ts = at(1_000);
    let entries: Vec<Entry> = KEYS.iter().map(|&key| entry(key)).collect();
    let page = |entries: Vec<Entry>| Answer::Scan { count: 4, entries, cursor: None, read_ts };
    let written = || Answer::Written(Outcome::Written { commit_ts: at(7) });
    let versions = KEYS.iter().map(|&key| Some(version(key.into()))).collect();
    let backwards = entries.iter().rev().cloned().collect();
    [
        (put("a"), written(), vec![LEFT]),
        (put("z"), written(), vec![RIGHT]),
        (batch_get(), Answer::BatchGet { versions, read_ts }, vec![LEFT, RIGHT]),
        (scan(false), page(entries), vec![LEFT, RIGHT]),
        (scan(true), page(backwards), vec![RIGHT, LEFT]),
    ]
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_refusal_brings_the_newer_map_and_every_request_is_routed_anew_by_it() {
    for (request, expect, groups) in table() {
        let world = World::start(true).await;
        assert_eq!(world.handle(request.clone(), PATIENCE).await.unwrap(), expect, "{request:?}");
        assert_eq!(world.coordinator.routes().current().version(), NEW, "the change was taken");
        let mut asked = world.asked();
        assert_eq!(asked.remove(0), (LEFT, OLD), "{request:?}: by the old map everything is there");
        // Groups are read side by side where the order does not matter.
        if matches!(request, Request::BatchGet { .. }) {
            asked.sort();
        }
        assert_eq!(asked, groups.into_iter().map(|group| (group, NEW)).collect::<Vec<_>>(), "{request:?}");
    }
}

#[tokio::test]
async fn a_newer_map_that_comes_another_way_is_waited_for_and_asked_for() {
    for (request, expect, _) in table() {
        let world = World::start(false).await;
        let routes = Arc::clone(world.coordinator.routes());
        let feeding = async {
            // Whoever feeds the cache hurries when somebody wants more than there is.
            let mut wanted = routes.wanted();
            tokio::time::timeout(PATIENCE, wanted.wait_for(|wanted| *wanted >= NEW)).await.unwrap().unwrap();
            routes.advance(&delta()).unwrap();
        };
        let (answer, ()) = tokio::join!(world.handle(request.clone(), PATIENCE), feeding);
        assert_eq!(answer.unwrap(), expect, "{request:?}");
        let (first, last) = (world.asked()[0], *world.asked().last().unwrap());
        assert_eq!((first.1, last.1), (OLD, NEW), "{request:?}");
    }
}

#[tokio::test]
async fn a_coordinator_that_never_catches_up_tries_until_the_deadline() {
    for (request, _, _) in table() {
        let world = World::start(false).await;
        let error = world.handle(request.clone(), Duration::from_millis(600)).await.unwrap_err();
        // The deadline may fall into the last attempt, whose answer then counts as lost: only that leaves a write unknown.
        let cut_off = error.reason == Reason::TimeoutIndefinite && matches!(request, Request::Write { .. });
        assert!(error.reason == Reason::Timeout || cut_off, "{request:?}: {error}");
        assert_eq!(error.is_unknown(), cut_off, "{request:?}: {error}");
        let asked = world.asked();
        // The same map may be right the next time: the refusal may have come from a replica that lags.
        assert!(asked.len() > 1 && asked.iter().all(|asked| *asked == (LEFT, OLD)), "{request:?}: {asked:?}");
        // Pauses grow: a busy loop would have asked thousands of times.
        assert!(asked.len() < 100, "{request:?}: {}", asked.len());
    }
}
