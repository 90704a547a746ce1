//! Connections to other nodes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::TryFutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Error, Uri};

use crate::simulated;

/// What a simulated network is.
pub trait Network: Send + Sync + 'static {
    /// Connects the node that asks to `address`, as `host:port`.
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Stream>>;

    /// Opens a port of the node that asks, and gives what comes there.
    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Incoming>>;
}

/// Connections that come to a port.
pub type Incoming = BoxStream<'static, io::Result<Stream>>;

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// A simulated connection.
pub struct Stream(Pin<Box<dyn Duplex>>);

impl Stream {
    /// A connection over `stream`.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        Self(Box::pin(stream))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.as_mut().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_shutdown(cx)
    }
}

impl Connected for Stream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Connects a channel. See [`Endpoint::connect`].
///
/// # Errors
/// If nobody answers.
pub async fn connect(endpoint: Endpoint) -> Result<Channel, Error> {
    match simulated() {
        Some(network) => endpoint.connect_with_connector(connector(network)).await,
        None => endpoint.connect().await,
    }
}

/// Connects a channel to `address`, as `host:port`.
///
/// # Errors
/// If that is no address, or nobody answers.
pub async fn connect_to(address: &str) -> Result<Channel, Error> {
    connect(Endpoint::from_shared(format!("http://{address}"))?).await
}

/// A channel that connects when it is used. See [`Endpoint::connect_lazy`].
pub fn connect_lazy(endpoint: Endpoint) -> Channel {
    match simulated() {
        Some(network) => endpoint.connect_with_connector_lazy(connector(network)),
        None => endpoint.connect_lazy(),
    }
}

type Connecting = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

fn connector(
    network: &Arc<dyn Network>,
) -> impl tower::Service<Uri, Response = TokioIo<Stream>, Error = io::Error, Future = Connecting> + Clone + Send + 'static
{
    let network = Arc::clone(network);
    tower::service_fn(move |uri: Uri| {
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        Box::pin(network.connect(address).map_ok(TokioIo::new)) as Connecting
    })
}
