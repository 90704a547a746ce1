//! The parts of `drover.v1.Cluster` that read and change the catalog's nodes and groups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use drover_catalog::{
    CatalogCommandKind, CatalogRefusal, CatalogReply, CatalogRow, GroupDescriptor, RegisterNode, Version,
};
use drover_coordinator::Coordinator;
use drover_keys::{ClusterId, GroupId, NodeId, StoreId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1;
use drover_wire::{CatalogPart, catalog_refusal_to_error, encode_replicas};

use super::Front;
use super::compat::software_version;
use super::distribution::{actor, check_cluster, misfit, request_id};

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
pub async fn drain_node(front: &Front, request: v1::DrainNodeRequest) -> Result<v1::DrainNodeResponse, Error> {
    let kind = CatalogCommandKind::DrainNode { node: NodeId(request.node_id), on: request.on };
    let id = request_id(&request.request_id)?;
    match front.change_catalog(id, actor(request.actor), kind, deadline(request.timeout_ms)).await? {
        CatalogReply::Drain { changed, .. } => Ok(v1::DrainNodeResponse { changed }),
        other => Err(misfit(&other)),
    }
}

/// Forgets a node that holds no replica.
pub async fn remove_node(front: &Front, request: v1::RemoveNodeRequest) -> Result<v1::RemoveNodeResponse, Error> {
    let kind = CatalogCommandKind::RemoveNode { node: NodeId(request.node_id) };
    let id = request_id(&request.request_id)?;
    match front.change_catalog(id, actor(request.actor), kind, deadline(request.timeout_ms)).await? {
        CatalogReply::Removed { .. } => Ok(v1::RemoveNodeResponse {}),
        other => Err(misfit(&other)),
    }
}

/// The groups and their replicas as the catalog wants them.
pub async fn list_groups(
    coordinator: &Coordinator,
    request: &v1::ListGroupsRequest,
) -> Result<v1::ListGroupsResponse, Error> {
    let groups = groups(coordinator, deadline(request.timeout_ms)).await?;
    Ok(v1::ListGroupsResponse { groups: groups.iter().map(|group| group_info(coordinator, group)).collect() })
}

fn group_info(coordinator: &Coordinator, group: &GroupDescriptor) -> v1::GroupInfo {
    let believed = coordinator.dispatcher().believed_leader(group.id);
    v1::GroupInfo {
        group_id: group.id.0,
        leader: believed.filter(|node| group.replicas.contains_key(node)).map_or(0, |node| node.0),
        replicas: encode_replicas(group),
    }
}

/// Gives a new node its number, or registers one that has a number. `remembered` is the data directory that this node
/// knows a peer by.
pub async fn register_node(
    cluster: ClusterId,
    front: &Front,
    remembered: impl Fn(NodeId) -> Option<StoreId>,
    request: v1::RegisterNodeRequest,
) -> Result<v1::RegisterNodeResponse, Error> {
    check_cluster(cluster, &request.cluster_id)?;
    let id = request_id(&request.request_id)?;
    let (actor, deadline) = (actor(request.actor.clone()), deadline(request.timeout_ms));
    let registration = registration(request)?;
    // The catalog may never have heard of the directory that its peers have met, and promised things to.
    let store = registration.store;
    if let Some((node, registered)) = registration.node.and_then(|node| Some((node, remembered(node)?)))
        && registered != store
    {
        return Err(catalog_refusal_to_error(&CatalogRefusal::OtherStore { node, registered, store }));
    }
    match front.change_catalog(id, actor, CatalogCommandKind::RegisterNode(registration), deadline).await? {
        CatalogReply::Registered { node, .. } => {
            Ok(v1::RegisterNodeResponse { node_id: node.0, cluster_id: cluster.to_string() })
        }
        other => Err(misfit(&other)),
    }
}

/// What a node says of itself.
pub(super) fn registration(request: v1::RegisterNodeRequest) -> Result<RegisterNode, Error> {
    let invalid = |what: &str| Error::definite(Reason::InvalidArgument, format!("{what}; nothing was changed"));
    Ok(RegisterNode {
        node: (request.node_id != 0).then_some(NodeId(request.node_id)),
        store: request
            .store_id
            .as_ref()
            .try_into()
            .map(StoreId)
            .map_err(|_| invalid("store_id is not 16 bytes long"))?,
        address: request.grpc_address,
        admin_address: request.admin_address,
        version: version_of(request.version).ok_or_else(|| invalid("the version is missing or too large"))?,
        capabilities: request.capabilities.into_iter().collect(),
    })
}

fn version_of(version: Option<v1::SoftwareVersion>) -> Option<Version> {
    let v1::SoftwareVersion { major, minor } = version?;
    Some(Version::new(u16::try_from(major).ok()?, u16::try_from(minor).ok()?))
}

/// Lets a node get a replica of a group.
pub async fn add_replica(front: &Front, request: v1::AddReplicaRequest) -> Result<v1::AddReplicaResponse, Error> {
    let kind = CatalogCommandKind::AddReplica { group: GroupId(request.group_id), node: NodeId(request.node_id) };
    let id = request_id(&request.request_id)?;
    match front.change_catalog(id, actor(request.actor), kind, deadline(request.timeout_ms)).await? {
        CatalogReply::Group(group) => {
            Ok(v1::AddReplicaResponse { group: Some(group_info(front.coordinator(), &group)) })
        }
        other => Err(misfit(&other)),
    }
}

/// Lets nodes give up their replicas of a group.
pub async fn remove_replicas(
    front: &Front,
    request: v1::RemoveReplicasRequest,
) -> Result<v1::RemoveReplicasResponse, Error> {
    let nodes = request.node_ids.into_iter().map(NodeId).collect();
    let kind = CatalogCommandKind::RemoveReplicas { group: GroupId(request.group_id), nodes };
    let id = request_id(&request.request_id)?;
    match front.change_catalog(id, actor(request.actor), kind, deadline(request.timeout_ms)).await? {
        CatalogReply::Group(group) => {
            Ok(v1::RemoveReplicasResponse { group: Some(group_info(front.coordinator(), &group)) })
        }
        other => Err(misfit(&other)),
    }
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
