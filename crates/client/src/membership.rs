//! Nodes, groups, compatibility and the audit log, as the catalog knows them.

use bytes::Bytes;
use drover_keys::NodeId;
use drover_kv::Error;
use drover_wire::proto::v1::{
    AuditEvent, CompatRequest, CompatResponse, DrainNodeRequest, GroupInfo, ListAuditEventsRequest, ListGroupsRequest,
    ListNodesRequest, RegisteredNode, RemoveNodeRequest,
};
use rand::Rng;

use crate::Client;
use crate::cluster::of_a_read;

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

/// Names a request; the same in all its attempts.
fn request_id() -> Bytes {
    let id: [u8; 16] = rand::rng().random();
    Bytes::copy_from_slice(&id)
}

impl Client {
    /// The nodes.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn nodes(&self) -> Result<Vec<RegisteredNode>, Error> {
        let asked = self.ask_nodes(|node, timeout_ms| {
            let mut cluster = node.cluster();
            async move { cluster.list_nodes(ListNodesRequest { timeout_ms }).await }
        });
        asked.await.map(|response| response.nodes).map_err(of_a_read)
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

    /// The groups and their replicas.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn groups(&self) -> Result<Vec<GroupInfo>, Error> {
        let asked = self.ask_nodes(|node, timeout_ms| {
            let mut cluster = node.cluster();
            async move { cluster.list_groups(ListGroupsRequest { timeout_ms }).await }
        });
        asked.await.map(|response| response.groups).map_err(of_a_read)
    }

    /// The newest audit events, oldest first.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn audit_events(&self, limit: u32) -> Result<Vec<AuditEvent>, Error> {
        let asked = self.ask_nodes(|node, timeout_ms| {
            let mut cluster = node.cluster();
            async move { cluster.list_audit_events(ListAuditEventsRequest { limit, timeout_ms }).await }
        });
        asked.await.map(|response| response.events).map_err(of_a_read)
    }

    /// Shows, freezes or unfreezes the cluster's version; the state after it. Each leaves an audit event.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` if no version is known that could be frozen; unknown if no attempt was answered.
    pub async fn compat(&self, action: CompatAction, actor: &str) -> Result<CompatResponse, Error> {
        let request_id = request_id();
        self.ask_nodes(|node, timeout_ms| {
            let request = CompatRequest { request_id: request_id.clone(), actor: actor.to_owned(), timeout_ms };
            let mut compat = node.compat();
            async move {
                match action {
                    CompatAction::Show => compat.get_compat(request).await,
                    CompatAction::Freeze => compat.freeze(request).await,
                    CompatAction::Unfreeze => compat.unfreeze(request).await,
                }
            }
        })
        .await
    }
}
