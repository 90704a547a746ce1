//! The parts of `drover.v1.Cluster` that read and change the catalog's nodes and groups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use drover_catalog::{CatalogCommandKind, CatalogReply, CatalogRow, GroupDescriptor, ReplicaRole, ReplicaState};
use drover_coordinator::Coordinator;
use drover_keys::NodeId;
use drover_kv::Error;
use drover_wire::CatalogPart;
use drover_wire::proto::v1;

use super::compat::software_version;
use super::distribution::{actor, misfit, request_id};

/// How long a call may take if the caller does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Audit events in one answer, if the caller does not say.
const EVENTS: u32 = 100;

fn deadline(timeout_ms: u32) -> Instant {
    let timeout = if timeout_ms == 0 { DEFAULT_TIMEOUT } else { Duration::from_millis(u64::from(timeout_ms)) };
    Instant::now() + timeout
}

async fn groups(coordinator: &Coordinator, deadline: Instant) -> Result<Vec<GroupDescriptor>, Error> {
    let rows = coordinator.read_catalog(CatalogPart::Groups, u32::MAX, deadline).await?;
    let group = |row| match row {
        CatalogRow::Group(group) => Some(group),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(group).collect())
}

/// The nodes as the catalog knows them.
pub async fn list_nodes(
    coordinator: &Coordinator,
    request: &v1::ListNodesRequest,
) -> Result<v1::ListNodesResponse, Error> {
    let deadline = deadline(request.timeout_ms);
    let meta = coordinator.read_catalog(CatalogPart::Meta, 1, deadline).await?.into_iter().find_map(|row| match row {
        CatalogRow::Meta(meta) => Some(meta),
        _ => None,
    });
    let Some(meta) = meta else { return Ok(v1::ListNodesResponse::default()) };
    let mut held: BTreeMap<NodeId, Vec<u64>> = BTreeMap::new();
    for group in groups(coordinator, deadline).await? {
        for node in group.replicas.keys() {
            held.entry(*node).or_default().push(group.id.0);
        }
    }
    let rows = coordinator.read_catalog(CatalogPart::Nodes, u32::MAX, deadline).await?;
    let node = |row| {
        let CatalogRow::Node(node) = row else { return None };
        let live = node.live(meta.clock, &meta.settings).is_some();
        let groups = held.remove(&node.id).unwrap_or_default();
        let presence = node.presence.as_ref();
        Some(v1::RegisteredNode {
            node_id: node.id.0,
            live,
            version: presence.map(|presence| software_version(presence.version)),
            capabilities: presence.map(|presence| presence.capabilities.iter().cloned().collect()).unwrap_or_default(),
            renewed_unix_ms: presence.map_or(0, |presence| presence.renewed.unix_ms()),
            draining: node.draining,
            grpc_address: node.address,
            admin_address: node.admin_address,
            groups,
        })
    };
    Ok(v1::ListNodesResponse { nodes: rows.into_iter().filter_map(node).collect() })
}

/// Lets a node get no new replicas, or get them again.
pub async fn drain_node(
    coordinator: &Coordinator,
    request: v1::DrainNodeRequest,
) -> Result<v1::DrainNodeResponse, Error> {
    let kind = CatalogCommandKind::DrainNode { node: NodeId(request.node_id), on: request.on };
    let id = request_id(&request.request_id)?;
    match coordinator.catalog(id, actor(request.actor), kind, deadline(request.timeout_ms)).await? {
        CatalogReply::Drain { changed, .. } => Ok(v1::DrainNodeResponse { changed }),
        other => Err(misfit(&other)),
    }
}

/// Forgets a node that holds no replica.
pub async fn remove_node(
    coordinator: &Coordinator,
    request: v1::RemoveNodeRequest,
) -> Result<v1::RemoveNodeResponse, Error> {
    let kind = CatalogCommandKind::RemoveNode { node: NodeId(request.node_id) };
    let id = request_id(&request.request_id)?;
    match coordinator.catalog(id, actor(request.actor), kind, deadline(request.timeout_ms)).await? {
        CatalogReply::Removed { .. } => Ok(v1::RemoveNodeResponse {}),
        other => Err(misfit(&other)),
    }
}

/// The groups and their replicas as the catalog wants them.
pub async fn list_groups(
    coordinator: &Coordinator,
    request: &v1::ListGroupsRequest,
) -> Result<v1::ListGroupsResponse, Error> {
    use v1::group_replica::State;
    let groups = groups(coordinator, deadline(request.timeout_ms)).await?.into_iter().map(|group| v1::GroupInfo {
        group_id: group.id.0,
        leader: coordinator.dispatcher().believed_leader(group.id).map_or(0, |node| node.0),
        replicas: group
            .replicas
            .iter()
            .map(|(node, replica)| v1::GroupReplica {
                node_id: node.0,
                replica_id: replica.id.0,
                votes: replica.role == ReplicaRole::Voter,
                state: match replica.state {
                    ReplicaState::Joining => State::Joining,
                    ReplicaState::Active => State::Active,
                    ReplicaState::Leaving => State::Leaving,
                }
                .into(),
            })
            .collect(),
    });
    Ok(v1::ListGroupsResponse { groups: groups.collect() })
}

/// Who changed what, when.
pub async fn list_audit_events(
    coordinator: &Coordinator,
    request: &v1::ListAuditEventsRequest,
) -> Result<v1::ListAuditEventsResponse, Error> {
    let limit = if request.limit == 0 { EVENTS } else { request.limit };
    let rows = coordinator.read_catalog(CatalogPart::Audit, limit, deadline(request.timeout_ms)).await?;
    let event = |row| match row {
        CatalogRow::Audit(event) => Some(v1::AuditEvent {
            seq: event.seq,
            at_unix_ms: event.at.unix_ms(),
            actor: event.actor.clone(),
            action: event.action.clone(),
            subject: event.subject.clone(),
            details: event.details.clone(),
        }),
        _ => None,
    };
    Ok(v1::ListAuditEventsResponse { events: rows.into_iter().filter_map(event).collect() })
}
