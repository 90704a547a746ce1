//! The network of the simulation: turmoil's, with every write in the trace.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use drover_seams::net::{Incoming, Network, Stream};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use crate::trace::Trace;

/// Turmoil's network.
pub struct SimulatedNetwork {
    /// Where messages are noted.
    pub trace: Trace,
}

impl Network for SimulatedNetwork {
    fn connect(&self, address: String) -> BoxFuture<'static, io::Result<Stream>> {
        let trace = self.trace.clone();
        async move {
            let stream = TcpStream::connect(address.as_str()).await?;
            Traced::over(stream, trace)
        }
        .boxed()
    }

    fn listen(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Incoming>> {
        let trace = self.trace.clone();
        async move {
            let listener = TcpListener::bind(address).await?;
            let incoming = futures::stream::unfold((listener, trace), |(listener, trace)| async {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => Traced::over(stream, trace.clone()),
                    Err(error) => Err(error),
                };
                Some((stream, (listener, trace)))
            });
            Ok(incoming.boxed())
        }
        .boxed()
    }
}

struct Traced {
    stream: TcpStream,
    trace: Trace,
    here: SocketAddr,
    there: SocketAddr,
}

impl Traced {
    fn over(stream: TcpStream, trace: Trace) -> io::Result<Stream> {
        let (here, there) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Stream::new(Self { stream, trace, here, there }))
    }
}

impl AsyncRead for Traced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Traced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = &written {
            self.trace.message(self.here, self.there, *bytes);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
