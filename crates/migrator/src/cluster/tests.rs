//! Who is asked for a group: whoever answered as its leader last, for as long as that is right; for rows another one as well when the
//! first takes its time.

use std::path::PathBuf;
use std::sync::Mutex;

use drover_catalog::{Route, RouteMap, RouteState};
use drover_coordinator::{CoordinatorOptions, Dispatcher, RouteCache};
use drover_fsm::moving::{Chunk, ChunkRows, ExportRows, MoveStep};
use drover_fsm::{encode_exported, encode_import_answer, encode_move_facts};
use drover_keys::{CatalogVersion, ClusterId, ReplicaId, RouteId, ShardId, StoreId};
use drover_mvcc::{ExportBudget, RowSum};
use drover_raftgroup::TimestampSource;
use drover_transport::{InternalServer, LeaseTerms, PeerIdentities, PeerOptions, RaftEndpoint, Tuning, server_builder};
use drover_wire::proto::v1;
use drover_wire::{decode_group_request, encode_group_response};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

const ME: NodeId = NodeId(1);
const PEERS: [NodeId; 3] = [NodeId(2), NodeId(3), NodeId(4)];
const GROUP: GroupId = GroupId(7);
const JOB: JobId = JobId(5);

/// The nodes of a group, one of which leads it.
struct Nodes {
    leader: Mutex<NodeId>,
    /// Whether the others know who that is.
    known: bool,
    asked: Mutex<Vec<u64>>,
    /// Somebody else than the first one was asked for rows.
    hedged: Notify,
}

/// One of them.
struct Peer {
    node: NodeId,
    nodes: Arc<Nodes>,
}

impl Peer {
    fn answer<T>(&self, answer: T) -> Result<T, Error> {
        self.nodes.asked.lock().unwrap().push(self.node.0);
        let leader = *self.nodes.leader.lock().unwrap();
        if leader == self.node {
            return Ok(answer);
        }
        let error = Error::definite(Reason::NotLeader, "this replica does not lead the group; nothing happened");
        Err(error.leader_hint(self.nodes.known.then_some(leader)))
    }
}

#[tonic::async_trait]
impl NodeService for Peer {
    fn raft(&self, _: GroupId, _: ReplicaId) -> Option<Arc<dyn RaftEndpoint>> {
        None
    }

    async fn group_call(&self, request: v1::GroupRequest) -> v1::GroupResponse {
        let call = decode_group_request(request).unwrap();
        assert!(matches!(call.op, GroupOp::ObserveMove { job: JOB }), "{:?}", call.op);
        encode_group_response(self.answer(GroupAnswer::MoveFacts(encode_move_facts(&MoveFacts::default()))))
    }

    async fn timestamps(&self, _: u32) -> Result<Timestamp, Error> {
        unreachable!("nobody needs a timestamp")
    }

    /// The first one has rows when another one was asked as well; the others never have.
    fn export(
        &self,
        _: v1::ExportRangeVersionsRequest,
    ) -> BoxStream<'static, Result<v1::ExportRangeVersionsResponse, Error>> {
        self.nodes.asked.lock().unwrap().push(self.node.0);
        if self.node != PEERS[0] {
            self.nodes.hedged.notify_one();
            return stream::pending().boxed();
        }
        let (nodes, rows) = (Arc::clone(&self.nodes), ChunkRows::Tracked { from: 0, to: 0, rows: Vec::new() });
        let chunk = Chunk { armed_at: self.node.0, rows, close: None };
        let portion = encode_exported(&Exported { chunk, done: true, change: RowSum::default() });
        let once_hedged = async move {
            nodes.hedged.notified().await;
            Ok(portion)
        };
        stream::once(once_hedged).boxed()
    }

    async fn import(&self, _: v1::ImportRangeVersionsRequest) -> Result<v1::ImportRangeVersionsResponse, Error> {
        let import = ImportJob::begun(JOB, JobEpoch(1), Interval::all(), ShardId(9), GroupId(2));
        self.answer(encode_import_answer(&import))
    }

    fn snapshot_staging_dir(&self, group: GroupId) -> PathBuf {
        panic!("no snapshot of group {group} is sent")
    }
}

struct NoClock;

impl TimestampSource for NoClock {
    fn timestamps(&self, _: u32, _: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        unreachable!("nobody needs a timestamp")
    }
}

struct Fixture {
    cluster: Arc<Cluster>,
    nodes: Arc<Nodes>,
    _stop: DropGuard,
    _dir: tempfile::TempDir,
}

impl Fixture {
    async fn new(known: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pool = |node: NodeId| {
            let options = PeerOptions {
                lease: LeaseTerms { promise_ms: 600, trust_ms: 500 },
                ..PeerOptions::new(ClusterId([1; 16]), node, StoreId([node.0 as u8; 16]))
            };
            PeerPool::new(options, PeerIdentities::open(dir.path().join(format!("peers-{node}"))).unwrap())
        };
        let nodes =
            Arc::new(Nodes { leader: Mutex::new(PEERS[0]), known, asked: Mutex::default(), hedged: Notify::new() });
        let peer = |node| Arc::new(Peer { node, nodes: Arc::clone(&nodes) });
        let (peers, stop) = (pool(ME), CancellationToken::new());
        for node in PEERS {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            peers.set_address(node, &listener.local_addr().unwrap().to_string());
            let server = server_builder(&Tuning::default()).add_service(InternalServer::new(pool(node), peer(node)));
            let stopped = stop.clone().cancelled_owned();
            tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped));
        }
        let directory = Arc::new(GroupDirectory::default());
        directory.set_members(GROUP, PEERS.into());
        let (group, shard, state) = (GROUP, ShardId(1), RouteState::Active);
        let route = Route { id: RouteId(1), interval: Interval::all(), group, shard, state };
        let routes = RouteCache::new(RouteMap::new(CatalogVersion::FIRST, vec![route]).unwrap());
        let dispatcher = Arc::new(Dispatcher::new(ME, directory, Arc::clone(&peers), routes));
        let coordinator = Arc::new(Coordinator::new(dispatcher, Arc::new(NoClock), CoordinatorOptions::default()));
        let cluster = Cluster::new(ClusterParts { node: ME, coordinator, peers, here: peer(ME) });
        Self { cluster, nodes, _stop: stop.drop_guard(), _dir: dir }
    }

    /// Who is asked, in this order, until the leader has answered; whether it is to take a portion in, or to say how far it is.
    async fn asked(&self, imports: bool) -> Vec<u64> {
        let deadline = Instant::now() + Duration::from_secs(30);
        if imports {
            let rows = ChunkRows::Tracked { from: 0, to: 0, rows: Vec::new() };
            let step = MoveStep::ImportChunk(Chunk { armed_at: 1, rows, close: None });
            let command = MoveCommand { job: JOB, epoch: JobEpoch(1), step };
            self.cluster.import(GROUP, &command, deadline).await.unwrap();
        } else {
            self.cluster.observe(GROUP, JOB, deadline).await.unwrap();
        }
        std::mem::take(&mut self.nodes.asked.lock().unwrap())
    }

    fn lead(&self, node: u64) {
        *self.nodes.leader.lock().unwrap() = NodeId(node);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_a_hint_led_to_is_asked_first_until_another_one_leads() {
    for imports in [false, true] {
        let fixture = Fixture::new(true).await;
        fixture.lead(4);
        assert_eq!(fixture.asked(imports).await, [2, 4], "imports: {imports}");
        assert_eq!(fixture.asked(imports).await, [4], "imports: {imports}");
        // What one of both has learned is good for the other.
        assert_eq!(fixture.asked(!imports).await, [4], "imports: {imports}");
        fixture.lead(3);
        assert_eq!(fixture.asked(imports).await, [4, 3], "imports: {imports}");
        assert_eq!(fixture.asked(imports).await, [3], "imports: {imports}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_found_without_a_hint_is_asked_first_and_a_former_one_no_longer() {
    for imports in [false, true] {
        let fixture = Fixture::new(false).await;
        fixture.lead(3);
        assert_eq!(fixture.asked(imports).await.last(), Some(&3), "imports: {imports}");
        assert_eq!(fixture.asked(imports).await, [3], "imports: {imports}");
        fixture.lead(4);
        let asked = fixture.asked(imports).await;
        assert_eq!((asked.first(), asked.last()), (Some(&3), Some(&4)), "imports: {imports}");
        assert_eq!(fixture.asked(imports).await, [4], "imports: {imports}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replica_is_asked_for_rows_while_the_first_one_takes_its_time_and_whoever_answers_is_read_from() {
    let fixture = Fixture::new(true).await;
    let peers = &fixture.cluster.parts.peers;
    let until = Instant::now() + Duration::from_secs(30);
    // Who has no connection is asked last.
    while !PEERS.iter().all(|node| peers.is_connected(*node)) {
        assert!(Instant::now() < until, "the nodes are not connected");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let rows = ExportRows::Tracked { from: 0, sealed_at: None };
    let budget = ExportBudget { bytes: 1, scanned_bytes: 1 };
    let request = ExportRequest { group: GROUP, job: JOB, armed_at: 1, rows, budget };
    let portions = fixture.cluster.export(&request, Prefer::Followers).await.unwrap();
    let from: Vec<u64> = portions.map(|portion| portion.unwrap().chunk.armed_at).collect().await;
    assert_eq!(from, [2]);
    assert_eq!(*fixture.nodes.asked.lock().unwrap(), [2, 3]);
}

#[test]
fn nodes_are_asked_in_the_order_of_what_is_known_of_them() {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    // Leader, out of reach, order for followers, order for the leader; this node is node 3.
    type Case = (Option<u64>, &'static [u64], &'static [u64], &'static [u64]);
    let table: [Case; 7] = [
        (None, &[], &[3, 1, 2], &[3, 1, 2]),
        (Some(1), &[], &[3, 2, 1], &[1, 3, 2]),
        (Some(3), &[], &[1, 2, 3], &[3, 1, 2]),
        (Some(1), &[2], &[3, 1, 2], &[1, 3, 2]),
        (Some(2), &[2], &[3, 1, 2], &[3, 1, 2]),
        (Some(3), &[1], &[2, 3, 1], &[3, 2, 1]),
        (Some(3), &[1, 2], &[3, 1, 2], &[3, 1, 2]),
    ];
    for (leader, lost, followers, leaders) in table {
        for (prefer, expect) in [(Prefer::Followers, followers), (Prefer::Leader, leaders)] {
            let reachable = |node: NodeId| !lost.contains(&node.0);
            let order = in_order(nodes(&[1, 2, 3]), prefer, NodeId(3), leader.map(NodeId), reachable);
            assert_eq!(order, nodes(expect), "{leader:?} {lost:?} {prefer:?}");
        }
    }
}
