use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use drover_seams::{blocking, is_simulated, net};
use drover_wire::proto::v1;
use drover_wire::proto::v1::internal_client::InternalClient;
use drover_wire::status_to_error;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::handshake;
use crate::identities::PeerIdentities;
use crate::link::Link;
use crate::options::{PeerOptions, Tuning};
use crate::outbox::Frames;
use crate::sessions;
use crate::stats::PeerStats;

/// One connection to one peer, with its handshake behind it and its links open. It is never mended: a lost one is
/// replaced.
pub(crate) struct Connection {
    client: InternalClient<Channel>,
    session: Bytes,
    /// Votes, heartbeats, timestamps.
    pub(crate) control: Link,
    /// Group operations.
    pub(crate) operations: Link,
    /// Streamed appends.
    pub(crate) bulk: Link,
    lost: CancellationToken,
    /// Why it was lost.
    cause: Arc<Mutex<String>>,
    _readers: [AbortOnDropHandle<()>; 3],
}

impl Connection {
    /// Connects, shakes hands and opens the links. The caller bounds the time.
    pub(crate) async fn open(
        address: &str,
        to: NodeId,
        me: &PeerOptions,
        identities: &Arc<PeerIdentities>,
        stats: &Arc<PeerStats>,
    ) -> Result<Self, Error> {
        let channel = connect(address, &me.tuning).await?;
        let mut client = InternalClient::new(channel)
            .max_decoding_message_size(me.tuning.max_message_bytes)
            .max_encoding_message_size(me.tuning.max_message_bytes);
        let response =
            client.handshake(handshake::request(me, to, identities.get(to))).await.map_err(|s| status_to_error(&s))?;
        let response = response.into_inner();
        let peer = handshake::judge_response(me, to, &response)?;
        let identities = Arc::clone(identities);
        blocking::aside(move || handshake::judge_store(&identities, peer))
            .await
            .map_err(|error| Error::definite(Reason::Internal, error.to_string()))??;

        let session = response.session;
        let (control, control_frames) = Link::new(to, &me.tuning, Arc::clone(stats));
        let (operations, operation_frames) = Link::new(to, &me.tuning, Arc::clone(stats));
        let (bulk, bulk_frames) = Link::new(to, &me.tuning, Arc::clone(stats));
        let control_in = open_link(&mut client, &session, control_frames).await?;
        let operations_in = open_link(&mut client, &session, operation_frames).await?;
        let bulk_in = open_link(&mut client, &session, bulk_frames).await?;
        let lost = CancellationToken::new();
        let cause = Arc::new(Mutex::new(String::new()));
        let readers = [
            spawn_reader(control.clone(), control_in, lost.clone(), Arc::clone(&cause)),
            spawn_reader(operations.clone(), operations_in, lost.clone(), Arc::clone(&cause)),
            spawn_reader(bulk.clone(), bulk_in, lost.clone(), Arc::clone(&cause)),
        ];
        Ok(Self { client, session, control, operations, bulk, lost, cause, _readers: readers })
    }

    /// For calls beside the links.
    pub(crate) fn client(&self) -> InternalClient<Channel> {
        self.client.clone()
    }

    /// A call that carries the session.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        with_session(message, &self.session)
    }

    /// Returns when the connection is lost, and why.
    pub(crate) async fn lost(&self) -> String {
        self.lost.cancelled().await;
        self.cause.lock().clone()
    }

    /// Ends all calls on all links.
    pub(crate) fn close(&self) {
        self.lost.cancel();
        self.control.close();
        self.operations.close();
        self.bulk.close();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

fn with_session<T>(message: T, session: &Bytes) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    sessions::attach(request.metadata_mut(), session);
    request
}

async fn open_link(
    client: &mut InternalClient<Channel>,
    session: &Bytes,
    frames: Frames,
) -> Result<tonic::Streaming<v1::LinkFrame>, Error> {
    let response = client.link(with_session(frames, session)).await.map_err(|s| status_to_error(&s))?;
    Ok(response.into_inner())
}

fn spawn_reader(
    link: Link,
    frames: tonic::Streaming<v1::LinkFrame>,
    lost: CancellationToken,
    cause: Arc<Mutex<String>>,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let why = link.read(frames).await;
        link.close();
        let mut cause = cause.lock();
        if cause.is_empty() {
            *cause = why;
        }
        drop(cause);
        lost.cancel();
    }))
}

/// A channel over one TCP connection. It does not reconnect: each connection needs a handshake of its own.
async fn connect(address: &str, tuning: &Tuning) -> Result<Channel, Error> {
    let unavailable = |error: &dyn std::fmt::Display| {
        Error::definite(Reason::Unavailable, format!("no connection to {address}: {error}; nothing was changed"))
    };
    let endpoint = endpoint(address, tuning).map_err(|error| {
        Error::definite(Reason::InvalidArgument, format!("{address:?} is not an address: {error}; nothing was changed"))
    })?;
    if is_simulated() {
        return net::connect(endpoint).await.map_err(|error| unavailable(&error));
    }
    let stream = TcpStream::connect(address).await.map_err(|error| unavailable(&error))?;
    stream.set_nodelay(true).map_err(|error| unavailable(&error))?;
    let once = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = once.lock().take();
        async move { stream.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    endpoint.connect_with_connector(connector).await.map_err(|error| unavailable(&error))
}

fn endpoint(address: &str, tuning: &Tuning) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .initial_stream_window_size(tuning.stream_window_bytes)
        .initial_connection_window_size(tuning.stream_window_bytes.saturating_mul(4))
        .http2_keep_alive_interval(Duration::from_millis(tuning.keep_alive_interval_ms))
        .keep_alive_timeout(Duration::from_millis(tuning.keep_alive_timeout_ms))
        .keep_alive_while_idle(true))
}
