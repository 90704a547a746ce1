use std::sync::Arc;
use std::time::Duration;

use drover_keys::{GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_seams::blocking;
use drover_wire::error_to_status;
use drover_wire::proto::v1;
use drover_wire::proto::v1::internal_server::{Internal, InternalServer as TonicInternalServer};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::handshake;
use crate::inbound::Inbound;
use crate::options::Tuning;
use crate::outbox::outbox;
use crate::pool::PeerPool;
use crate::service::NodeService;
use crate::sessions::Sessions;
use crate::snapshot::Receiver;

/// The gRPC service that peers call.
pub struct InternalServer {
    pool: Arc<PeerPool>,
    service: Arc<dyn NodeService>,
    sessions: Sessions,
    snapshots: Arc<Receiver>,
    /// The refusal that was logged last: a peer that is refused comes back again and again.
    refused: Mutex<Option<(u64, String)>>,
}

/// A gRPC server with the windows, pings and socket options that connections between nodes need.
pub fn server_builder(tuning: &Tuning) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(tuning.stream_window_bytes)
        .initial_connection_window_size(tuning.stream_window_bytes.saturating_mul(4))
        .http2_keepalive_interval(Some(Duration::from_millis(tuning.keep_alive_interval_ms)))
        .http2_keepalive_timeout(Some(Duration::from_millis(tuning.keep_alive_timeout_ms)))
}

impl InternalServer {
    /// The service of the node that `pool` belongs to.
    pub fn new(pool: Arc<PeerPool>, service: Arc<dyn NodeService>) -> TonicInternalServer<Self> {
        let limit = pool.options().tuning.max_message_bytes;
        let keep = Duration::from_millis(pool.options().tuning.snapshot_keep_ms);
        let snapshots = Arc::new(Receiver::new(Arc::clone(&service), keep));
        TonicInternalServer::new(Self {
            pool,
            service,
            sessions: Sessions::default(),
            snapshots,
            refused: Mutex::default(),
        })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit)
    }

    fn report_refusal(&self, node: u64, error: &Error) {
        let refusal = Some((node, error.message.clone()));
        let mut refused = self.refused.lock();
        if *refused == refusal {
            tracing::debug!(node, error = %error.message, "handshake refused again");
        } else {
            tracing::warn!(node, error = %error.message, "handshake refused");
            *refused = refusal;
        }
    }

    fn peer(&self, metadata: &MetadataMap) -> Result<NodeId, Status> {
        self.sessions.check(metadata).map_err(|error| error_to_status(&error))
    }
}

fn status(error: Error) -> Status {
    error_to_status(&error)
}

#[tonic::async_trait]
impl Internal for InternalServer {
    type LinkStream = BoxStream<'static, Result<v1::LinkFrame, Status>>;
    type ExportRangeVersionsStream = BoxStream<'static, Result<v1::ExportRangeVersionsResponse, Status>>;

    async fn handshake(
        &self,
        request: Request<v1::HandshakeRequest>,
    ) -> Result<Response<v1::HandshakeResponse>, Status> {
        let request = request.into_inner();
        let me = self.pool.options();
        if let Some(error) = handshake::replaced(me, &request) {
            self.pool.replaced.send_if_modified(|known| known.is_none() && known.replace(error.clone()).is_none());
            return Err(status(error));
        }
        let accepted = match handshake::judge_request(me, &request) {
            Err(error) => Err(error),
            Ok(peer) => {
                let identities = Arc::clone(self.pool.identities());
                blocking::aside(move || handshake::judge_store(&identities, peer).map(|()| peer))
                    .await
                    .unwrap_or_else(|error| Err(Error::definite(Reason::Internal, error.to_string())))
            }
        };
        let peer = accepted.map_err(|error| {
            self.report_refusal(request.node_id, &error);
            status(error)
        })?;
        tracing::info!(node = %peer.node, version = request.version, address = request.grpc_address, "peer has connected");
        self.pool.nudge(peer.node);
        self.pool.leaving.returned(peer.node);
        Ok(Response::new(handshake::response(me, self.sessions.open(peer.node))))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::LeaveResponse>, Status> {
        let node = self.peer(request.metadata())?;
        tracing::info!(%node, "peer is being stopped");
        self.pool.leaving.left(node);
        Ok(Response::new(v1::LeaveResponse { leaving: self.pool.leaving.here() }))
    }

    async fn link(&self, request: Request<Streaming<v1::LinkFrame>>) -> Result<Response<Self::LinkStream>, Status> {
        let node = self.peer(request.metadata())?;
        let tuning = &self.pool.options().tuning;
        let stats = self.pool.stats_of(node);
        let (outbox, frames) = outbox(tuning, Arc::clone(&stats), Box::new(|_| true));
        let inbound = Inbound::new(node, Arc::clone(&self.service), outbox, stats, tuning);
        let ended = CancellationToken::new();
        let (farewell, last_words) = oneshot::channel();
        let guard = ended.clone().drop_guard();
        tokio::spawn(async move {
            if let Some(status) = inbound.serve(request.into_inner()).await {
                // The peer may be gone.
                let _ = farewell.send(status);
            }
            drop(guard);
        });
        let last_words = stream::once(last_words).filter_map(|status| async { status.ok().map(Err) });
        let answers = frames.map(Ok).take_until(ended.cancelled_owned()).chain(last_words);
        Ok(Response::new(answers.boxed()))
    }

    async fn offer_snapshot(
        &self,
        request: Request<v1::OfferSnapshotRequest>,
    ) -> Result<Response<v1::OfferSnapshotResponse>, Status> {
        let node = self.peer(request.metadata())?;
        let have_bytes = self.snapshots.offer(node, request.into_inner()).await.map_err(status)?;
        Ok(Response::new(v1::OfferSnapshotResponse { have_bytes }))
    }

    async fn send_snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SendSnapshotResponse>, Status> {
        let node = self.peer(request.metadata())?;
        let stats = self.pool.stats_of(node);
        let stall = Duration::from_millis(self.pool.options().tuning.snapshot_stall_ms);
        let received_bytes = self.snapshots.receive(node, request.into_inner(), &stats, stall).await.map_err(status)?;
        Ok(Response::new(v1::SendSnapshotResponse { received_bytes }))
    }

    async fn install_snapshot(
        &self,
        request: Request<v1::InstallSnapshotRequest>,
    ) -> Result<Response<v1::InstallSnapshotResponse>, Status> {
        let node = self.peer(request.metadata())?;
        let message = request.into_inner();
        let group = GroupId(message.group_id);
        let snapshots = Arc::clone(&self.snapshots);
        let stats = self.pool.stats_of(node);
        // In a task of its own: a sender that goes away in the middle does not leave half an installation.
        let vote = tokio::spawn(async move { snapshots.install(node, message, &stats).await })
            .await
            .unwrap_or_else(|error| Err(Error::unknown(Reason::Internal, error.to_string())))
            .map_err(|error| {
                tracing::warn!(%node, %group, error = %error.message, "snapshot was not installed");
                status(error)
            })?;
        Ok(Response::new(v1::InstallSnapshotResponse { vote: Some(vote) }))
    }

    async fn export_range_versions(
        &self,
        request: Request<v1::ExportRangeVersionsRequest>,
    ) -> Result<Response<Self::ExportRangeVersionsStream>, Status> {
        self.peer(request.metadata())?;
        let portions = self.service.export(request.into_inner());
        Ok(Response::new(portions.map(|portion| portion.map_err(status)).boxed()))
    }

    async fn import_range_versions(
        &self,
        request: Request<v1::ImportRangeVersionsRequest>,
    ) -> Result<Response<v1::ImportRangeVersionsResponse>, Status> {
        self.peer(request.metadata())?;
        self.service.import(request.into_inner()).await.map(Response::new).map_err(status)
    }
}
