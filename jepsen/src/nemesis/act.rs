//! Breaks processes, the network, clocks, disks and leadership; what takes more than a few lines has a file of its own.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use drover_client::{GroupId, NodeId};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde_json::{Value, json};

use super::{Broken, Fault, Mend, Nemesis};
use crate::cluster::State;
use crate::net::{Noise, NoiseKind};

/// After what time a process has looked again what its clock is to show.
const CLOCK_IS_SEEN: Duration = Duration::from_millis(1_100);
/// Who asks, in the audit log.
pub(super) const ACTOR: &str = "jepsen";

impl Nemesis {
    pub(super) async fn act(&self, fault: Fault, owner: &str, rng: &mut StdRng) -> Result<Broken> {
        match fault {
            Fault::Kill => {
                let Some((target, nodes)) = self.choose(rng).await else { return Ok(Broken::skipped("no such node")) };
                nodes.iter().try_for_each(|node| self.cluster.kill(*node))?;
                let what = json!({"target": target.name(), "nodes": nodes});
                Ok(Broken::installed(what, Mend::Start(nodes)))
            }
            Fault::Pause => {
                let Some((target, nodes)) = self.choose(rng).await else { return Ok(Broken::skipped("no such node")) };
                let mut paused = Vec::new();
                for node in nodes {
                    if self.cluster.pause(node)? {
                        paused.push(node);
                    }
                }
                if paused.is_empty() {
                    return Ok(Broken::skipped("no node that was meant runs"));
                }
                let what = json!({"target": target.name(), "nodes": paused});
                Ok(Broken::installed(what, Mend::Resume(paused)))
            }
            Fault::Loss | Fault::Reset | Fault::Delay => {
                let nodes = self.cluster.nodes();
                let (kind, permille) = match fault {
                    Fault::Loss => (NoiseKind::Loss, [50, 150, 300][rng.random_range(0..3)]),
                    Fault::Reset => (NoiseKind::Reset, [2, 10, 50][rng.random_range(0..3)]),
                    _ => (NoiseKind::Delay { most_ms: [20, 80, 250][rng.random_range(0..3)] }, 500),
                };
                let noise: Vec<Noise> = nodes.iter().map(|node| Noise { node: *node, kind, permille }).collect();
                self.cluster.net.change(|faults| faults.disturb(owner, noise))?;
                Ok(Broken::installed(json!({"kind": format!("{kind:?}"), "permille": permille}), Mend::Network))
            }
            Fault::Leader => self.transfer(rng).await,
            Fault::Split => self.split(rng).await,
            Fault::Clock => self.clocks(rng).await,
            Fault::Membership => self.members(rng).await,
            Fault::Snapshot => self.leave_behind(rng).await,
            Fault::Replace => self.replace(rng).await,
            Fault::Damage => self.damage(rng).await,
            Fault::SlowDisk => self.slow_disk(rng).await,
            Fault::WriteError | Fault::SyncError => self.failing_disk(fault, rng).await,
            Fault::LeaseClock | Fault::LeaseClockBeyond => self.drift(fault, rng).await,
            Fault::Power => {
                let Some(disks) = &self.cluster.disks else { return Ok(Broken::skipped("no disks of their own")) };
                let Some((target, nodes)) = self.choose(rng).await else { return Ok(Broken::skipped("no such node")) };
                // A node that is down has had its disk cut off already, or has written all.
                let nodes: Vec<u64> =
                    nodes.into_iter().filter(|node| self.cluster.state(*node) != State::Down).collect();
                nodes.iter().try_for_each(|node| disks.cut_power(*node))?;
                nodes.iter().try_for_each(|node| self.cluster.kill(*node))?;
                let what = json!({"target": target.name(), "nodes": nodes});
                if nodes.is_empty() {
                    return Ok(Broken::skipped("no node that was meant runs"));
                }
                Ok(Broken::installed(what, Mend::Replug(nodes)))
            }
            Fault::DiskFull => {
                let Some(disks) = &self.cluster.disks else { return Ok(Broken::skipped("no disks of their own")) };
                let Some((target, nodes)) = self.choose(rng).await else { return Ok(Broken::skipped("no such node")) };
                nodes.iter().try_for_each(|node| disks.fill(*node))?;
                let what = json!({"target": target.name(), "nodes": nodes});
                Ok(Broken::installed(what, Mend::Free(nodes)))
            }
            Fault::Move | Fault::Abandon | Fault::JobPause | Fault::CrashTxn | Fault::CrashMove => {
                Ok(Broken::skipped("these are made elsewhere"))
            }
            _ => self.partition(fault, owner, rng).await,
        }
    }

    async fn transfer(&self, rng: &mut StdRng) -> Result<Broken> {
        let groups = self.client.groups().await.map_err(|error| anyhow!("{error}"))?;
        let Some(group) = groups.choose(rng) else { return Ok(Broken::skipped("no groups")) };
        let voters: Vec<u64> = group.replicas.iter().filter(|r| r.votes).map(|r| r.node_id).collect();
        let others: Vec<u64> = voters.into_iter().filter(|node| *node != group.leader).collect();
        let Some(to) = others.choose(rng) else { return Ok(Broken::skipped("nobody else votes")) };
        let what = json!({"group": group.group_id, "from": group.leader, "to": to});
        let handed = self.client.transfer_leader(GroupId(group.group_id), NodeId(*to)).await;
        handed.map_err(|error| anyhow!("{error}"))?;
        Ok(Broken::installed(what, Mend::Nothing))
    }

    async fn split(&self, rng: &mut StdRng) -> Result<Broken> {
        let hot = (self.hot)();
        let Some(key) = hot.choose(rng) else { return Ok(Broken::skipped("no keys are used")) };
        let map = self.client.routes().await.map_err(|error| anyhow!("{error}"))?;
        let inside = |start: &[u8], end: Option<&bytes::Bytes>| {
            start < key.as_bytes() && end.is_none_or(|end| key.as_bytes() < end.as_ref())
        };
        let Some(route) = map.routes.iter().find(|route| inside(&route.start, route.end.as_ref())) else {
            return Ok(Broken::skipped("a route begins there already"));
        };
        let route_id = drover_client::RouteId(route.route_id);
        let split = self.client.split_route(map.version, route_id, key.clone(), ACTOR).await;
        split.map_err(|error| anyhow!("{error}"))?;
        Ok(Broken::installed(json!({"route": route.route_id, "key": key}), Mend::Nothing))
    }

    async fn clocks(&self, rng: &mut StdRng) -> Result<Broken> {
        let mut nodes = self.cluster.nodes();
        nodes.shuffle(rng);
        nodes.truncate(rng.random_range(1..=nodes.len()));
        // Sometimes they change again and again.
        let changes = [1, 4][usize::from(rng.random_ratio(1, 4))];
        for _ in 1..changes {
            self.set_clocks(&nodes, rng)?;
            tokio::time::sleep(CLOCK_IS_SEEN).await;
        }
        let what = json!({"changes": changes, "last": self.set_clocks(&nodes, rng)?});
        Ok(Broken::installed(what, Mend::Clocks(nodes)))
    }

    fn set_clocks(&self, nodes: &[u64], rng: &mut StdRng) -> Result<Vec<Value>> {
        let mut what = Vec::new();
        for node in nodes {
            let text = match rng.random_range(0..4) {
                0 => format!("+{}", rng.random_range(1..60)),
                1 => format!("-{}", rng.random_range(1..60)),
                2 => format!("+0 x1.{}", rng.random_range(1..9)),
                _ => format!("+0.{}", rng.random_range(1..9)),
            };
            let path = self.cluster.clock_path(*node);
            std::fs::write(&path, &text).with_context(|| path.display().to_string())?;
            what.push(json!({"node": node, "clock": text}));
        }
        Ok(what)
    }
}
