use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_hlc::Timestamp;
use drover_keys::{GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1;
use drover_wire::{status_bytes_to_error, status_to_error};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::CallError;
use crate::identities::PeerIdentities;
use crate::leaving::Leaving;
use crate::network::GroupNetworkFactory;
use crate::options::PeerOptions;
use crate::peer::Peer;
use crate::pending::Answer;
use crate::rate::RateLimit;
use crate::snapshot::TransferLocks;
use crate::stats::{PeerStats, PeerStatsSnapshot};

/// A node's peers: their addresses, one connection to each, and what can be asked of them.
pub struct PeerPool {
    me: Arc<PeerOptions>,
    identities: Arc<PeerIdentities>,
    peers: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
    stats: Mutex<BTreeMap<NodeId, Arc<PeerStats>>>,
    /// Why this node must not go on, once a peer has told it that its data directory is another one than before.
    pub(crate) replaced: watch::Sender<Option<Error>>,
    pub(crate) leaving: Leaving,
    pub(crate) snapshot_rate: RateLimit,
    pub(crate) transfers: TransferLocks,
}

impl PeerPool {
    /// A pool without peers.
    pub fn new(options: PeerOptions, identities: PeerIdentities) -> Arc<Self> {
        Arc::new(Self {
            snapshot_rate: RateLimit::new(options.tuning.snapshot_bytes_per_second),
            transfers: TransferLocks::default(),
            leaving: Leaving::default(),
            replaced: watch::Sender::new(None),
            me: Arc::new(options),
            identities: Arc::new(identities),
            peers: RwLock::default(),
            stats: Mutex::default(),
        })
    }

    /// Who this node is.
    pub fn options(&self) -> &PeerOptions {
        &self.me
    }

    /// Why this node must not go on: a peer knows another data directory under its number. A node that lost its votes and its
    /// log would otherwise begin anew, beside the cluster that it was part of.
    pub fn replaced(&self) -> watch::Receiver<Option<Error>> {
        self.replaced.subscribe()
    }

    /// The identities of the peers' data directories.
    pub fn identities(&self) -> &Arc<PeerIdentities> {
        &self.identities
    }

    /// Sets where a peer serves gRPC (`host:port`), and connects to it. A connection to another address of it ends.
    /// Setting this node's own address does nothing. Must be called inside a tokio runtime.
    pub fn set_address(&self, node: NodeId, address: &str) {
        if node == self.me.node_id {
            return;
        }
        self.peer_or_start(node, address).set_address(address.to_owned());
    }

    /// Removes a peer and ends its connection. Calls to it fail from now on; replication streams that run to it end.
    pub fn remove(&self, node: NodeId) {
        if let Some(peer) = self.peers.write().remove(&node) {
            peer.stop();
        }
    }

    /// Ends all connections that this node has made, for good.
    pub fn close(&self) {
        self.peers.read().values().for_each(|peer| peer.stop());
    }

    /// Where a peer is believed to be.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.peers.read().get(&node).map(|peer| peer.address())
    }

    /// Whether there is a connection to a peer now.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.peers.read().get(&node).is_some_and(|peer| peer.is_up())
    }

    /// Tells every peer that this node is being stopped, and returns those that stay. One that does not answer by the deadline is
    /// none of them; one whose build does not know the question is.
    pub async fn leave(&self, deadline: Instant) -> BTreeSet<NodeId> {
        self.leaving.leave();
        let peers: Vec<Arc<Peer>> = self.peers.read().values().filter(|peer| peer.is_up()).cloned().collect();
        let told = peers.into_iter().map(|peer| async move {
            let connection = peer.connection(deadline).await.ok()?;
            let mut client = connection.client();
            match timeout_at(deadline, client.leave(connection.request(v1::LeaveRequest {}))).await.ok()? {
                Ok(answer) if answer.get_ref().leaving => {
                    self.leaving.left(peer.node);
                    None
                }
                Ok(_) => Some(peer.node),
                Err(status) => (status.code() == tonic::Code::Unimplemented).then_some(peer.node),
            }
        });
        let staying: BTreeSet<NodeId> = futures::future::join_all(told).await.into_iter().flatten().collect();
        // Some have said meanwhile that they leave, too.
        &staying - &self.leaving.peers().borrow()
    }

    /// Whether a peer has said that it is being stopped, and has not come back since.
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.leaving.peers().borrow().contains(&node)
    }

    /// Completes when a peer has said that it is being stopped, or the connection to it is lost.
    pub async fn gone(&self, node: NodeId) {
        let mut leaving = self.leaving.peers();
        let said = async {
            // The sender lives as long as this pool.
            let _ = leaving.wait_for(|leaving| leaving.contains(&node)).await;
        };
        let Ok(peer) = self.peer(node) else { return };
        tokio::select! {
            () = said => {}
            () = peer.down() => {}
        }
    }

    /// What went to and came from each peer.
    pub fn stats(&self) -> Vec<(NodeId, PeerStatsSnapshot)> {
        self.stats.lock().iter().map(|(node, stats)| (*node, stats.snapshot())).collect()
    }

    /// Asks a replica of a group on another node. The request's timeout is set to what is left until the deadline.
    ///
    /// # Errors
    /// If there is no answer; the error tells whether the peer can have seen the request. Errors of the group itself
    /// are answers.
    pub async fn group_call(
        &self,
        node: NodeId,
        mut request: v1::GroupRequest,
        deadline: Instant,
    ) -> Result<v1::GroupResponse, CallError> {
        request.timeout_ms = millis_until(deadline);
        let connection = self.peer(node)?.connection(deadline).await?;
        match connection.operations.call(Answer::GroupRequest(request), deadline).await? {
            Answer::GroupResponse(response) => Ok(response),
            _ => Err(wrong_answer(node)),
        }
    }

    /// Asks the node that is believed to be the oracle for `count` consecutive timestamps; returns the lowest.
    ///
    /// # Errors
    /// The peer's, or that there is no answer. Timestamps that were issued and lost do no harm.
    pub async fn timestamps(&self, node: NodeId, count: u32, deadline: Instant) -> Result<Timestamp, Error> {
        let request = Answer::TimestampRequest(v1::TimestampRequest { count });
        match self.peer(node)?.connection(deadline).await?.control.call(request, deadline).await? {
            Answer::TimestampResponse(v1::TimestampResponse { body: Some(body) }) => match body {
                v1::timestamp_response::Body::First(raw) => Ok(Timestamp::from_raw(raw)),
                v1::timestamp_response::Body::Error(bytes) => Err(status_bytes_to_error(&bytes)),
            },
            _ => Err(wrong_answer(node).into()),
        }
    }

    /// Asks another node for what a range that moves away holds, portion by portion.
    ///
    /// # Errors
    /// If the peer cannot be reached, or refuses it: nothing is changed by it. What comes later ends the stream.
    pub async fn export_range_versions(
        &self,
        node: NodeId,
        request: v1::ExportRangeVersionsRequest,
        deadline: Instant,
    ) -> Result<BoxStream<'static, Result<v1::ExportRangeVersionsResponse, Error>>, Error> {
        let connection = self.peer(node)?.connection(deadline).await?;
        let mut client = connection.client();
        let asked = timeout_at(deadline, client.export_range_versions(connection.request(request))).await;
        let portions = asked.map_err(|_| no_answer(node))?.map_err(|status| status_to_error(&status))?.into_inner();
        Ok(portions.map_err(|status| status_to_error(&status)).boxed())
    }

    /// Sends a portion of the copy of a range to the node that is believed to lead the group it moves to. The request's timeout
    /// is set to what is left until the deadline.
    ///
    /// # Errors
    /// If there is no answer, or what the group refuses; each says whether anything can have been changed.
    pub async fn import_range_versions(
        &self,
        node: NodeId,
        mut request: v1::ImportRangeVersionsRequest,
        deadline: Instant,
    ) -> Result<v1::ImportRangeVersionsResponse, Error> {
        request.timeout_ms = millis_until(deadline);
        let connection = self.peer(node)?.connection(deadline).await?;
        let mut client = connection.client();
        let asked = timeout_at(deadline, client.import_range_versions(connection.request(request))).await;
        let answer = asked.map_err(|_| no_answer(node))?;
        answer.map(tonic::Response::into_inner).map_err(|status| status_to_error(&status))
    }

    /// What openraft needs to talk to the other replicas of a group.
    pub fn raft_network(self: &Arc<Self>, group: GroupId) -> GroupNetworkFactory {
        GroupNetworkFactory::new(Arc::clone(self), group)
    }

    pub(crate) fn peer(&self, node: NodeId) -> Result<Arc<Peer>, CallError> {
        self.peers
            .read()
            .get(&node)
            .cloned()
            .ok_or_else(|| CallError::not_sent(node, Reason::UnknownNode, "its address is not known"))
    }

    /// The peer, started with `address` if it is not in the address book.
    pub(crate) fn peer_or_start(&self, node: NodeId, address: &str) -> Arc<Peer> {
        if let Some(peer) = self.peers.read().get(&node) {
            return Arc::clone(peer);
        }
        let mut peers = self.peers.write();
        let peer = peers.entry(node).or_insert_with(|| {
            let (me, identities) = (Arc::clone(&self.me), Arc::clone(&self.identities));
            Arc::new(Peer::start(node, address.to_owned(), me, identities, self.stats_of(node)))
        });
        Arc::clone(peer)
    }

    /// A peer has connected to this node: it is alive.
    pub(crate) fn nudge(&self, node: NodeId) {
        if let Some(peer) = self.peers.read().get(&node) {
            peer.nudge();
        }
    }

    pub(crate) fn stats_of(&self, node: NodeId) -> Arc<PeerStats> {
        Arc::clone(self.stats.lock().entry(node).or_default())
    }
}

fn millis_until(deadline: Instant) -> u32 {
    u32::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(u32::MAX)
}

fn no_answer(node: NodeId) -> Error {
    CallError::unknown(node, Reason::TimeoutIndefinite, "no answer came in time").into()
}

fn wrong_answer(node: NodeId) -> CallError {
    CallError::unknown(node, Reason::Internal, "the peer answered something else than was asked")
}
