//! The gRPC server of a node, and the figures that are copied into the metrics before each scrape.

use std::sync::Arc;

use drover_coordinator::{GroupDirectory, Replica};
use drover_raftlog::NodeLog;
use drover_transport::{InternalServer, PeerPool, server_builder};
use drover_wire::proto;
use drover_wire::proto::v1::cluster_server::ClusterServer;
use drover_wire::proto::v1::compat_server::CompatServer;
use drover_wire::proto::v1::distribution_server::DistributionServer;
use drover_wire::proto::v1::kv_server::KvServer;
use drover_wire::proto::v1::txn_server::TxnServer;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic_health::server::HealthReporter;
use tower::util::MapResponseLayer;

use super::peers::PeerService;
use super::status::{NodeView, sample};
use super::strays::Strays;
use super::{NodeClock, NodeError};
use crate::config::Config;
use crate::disk::DiskState;
use crate::listen::Incoming;
use crate::metrics::{Metrics, follow_total};
use crate::services::{ClusterService, CompatService, DistributionService, KvService, Nodes, TxnService, unread};

/// Starts to answer what comes in, until `stop`.
///
/// # Errors
/// If an address of the configuration cannot be one.
pub fn start(
    config: &Config,
    incoming: Incoming,
    view: NodeView,
    peer_service: Arc<PeerService>,
    peers: Arc<PeerPool>,
    stop: CancellationToken,
) -> Result<(JoinHandle<Result<(), tonic::transport::Error>>, HealthReporter), NodeError> {
    let front = Arc::clone(&view.front);
    let view_front = Arc::clone(&view.front);
    let txn_front = Arc::clone(&view.front);
    let message_bytes = config.message_bytes();
    let kv = KvServer::new(KvService::new(Arc::clone(&front)))
        .max_decoding_message_size(message_bytes)
        .max_encoding_message_size(usize::MAX);
    let nodes = config.bootstrap.nodes.iter();
    let configured = nodes.map(|node| (node.id, node.grpc.as_str().to_owned()));
    let nodes = Nodes::new(config.cluster.id, view, configured);
    let cluster = ClusterService::new(config.cluster.id, Arc::clone(&nodes), front, Arc::clone(&peers));
    let cluster = ClusterServer::new(cluster).max_decoding_message_size(message_bytes);
    let distribution =
        DistributionService::new(config.cluster.id, Arc::clone(&view_front), nodes, config.job_options());
    let distribution = DistributionServer::new(distribution).max_decoding_message_size(message_bytes);
    let compat = CompatServer::new(CompatService::new(view_front)).max_decoding_message_size(message_bytes);
    let txn = TxnServer::new(TxnService::new(txn_front)).max_decoding_message_size(message_bytes);
    let internal = InternalServer::new(Arc::clone(&peers), peer_service);
    let (health, health_service) = tonic_health::server::health_reporter();
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let unbuilt = |error| NodeError::Failed(format!("the reflection service cannot be built: {error}"));
    // Older clients know the first version of reflection only.
    let (reflection, reflection_alpha) =
        (described().build_v1().map_err(unbuilt)?, described().build_v1alpha().map_err(unbuilt)?);
    let streams = u32::try_from(config.server.http2_max_streams).unwrap_or(u32::MAX);
    let window = u32::try_from(config.server.http2_connection_window_bytes.0).unwrap_or(u32::MAX);
    let tuning = &peers.options().tuning;
    let router = server_builder(tuning)
        .layer(MapResponseLayer::new(unread::told))
        .max_concurrent_streams(Some(streams))
        .initial_connection_window_size(window.max(tuning.stream_window_bytes.saturating_mul(4)))
        .add_service(kv)
        .add_service(cluster)
        .add_service(distribution)
        .add_service(compat)
        .add_service(txn)
        .add_service(internal)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(reflection_alpha);
    let stop = stop.cancelled_owned();
    let server = match incoming {
        Incoming::Tcp(listener) => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop))
        }
        Incoming::Simulated(incoming) => tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop)),
    };
    Ok((server, health))
}

/// Registers what others count, so that it is copied before each scrape.
pub fn export(
    metrics: &Metrics,
    log: &Arc<NodeLog>,
    peers: &Arc<PeerPool>,
    directory: &Arc<GroupDirectory>,
    disk: watch::Receiver<DiskState>,
    clock: Arc<NodeClock>,
) {
    metrics.on_scrape(move |metrics| {
        follow_total(&metrics.clock.refused, clock.refused());
        if let Some((last, ahead_ms)) = clock.reading() {
            metrics.clock.last_physical_ms.set(i64::try_from(last.physical().unix_ms()).unwrap_or(i64::MAX));
            metrics.clock.ahead_ms.set(ahead_ms);
        }
    });
    metrics.on_scrape(move |metrics| metrics.disk.set(*disk.borrow()));
    let (directory, strays) = (Arc::clone(directory), Strays::default());
    metrics.on_scrape(move |metrics| {
        follow_total(&metrics.failed_drivers, directory.jobs().failed_drivers());
        for (id, replica) in directory.replicas() {
            if let Replica::Running(group) = replica {
                metrics.replicas.observe(id, &sample(&group));
                metrics.replicas.observe_strays(id, strays.of(id, group.fsm()));
            }
        }
    });
    let log = Arc::clone(log);
    metrics.on_scrape(move |metrics| {
        let stats = log.stats();
        follow_total(&metrics.raftlog.fsyncs, stats.fsyncs);
        follow_total(&metrics.raftlog.appends, stats.entries);
        follow_total(&metrics.raftlog.bytes, stats.written_bytes);
        follow_total(&metrics.raftlog.write_micros, stats.write_micros);
    });
    let peers = Arc::clone(peers);
    metrics.on_scrape(move |metrics| {
        for (node, stats) in peers.stats() {
            let peer = node.to_string();
            metrics.links.connected.with_label_values(&[&peer]).set(i64::from(peers.is_connected(node)));
            follow_total(&metrics.links.connects.with_label_values(&[&peer]), stats.connects);
            for (direction, messages, bytes) in
                [("out", stats.messages_sent, stats.bytes_sent), ("in", stats.messages_received, stats.bytes_received)]
            {
                follow_total(&metrics.links.messages.with_label_values(&[peer.as_str(), direction]), messages);
                follow_total(&metrics.links.bytes.with_label_values(&[peer.as_str(), direction]), bytes);
            }
        }
    });
}
