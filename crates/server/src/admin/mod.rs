//! Health and metrics over HTTP, for machines that look after the node.
//!
//! | path | 200 | otherwise |
//! |---|---|---|
//! | `/healthz` | the process is alive and can answer | no answer |
//! | `/readyz` | the node can serve; the body says what was checked | 503, the body says what is missing |
//! | `/metrics` | Prometheus text | 500 |
//!
//! The server is up before the storage is open, so that a long recovery can be told from a dead process. Knows nothing of
//! what readiness means: the node says so through [`Readiness`].

mod readiness;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use drover_seams::blocking;
use tokio::net::TcpListener;

pub use readiness::{Check, Readiness, ReadinessReport, ReadinessSlot};

use crate::listen::{ListenError, listen};
use crate::metrics::Metrics;

/// The admin port, open.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
}

#[derive(Clone)]
struct Shared {
    readiness: Arc<ReadinessSlot>,
    metrics: Arc<Metrics>,
}

impl AdminServer {
    /// Opens the port.
    ///
    /// # Errors
    /// See [`listen`].
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        const SETTING: &str = "node.admin_listen";
        let listener = listen(SETTING, address).await?;
        let address = listener.local_addr().map_err(|source| ListenError::Io { address, setting: SETTING, source })?;
        Ok(Self { listener, address })
    }

    /// The address that is listened on, with the port that was chosen if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` completes, then finishes the answers that have begun.
    ///
    /// # Errors
    /// If the operating system takes the port away.
    pub async fn serve(
        self,
        readiness: Arc<ReadinessSlot>,
        metrics: Arc<Metrics>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(render))
            .with_state(Shared { readiness, metrics });
        axum::serve(self.listener, router).with_graceful_shutdown(stop).await
    }
}

async fn ready(State(shared): State<Shared>) -> Response {
    let report = shared.readiness.report();
    let status = if report.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

async fn render(State(shared): State<Shared>) -> Response {
    // A scrape may read from the disk.
    let rendered = blocking::aside(move || shared.metrics.render()).await;
    match rendered.map_err(|error| error.to_string()).and_then(|text| text.map_err(|error| error.to_string())) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render metrics");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
        }
    }
}
