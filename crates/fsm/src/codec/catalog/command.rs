//! `drover.storage.v1.CatalogCommand`.

use std::collections::BTreeSet;

use drover_catalog::{
    Bootstrap, BootstrapNode, CatalogCommand, CatalogCommandKind, Heartbeat, RegisterNode, RequestId,
};
use drover_keys::{CatalogVersion, GroupId, NodeId, ReplicaId, RouteId, StoreId};
use drover_wire::proto::storage::v1 as pb;
use pb::catalog_command::Kind;

use super::job;
use super::parts::{
    decode_routes, decode_settings, decode_version, encode_route, encode_settings, encode_version, map, missing, set,
    sixteen, time,
};

/// The message of a command.
pub fn encode(command: &CatalogCommand) -> pb::CatalogCommand {
    pb::CatalogCommand {
        request_id: command.request_id.0.to_vec().into(),
        actor: command.actor.clone(),
        now_ms: command.now.unix_ms(),
        kind: Some(encode_kind(&command.kind)),
    }
}

/// The command of a message whose kind this build knows.
///
/// # Errors
/// What no encoder writes.
pub fn decode(message: pb::CatalogCommand) -> Result<CatalogCommand, String> {
    Ok(CatalogCommand {
        request_id: RequestId(sixteen("the request id", &message.request_id)?),
        actor: message.actor,
        now: time(message.now_ms)?,
        kind: decode_kind(message.kind.ok_or_else(missing("the kind of a catalog command"))?)?,
    })
}

fn encode_kind(kind: &CatalogCommandKind) -> Kind {
    match kind {
        CatalogCommandKind::Bootstrap(bootstrap) => Kind::Bootstrap(encode_bootstrap(bootstrap)),
        CatalogCommandKind::SplitRange { expected_version, route, key } => Kind::SplitRange(pb::SplitRange {
            expected_version: expected_version.0,
            route_id: route.0,
            key: key.clone(),
        }),
        CatalogCommandKind::RegisterNode(node) => Kind::RegisterNode(pb::RegisterNode {
            node_id: node.node.map_or(0, |id| id.0),
            store_id: node.store.0.to_vec().into(),
            address: node.address.clone(),
            admin_address: node.admin_address.clone(),
            version: Some(encode_version(node.version)),
            capabilities: node.capabilities.iter().cloned().collect(),
        }),
        CatalogCommandKind::Heartbeat(heartbeat) => Kind::Heartbeat(pb::NodeHeartbeat {
            node_id: heartbeat.node.0,
            store_id: heartbeat.store.0.to_vec().into(),
            version: Some(encode_version(heartbeat.version)),
            capabilities: heartbeat.capabilities.iter().cloned().collect(),
            serving: heartbeat.serving,
        }),
        CatalogCommandKind::DrainNode { node, on } => Kind::DrainNode(pb::DrainNode { node_id: node.0, on: *on }),
        CatalogCommandKind::RemoveNode { node } => Kind::RemoveNode(pb::RemoveNode { node_id: node.0 }),
        CatalogCommandKind::AddReplica { group, node } => {
            Kind::AddReplica(pb::AddReplica { group_id: group.0, node_id: node.0 })
        }
        CatalogCommandKind::RemoveReplicas { group, nodes } => {
            Kind::RemoveReplicas(pb::RemoveReplicas { group_id: group.0, node_ids: numbers(nodes) })
        }
        CatalogCommandKind::PromoteReplica { group, node, replica } => {
            Kind::PromoteReplica(encode_step(*group, *node, *replica))
        }
        CatalogCommandKind::DropReplica { group, node, replica } => {
            Kind::DropReplica(encode_step(*group, *node, *replica))
        }
        CatalogCommandKind::Freeze => Kind::Freeze(pb::FreezeVersion {}),
        CatalogCommandKind::Unfreeze => Kind::Unfreeze(pb::UnfreezeVersion {}),
        CatalogCommandKind::ReadCompat => Kind::ReadCompat(pb::ReadCompat {}),
        CatalogCommandKind::StartJob(start) => Kind::StartJob(job::encode_start(start)),
        CatalogCommandKind::JobEvent { job, epoch, event } => Kind::JobEvent(job::encode_event(*job, *epoch, event)),
    }
}

fn decode_kind(kind: Kind) -> Result<CatalogCommandKind, String> {
    Ok(match kind {
        Kind::Bootstrap(bootstrap) => CatalogCommandKind::Bootstrap(Box::new(decode_bootstrap(bootstrap)?)),
        Kind::SplitRange(split) => CatalogCommandKind::SplitRange {
            expected_version: CatalogVersion(split.expected_version),
            route: RouteId(split.route_id),
            key: split.key,
        },
        Kind::RegisterNode(node) => CatalogCommandKind::RegisterNode(RegisterNode {
            node: (node.node_id > 0).then_some(NodeId(node.node_id)),
            store: StoreId(sixteen("the data directory's id", &node.store_id)?),
            address: node.address,
            admin_address: node.admin_address,
            version: decode_version(node.version)?,
            capabilities: set("the capabilities", node.capabilities)?,
        }),
        Kind::Heartbeat(heartbeat) => CatalogCommandKind::Heartbeat(Heartbeat {
            node: NodeId(heartbeat.node_id),
            store: StoreId(sixteen("the data directory's id", &heartbeat.store_id)?),
            version: decode_version(heartbeat.version)?,
            capabilities: set("the capabilities", heartbeat.capabilities)?,
            serving: heartbeat.serving,
        }),
        Kind::DrainNode(drain) => CatalogCommandKind::DrainNode { node: NodeId(drain.node_id), on: drain.on },
        Kind::RemoveNode(remove) => CatalogCommandKind::RemoveNode { node: NodeId(remove.node_id) },
        Kind::AddReplica(add) => {
            CatalogCommandKind::AddReplica { group: GroupId(add.group_id), node: NodeId(add.node_id) }
        }
        Kind::RemoveReplicas(remove) => CatalogCommandKind::RemoveReplicas {
            group: GroupId(remove.group_id),
            nodes: set("the nodes", remove.node_ids.into_iter().map(NodeId))?,
        },
        Kind::PromoteReplica(pb::ReplicaStep { group_id, node_id, replica_id }) => CatalogCommandKind::PromoteReplica {
            group: GroupId(group_id),
            node: NodeId(node_id),
            replica: ReplicaId(replica_id),
        },
        Kind::DropReplica(pb::ReplicaStep { group_id, node_id, replica_id }) => CatalogCommandKind::DropReplica {
            group: GroupId(group_id),
            node: NodeId(node_id),
            replica: ReplicaId(replica_id),
        },
        Kind::Freeze(pb::FreezeVersion {}) => CatalogCommandKind::Freeze,
        Kind::Unfreeze(pb::UnfreezeVersion {}) => CatalogCommandKind::Unfreeze,
        Kind::ReadCompat(pb::ReadCompat {}) => CatalogCommandKind::ReadCompat,
        Kind::StartJob(start) => CatalogCommandKind::StartJob(job::decode_start(start)?),
        Kind::JobEvent(event) => job::decode_event(event)?,
    })
}

fn encode_step(group: GroupId, node: NodeId, replica: ReplicaId) -> pb::ReplicaStep {
    pb::ReplicaStep { group_id: group.0, node_id: node.0, replica_id: replica.0 }
}

fn numbers(nodes: &BTreeSet<NodeId>) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

fn encode_bootstrap(bootstrap: &Bootstrap) -> pb::BootstrapCatalog {
    let group =
        |(id, voters): (&GroupId, &BTreeSet<NodeId>)| pb::BootstrapGroup { group_id: id.0, voters: numbers(voters) };
    let node = |(id, node): (&NodeId, &BootstrapNode)| pb::BootstrapNode {
        node_id: id.0,
        address: node.address.clone(),
        admin_address: node.admin_address.clone(),
    };
    pb::BootstrapCatalog {
        settings: Some(encode_settings(&bootstrap.settings)),
        routes: bootstrap.routes.iter().map(encode_route).collect(),
        groups: bootstrap.groups.iter().map(group).collect(),
        nodes: bootstrap.nodes.iter().map(node).collect(),
    }
}

fn decode_bootstrap(bootstrap: pb::BootstrapCatalog) -> Result<Bootstrap, String> {
    let group = |group: pb::BootstrapGroup| {
        Ok((GroupId(group.group_id), set("the voters of a group", group.voters.into_iter().map(NodeId))?))
    };
    let node = |node: pb::BootstrapNode| {
        let pb::BootstrapNode { node_id, address, admin_address } = node;
        Ok((NodeId(node_id), BootstrapNode { address, admin_address }))
    };
    Ok(Bootstrap {
        settings: decode_settings(bootstrap.settings)?,
        routes: decode_routes(bootstrap.routes)?,
        groups: map("the groups", bootstrap.groups.into_iter().map(group))?,
        nodes: map("the nodes", bootstrap.nodes.into_iter().map(node))?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use drover_catalog::{CatalogSettings, Route, RouteState, Version};
    use drover_hlc::PhysicalMs;
    use drover_keys::ShardId;

    use super::super::strategies::any_command;
    use super::*;
    use crate::state::tests::interval;

    #[test]
    fn golden_bytes_of_every_kind() {
        use CatalogCommandKind as Kind;
        let (group, node, replica, store) = (GroupId(1), NodeId(2), ReplicaId(3), StoreId([5; 16]));
        let nodes = BTreeSet::from([NodeId(2), NodeId(3)]);
        let (version, capabilities) = (Version::new(1, 2), BTreeSet::from(["x".to_owned()]));
        let (address, admin_address) = ("a".to_owned(), "b".to_owned());
        let route = Route {
            id: RouteId(1),
            interval: interval("a", "b"),
            group: GroupId(2),
            shard: ShardId(3),
            state: RouteState::Active,
        };
        let bootstrap_node = BootstrapNode { address: address.clone(), admin_address: admin_address.clone() };
        let bootstrap = Bootstrap {
            settings: CatalogSettings {
                node_ttl_ms: 1,
                settle_ms: 2,
                max_key_bytes: 3,
                delta_log: 4,
                audit_log: 5,
                request_log: 6,
            },
            routes: vec![route],
            groups: [(group, nodes.clone())].into(),
            nodes: [(node, bootstrap_node)].into(),
        };
        let bootstrap_bytes = [
            &[10, 12, 8, 1, 16, 2, 24, 3, 32, 4, 40, 5, 48, 6][..],
            &[18, 16, 8, 1, 18, 6, 10, 1, b'a', 18, 1, b'b', 24, 2, 32, 3, 42, 0],
            &[26, 6, 8, 1, 18, 2, 2, 3],
            &[34, 8, 8, 2, 18, 1, b'a', 26, 1, b'b'],
        ]
        .concat();
        let said = [&[8, 2, 18, 16][..], &[5; 16]].concat();
        let register = RegisterNode {
            node: Some(node),
            store,
            address,
            admin_address,
            version,
            capabilities: capabilities.clone(),
        };
        let heartbeat = Heartbeat { node, store, version, capabilities, serving: true };
        let split = Kind::SplitRange { expected_version: CatalogVersion(1), route: RouteId(2), key: "k".into() };
        let table: Vec<(Kind, u8, Vec<u8>)> = vec![
            (Kind::Bootstrap(Box::new(bootstrap)), 4, bootstrap_bytes),
            (split, 5, vec![8, 1, 16, 2, 26, 1, b'k']),
            (
                Kind::RegisterNode(register),
                6,
                [&said[..], &[26, 1, b'a', 34, 1, b'b', 42, 4, 8, 1, 16, 2, 50, 1, b'x']].concat(),
            ),
            (Kind::Heartbeat(heartbeat), 7, [&said[..], &[26, 4, 8, 1, 16, 2, 34, 1, b'x', 40, 1]].concat()),
            (Kind::DrainNode { node, on: true }, 8, vec![8, 2, 16, 1]),
            (Kind::RemoveNode { node }, 9, vec![8, 2]),
            (Kind::AddReplica { group, node }, 10, vec![8, 1, 16, 2]),
            (Kind::RemoveReplicas { group, nodes }, 11, vec![8, 1, 18, 2, 2, 3]),
            (Kind::PromoteReplica { group, node, replica }, 12, vec![8, 1, 16, 2, 24, 3]),
            (Kind::DropReplica { group, node, replica }, 13, vec![8, 1, 16, 2, 24, 3]),
            (Kind::Freeze, 14, vec![]),
            (Kind::Unfreeze, 15, vec![]),
            (Kind::ReadCompat, 16, vec![]),
        ];
        for (kind, field, content) in table {
            let request_id = RequestId([7; 16]);
            let now = PhysicalMs::new(5).unwrap();
            let command = CatalogCommand { request_id, actor: "a".to_owned(), now, kind };
            let tag = match field {
                16.. => vec![field << 3 | 0x82, 1],
                _ => vec![field << 3 | 2],
            };
            let length = u8::try_from(content.len()).unwrap();
            let golden = [&[10, 16][..], &[7; 16], &[18, 1, b'a', 24, 5], &tag, &[length], &content].concat();
            assert_eq!(encode(&command).encode_to_vec(), golden, "{command:?}");
            assert_eq!(decode(pb::CatalogCommand::decode(golden.as_slice()).unwrap()).unwrap(), command);
        }
    }

    #[test]
    fn what_no_encoder_writes_is_refused() {
        let good = encode(&CatalogCommand {
            request_id: RequestId([7; 16]),
            actor: "a".to_owned(),
            now: PhysicalMs::default(),
            kind: CatalogCommandKind::Freeze,
        });
        let remove = |node_ids| Some(Kind::RemoveReplicas(pb::RemoveReplicas { group_id: 1, node_ids }));
        let version = pb::SoftwareVersion { major: 1 << 16, minor: 0 };
        let said = |store_id: &'static [u8], version| {
            Some(Kind::Heartbeat(pb::NodeHeartbeat { store_id: store_id.into(), version, ..Default::default() }))
        };
        let table = [
            (pb::CatalogCommand { request_id: "short".into(), ..good.clone() }, "the request id has 5 bytes"),
            (pb::CatalogCommand { now_ms: 1 << 48, ..good.clone() }, "48 bits"),
            (pb::CatalogCommand { kind: None, ..good.clone() }, "the kind of a catalog command is missing"),
            (pb::CatalogCommand { kind: remove(vec![2, 1]), ..good.clone() }, "the nodes do not ascend"),
            (pb::CatalogCommand { kind: remove(vec![2, 2]), ..good.clone() }, "the nodes do not ascend"),
            (pb::CatalogCommand { kind: said(b"", Some(version)), ..good.clone() }, "id has 0 bytes"),
            (pb::CatalogCommand { kind: said(&[1; 16], Some(version)), ..good.clone() }, "65536.0 is not a version"),
            (pb::CatalogCommand { kind: said(&[1; 16], None), ..good }, "the version is missing"),
        ];
        for (message, words) in table {
            let error = decode(message.clone()).unwrap_err();
            assert!(error.contains(words), "{message:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn commands_round_trip(command in any_command()) {
            let bytes = encode(&command).encode_to_vec();
            prop_assert_eq!(decode(pb::CatalogCommand::decode(bytes.as_slice()).unwrap()).unwrap(), command);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(message) = pb::CatalogCommand::decode(bytes.as_slice()) {
                let _ = decode(message);
            }
        }
    }
}
