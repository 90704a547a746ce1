//! The cluster as operators see and change it.

use drover_wire::proto::v1::group_replica::State;
use drover_wire::proto::v1::replica_status::Role;
use drover_wire::proto::v1::*;

use super::{Case, case};

pub fn cases() -> Vec<Case> {
    [status(), digests(), nodes(), replicas(), audit()].into_iter().flatten().collect()
}

fn request_id() -> prost::bytes::Bytes {
    vec![8; 16].into()
}

fn replica(role: Role) -> ReplicaStatus {
    ReplicaStatus {
        group_id: 2,
        role: role.into(),
        term: 3,
        leader: 1,
        last_log_index: 300,
        committed_index: 299,
        applied_index: 298,
        flushed_index: 200,
        purged_index: 100,
        voters: vec![1, 2, 300],
        learners: vec![4],
        state_bytes: 5_000,
        // One item of a map has one order.
        follower_lag: [(2, 1)].into(),
        error: "e".into(),
    }
}

fn node() -> NodeStatus {
    NodeStatus {
        node_id: 1,
        grpc_address: "a:1".into(),
        admin_address: "a:2".into(),
        version: "1.2".into(),
        uptime_ms: 300,
        disk_used_bytes: 400,
        disk_free_bytes: 500,
        disk_full: true,
        draining: true,
        replicas: vec![replica(Role::Leader)],
        error: "e".into(),
        last_timestamp: 600,
        disk_reserve_bytes: 0,
    }
}

fn status() -> Vec<Case> {
    let with = |role| NodeStatus { replicas: vec![replica(role)], ..NodeStatus::default() };
    vec![
        case("GetStatusRequest/empty", GetStatusRequest {}),
        case("GetStatusResponse/one", GetStatusResponse { cluster_id: "0f".into(), nodes: vec![node()] }),
        case("GetNodeStatusRequest/empty", GetNodeStatusRequest {}),
        case("GetNodeStatusResponse/one", GetNodeStatusResponse { node: Some(node()), cluster_id: "0f".into() }),
        case("NodeStatus/follower", with(Role::Follower)),
        case("NodeStatus/candidate", with(Role::Candidate)),
        case("NodeStatus/learner", with(Role::Learner)),
        case("NodeStatus/stopped", with(Role::Stopped)),
        case("NodeStatus/reserve", NodeStatus { disk_reserve_bytes: 300, ..NodeStatus::default() }),
        case("TransferLeaderRequest/all", TransferLeaderRequest { group_id: 2, to_node: 3, timeout_ms: 300 }),
        case("TransferLeaderResponse/all", TransferLeaderResponse { leader: 3, term: 4 }),
    ]
}

fn digests() -> Vec<Case> {
    let digest = ReplicaDigest { node_id: 1, digest: vec![7; 16].into(), rows: 300, error: "e".into() };
    let compared = CompareDigestsResponse { index: 300, digests: vec![digest], equal: true };
    vec![
        case("CompareDigestsRequest/all", CompareDigestsRequest { group_id: 2, timeout_ms: 300 }),
        case("CompareDigestsResponse/one", compared),
    ]
}

fn nodes() -> Vec<Case> {
    let registered = RegisteredNode {
        node_id: 1,
        grpc_address: "a:1".into(),
        admin_address: "a:2".into(),
        draining: true,
        live: true,
        version: Some(SoftwareVersion { major: 1, minor: 2 }),
        capabilities: vec!["split".into()],
        renewed_unix_ms: 300,
        groups: vec![1, 300],
    };
    let drain =
        DrainNodeRequest { node_id: 1, on: true, request_id: request_id(), actor: "me".into(), timeout_ms: 300 };
    let remove = RemoveNodeRequest { node_id: 1, request_id: request_id(), actor: "me".into(), timeout_ms: 300 };
    vec![
        case("ListNodesRequest/timeout", ListNodesRequest { timeout_ms: 300 }),
        case("ListNodesResponse/one", ListNodesResponse { nodes: vec![registered] }),
        case("DrainNodeRequest/all", drain),
        case("DrainNodeResponse/changed", DrainNodeResponse { changed: true }),
        case("RemoveNodeRequest/all", remove),
        case("RemoveNodeResponse/empty", RemoveNodeResponse {}),
    ]
}

fn group() -> GroupInfo {
    let replica = GroupReplica { node_id: 1, replica_id: 2, votes: true, state: State::Active.into() };
    GroupInfo { group_id: 2, replicas: vec![replica], leader: 1 }
}

fn replicas() -> Vec<Case> {
    let add =
        AddReplicaRequest { group_id: 2, node_id: 3, request_id: request_id(), actor: "me".into(), timeout_ms: 300 };
    let remove = RemoveReplicasRequest {
        group_id: 2,
        node_ids: vec![3, 300],
        request_id: request_id(),
        actor: "me".into(),
        timeout_ms: 300,
    };
    vec![
        case("AddReplicaRequest/all", add),
        case("AddReplicaResponse/group", AddReplicaResponse { group: Some(group()) }),
        case("RemoveReplicasRequest/all", remove),
        case("RemoveReplicasResponse/group", RemoveReplicasResponse { group: Some(group()) }),
        case("ListGroupsRequest/timeout", ListGroupsRequest { timeout_ms: 300 }),
        case("ListGroupsResponse/one", ListGroupsResponse { groups: vec![group()] }),
    ]
}

fn audit() -> Vec<Case> {
    let event = AuditEvent {
        seq: 300,
        at_unix_ms: 400,
        actor: "me".into(),
        action: "did".into(),
        subject: "it".into(),
        details: "so".into(),
    };
    vec![
        case("ListAuditEventsRequest/all", ListAuditEventsRequest { limit: 5, timeout_ms: 300 }),
        case("ListAuditEventsResponse/one", ListAuditEventsResponse { events: vec![event] }),
    ]
}
