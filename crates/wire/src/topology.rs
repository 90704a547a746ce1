//! Where nodes and replicas are, as messages.

use std::collections::BTreeMap;

use drover_catalog::{GroupDescriptor, NodeAddresses, Replica, ReplicaRole, ReplicaState, Topology};
use drover_keys::{GroupId, NodeId, ReplicaId};

use crate::WireError;
use crate::proto::v1;
use crate::proto::v1::group_replica::State;

/// A topology as a message.
pub fn encode_topology(topology: &Topology) -> v1::Topology {
    let node = |(node, addresses): (&NodeId, &NodeAddresses)| v1::NodeAddresses {
        node_id: node.0,
        grpc_address: addresses.address.clone(),
        admin_address: addresses.admin_address.clone(),
    };
    let group = |group: &GroupDescriptor| v1::GroupTopology {
        group_id: group.id.0,
        replicas: encode_replicas(group),
        next_replica_id: group.next_replica.0,
    };
    v1::Topology {
        revision: topology.revision,
        nodes: topology.nodes.iter().map(node).collect(),
        groups: topology.groups.values().map(group).collect(),
    }
}

/// The replicas of a group as messages.
pub fn encode_replicas(group: &GroupDescriptor) -> Vec<v1::GroupReplica> {
    let replica = |(node, replica): (&NodeId, &Replica)| v1::GroupReplica {
        node_id: node.0,
        replica_id: replica.id.0,
        votes: replica.role == ReplicaRole::Voter,
        state: match replica.state {
            ReplicaState::Joining => State::Joining,
            ReplicaState::Active => State::Active,
            ReplicaState::Leaving => State::Leaving,
        }
        .into(),
    };
    group.replicas.iter().map(replica).collect()
}

/// Reads a topology.
///
/// # Errors
/// If it names something twice, or a group that cannot be.
pub fn decode_topology(topology: v1::Topology) -> Result<Topology, WireError> {
    let mut nodes = BTreeMap::new();
    for node in topology.nodes {
        let addresses = NodeAddresses { address: node.grpc_address, admin_address: node.admin_address };
        if nodes.insert(NodeId(node.node_id), addresses).is_some() {
            return Err(WireError::Malformed("nodes of a topology"));
        }
    }
    let mut groups = BTreeMap::new();
    for group in topology.groups {
        let group = decode_group(group)?;
        let id = group.id;
        if groups.insert(id, group).is_some() {
            return Err(WireError::Malformed("groups of a topology"));
        }
    }
    Ok(Topology { revision: topology.revision, nodes, groups })
}

fn decode_group(group: v1::GroupTopology) -> Result<GroupDescriptor, WireError> {
    let mut replicas = BTreeMap::new();
    for listed in group.replicas {
        let state = match listed.state() {
            State::Joining => ReplicaState::Joining,
            State::Active => ReplicaState::Active,
            State::Leaving => ReplicaState::Leaving,
            State::Unspecified => return Err(WireError::Malformed("replica state")),
        };
        let role = if listed.votes { ReplicaRole::Voter } else { ReplicaRole::Learner };
        let replica = Replica { id: ReplicaId(listed.replica_id), role, state };
        if replicas.insert(NodeId(listed.node_id), replica).is_some() {
            return Err(WireError::Malformed("replicas of a group"));
        }
    }
    let next_replica = ReplicaId(group.next_replica_id);
    let decoded = GroupDescriptor { id: GroupId(group.group_id), replicas, next_replica };
    match decoded.validate() {
        Ok(()) => Ok(decoded),
        Err(_) => Err(WireError::Malformed("replicas of a group")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = ReplicaState> {
        prop_oneof![Just(ReplicaState::Active), Just(ReplicaState::Leaving)]
    }

    prop_compose! {
        fn group(id: u64)(states in proptest::collection::vec(state(), 0..5), extra in 0u64..9) -> GroupDescriptor {
            let states = std::iter::once(ReplicaState::Active).chain(states);
            let replicas = (1..).zip(states).map(|(n, state)| {
                (NodeId(n * 7), Replica { id: ReplicaId(n), role: ReplicaRole::Voter, state })
            });
            let replicas: BTreeMap<_, _> = replicas.collect();
            let next_replica = ReplicaId(replicas.len() as u64 + 1 + extra);
            GroupDescriptor { id: GroupId(id), replicas, next_replica }
        }
    }

    proptest! {
        #[test]
        fn topologies_come_back(revision: u64, a in group(1), b in group(2), addresses in proptest::collection::btree_map(any::<u64>(), "[a-z]{1,8}:[0-9]{1,4}", 0..5)) {
            let node = |(node, address): (u64, String)| {
                (NodeId(node), NodeAddresses { admin_address: format!("{address}1"), address })
            };
            let nodes = addresses.into_iter().map(node).collect();
            let topology = Topology { revision, nodes, groups: [(a.id, a), (b.id, b)].into() };
            prop_assert_eq!(decode_topology(encode_topology(&topology)).unwrap(), topology);
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let joining = Replica { id: ReplicaId(2), role: ReplicaRole::Learner, state: ReplicaState::Joining };
        let mut group = GroupDescriptor::new(GroupId(1), &[NodeId(1)].into());
        group.replicas.insert(NodeId(2), joining);
        group.next_replica = ReplicaId(3);
        let good = encode_topology(&Topology { groups: [(GroupId(1), group)].into(), ..Topology::default() });
        assert!(decode_topology(good.clone()).is_ok());
        let breaks: [fn(&mut v1::Topology); 6] = [
            |t| t.groups.push(t.groups[0].clone()),
            |t| t.nodes = vec![v1::NodeAddresses::default(), v1::NodeAddresses::default()],
            |t| t.groups[0].replicas[1].state = 9,
            |t| t.groups[0].replicas[1].node_id = 1,
            |t| t.groups[0].next_replica_id = 2,
            |t| t.groups[0].replicas.clear(),
        ];
        for (n, damage) in breaks.into_iter().enumerate() {
            let mut bad = good.clone();
            damage(&mut bad);
            assert!(decode_topology(bad).is_err(), "{n}");
        }
    }
}
