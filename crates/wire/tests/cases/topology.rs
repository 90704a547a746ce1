//! Where nodes and replicas are, and how a node registers: what nodes of different versions say to each other as clients do.

use drover_wire::proto::v1::group_replica::State;
use drover_wire::proto::v1::*;

use super::{Case, case};

pub fn cases() -> Vec<Case> {
    let replica = |node_id, state: State| GroupReplica {
        node_id,
        replica_id: node_id + 10,
        votes: state != State::Joining,
        state: state.into(),
    };
    let topology = Topology {
        revision: 5,
        nodes: vec![NodeAddresses { node_id: 1, grpc_address: "a:1".into(), admin_address: "a:2".into() }],
        groups: vec![GroupTopology {
            group_id: 2,
            replicas: vec![replica(1, State::Active), replica(2, State::Leaving), replica(3, State::Joining)],
            next_replica_id: 14,
        }],
    };
    let register = RegisterNodeRequest {
        store_id: vec![7; 16].into(),
        grpc_address: "a:1".into(),
        admin_address: "a:2".into(),
        version: Some(SoftwareVersion { major: 1, minor: 2 }),
        capabilities: vec!["split".into()],
        request_id: vec![8; 16].into(),
        actor: "me".into(),
        timeout_ms: 9,
        node_id: 3,
        cluster_id: "0f".into(),
    };
    vec![
        case("WatchTopologyRequest/known", WatchTopologyRequest { known_revision: 4, cluster_id: "0f".into() }),
        case("Topology/all_states", topology),
        case("RegisterNodeRequest/named", register),
        case("RegisterNodeResponse/both", RegisterNodeResponse { node_id: 3, cluster_id: "0f".into() }),
    ]
}
