use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use drover_seams::net;
use drover_wire::proto::v1::SessionAnswer;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use drover_wire::proto::v1::compat_client::CompatClient;
use drover_wire::proto::v1::distribution_client::DistributionClient;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::txn_client::TxnClient;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use crate::session::{NoAnswer, Session};

/// How long a node that failed is avoided while others are there.
const REST: Duration = Duration::from_millis(500);
/// A connection that is silent for so long while calls wait is probed, and given up if the probe is not answered.
const PROBE_AFTER: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Receive windows: large enough that flow control does not bound throughput on a fast network.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// One node: its connection and its session. Both come into being when they are needed and again after they broke.
pub(crate) struct Node {
    address: String,
    /// Zero: not known yet.
    id: AtomicU64,
    channel: Channel,
    session: ArcSwapOption<Session>,
    opening: Mutex<()>,
    started: Instant,
    /// Milliseconds after `started`.
    resting_until_ms: AtomicU64,
}

impl Node {
    /// The node at `address` (`host:port` or `http://host:port`). Does not connect.
    pub(crate) fn new(address: &str, id: Option<NodeId>, connect_timeout: Duration) -> Result<Arc<Node>, Error> {
        let invalid = |why: &dyn fmt::Display| {
            Error::definite(
                Reason::InvalidArgument,
                format!("{address:?} is no endpoint ({why}); write host:port; nothing was changed"),
            )
        };
        if address.starts_with("https://") {
            return Err(invalid(&"TLS is not supported"));
        }
        let address = normalize(address);
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| invalid(&error))?;
        if endpoint.uri().port().is_none() {
            return Err(invalid(&"no port"));
        }
        let endpoint = endpoint
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PROBE_AFTER)
            .keep_alive_timeout(PROBE_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        Ok(Arc::new(Node {
            address,
            id: AtomicU64::new(id.map_or(0, |id| id.0)),
            channel: net::connect_lazy(endpoint),
            session: ArcSwapOption::empty(),
            opening: Mutex::new(()),
            started: Instant::now(),
            resting_until_ms: AtomicU64::new(0),
        }))
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn id(&self) -> Option<NodeId> {
        Some(self.id.load(Ordering::Relaxed)).filter(|id| *id != 0).map(NodeId)
    }

    pub(crate) fn set_id(&self, id: NodeId) {
        self.id.store(id.0, Ordering::Relaxed);
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(crate::session::MAX_MESSAGE_BYTES)
    }

    pub(crate) fn distribution(&self) -> DistributionClient<Channel> {
        DistributionClient::new(self.channel.clone()).max_decoding_message_size(crate::session::MAX_MESSAGE_BYTES)
    }

    pub(crate) fn compat(&self) -> CompatClient<Channel> {
        CompatClient::new(self.channel.clone()).max_decoding_message_size(crate::session::MAX_MESSAGE_BYTES)
    }

    pub(crate) fn txn(&self) -> TxnClient<Channel> {
        TxnClient::new(self.channel.clone()).max_decoding_message_size(crate::session::MAX_MESSAGE_BYTES)
    }

    /// Sends one call and waits for the answer until `deadline`.
    pub(crate) async fn call(&self, call: Call, deadline: Instant) -> Result<SessionAnswer, NoAnswer> {
        let session = self.session();
        let reply = session.call(call, deadline).await;
        if matches!(reply, Err(NoAnswer::NotSent(_) | NoAnswer::Lost(_))) {
            self.rest();
        }
        reply
    }

    fn session(&self) -> Arc<Session> {
        let open = || self.session.load_full().filter(|session| session.is_open());
        if let Some(session) = open() {
            return session;
        }
        let _one_at_a_time = self.opening.lock();
        open().unwrap_or_else(|| {
            let session = Arc::new(Session::open(self.channel.clone()));
            self.session.store(Some(session.clone()));
            session
        })
    }

    /// Avoids the node for a moment.
    pub(crate) fn rest(&self) {
        let until = self.started.elapsed() + REST;
        self.resting_until_ms.store(whole_ms(until), Ordering::Relaxed);
    }

    pub(crate) fn is_resting(&self) -> bool {
        let until = self.resting_until_ms.load(Ordering::Relaxed);
        until != 0 && whole_ms(self.started.elapsed()) < until
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({} at {})", self.id.load(Ordering::Relaxed), self.address)
    }
}

/// `host:port` of an endpoint in any accepted spelling, so that one node is not taken for two.
pub(crate) fn normalize(address: &str) -> String {
    address.trim().trim_start_matches("http://").trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn endpoints_are_host_and_port_with_or_without_scheme() {
        for (text, expect) in [("a:1", "a:1"), ("http://a:1/", "a:1"), (" 127.0.0.1:7000 ", "127.0.0.1:7000")] {
            assert_eq!(Node::new(text, None, REST).unwrap().address(), expect);
        }
        for bad in ["", "a", "https://a:1", "a b:1", "http://"] {
            assert_eq!(Node::new(bad, None, REST).unwrap_err().reason, Reason::InvalidArgument, "{bad}");
        }
    }
}
