//! A server over a real socket that answers as a test tells it to.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drover_wire::proto::v1;
use drover_wire::proto::v1::cluster_server::{Cluster, ClusterServer};
use drover_wire::proto::v1::compat_server::{Compat, CompatServer};
use drover_wire::proto::v1::distribution_server::{Distribution, DistributionServer};
use drover_wire::proto::v1::kv_server::{Kv, KvServer};
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::*;
use futures::{Stream, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

/// What the server does with one call.
pub enum Act {
    /// Answers, naming this leader (zero: none).
    Answer(Answer, u64),
    /// Never answers.
    Silence,
    /// Breaks the connection off without an answer.
    HangUp,
}

/// What a server says to those who ask for a change of the cluster, or about its members.
#[derive(Clone)]
pub struct Commands {
    /// The answer to all of it, but for what follows.
    pub refusal: Status,
    /// What became of the cluster's version, whatever was asked; a number, so that it can be one that nobody knows.
    pub outcome: Option<i32>,
}

impl Default for Commands {
    fn default() -> Self {
        Self { refusal: Status::unimplemented("not in these tests"), outcome: None }
    }
}

/// Decides about each call, in the order of arrival.
pub type Script = Arc<dyn Fn(&Call) -> Act + Send + Sync>;

pub fn written(commit_ts: u64) -> Act {
    Act::Answer(Answer::Put(PutResponse { commit_ts }), 0)
}

pub fn failed(error: &drover_kv::Error) -> Act {
    Act::Answer(Answer::Error(drover_wire::error_to_status_bytes(error)), 0)
}

pub struct Server {
    pub address: SocketAddr,
    /// Messages that came in, each of one or more calls.
    pub messages: Arc<AtomicUsize>,
    /// Calls that came in.
    pub calls: Arc<AtomicUsize>,
    /// Connections that were accepted.
    pub connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(node_id: u64, routes: Vec<Route>, nodes: Vec<NodeStatus>, script: Script) -> Server {
        Self::serve(Told::new(node_id, routes, nodes, Commands::default()), script).await
    }

    /// One that answers no session.
    pub async fn commanded(node_id: u64, routes: Vec<Route>, commands: Commands) -> Server {
        Self::serve(Told::new(node_id, routes, Vec::new(), commands), Arc::new(|_| Act::Silence)).await
    }

    async fn serve(cluster: Told, script: Script) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (messages, calls, connections) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (stop, stopped) = oneshot::channel();
        let kv = Scripted { script, messages: messages.clone(), calls: calls.clone() };
        let incoming = accepting(listener, connections.clone());
        let task = tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(KvServer::new(kv).max_decoding_message_size(64 << 20))
                .add_service(DistributionServer::new(cluster.clone()))
                .add_service(CompatServer::new(cluster.clone()))
                .add_service(ClusterServer::new(cluster))
                .serve_with_incoming(incoming);
            tokio::select! {
                result = serving => result.unwrap(),
                _ = stopped => {}
            }
        });
        Server { address, messages, calls, connections, stop: Some(stop), task }
    }

    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Stops listening. Connections that stand live on until their streams end.
    pub async fn stop(mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        self.task.await.unwrap();
    }
}

fn accepting(
    listener: TcpListener,
    connections: Arc<AtomicUsize>,
) -> impl Stream<Item = Result<TcpStream, std::io::Error>> {
    tokio_stream::wrappers::TcpListenerStream::new(listener).inspect(move |accepted| {
        if let Ok(stream) = accepted {
            stream.set_nodelay(true).unwrap();
            connections.fetch_add(1, Ordering::SeqCst);
        }
    })
}

struct Scripted {
    script: Script,
    messages: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl Scripted {
    /// Answers of one message; an error breaks the stream off.
    fn answer(&self, request: SessionRequest) -> Result<SessionResponse, Status> {
        self.messages.fetch_add(1, Ordering::SeqCst);
        let mut answers = Vec::new();
        for SessionCall { id, call } in request.calls {
            self.calls.fetch_add(1, Ordering::SeqCst);
            match (self.script)(&call.unwrap()) {
                Act::Answer(answer, leader_hint) => {
                    answers.push(SessionAnswer { id, leader_hint, answer: Some(answer) });
                }
                Act::Silence => {}
                Act::HangUp => return Err(Status::aborted("the server hung up")),
            }
        }
        // Any order is legal: the reverse shows that answers are matched by id.
        answers.reverse();
        Ok(SessionResponse { answers })
    }
}

type Answers = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

/// The whole of `Kv`, of which only sessions are served.
macro_rules! serve_sessions_only {
    ($($name:ident: $request:ty => $response:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl Kv for Scripted {
            type SessionStream = Answers;

            async fn session(
                &self,
                request: Request<Streaming<SessionRequest>>,
            ) -> Result<Response<Answers>, Status> {
                Ok(self.serve(request.into_inner()))
            }

            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("the client uses sessions"))
            })*
        }
    };
}

serve_sessions_only! {
    get: GetRequest => GetResponse,
    batch_get: BatchGetRequest => BatchGetResponse,
    put: PutRequest => PutResponse,
    delete: DeleteRequest => DeleteResponse,
    compare_and_set: CompareAndSetRequest => CompareAndSetResponse,
    scan: ScanRequest => ScanResponse,
    delete_range: DeleteRangeRequest => DeleteRangeResponse,
    latest_commit_ts: LatestCommitTsRequest => LatestCommitTsResponse,
    settle: SettleRequest => SettleResponse,
}

impl Scripted {
    fn serve(&self, mut inbound: Streaming<SessionRequest>) -> Response<Answers> {
        let (send, receive) = mpsc::channel(64);
        let this = Scripted { script: self.script.clone(), messages: self.messages.clone(), calls: self.calls.clone() };
        tokio::spawn(async move {
            while let Ok(Some(request)) = inbound.message().await {
                let response = this.answer(request);
                let broken = response.is_err();
                if send.send(response).await.is_err() || broken {
                    break;
                }
            }
        });
        Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receive)))
    }
}

#[derive(Clone)]
struct Told {
    node_id: u64,
    routes: Vec<Route>,
    nodes: Vec<NodeStatus>,
    commands: Commands,
    /// Of the route map.
    version: Arc<AtomicUsize>,
}

impl Told {
    fn new(node_id: u64, routes: Vec<Route>, nodes: Vec<NodeStatus>, commands: Commands) -> Self {
        Self { node_id, routes, nodes, commands, version: Arc::new(AtomicUsize::new(1)) }
    }

    fn compat(&self) -> Result<Response<CompatResponse>, Status> {
        let outcome = self.commands.outcome.ok_or_else(|| self.commands.refusal.clone())?;
        Ok(Response::new(CompatResponse { outcome, ..CompatResponse::default() }))
    }
}

#[tonic::async_trait]
impl Compat for Told {
    async fn get_compat(&self, _: Request<CompatRequest>) -> Result<Response<CompatResponse>, Status> {
        self.compat()
    }

    async fn freeze(&self, _: Request<CompatRequest>) -> Result<Response<CompatResponse>, Status> {
        self.compat()
    }

    async fn unfreeze(&self, _: Request<CompatRequest>) -> Result<Response<CompatResponse>, Status> {
        self.compat()
    }
}

#[tonic::async_trait]
impl Cluster for Told {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse { cluster_id: String::new(), nodes: self.nodes.clone() }))
    }

    async fn get_node_status(
        &self,
        _: Request<GetNodeStatusRequest>,
    ) -> Result<Response<GetNodeStatusResponse>, Status> {
        let node = NodeStatus { node_id: self.node_id, ..NodeStatus::default() };
        Ok(Response::new(GetNodeStatusResponse { node: Some(node), cluster_id: String::new() }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        Ok(Response::new(TransferLeaderResponse { leader: request.into_inner().to_node, term: 2 }))
    }

    async fn compare_digests(
        &self,
        request: Request<CompareDigestsRequest>,
    ) -> Result<Response<CompareDigestsResponse>, Status> {
        let group = request.into_inner().group_id;
        let error = drover_kv::Error::definite(drover_kv::Reason::UnknownGroup, format!("there is no group {group}"));
        Err(drover_wire::error_to_status(&error))
    }

    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn drain_node(&self, _: Request<DrainNodeRequest>) -> Result<Response<DrainNodeResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn remove_node(&self, _: Request<RemoveNodeRequest>) -> Result<Response<RemoveNodeResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn register_node(&self, _: Request<RegisterNodeRequest>) -> Result<Response<RegisterNodeResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn add_replica(&self, _: Request<AddReplicaRequest>) -> Result<Response<AddReplicaResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn remove_replicas(
        &self,
        _: Request<RemoveReplicasRequest>,
    ) -> Result<Response<RemoveReplicasResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    type WatchTopologyStream = futures::stream::Pending<Result<Topology, Status>>;

    async fn watch_topology(
        &self,
        _: Request<WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        Ok(Response::new(futures::stream::pending()))
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn list_audit_events(
        &self,
        _: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        Err(self.commands.refusal.clone())
    }
}

/// Gives its routes two to a page, each of another version of the map: routes are divided faster than pages are asked for. A
/// watch starts with all of them, two in a part.
#[tonic::async_trait]
impl Distribution for Told {
    type WatchRoutesStream = Pin<Box<dyn Stream<Item = Result<RouteEvent, Status>> + Send>>;
    type WatchSplitJobStream = futures::stream::Pending<Result<v1::SplitJobStatus, Status>>;

    async fn list_routes(&self, request: Request<ListRoutesRequest>) -> Result<Response<ListRoutesResponse>, Status> {
        let ListRoutesRequest { start, version: wanted, with_sizes, .. } = request.into_inner();
        let version = self.version.fetch_add(1, Ordering::SeqCst) as u64;
        if wanted != 0 && wanted != version {
            let error = drover_kv::Error::definite(drover_kv::Reason::VersionMismatch, "another version");
            return Err(drover_wire::error_to_status(&error));
        }
        let mut rest = self.routes.iter().filter(|route| route.start >= start);
        let mut routes: Vec<Route> = rest.by_ref().take(2).cloned().collect();
        routes.iter_mut().for_each(|route| route.approximate_bytes = with_sizes.then_some(route.route_id));
        let next = rest.next().map(|route| route.start.clone());
        Ok(Response::new(ListRoutesResponse { version, routes, next }))
    }

    async fn watch_routes(&self, _: Request<WatchRoutesRequest>) -> Result<Response<Self::WatchRoutesStream>, Status> {
        let version = self.version.load(Ordering::SeqCst) as u64;
        let parts = self.routes.chunks(2).map(<[Route]>::to_vec);
        let last = parts.len().saturating_sub(1);
        let events = parts.enumerate().map(|(at, routes)| {
            let part = RouteSnapshotPart { version, routes, more: at < last };
            Ok(RouteEvent { event: Some(route_event::Event::Snapshot(part)) })
        });
        let events: Vec<_> = events.collect();
        Ok(Response::new(Box::pin(futures::stream::iter(events).chain(futures::stream::pending()))))
    }

    async fn get_route_ownership(
        &self,
        _: Request<GetRouteOwnershipRequest>,
    ) -> Result<Response<GetRouteOwnershipResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn get_intersecting_routes(
        &self,
        _: Request<GetIntersectingRoutesRequest>,
    ) -> Result<Response<GetIntersectingRoutesResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn split_range(&self, _: Request<SplitRangeRequest>) -> Result<Response<SplitRangeResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn start_split_migration(
        &self,
        _: Request<v1::StartSplitMigrationRequest>,
    ) -> Result<Response<v1::StartSplitMigrationResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn get_split_job(&self, _: Request<v1::GetSplitJobRequest>) -> Result<Response<v1::SplitJobStatus>, Status> {
        Err(self.commands.refusal.clone())
    }

    /// Five jobs, the newest first, at most two on a page. A token is the number of the last one.
    async fn list_split_jobs(
        &self,
        request: Request<v1::ListSplitJobsRequest>,
    ) -> Result<Response<v1::ListSplitJobsResponse>, Status> {
        let request = request.into_inner();
        let last = request.page_token.first().map_or(6, |last| u64::from(*last));
        let most = if request.limit == 0 { 2 } else { u64::from(request.limit).min(2) };
        let page: Vec<u64> = (1..last).rev().take(usize::try_from(most).unwrap()).collect();
        let more = page.last().copied().filter(|last| *last > 1);
        let job = |job_id| v1::SplitJob { job_id, ..v1::SplitJob::default() };
        let jobs = page.iter().map(|id| v1::SplitJobStatus { job: Some(job(*id)), progress: None }).collect();
        let next_page_token = more.map(|last| vec![u8::try_from(last).unwrap()]).unwrap_or_default().into();
        Ok(Response::new(v1::ListSplitJobsResponse { jobs, next_page_token }))
    }

    async fn abandon_split_job(
        &self,
        _: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn retry_split_job(
        &self,
        _: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn pause_split_job(
        &self,
        _: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn resume_split_job(
        &self,
        _: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        Err(self.commands.refusal.clone())
    }

    async fn watch_split_job(
        &self,
        _: Request<v1::WatchSplitJobRequest>,
    ) -> Result<Response<Self::WatchSplitJobStream>, Status> {
        Err(self.commands.refusal.clone())
    }
}
