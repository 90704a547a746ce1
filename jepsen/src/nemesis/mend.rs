//! Undoes what was broken.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Fault, Mend, Nemesis, Outcome};
use crate::cluster::State;
use crate::preload::RIGHT;

impl Nemesis {
    pub(super) async fn mend(&self, fault: Fault, owner: &str, mend: Mend) -> Result<Value> {
        match mend {
            Mend::Nothing => Ok(json!({})),
            Mend::Start(nodes) => {
                nodes.iter().try_for_each(|node| self.cluster.start_node(*node))?;
                Ok(json!({"nodes": nodes}))
            }
            Mend::Resume(nodes) => {
                for node in &nodes {
                    self.cluster.resume(*node)?;
                }
                Ok(json!({"nodes": nodes}))
            }
            Mend::Network => {
                self.cluster.net.change(|faults| faults.heal(owner))?;
                Ok(json!({}))
            }
            Mend::Clocks(nodes) => {
                for node in &nodes {
                    std::fs::write(self.cluster.clock_path(*node), "+0")?;
                }
                Ok(json!({"nodes": nodes}))
            }
            Mend::Replug(nodes) => {
                if let Some(disks) = &self.cluster.disks {
                    // Another nemesis may have started it on the disk that takes nothing.
                    nodes.iter().try_for_each(|node| self.cluster.kill(*node))?;
                    nodes.iter().try_for_each(|node| disks.replug(*node))?;
                }
                nodes.iter().try_for_each(|node| self.cluster.start_node(*node))?;
                Ok(json!({"nodes": nodes}))
            }
            Mend::Free(nodes) => {
                if let Some(disks) = &self.cluster.disks {
                    nodes.iter().try_for_each(|node| disks.free(*node))?;
                }
                // One that could not write has ended.
                nodes.iter().try_for_each(|node| self.cluster.start_node(*node))?;
                Ok(json!({"nodes": nodes}))
            }
            Mend::Calm(nodes) => {
                self.calm(&nodes)?;
                Ok(json!({"nodes": nodes}))
            }
            Mend::Restart(nodes) => {
                nodes.iter().try_for_each(|node| self.cluster.kill(*node))?;
                nodes.iter().try_for_each(|node| self.cluster.start_node(*node))?;
                Ok(json!({"nodes": nodes}))
            }
            Mend::Rates(nodes) => {
                let right = |node: &u64| self.cluster.steer(*node)?.run_clock(RIGHT, Duration::ZERO);
                nodes.iter().try_for_each(right)?;
                Ok(json!({"nodes": nodes}))
            }
            Mend::StartBehind { node, had } => {
                let leader = i32::from(drover_client::Role::Leader);
                let is_leader = |replica: &drover_client::ReplicaStatus| replica.role == leader;
                let purged = self
                    .logs(|replica, _| is_leader(replica).then_some((replica.group_id, replica.purged_index)))
                    .await;
                if self.cluster.state(node) == State::Down {
                    self.cluster.start_node(node)?;
                }
                let purged = purged?;
                let behind: Vec<u64> = had
                    .iter()
                    .filter(|(group, last)| purged.iter().any(|(other, index)| other == group && index > last))
                    .map(|(group, _)| *group)
                    .collect();
                if !behind.is_empty() {
                    let what = json!({"outcome": Outcome::Installed, "what": {"behind_in_groups": behind}});
                    self.record("start", fault, 0, what);
                }
                Ok(json!({"node": node, "behind_in_groups": behind}))
            }
        }
    }
}
