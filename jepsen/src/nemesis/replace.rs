//! A node that has lost its disk, or whose disk lies: another one with an empty disk takes its place, under a number of its own, as
//! docs/operations.md tells it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use drover_client::{Error, GroupId, NodeId};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use super::act::ACTOR;
use super::{Broken, Mend, Nemesis, Outcome};
use crate::cluster::{Cluster, State};

/// How long each step of a replacement may take: the address of the old node is free half a minute after it was last heard of, and
/// other nodes may be broken meanwhile.
const STEP: Duration = Duration::from_secs(180);
/// How long a node may take to find out that its files were changed.
const NOTICES: Duration = Duration::from_secs(20);
/// Between two attempts.
const LOOK: Duration = Duration::from_millis(200);

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// Bits of some bytes turn over.
    Flip,
    /// The second half is gone.
    Cut,
}

/// Which of a node's files is harmed, and how: `tables` and `logs` with how much was written to them, oldest first. `None`: there is none whose harm a
/// node has to notice.
fn choose(tables: &[(PathBuf, u64)], logs: &[(PathBuf, u64)], rng: &mut StdRng) -> Option<(PathBuf, Harm)> {
    let largest = tables.iter().max_by_key(|(_, bytes)| bytes).map(|(path, _)| path.clone());
    let mut all: Vec<(PathBuf, Harm)> = Vec::new();
    all.extend(largest.into_iter().flat_map(|path| [(path.clone(), Harm::Flip), (path, Harm::Cut)]));
    // What is missing at the end of the newest log file may have been cut off by a crash.
    all.extend(logs.iter().rev().skip(1).map(|(path, _)| (path.clone(), Harm::Cut)));
    all.extend(logs.iter().filter(|(_, bytes)| *bytes > 4096).map(|(path, _)| (path.clone(), Harm::Flip)));
    all.choose(rng).cloned()
}

/// How much of a file was written: a log has room at its end that was set aside, and nothing that lies there is looked at.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// All files below a folder that end so, with how much was written to each, oldest first.
fn files(folder: &Path, suffix: &str) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            let bytes = std::fs::read(&path).map_or(0, |bytes| written(&bytes) as u64);
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

fn harm(path: &Path, how: Harm) -> Result<()> {
    let mut bytes = std::fs::read(path)?;
    let length = written(&bytes);
    match how {
        // Not the very end, which a crash may cut.
        Harm::Flip => [length / 4, length / 3, length / 2].into_iter().for_each(|at| bytes[at] ^= 0xff),
        Harm::Cut => bytes.truncate(length / 2),
    }
    std::fs::write(path, bytes).with_context(|| path.display().to_string())
}

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

    /// Files of a node change while it is down. It has to notice that; then another node takes its place.
    pub(super) async fn damage(&self, rng: &mut StdRng) -> Result<Broken> {
        let nodes = self.cluster.nodes();
        let node = nodes[rng.random_range(0..nodes.len())];
        if !self.cluster.hold(node)? {
            return Ok(Broken::skipped("it is being replaced already"));
        }
        let folder = self.cluster.data_dir(node);
        let harmed = choose(&files(&folder, ".sst"), &files(&folder, ".raftlog"), rng);
        let done = harmed.as_ref().map_or(Ok(()), |(path, how)| harm(path, *how));
        let since = self.cluster.has_said(node);
        self.cluster.release(node);
        self.cluster.start_node(node)?;
        done?;
        let Some((path, how)) = harmed else { return Ok(Broken::skipped("it has written no file yet")) };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let until = Instant::now() + NOTICES;
        let noticed = loop {
            let said = self.cluster.said_since(node, since);
            let line = said.lines().find(|line| line.contains(&name)).map(str::to_owned);
            if line.is_some() || Instant::now() > until {
                break line;
            }
            // A table is read when somebody wants what is in it: digests want all.
            for group in Cluster::groups() {
                let _ = self.client.compare_digests(group).await;
            }
            tokio::time::sleep(LOOK).await;
        };
        let ended = self.cluster.state(node) == State::Down;
        if !self.cluster.hold(node)? {
            return Ok(Broken::unclear("another one replaces it"));
        }
        let replaced = self.take_its_place(node).await?;
        let outcome = if noticed.is_some() { Outcome::Installed } else { Outcome::Unclear };
        let what = json!({
            "node": node, "file": name, "how": format!("{how:?}").to_lowercase(),
            "noticed": noticed, "node_ended": ended, "replaced": replaced,
        });
        Ok(Broken { outcome, what, mend: Mend::Nothing })
    }

    /// Wipes a node that is held, and lets another one join at its place.
    async fn take_its_place(&self, node: u64) -> Result<Value> {
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

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn only_harm_that_has_to_be_noticed_is_done() {
        let mut rng = StdRng::seed_from_u64(1);
        let file = |name: &str, bytes| (PathBuf::from(name), bytes);
        assert_eq!(choose(&[], &[], &mut rng), None);
        assert_eq!(choose(&[], &[file("1.raftlog", 100)], &mut rng), None, "the newest log holds next to nothing");
        let (tables, logs) = ([file("1.sst", 5), file("2.sst", 9)], [file("1.raftlog", 9000), file("2.raftlog", 9000)]);
        let seen: std::collections::BTreeSet<_> = (0..200)
            .filter_map(|_| choose(&tables, &logs, &mut rng))
            .map(|(path, how)| format!("{how:?} {}", path.display()))
            .collect();
        let expect = ["Cut 1.raftlog", "Cut 2.sst", "Flip 1.raftlog", "Flip 2.raftlog", "Flip 2.sst"];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expect);
    }

    #[test]
    fn harm_changes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.sst");
        // Half of it was only set aside.
        std::fs::write(&path, [[7; 100], [0; 100]].concat()).unwrap();
        harm(&path, Harm::Flip).unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[..100].iter().filter(|byte| **byte != 7).count(), 3);
        harm(&path, Harm::Cut).unwrap();
        assert_eq!(files(dir.path(), ".sst"), [(path, 50)]);
    }
}
