//! A node that has lost its disk: another one with an empty disk takes its place, under a number of its own, as
//! docs/operations.md tells it.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use drover_client::{Error, GroupId, NodeId};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::act::ACTOR;
use super::{Broken, Mend, Nemesis};

/// How long each step of a replacement may take: the address of the old node is free half a minute after it was last heard of, and
/// other nodes may be broken meanwhile.
const STEP: Duration = Duration::from_secs(180);
/// Between two attempts.
const LOOK: Duration = Duration::from_millis(200);

impl Nemesis {
    /// A node loses its disk, and another one takes its place.
    pub(super) async fn replace(&self, rng: &mut StdRng) -> Result<Broken> {
        let nodes = self.cluster.nodes();
        let node = nodes[rng.random_range(0..nodes.len())];
        if !self.cluster.hold(node)? {
            return Ok(Broken::skipped("it is being replaced already"));
        }
        let what = self.take_its_place(node).await?;
        Ok(Broken::installed(what, Mend::Nothing))
    }

    /// Wipes a node that is held, and lets another one join at its place.
    pub(super) async fn take_its_place(&self, node: u64) -> Result<Value> {
        let old = self.cluster.id(node);
        let joined = match self.cluster.wipe(node) {
            Ok(()) => self.until(STEP, "no node can join", async || self.cluster.join(node).await).await,
            Err(error) => Err(error),
        };
        self.cluster.release(node);
        let new = joined?;
        self.cluster.start_node(node)?;
        let told = |error: Error| anyhow!("{error}");
        let groups =
            self.until(STEP, "nobody tells the groups", async || self.client.groups().await.map_err(told)).await?;
        let mut groups_of_old = Vec::new();
        for group in groups.iter().filter(|group| group.replicas.iter().any(|replica| replica.node_id == old)) {
            let id = GroupId(group.group_id);
            groups_of_old.push(id.0);
            // An answer that was lost may have been a yes.
            let add = async || match self.client.add_replica(id, NodeId(new), ACTOR).await {
                Err(error) if !self.holds(id, new).await? => Err(told(error)),
                _ => Ok(()),
            };
            self.until(STEP, "no replica can be added", add).await?;
            let votes = |members: &[(u64, bool)]| members.iter().any(|(node, votes)| *node == new && *votes);
            self.until(STEP, "the new one does not vote", async || self.wait_members(id, votes).await).await?;
            let remove = async || match self.client.remove_replicas(id, &[NodeId(old)], ACTOR).await {
                Err(error) if self.holds(id, old).await? => Err(told(error)),
                _ => Ok(()),
            };
            self.until(STEP, "no replica can be removed", remove).await?;
            let gone = |members: &[(u64, bool)]| members.iter().all(|(node, _)| *node != old);
            self.until(STEP, "the old one is still there", async || self.wait_members(id, gone).await).await?;
        }
        let forget = async || match self.client.remove_node(NodeId(old), ACTOR).await {
            Err(error) if self.client.nodes().await.map_err(told)?.iter().any(|node| node.node_id == old) => {
                Err(told(error))
            }
            _ => Ok(()),
        };
        self.until(STEP, "the old node cannot be removed", forget).await?;
        Ok(json!({"place": node, "old": old, "new": new, "groups": groups_of_old}))
    }

    /// Whether a group has a replica on the node of this number.
    async fn holds(&self, group: GroupId, id: u64) -> Result<bool> {
        let groups = self.client.groups().await.map_err(|error| anyhow!("{error}"))?;
        let found = groups.iter().find(|info| info.group_id == group.0);
        Ok(found.is_some_and(|info| info.replicas.iter().any(|replica| replica.node_id == id)))
    }

    /// Tries until it is done.
    async fn until<T, F: Future<Output = Result<T>>>(
        &self,
        bound: Duration,
        what: &str,
        mut done: impl FnMut() -> F,
    ) -> Result<T> {
        let until = Instant::now() + bound;
        loop {
            match done().await {
                Ok(value) => return Ok(value),
                Err(error) => ensure!(Instant::now() < until, "{what} within {} s: {error:#}", bound.as_secs()),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
