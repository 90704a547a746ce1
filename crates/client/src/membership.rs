//! Nodes, groups, compatibility and the audit log, as the catalog knows them.

use bytes::Bytes;
use drover_keys::{ClusterId, GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::{
    AddReplicaRequest, AuditEvent, CompatRequest, CompatResponse, DrainNodeRequest, GroupInfo, ListAuditEventsRequest,
    ListGroupsRequest, ListNodesRequest, RegisterNodeRequest, RegisteredNode, RemoveNodeRequest, RemoveReplicasRequest,
    SoftwareVersion, compat_response::Outcome,
};
use rand::Rng;

use crate::Client;

/// What to do about the cluster's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompatAction {
    /// Tell the state.
    Show,
    /// Pin the version.
    Freeze,
    /// Let it rise again.
    Unfreeze,
}

impl CompatAction {
    fn comes_to(self, outcome: Outcome) -> bool {
        match self {
            CompatAction::Show => outcome == Outcome::Read,
            CompatAction::Freeze => matches!(outcome, Outcome::Frozen | Outcome::AlreadyFrozen),
            CompatAction::Unfreeze => matches!(outcome, Outcome::Unfrozen | Outcome::NothingFrozen),
        }
    }
}

fn strange_outcome(outcome: i32) -> Error {
    let what = Outcome::try_from(outcome).map_or_else(|_| outcome.to_string(), |known| known.as_str_name().to_owned());
    let message = format!(
        "the node answered with outcome {what}, which does not fit the request; it may have been carried out: look with \
         `drover compat show`"
    );
    Error::unknown(Reason::Internal, message)
}

/// What a node that joins says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// Identity of its data directory.
    pub store: [u8; 16],
    /// Where clients and other nodes will reach it.
    pub grpc_address: String,
    /// Where its health and metrics will be.
    pub admin_address: String,
    /// Major and minor version of its build.
    pub version: (u16, u16),
    /// What its build can do.
    pub capabilities: Vec<String>,
}

/// Names a request; the same in all its attempts.
pub(crate) fn request_id() -> Bytes {
    let id: [u8; 16] = rand::rng().random();
    Bytes::copy_from_slice(&id)
}

impl Client {
    /// The nodes.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn nodes(&self) -> Result<Vec<RegisteredNode>, Error> {
        let asked = self.read_nodes(|node, timeout_ms| {
            let mut cluster = node.cluster();
            async move { cluster.list_nodes(ListNodesRequest { timeout_ms }).await }
        });
        asked.await.map(|response| response.nodes)
    }

    /// Lets a node get no new replicas, or get them again; whether it was otherwise before.
    ///
    /// # Errors
    /// `UNKNOWN_NODE`; unknown if no attempt was answered.
    pub async fn drain_node(&self, node_id: NodeId, on: bool, actor: &str) -> Result<bool, Error> {
        let request_id = request_id();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let (request_id, actor) = (request_id.clone(), actor.to_owned());
            let request = DrainNodeRequest { node_id: node_id.0, on, request_id, actor, timeout_ms };
            let mut cluster = node.cluster();
            async move { cluster.drain_node(request).await }
        });
        asked.await.map(|response| response.changed)
    }

    /// Forgets a node that holds no replica. Its id is never used again.
    ///
    /// # Errors
    /// `UNKNOWN_NODE`, `FAILED_PRECONDITION` if it holds replicas; unknown if no attempt was answered.
    pub async fn remove_node(&self, node_id: NodeId, actor: &str) -> Result<(), Error> {
        let request_id = request_id();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let (request_id, actor) = (request_id.clone(), actor.to_owned());
            let request = RemoveNodeRequest { node_id: node_id.0, request_id, actor, timeout_ms };
            let mut cluster = node.cluster();
            async move { cluster.remove_node(request).await }
        });
        asked.await.map(drop)
    }

    /// Gives a new node its number, and tells which cluster it belongs to.
    ///
    /// # Errors
    /// `WRONG_NODE` if another node is at its address, `FAILED_PRECONDITION` if its build is too old; unknown if no attempt
    /// was answered, and then a number may have been given out.
    pub async fn register_node(&self, node: &NewNode, actor: &str) -> Result<(NodeId, ClusterId), Error> {
        let request_id = request_id();
        let asked = self.ask_nodes(|asked, timeout_ms| {
            let (major, minor) = node.version;
            let request = RegisterNodeRequest {
                store_id: Bytes::copy_from_slice(&node.store),
                grpc_address: node.grpc_address.clone(),
                admin_address: node.admin_address.clone(),
                version: Some(SoftwareVersion { major: major.into(), minor: minor.into() }),
                capabilities: node.capabilities.clone(),
                request_id: request_id.clone(),
                actor: actor.to_owned(),
                timeout_ms,
                ..RegisterNodeRequest::default()
            };
            let mut cluster = asked.cluster();
            async move { cluster.register_node(request).await }
        });
        let answer = asked.await?;
        let cluster = answer.cluster_id.parse().map_err(|_| {
            let message =
                format!("the cluster's id {:?} cannot be read; node {} exists", answer.cluster_id, answer.node_id);
            Error::unknown(Reason::Internal, message)
        })?;
        Ok((NodeId(answer.node_id), cluster))
    }

    /// Lets a node get a replica of a group; the group as it is then. [`Client::groups`] shows how far it is.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`, `UNKNOWN_NODE`, `FAILED_PRECONDITION`; unknown if no attempt was answered.
    pub async fn add_replica(&self, group: GroupId, node: NodeId, actor: &str) -> Result<GroupInfo, Error> {
        let request_id = request_id();
        let asked = self.ask_nodes(|asked, timeout_ms| {
            let (request_id, actor) = (request_id.clone(), actor.to_owned());
            let request = AddReplicaRequest { group_id: group.0, node_id: node.0, request_id, actor, timeout_ms };
            let mut cluster = asked.cluster();
            async move { cluster.add_replica(request).await }
        });
        asked.await.map(|response| response.group.unwrap_or_default())
    }

    /// Lets nodes give up their replicas of a group, or calls off one that is joining; the group as it is then.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`, `FAILED_PRECONDITION` if that would hurt the group; unknown if no attempt was answered.
    pub async fn remove_replicas(&self, group: GroupId, nodes: &[NodeId], actor: &str) -> Result<GroupInfo, Error> {
        let request_id = request_id();
        let asked = self.ask_nodes(|asked, timeout_ms| {
            let (request_id, actor) = (request_id.clone(), actor.to_owned());
            let node_ids = nodes.iter().map(|node| node.0).collect();
            let request = RemoveReplicasRequest { group_id: group.0, node_ids, request_id, actor, timeout_ms };
            let mut cluster = asked.cluster();
            async move { cluster.remove_replicas(request).await }
        });
        asked.await.map(|response| response.group.unwrap_or_default())
    }

    /// The groups and their replicas.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let asked = self.read_nodes(|node, timeout_ms| {
            let mut cluster = node.cluster();
            async move { cluster.list_groups(ListGroupsRequest { timeout_ms }).await }
        });
        asked.await.map(|response| response.groups)
    }

    /// The newest audit events, oldest first.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn audit_events(&self, limit: u32) -> Result<Vec<AuditEvent>, Error> {
        let asked = self.read_nodes(|node, timeout_ms| {
            let mut cluster = node.cluster();
            async move { cluster.list_audit_events(ListAuditEventsRequest { limit, timeout_ms }).await }
        });
        asked.await.map(|response| response.events)
    }

    /// Shows, freezes or unfreezes the cluster's version; the state after it. Each leaves an audit event.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if no version is known that could be frozen; unknown if no attempt was answered, or if the
    /// answer says of no outcome of this action.
    pub async fn compat(&self, action: CompatAction, actor: &str) -> Result<CompatResponse, Error> {
        let request_id = request_id();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = CompatRequest { request_id: request_id.clone(), actor: actor.to_owned(), timeout_ms };
            let mut compat = node.compat();
            async move {
                match action {
                    CompatAction::Show => compat.get_compat(request).await,
                    CompatAction::Freeze => compat.freeze(request).await,
                    CompatAction::Unfreeze => compat.unfreeze(request).await,
                }
            }
        });
        let state = asked.await?;
        if action.comes_to(state.outcome()) { Ok(state) } else { Err(strange_outcome(state.outcome)) }
    }
}
