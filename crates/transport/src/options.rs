use drover_keys::{ClusterId, NodeId, StoreId};

/// Who this node is, and how it talks to its peers.
#[derive(Debug, Clone)]
pub struct PeerOptions {
    /// The cluster. Peers of other clusters are refused.
    pub cluster_id: ClusterId,
    /// This node.
    pub node_id: NodeId,
    /// Identity of this node's data directory.
    pub store_id: StoreId,
    /// Version of this binary, for the peer's logs.
    pub version: String,
    /// Where this node serves gRPC, for the peer's logs.
    pub grpc_address: String,
    /// Where this node serves its admin interface.
    pub admin_address: String,
    /// What leases rest on here.
    pub lease: LeaseTerms,
    /// Sizes and times.
    pub tuning: Tuning,
}

impl PeerOptions {
    /// Of a node that tells its peers nothing but who it is, trusts no lease, and talks to them as usual.
    pub fn new(cluster_id: ClusterId, node_id: NodeId, store_id: StoreId) -> Self {
        Self {
            cluster_id,
            node_id,
            store_id,
            version: String::new(),
            grpc_address: String::new(),
            admin_address: String::new(),
            lease: LeaseTerms::default(),
            tuning: Tuning::default(),
        }
    }
}

/// What the leases of a node rest on. Two nodes must agree: a leader that trusts a lease for longer than a voter keeps its
/// promise would serve stale reads beside its successor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseTerms {
    /// For how long a voter here refuses other candidates after it heard from a leader, in milliseconds.
    pub promise_ms: u64,
    /// For how long a leader here trusts the answer of a quorum, in milliseconds.
    pub trust_ms: u64,
}

impl LeaseTerms {
    /// Whether replicas on both nodes may be in one group.
    pub fn fit(self, other: Self) -> bool {
        self.trust_ms < other.promise_ms && other.trust_ms < self.promise_ms
    }
}

/// Sizes and times of the connections. The defaults suit a local network.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Longest wait for a TCP connection and its handshake.
    pub connect_timeout_ms: u64,
    /// First wait after a failed connection. Doubles up to `reconnect_max_ms`; each wait is a random part of that.
    pub reconnect_min_ms: u64,
    /// Longest wait between two attempts to connect.
    pub reconnect_max_ms: u64,
    /// How often a connection is probed with an HTTP/2 ping.
    pub keep_alive_interval_ms: u64,
    /// How long the answer to a ping may take before the connection is given up.
    pub keep_alive_timeout_ms: u64,
    /// Largest message that is sent or accepted.
    pub max_message_bytes: usize,
    /// HTTP/2 flow-control window of one stream. The connection's is four times that, so that no stream can use it up.
    pub stream_window_bytes: u32,
    /// A link frame is closed when it holds this much. A larger message has a frame of its own.
    pub frame_bytes: usize,
    /// Messages that may wait in the queue of one link.
    pub queue_messages: usize,
    /// Bytes that may wait in the queue of one link. A larger message waits for an empty queue.
    pub queue_bytes: usize,
    /// An append request is split when its entries exceed this.
    pub append_bytes: usize,
    /// Append requests of one stream that may wait for their answers.
    pub append_window: usize,
    /// Bytes of append requests to one peer, of all groups, that may wait for their answers.
    pub append_window_bytes: usize,
    /// A replication stream fails if requests are out and no answer comes for this long.
    pub append_stall_ms: u64,
    /// Group operations and timestamp requests of one link that a server works on at a time; above it, it answers
    /// `OVERLOADED`.
    pub inbound_calls: usize,
    /// Replication streams that one link may have open.
    pub inbound_streams: usize,
    /// Bytes of snapshot content in one message.
    pub snapshot_chunk_bytes: usize,
    /// Snapshot bytes that this node sends per second, over all transfers. `None`: no limit.
    pub snapshot_bytes_per_second: Option<u64>,
    /// A snapshot transfer fails if nothing moves for this long.
    pub snapshot_stall_ms: u64,
    /// What has arrived of a snapshot is removed when nothing more comes for this long.
    pub snapshot_keep_ms: u64,
    /// Longest wait for the receiver to check and install a snapshot.
    pub snapshot_install_ms: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            connect_timeout_ms: 2_000,
            reconnect_min_ms: 50,
            reconnect_max_ms: 1_000,
            keep_alive_interval_ms: 1_000,
            keep_alive_timeout_ms: 2_000,
            max_message_bytes: 64 << 20,
            stream_window_bytes: 8 << 20,
            frame_bytes: 256 << 10,
            queue_messages: 8_192,
            queue_bytes: 32 << 20,
            append_bytes: 1 << 20,
            append_window: 64,
            append_window_bytes: 64 << 20,
            append_stall_ms: 10_000,
            inbound_calls: 16_384,
            inbound_streams: 8_192,
            snapshot_chunk_bytes: 1 << 20,
            snapshot_bytes_per_second: None,
            snapshot_stall_ms: 30_000,
            snapshot_keep_ms: 3_600_000,
            snapshot_install_ms: 600_000,
        }
    }
}
