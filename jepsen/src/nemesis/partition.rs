//! Nodes that do not hear each other.

use anyhow::Result;
use drover_client::GroupId;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::json;

use super::{Broken, Fault, Mend, Nemesis};
use crate::cluster::DATA_GROUPS;
use crate::net::{halves, ring};

impl Nemesis {
    pub(super) async fn partition(&self, fault: Fault, owner: &str, rng: &mut StdRng) -> Result<Broken> {
        let any: Vec<Fault> =
            Fault::ALL.iter().filter(|fault| fault.name().starts_with("partition-")).copied().collect();
        let fault = if fault == Fault::Partition { any[rng.random_range(0..any.len())] } else { fault };
        let mut nodes = self.cluster.nodes();
        nodes.shuffle(rng);
        let group = GroupId(1 + rng.random_range(0..=DATA_GROUPS));
        let middle = nodes.len() / 2;
        let others = |node: u64| nodes.iter().copied().filter(|other| *other != node).collect::<Vec<u64>>();
        let nobody = || Broken::skipped("no leader is known");
        let (cut, who) = match fault {
            Fault::PartitionHalves => (halves(&nodes[..middle], &nodes[middle..]), json!(nodes[..middle])),
            Fault::PartitionRing => (ring(&nodes), json!(nodes)),
            Fault::PartitionBridge => (halves(&nodes[..middle], &nodes[middle + 1..]), json!(nodes[middle])),
            Fault::PartitionOneway => {
                let node = nodes[0];
                let hears = rng.random_bool(0.5);
                let pairs = others(node).into_iter().map(|other| if hears { (node, other) } else { (other, node) });
                (pairs.collect(), json!({"node": node, "hears": hears}))
            }
            Fault::PartitionLeader => match self.cluster.leader(&self.client, group).await {
                Some(leader) => (halves(&[leader], &others(leader)), json!({"leader": leader, "group": group.0})),
                None => return Ok(nobody()),
            },
            Fault::PartitionMigration => match self.ends_of_a_move(GroupId(2 + group.0 % DATA_GROUPS)).await {
                Some((source, target)) if source != target => {
                    (halves(&[source], &[target]), json!({"source": source, "target": target}))
                }
                Some(_) => return Ok(Broken::skipped("one node leads both")),
                None => return Ok(nobody()),
            },
            Fault::PartitionDefault => {
                let default = self.cluster.replicas(GroupId::DEFAULT.0);
                let without: Vec<u64> = nodes.iter().copied().filter(|node| !default.contains(node)).collect();
                match without.first() {
                    Some(node) => (halves(&[*node], &default), json!({"node": node})),
                    None => return Ok(Broken::skipped("every node holds the default group")),
                }
            }
            _ => (halves(&nodes[..1], &nodes[1..]), json!(nodes[0])),
        };
        self.cluster.net.change(|faults| faults.cut(owner, cut.clone()))?;
        let what = json!({"kind": fault.name(), "who": who, "pairs": cut.len()});
        Ok(Broken::installed(what, Mend::Network))
    }
}
