use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_coordinator::{Failure, GroupDirectory};
use drover_keys::{ClusterId, GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_transport::PeerPool;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use drover_wire::proto::v1::{self, cluster_server::Cluster};
use drover_wire::{GroupAnswer, GroupDigest, GroupOp, encode_topology, error_to_status, status_to_error};
use futures::stream::BoxStream;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::distribution::check_cluster;
use super::{Front, Nodes, membership};

/// How long a transfer or a digest may take if the caller does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// `drover.v1.Cluster`.
pub struct ClusterService {
    cluster: ClusterId,
    nodes: Arc<Nodes>,
    front: Arc<Front>,
    directory: Arc<GroupDirectory>,
    /// What is remembered of the data directories of peers.
    peers: Arc<PeerPool>,
}

impl ClusterService {
    /// The service of a node.
    pub fn new(cluster: ClusterId, nodes: Arc<Nodes>, front: Arc<Front>, peers: Arc<PeerPool>) -> Self {
        let directory = Arc::clone(&nodes.view().directory);
        Self { cluster, nodes, front, directory, peers }
    }

    fn group(&self, id: u64) -> Result<GroupId, Error> {
        let group = GroupId(id);
        if self.directory.members(group).is_empty() {
            return Err(Error::definite(
                Reason::UnknownGroup,
                format!("there is no group {group}; nothing was changed"),
            ));
        }
        Ok(group)
    }

    /// The client of the node that leads `group`; `None` if it is this one.
    fn leader(&self, group: GroupId) -> Result<Option<ClusterClient<Channel>>, Error> {
        let leader = self.front.coordinator().dispatcher().believed_leader(group);
        match leader {
            Some(leader) if leader == self.nodes.view().node => Ok(None),
            Some(leader) => match self.nodes.others().get(&leader).map(|address| self.nodes.client(address)) {
                Some(Ok(client)) => Ok(Some(client)),
                Some(Err(_)) | None => {
                    Err(Error::definite(Reason::UnknownNode, format!("the address of node {leader} is not known")))
                }
            },
            None => Err(Error::definite(
                Reason::Unavailable,
                format!("no leader of group {group} is known; nothing was changed, try again later"),
            )),
        }
    }

    async fn transfer(&self, request: v1::TransferLeaderRequest) -> Result<v1::TransferLeaderResponse, Error> {
        let group = self.group(request.group_id)?;
        let timeout = timeout(request.timeout_ms);
        if let Some(mut leader) = self.leader(group)? {
            let forwarded = tonic::Request::new(request);
            let answer = tokio::time::timeout(timeout, leader.transfer_leader(forwarded)).await;
            let late = || {
                Error::unknown(Reason::TimeoutIndefinite, "the leader did not answer in time; it may still hand over")
            };
            let answer = answer.map_err(|_| late())?;
            return answer.map(Response::into_inner).map_err(|status| status_to_error(&status));
        }
        let replica = self.directory.running(group).ok_or_else(|| {
            Error::definite(Reason::ReplicaStopped, "the replica on this node has stopped; nothing was changed")
        })?;
        let term = replica.transfer_leader(NodeId(request.to_node), Instant::now() + timeout).await?;
        Ok(v1::TransferLeaderResponse { leader: request.to_node, term })
    }

    async fn compare(&self, request: v1::CompareDigestsRequest) -> Result<v1::CompareDigestsResponse, Error> {
        let group = self.group(request.group_id)?;
        let deadline = Instant::now() + timeout(request.timeout_ms);
        let dispatcher = self.front.coordinator().dispatcher();
        let first = dispatcher.digest(group, deadline).await?;
        let members = self.directory.members(group);
        let asked = members.iter().map(|node| async move {
            let op = GroupOp::Digest { index: first.index };
            (*node, dispatcher.call_one(*node, group, op, deadline).await)
        });
        let digests: Vec<_> = futures::future::join_all(asked)
            .await
            .into_iter()
            .map(|(node, answer)| replica_digest(node, answer))
            .collect();
        let expect = &first.digest.to_be_bytes()[..];
        let equal = digests.iter().all(|digest| digest.error.is_empty() && digest.digest == expect);
        Ok(v1::CompareDigestsResponse { index: first.index, digests, equal })
    }
}

fn timeout(timeout_ms: u32) -> Duration {
    if timeout_ms == 0 { DEFAULT_TIMEOUT } else { Duration::from_millis(u64::from(timeout_ms)) }
}

fn replica_digest(node: NodeId, answer: Result<GroupAnswer, Failure>) -> v1::ReplicaDigest {
    let error = match answer {
        Ok(GroupAnswer::Digest(GroupDigest { digest, rows, .. })) => {
            let digest = digest.to_be_bytes().to_vec().into();
            return v1::ReplicaDigest { node_id: node.0, digest, rows, error: String::new() };
        }
        Ok(other) => format!("an answer that does not fit: {other:?}"),
        Err(Failure::Answered(error)) => error.to_string(),
        Err(Failure::NotSent(why) | Failure::Lost(why)) => why,
    };
    v1::ReplicaDigest { node_id: node.0, error, ..Default::default() }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn get_status(
        &self,
        _request: tonic::Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let nodes = self.nodes.all().await;
        Ok(Response::new(v1::GetStatusResponse { cluster_id: self.cluster.to_string(), nodes }))
    }

    async fn get_node_status(
        &self,
        _request: tonic::Request<v1::GetNodeStatusRequest>,
    ) -> Result<Response<v1::GetNodeStatusResponse>, Status> {
        let cluster_id = self.cluster.to_string();
        Ok(Response::new(v1::GetNodeStatusResponse { node: Some(self.nodes.view().status()), cluster_id }))
    }

    async fn transfer_leader(
        &self,
        request: tonic::Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.transfer(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn compare_digests(
        &self,
        request: tonic::Request<v1::CompareDigestsRequest>,
    ) -> Result<Response<v1::CompareDigestsResponse>, Status> {
        self.compare(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn list_nodes(
        &self,
        request: tonic::Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let answer = membership::list_nodes(self.front.coordinator(), &request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn drain_node(
        &self,
        request: tonic::Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let answer = membership::drain_node(&self.front, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn remove_node(
        &self,
        request: tonic::Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let answer = membership::remove_node(&self.front, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn register_node(
        &self,
        request: tonic::Request<v1::RegisterNodeRequest>,
    ) -> Result<Response<v1::RegisterNodeResponse>, Status> {
        let remembered = |node| self.peers.identities().get(node);
        let answer = membership::register_node(self.cluster, &self.front, remembered, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn add_replica(
        &self,
        request: tonic::Request<v1::AddReplicaRequest>,
    ) -> Result<Response<v1::AddReplicaResponse>, Status> {
        let answer = membership::add_replica(&self.front, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn remove_replicas(
        &self,
        request: tonic::Request<v1::RemoveReplicasRequest>,
    ) -> Result<Response<v1::RemoveReplicasResponse>, Status> {
        let answer = membership::remove_replicas(&self.front, request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    type WatchTopologyStream = BoxStream<'static, Result<v1::Topology, Status>>;

    async fn watch_topology(
        &self,
        request: tonic::Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        let request = request.into_inner();
        check_cluster(self.cluster, &request.cluster_id).map_err(|error| error_to_status(&error))?;
        let known = request.known_revision;
        let (newest, drained) = (self.nodes.view().topology.subscribe(), self.front.drained());
        let told = futures::stream::unfold((newest, known), move |(mut newest, known)| {
            let drained = drained.clone();
            async move {
                let next = tokio::select! {
                    () = drained.cancelled() => return None,
                    next = newest.wait_for(|topology| topology.revision > known) => Arc::clone(&*next.ok()?),
                };
                Some((Ok(encode_topology(&next)), (newest, next.revision)))
            }
        });
        Ok(Response::new(Box::pin(told)))
    }

    async fn list_groups(
        &self,
        request: tonic::Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let answer = membership::list_groups(self.front.coordinator(), &request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn list_audit_events(
        &self,
        request: tonic::Request<v1::ListAuditEventsRequest>,
    ) -> Result<Response<v1::ListAuditEventsResponse>, Status> {
        let answer = membership::list_audit_events(self.front.coordinator(), &request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }
}
