//! One node: a pool, a server on a port of its own, and a service whose answers the tests know.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_hlc::Timestamp;
use drover_keys::{ClusterId, GroupId, NodeId, ReplicaId, StoreId};
use drover_kv::{Error, Reason};
use drover_transport::{
    InternalServer, LeaseTerms, NodeService, PeerIdentities, PeerOptions, PeerPool, RaftEndpoint, Tuning,
    server_builder,
};
use drover_wire::proto::storage::v1 as stored;
use drover_wire::proto::v1;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;

pub const GROUP: GroupId = GroupId(7);
/// The replica that every node holds of it.
pub const REPLICA: ReplicaId = ReplicaId(3);

pub struct Service {
    pub groups: Mutex<HashMap<GroupId, Arc<dyn RaftEndpoint>>>,
    pub staging: PathBuf,
}

#[tonic::async_trait]
impl NodeService for Service {
    fn raft(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<dyn RaftEndpoint>> {
        self.groups.lock().unwrap().get(&group).filter(|_| replica == REPLICA).cloned()
    }

    /// Answers with the length of the key; the key `hang` is never answered. A read of the catalog is answered with as many
    /// bytes as its limit says.
    async fn group_call(&self, request: v1::GroupRequest) -> v1::GroupResponse {
        let key = match request.body {
            Some(v1::group_request::Body::LatestCommitTs(latest)) => latest.key,
            Some(v1::group_request::Body::ReadCatalog(read)) => {
                let body = v1::group_response::Body::Catalog(vec![7; read.limit as usize].into());
                return v1::GroupResponse { body: Some(body), ..Default::default() };
            }
            _ => return drover_wire::encode_group_response(Err(Error::definite(Reason::InvalidArgument, "no key"))),
        };
        if key.as_ref() == b"hang" {
            std::future::pending::<()>().await;
        }
        v1::GroupResponse {
            body: Some(v1::group_response::Body::LatestCommitTs(key.len() as u64)),
            ..Default::default()
        }
    }

    async fn timestamps(&self, count: u32) -> Result<Timestamp, Error> {
        match count {
            0 => Err(Error::definite(Reason::NotLeader, "no oracle here").leader_hint(Some(NodeId(9)))),
            count => Ok(Timestamp::from_raw(1_000 + u64::from(count))),
        }
    }

    /// Answers with a portion for each byte that is asked for, numbered by `armed_at`; behind them comes an error.
    fn export(
        &self,
        request: v1::ExportRangeVersionsRequest,
    ) -> BoxStream<'static, Result<v1::ExportRangeVersionsResponse, Error>> {
        let portion = |armed_at| {
            let chunk = Some(stored::ImportChunk { armed_at, ..Default::default() });
            Ok(v1::ExportRangeVersionsResponse { chunk, ..Default::default() })
        };
        let end = Err(Error::definite(Reason::FailedPrecondition, "not armed"));
        stream::iter((0..request.bytes).map(portion).chain([end])).boxed()
    }

    /// Answers with the number of the job; job zero is refused, and the last one never answered.
    async fn import(&self, request: v1::ImportRangeVersionsRequest) -> Result<v1::ImportRangeVersionsResponse, Error> {
        match request.command.unwrap().job_id {
            0 => Err(Error::definite(Reason::NotLeader, "not here").leader_hint(Some(NodeId(9)))),
            u64::MAX => std::future::pending().await,
            job_id => {
                let import = Some(stored::ImportJob { job_id, ..Default::default() });
                Ok(v1::ImportRangeVersionsResponse { import })
            }
        }
    }

    fn snapshot_staging_dir(&self, group: GroupId) -> PathBuf {
        self.staging.join(group.to_string())
    }
}

pub struct TestNode {
    pub id: NodeId,
    pub address: String,
    pub pool: Arc<PeerPool>,
    pub service: Arc<Service>,
    pub dir: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub fn tuning() -> Tuning {
    Tuning { reconnect_min_ms: 10, reconnect_max_ms: 100, ..Tuning::default() }
}

pub fn options(id: u64, cluster: u8, store: u8, tuning: Tuning) -> PeerOptions {
    PeerOptions {
        lease: LeaseTerms { promise_ms: 600, trust_ms: 500 },
        tuning,
        ..PeerOptions::new(ClusterId([cluster; 16]), NodeId(id), StoreId([store; 16]))
    }
}

impl TestNode {
    pub async fn start(id: u64) -> Self {
        Self::start_with(options(id, 1, id as u8, tuning())).await
    }

    pub async fn start_with(options: PeerOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = options.node_id;
        let tuning = options.tuning.clone();
        let pool = PeerPool::new(options, PeerIdentities::open(dir.path().join("peers")).unwrap());
        let service = Arc::new(Service { groups: Mutex::default(), staging: dir.path().join("staging") });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let internal = InternalServer::new(Arc::clone(&pool), Arc::<Service>::clone(&service));
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            server_builder(&tuning).add_service(internal).serve_with_incoming(incoming).await.unwrap();
        });
        Self { id, address, pool, service, dir, server }
    }

    pub fn set_group(&self, group: GroupId, endpoint: Arc<dyn RaftEndpoint>) {
        self.service.groups.lock().unwrap().insert(group, endpoint);
    }

    /// The length of a key, as `to` tells it.
    pub async fn ask(&self, to: NodeId, key: &'static str) -> Result<u64, drover_transport::CallError> {
        self.ask_within(to, key, Duration::from_secs(30)).await
    }

    pub async fn ask_within(
        &self,
        to: NodeId,
        key: &'static str,
        limit: Duration,
    ) -> Result<u64, drover_transport::CallError> {
        let body = v1::group_request::Body::LatestCommitTs(v1::GroupLatestCommitTs { key: key.into() });
        let request = v1::GroupRequest { group_id: GROUP.0, body: Some(body), ..Default::default() };
        let response = self.pool.group_call(to, request, Instant::now() + limit).await?;
        match response.body {
            Some(v1::group_response::Body::LatestCommitTs(length)) => Ok(length),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for an answer of so many bytes.
    pub async fn ask_for(&self, to: NodeId, bytes: u32) -> Result<usize, Error> {
        let read = v1::GroupReadCatalog { limit: bytes, ..Default::default() };
        let body = Some(v1::group_request::Body::ReadCatalog(read));
        let request = v1::GroupRequest { group_id: GROUP.0, body, ..Default::default() };
        let response = self.pool.group_call(to, request, Instant::now() + Duration::from_secs(30)).await?;
        match drover_wire::decode_group_response(response)? {
            drover_wire::GroupAnswer::Catalog(answer) => Ok(answer.len()),
            other => panic!("{other:?}"),
        }
    }

    pub fn stats_of(&self, node: NodeId) -> drover_transport::PeerStatsSnapshot {
        self.pool.stats().into_iter().find(|(id, _)| *id == node).map(|(_, stats)| stats).unwrap_or_default()
    }
}

/// Waits until a condition holds, or fails the test after half a minute.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
