//! Breaks and mends processes, the network, clocks, leadership and membership.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use drover_client::{GroupId, NodeId};
use drover_guards::CrashPoint;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use serde_json::{Value, json};

use super::{Broken, Fault, Mend, Nemesis};
use crate::cluster::{Cluster, DATA_GROUPS, State};
use crate::net::{Noise, NoiseKind, halves, ring};

/// How long a change of a group's members may take.
const MEMBERS: Duration = Duration::from_secs(30);
/// How long a node that was started may take to lead.
const LEADS: Duration = Duration::from_secs(4);
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
            Fault::Clock => self.clocks(rng),
            Fault::Membership => self.members(rng).await,
            Fault::Snapshot => self.leave_behind(rng).await,
            Fault::Crash => self.crash(rng).await,
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
            Fault::Move | Fault::Abandon | Fault::JobPause => Ok(Broken::skipped("moves are made elsewhere")),
            _ => self.partition(fault, owner, rng).await,
        }
    }

    async fn partition(&self, fault: Fault, owner: &str, rng: &mut StdRng) -> Result<Broken> {
        const ANY: [Fault; 8] = [
            Fault::PartitionOne,
            Fault::PartitionHalves,
            Fault::PartitionRing,
            Fault::PartitionBridge,
            Fault::PartitionOneway,
            Fault::PartitionLeader,
            Fault::PartitionMigration,
            Fault::PartitionDefault,
        ];
        let fault = if fault == Fault::Partition { ANY[rng.random_range(0..ANY.len())] } else { fault };
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
            Fault::PartitionLeader => match Cluster::leader(&self.client, group).await {
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

    async fn transfer(&self, rng: &mut StdRng) -> Result<Broken> {
        let groups = self.client.groups().await.map_err(|error| anyhow!("{error}"))?;
        let Some(group) = groups.choose(rng) else { return Ok(Broken::skipped("no groups")) };
        let voters: Vec<u64> = group.replicas.iter().filter(|r| r.votes).map(|r| r.node_id).collect();
        let others: Vec<u64> = voters.into_iter().filter(|node| *node != group.leader).collect();
        let Some(to) = others.choose(rng) else { return Ok(Broken::skipped("nobody else votes")) };
        let what = json!({"group": group.group_id, "from": group.leader, "to": to});
        Cluster::transfer(&self.client, GroupId(group.group_id), *to).await?;
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

    fn clocks(&self, rng: &mut StdRng) -> Result<Broken> {
        let mut nodes = self.cluster.nodes();
        nodes.shuffle(rng);
        nodes.truncate(rng.random_range(1..=nodes.len()));
        let mut what = Vec::new();
        for node in &nodes {
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
        Ok(Broken::installed(what.into(), Mend::Clocks(nodes)))
    }

    /// A replica comes, and an old one goes.
    async fn members(&self, rng: &mut StdRng) -> Result<Broken> {
        let groups = self.client.groups().await.map_err(|error| anyhow!("{error}"))?;
        let Some(group) = groups.choose(rng) else { return Ok(Broken::skipped("no groups")) };
        let id = GroupId(group.group_id);
        let holders: Vec<u64> = group.replicas.iter().map(|replica| replica.node_id).collect();
        let free: Vec<u64> = self.cluster.nodes().into_iter().filter(|node| !holders.contains(node)).collect();
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

    async fn wait_members(&self, group: GroupId, are_so: impl Fn(&[(u64, bool)]) -> bool) -> Result<()> {
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
    async fn leave_behind(&self, rng: &mut StdRng) -> Result<Broken> {
        let nodes = self.cluster.nodes();
        let node = nodes[rng.random_range(0..nodes.len())];
        let had = self.logs(|replica, of| (of == node).then_some((replica.group_id, replica.last_log_index))).await?;
        self.cluster.kill(node)?;
        let mend = Mend::StartBehind { node, had };
        Ok(Broken { outcome: super::Outcome::Unclear, what: json!({"node": node}), mend })
    }

    /// Starts a node anew that is to end itself at some step of a transaction, and lets it lead if leaders take that step.
    async fn crash(&self, rng: &mut StdRng) -> Result<Broken> {
        // What clients bring about by themselves.
        const RARE: [&str; 3] = ["rollback", "rolled_back", "heartbeat"];
        let is_met = |point: &String| point.starts_with("txn.") && !RARE.iter().any(|part| point.contains(part));
        let points: Vec<String> = CrashPoint::all().map(|point| point.to_string()).filter(is_met).collect();
        let point = points[rng.random_range(0..points.len())].clone();
        let groups = self.client.groups().await.map_err(|error| anyhow!("{error}"))?;
        let data: Vec<_> = groups.iter().filter(|group| group.group_id != GroupId::DEFAULT.0).collect();
        let Some(group) = data.choose(rng) else { return Ok(Broken::skipped("no groups")) };
        let voters: Vec<u64> = group.replicas.iter().filter(|r| r.votes).map(|r| r.node_id).collect();
        let Some(node) = voters.choose(rng).copied() else { return Ok(Broken::skipped("nobody votes")) };
        let armed = format!("{point}:{}", rng.random_range(0..3));
        self.cluster.kill(node)?;
        self.cluster.start_with(node, &[(drover_guards::CRASH_AT, armed.clone())])?;
        let until = Instant::now() + LEADS;
        while Instant::now() < until && self.cluster.state(node) == State::Running {
            if Cluster::transfer(&self.client, GroupId(group.group_id), node).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mend = Mend::StartCrashed { node, point: armed.clone() };
        Ok(Broken { outcome: super::Outcome::Unclear, what: json!({"node": node, "point": armed}), mend })
    }

    async fn logs(
        &self,
        pick: impl Fn(&drover_client::ReplicaStatus, u64) -> Option<(u64, u64)>,
    ) -> Result<Vec<(u64, u64)>> {
        let status = self.client.status().await.map_err(|error| anyhow!("{error}"))?;
        let replicas = status.nodes.iter().flat_map(|node| node.replicas.iter().map(|r| (r, node.node_id)));
        Ok(replicas.filter_map(|(replica, node)| pick(replica, node)).collect())
    }

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
            Mend::StartCrashed { node, point } => {
                let ended = self.cluster.state(node) == State::Down;
                if ended {
                    let what = json!({"outcome": super::Outcome::Installed, "what": {"node": node, "point": point}});
                    self.record("start", fault, 0, what);
                } else {
                    self.cluster.kill(node)?;
                }
                self.cluster.start_node(node)?;
                Ok(json!({"node": node, "point": point, "ended_there": ended}))
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
                    let what = json!({"outcome": super::Outcome::Installed, "what": {"behind_in_groups": behind}});
                    self.record("start", fault, 0, what);
                }
                Ok(json!({"node": node, "behind_in_groups": behind}))
            }
        }
    }
}
