//! Another node at the place of one that was lost: with its addresses, under a number of its own.

use std::sync::PoisonError;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use super::config::put;
use super::{Cluster, State};

impl Cluster {
    /// By which numbers the nodes go in the cluster, in their order.
    pub fn ids(&self) -> Vec<u64> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By which number a node goes in the cluster.
    pub fn id(&self, node: u64) -> u64 {
        self.ids()[usize::try_from(node - 1).expect("nodes are few")]
    }

    /// Kills a node, and keeps it from being started until it is released; false if somebody else holds it.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn hold(&self, node: u64) -> Result<bool> {
        if std::mem::replace(&mut self.process(node).is_held, true) {
            return Ok(false);
        }
        self.kill(node).map(|()| true)
    }

    /// Lets a node be started again.
    pub fn release(&self, node: u64) {
        self.process(node).is_held = false;
    }

    /// Removes all that a node has stored, which must be down.
    ///
    /// # Errors
    /// If that is not possible.
    pub fn wipe(&self, node: u64) -> Result<()> {
        let dir = self.data_dir(node);
        ensure!(self.state(node) == State::Down, "node {node} runs");
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())
    }

    /// Lets another node join at the place of one that was wiped, with its addresses and settings; its number.
    ///
    /// # Errors
    /// If the cluster does not let it in, as while its addresses may be in use.
    pub async fn join(&self, node: u64) -> Result<u64> {
        let (addresses, path) = (self.net.addresses(node), self.config_path(node));
        let others: Vec<String> =
            self.nodes().into_iter().filter(|other| *other != node).map(|other| self.endpoint(other)).collect();
        let joined = path.with_extension("joined");
        let mut command = self.net.command(node, &self.plan.binary)?;
        command.args(["node", "join", "--endpoints", &others.join(","), "--actor", "jepsen", "--timeout", "5s"]);
        command.arg("--data-dir").arg(self.data_dir(node)).arg("--config").arg(&joined);
        command.args(["--grpc-listen", &addresses.listen, "--grpc-advertise", &addresses.advertise]);
        command.args(["--admin-listen", &addresses.admin]);
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("drover node join")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        let text = std::fs::read_to_string(&joined).with_context(|| joined.display().to_string())?;
        let mut config: Table = text.parse().context("what drover node join has written")?;
        for (name, value) in &self.plan.settings {
            put(&mut config, name, value.clone());
        }
        let id = config.get("node").and_then(|node| node.get("id")).and_then(Value::as_integer);
        let id = id.and_then(|id| u64::try_from(id).ok()).context("the configuration names no node")?;
        std::fs::write(&path, config.to_string()).with_context(|| path.display().to_string())?;
        std::fs::remove_file(&joined)?;
        let at = usize::try_from(node - 1).expect("nodes are few");
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)[at] = id;
        Ok(id)
    }
}
