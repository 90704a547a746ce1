//! The admin endpoints over real sockets.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drover_server::admin::{AdminServer, Check, Readiness, ReadinessSlot};
use drover_server::metrics::Metrics;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::oneshot;

type Body = Empty<axum::body::Bytes>;

struct Server {
    address: std::net::SocketAddr,
    readiness: Arc<ReadinessSlot>,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn start() -> Server {
    let server = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (address, readiness, metrics) = (server.address(), Arc::new(ReadinessSlot::new()), Arc::new(Metrics::new()));
    let (stop, stopped) = oneshot::channel();
    let serving = server.serve(readiness.clone(), metrics.clone(), async {
        let _ = stopped.await;
    });
    Server { address, readiness, metrics, stop, task: tokio::spawn(serving) }
}

impl Server {
    async fn get(&self, path: &str) -> (u16, String) {
        let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.get(format!("http://{}{path}", self.address).parse().unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

struct Switch(Arc<AtomicBool>);

impl Readiness for Switch {
    fn checks(&self) -> Vec<Check> {
        let ok = self.0.load(Ordering::SeqCst);
        vec![Check::new("storage", true, "open"), Check::new("group 1", ok, "leader 2, caught up")]
    }
}

#[tokio::test]
async fn a_node_is_alive_before_it_is_ready() {
    let server = start().await;
    assert_eq!(server.get("/healthz").await, (200, "alive\n".to_owned()));
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("starting"), "{body}");
}

#[tokio::test]
async fn readiness_follows_the_node_and_says_what_is_missing() {
    let server = start().await;
    let switch = Arc::new(AtomicBool::new(false));
    server.readiness.set(Switch(switch.clone()));
    for (ok, status) in [(false, 503), (true, 200), (false, 503)] {
        switch.store(ok, Ordering::SeqCst);
        let (found, body) = server.get("/readyz").await;
        assert_eq!(found, status, "{body}");
        assert!(body.contains(&format!("\"ready\":{ok}")) && body.contains("group 1"), "{body}");
    }
}

#[tokio::test]
async fn metrics_are_sampled_when_they_are_read() {
    let server = start().await;
    server.metrics.on_scrape(|metrics| metrics.raftlog.appends.inc());
    for expect in 1..3 {
        let (status, body) = server.get("/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains(&format!("drover_raftlog_appends_total {expect}\n")), "{body}");
    }
    let (_, body) = server.get("/metrics").await;
    let resident = body.lines().find_map(|line| line.strip_prefix("drover_process_resident_bytes "));
    assert!(resident.and_then(|bytes| bytes.parse::<u64>().ok()).is_some_and(|bytes| bytes > 1 << 20), "{body}");
}

#[tokio::test]
async fn other_paths_are_not_found_and_the_server_ends_when_told() {
    let server = start().await;
    assert_eq!(server.get("/").await.0, 404);
    let address = server.address;
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let server = start().await;
    let error = AdminServer::bind(server.address).await.unwrap_err().to_string();
    for part in [&server.address.to_string(), "node.admin_listen", "in use"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}
