use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_coordinator::{Failure, GroupDirectory};
use drover_keys::{ClusterId, GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::cluster_client::ClusterClient;
use drover_wire::proto::v1::{self, cluster_server::Cluster};
use drover_wire::{GroupAnswer, GroupDigest, GroupOp, error_to_status, status_to_error};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

use super::{Front, membership};
use crate::node::NodeView;

/// How long another node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a transfer or a digest may take if the caller does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// `drover.v1.Cluster`.
pub struct ClusterService {
    cluster: ClusterId,
    view: NodeView,
    front: Arc<Front>,
    directory: Arc<GroupDirectory>,
    others: BTreeMap<NodeId, (String, ClusterClient<Channel>)>,
}

impl ClusterService {
    /// The service of a node; `others` are the gRPC addresses of the other nodes.
    ///
    /// # Errors
    /// If an address cannot be one.
    pub fn new(
        cluster: ClusterId,
        view: NodeView,
        front: Arc<Front>,
        others: impl IntoIterator<Item = (NodeId, String)>,
    ) -> Result<Self, tonic::transport::Error> {
        let mut clients = BTreeMap::new();
        for (node, address) in others {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(STATUS_TIMEOUT);
            clients.insert(node, (address, ClusterClient::new(endpoint.connect_lazy())));
        }
        Ok(Self { cluster, directory: Arc::clone(&view.directory), view, front, others: clients })
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
            Some(leader) if leader == self.view.node => Ok(None),
            Some(leader) => match self.others.get(&leader) {
                Some((_, client)) => Ok(Some(client.clone())),
                None => Err(Error::definite(Reason::UnknownNode, format!("the address of node {leader} is not known"))),
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
        let asked = self.others.iter().map(|(node, (address, client))| async move {
            let mut client = client.clone();
            let asked = tokio::time::timeout(STATUS_TIMEOUT, client.get_node_status(v1::GetNodeStatusRequest {})).await;
            let unknown = |error: String| v1::NodeStatus {
                node_id: node.0,
                grpc_address: address.clone(),
                error,
                ..Default::default()
            };
            match asked {
                Ok(Ok(answer)) => answer.into_inner().node.unwrap_or_else(|| unknown("the answer is empty".to_owned())),
                Ok(Err(status)) => unknown(status.message().to_owned()),
                Err(_) => unknown(format!("no answer within {} s", STATUS_TIMEOUT.as_secs())),
            }
        });
        let mut nodes = futures::future::join_all(asked).await;
        nodes.push(self.view.status());
        nodes.sort_by_key(|node| node.node_id);
        Ok(Response::new(v1::GetStatusResponse { cluster_id: self.cluster.to_string(), nodes }))
    }

    async fn get_node_status(
        &self,
        _request: tonic::Request<v1::GetNodeStatusRequest>,
    ) -> Result<Response<v1::GetNodeStatusResponse>, Status> {
        Ok(Response::new(v1::GetNodeStatusResponse { node: Some(self.view.status()) }))
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
        let answer = membership::drain_node(self.front.coordinator(), request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn remove_node(
        &self,
        request: tonic::Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let answer = membership::remove_node(self.front.coordinator(), request.into_inner()).await;
        answer.map(Response::new).map_err(|error| error_to_status(&error))
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
