//! Changes to the cluster while clients are at work.

use anyhow::Result;
use drover_client::{GroupId, Interval, JobAction, JobId, MoveRequest, MoveWhat, NodeId, ReplicaState, RouteId};
use drover_keys::End;
use rand::Rng;

use super::Worker;
use crate::history::What;
use crate::machine::now;
use crate::node::{DATA_GROUPS, NODES, REPLICAS};

impl Worker {
    /// Moves parts of the keys back and forth, and calls some of the moves off.
    pub(super) async fn move_ranges(&mut self) -> Result<()> {
        while self.goes_on() {
            self.pause(1_800).await;
            let began = now();
            let Ok(routes) = self.client.routes().await else { continue };
            let route = &routes.routes[self.random.random_range(0..routes.routes.len())];
            let others = (2..2 + DATA_GROUPS).map(GroupId).filter(|group| group.0 != route.group_id);
            let Some(target) = others.last() else { continue };
            let end = route.end.clone().map_or(End::Unbounded, End::Key);
            let whole = Interval::new(route.start.clone(), end)?;
            let letter = char::from(b'a' + self.random.random_range(0..26)).to_string();
            let what = match whole.contains(letter.as_bytes()) && letter.as_bytes() != &route.start[..] {
                true if routes.routes.len() < 8 => MoveWhat::From(letter.into()),
                _ => MoveWhat::Range(whole),
            };
            let asked = MoveRequest {
                expected: routes.version,
                route: RouteId(route.route_id),
                what,
                target,
                max_pause: None,
                max_bytes_per_second: None,
            };
            let told = match self.client.start_move(&asked, "sim").await {
                Ok(job) => {
                    self.note(began, What::Moves(format!("job {}: {:?} to group {target}", job.job_id, asked.what)));
                    if !self.random.random_bool(0.2) {
                        continue;
                    }
                    self.pause(400).await;
                    let called_off = self.client.change_job(JobId(job.job_id), JobAction::Abandon, "sim").await;
                    format!(
                        "job {} called off: {:?}",
                        job.job_id,
                        called_off.map(|job| job.phase).map_err(|e| e.reason)
                    )
                }
                Err(error) => format!("no move: {:?}", error.reason),
            };
            self.note(began, What::Moves(told));
        }
        Ok(())
    }

    /// Replaces replicas: a node that has none of a group gets one, and then another node gives its own up.
    pub(super) async fn replace_replicas(&mut self) -> Result<()> {
        while self.goes_on() {
            self.pause(5_000).await;
            let began = now();
            let Ok(groups) = self.client.groups().await else { continue };
            let group = &groups[self.random.random_range(0..groups.len())];
            let (id, nodes) = (GroupId(group.group_id), group.replicas.iter().map(|replica| NodeId(replica.node_id)));
            let here: Vec<NodeId> = nodes.collect();
            let settled = group.replicas.iter().all(|replica| replica.state() == ReplicaState::Active && replica.votes);
            let told = if here.len() > REPLICAS && settled {
                let node = here[self.random.random_range(0..here.len())];
                let gives_up = self.client.remove_replicas(id, &[node], "sim").await;
                format!("group {id} without node {node}: {:?}", gives_up.map(drop).map_err(|error| error.reason))
            } else if let Some(node) = (1..=NODES).map(NodeId).find(|node| !here.contains(node)) {
                let gets = self.client.add_replica(id, node, "sim").await;
                format!("group {id} on node {node}: {:?}", gets.map(drop).map_err(|error| error.reason))
            } else {
                continue;
            };
            self.note(began, What::Members(told));
        }
        Ok(())
    }
}
