//! Replicas that come and go, and one that is away until the log behind it is gone.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use drover_client::{GroupId, NodeId};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use super::act::ACTOR;
use super::{Broken, Mend, Nemesis, Outcome};

/// How long a change of a group's members may take.
const MEMBERS: Duration = Duration::from_secs(30);

impl Nemesis {
    /// A replica comes, and an old one goes.
    pub(super) async fn members(&self, rng: &mut StdRng) -> Result<Broken> {
        let groups = self.client.groups().await.map_err(|error| anyhow!("{error}"))?;
        let Some(group) = groups.choose(rng) else { return Ok(Broken::skipped("no groups")) };
        let id = GroupId(group.group_id);
        let holders: Vec<u64> = group.replicas.iter().map(|replica| replica.node_id).collect();
        let free: Vec<u64> = self.cluster.ids().into_iter().filter(|node| !holders.contains(node)).collect();
        let Some(comes) = free.choose(rng).copied() else { return Ok(Broken::skipped("every node holds it")) };
        let Some(goes) = holders.choose(rng).copied() else { return Ok(Broken::skipped("nobody holds it")) };
        let added = self.client.add_replica(id, NodeId(comes), ACTOR).await;
        added.map_err(|error| anyhow!("{error}"))?;
        self.wait_members(id, |members| members.iter().any(|(node, votes)| *node == comes && *votes)).await?;
        let removed = self.client.remove_replicas(id, &[NodeId(goes)], ACTOR).await;
        removed.map_err(|error| anyhow!("{error}"))?;
        self.wait_members(id, |members| members.iter().all(|(node, _)| *node != goes)).await?;
        Ok(Broken::installed(json!({"group": id.0, "comes": comes, "goes": goes}), Mend::Nothing))
    }

    pub(super) async fn wait_members(&self, group: GroupId, are_so: impl Fn(&[(u64, bool)]) -> bool) -> Result<()> {
        let until = Instant::now() + MEMBERS;
        loop {
            let groups = self.client.groups().await.unwrap_or_default();
            let found = groups.iter().find(|info| info.group_id == group.0);
            let members: Vec<(u64, bool)> =
                found.map(|info| info.replicas.iter().map(|r| (r.node_id, r.votes)).collect()).unwrap_or_default();
            if found.is_some() && are_so(&members) {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(anyhow!("the members of group {group} do not change: {members:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills a node; the others write on until it is behind what they keep.
    pub(super) async fn leave_behind(&self, rng: &mut StdRng) -> Result<Broken> {
        let nodes = self.cluster.nodes();
        let node = nodes[rng.random_range(0..nodes.len())];
        let id = self.cluster.id(node);
        let had = self.logs(|replica, of| (of == id).then_some((replica.group_id, replica.last_log_index))).await?;
        self.cluster.kill(node)?;
        let mend = Mend::StartBehind { node, had };
        Ok(Broken { outcome: Outcome::Unclear, what: json!({"node": node}), mend })
    }

    /// What is picked of every replica, with the number of its node.
    pub(super) async fn logs(
        &self,
        pick: impl Fn(&drover_client::ReplicaStatus, u64) -> Option<(u64, u64)>,
    ) -> Result<Vec<(u64, u64)>> {
        let status = self.client.status().await.map_err(|error| anyhow!("{error}"))?;
        let replicas = status.nodes.iter().flat_map(|node| node.replicas.iter().map(|r| (r, node.node_id)));
        Ok(replicas.filter_map(|(replica, node)| pick(replica, node)).collect())
    }
}
