//! Disks that are slow or fail, and clocks that drift: by the library that lies in front of the nodes' C library.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::{Broken, Fault, Mend, Nemesis, Outcome};
use crate::cluster::State;
use crate::preload::{Call, RIGHT};

/// How long a node may take to come to a call that is slow or fails.
const COMES: Duration = Duration::from_secs(6);
/// How long a node may take to stop, or the replica whose file it is, when a call has failed.
const STOPS: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// How long a rate stays that does not stay.
const STROBE: Duration = Duration::from_millis(60);
/// How a node says that it ends, or that a replica does. The Raft log panics when it cannot be synced, which ends the node.
const ENDS: [&str; 3] = ["the replica has stopped", "the Raft log of this node failed", "lifecycle::panic"];
/// How it says that this is because it cannot write or sync: what the operating system says.
const BECAUSE: [&str; 2] = ["os error 5", "Input/output error"];

/// The rates of clocks, in millionths, of which no two differ by as much as one part in six: a leader that counts 500 ms by the
/// slowest is done before a voter has counted 600 ms by the fastest.
const WITHIN: [u64; 4] = [920_000, 970_000, RIGHT, 1_080_000];
/// Rates that nothing is promised for.
const BEYOND: [u64; 3] = [100_000, 300_000, 5_000_000];

impl Nemesis {
    /// Whom it meets, of those that run.
    async fn running(&self, rng: &mut StdRng) -> Option<(&'static str, Vec<u64>)> {
        let (target, mut nodes) = self.choose(rng).await?;
        nodes.retain(|node| self.cluster.state(*node) == State::Running);
        (!nodes.is_empty()).then(|| (target.name(), nodes))
    }

    /// Disks take their time.
    pub(super) async fn slow_disk(&self, rng: &mut StdRng) -> Result<Broken> {
        let Some((target, nodes)) = self.running(rng).await else { return Ok(Broken::skipped("no such node")) };
        let calls = [&Call::ALL[..], &[Call::Write], &[Call::Sync]][rng.random_range(0..3)];
        let by = Duration::from_millis([5, 40, 200, 700][rng.random_range(0..4)]);
        nodes.iter().try_for_each(|node| self.cluster.steer(*node)?.delay(calls, by))?;
        let until = Instant::now() + COMES;
        let mut delayed: Vec<u64> = Vec::new();
        while delayed.iter().all(|count| *count == 0) && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
            delayed = nodes.iter().map(|node| self.cluster.steer(*node)?.delayed()).collect::<Result<_>>()?;
        }
        if delayed.iter().all(|count| *count == 0) {
            self.calm(&nodes)?;
            return Ok(Broken::skipped("nobody came to a call that would have been slow"));
        }
        let calls: Vec<&str> = calls.iter().map(|call| call.name()).collect();
        let what = json!({"target": target, "nodes": nodes, "calls": calls, "ms": by.as_millis() as u64});
        Ok(Broken::installed(what, Mend::Calm(nodes)))
    }

    /// A call fails. The node has to stop, or the replica whose file it is; and to say so.
    pub(super) async fn failing_disk(&self, fault: Fault, rng: &mut StdRng) -> Result<Broken> {
        let Some((target, nodes)) = self.running(rng).await else { return Ok(Broken::skipped("no such node")) };
        let call = match fault {
            Fault::SyncError => Call::Sync,
            _ if rng.random_ratio(1, 6) => Call::Room,
            _ => Call::Write,
        };
        // The log is written to most of all; the others get their turn if it is left out.
        let only = match call {
            Call::Room => ".raftlog",
            _ => ["", ".raftlog", ".sst", "MANIFEST"][rng.random_range(0..4)],
        };
        let since: Vec<u64> = nodes.iter().map(|node| self.cluster.has_said(*node)).collect();
        nodes.iter().try_for_each(|node| self.cluster.steer(*node)?.fail(call, 1, only))?;
        let until = Instant::now() + COMES;
        while Instant::now() < until && !self.all_have_failed(&nodes)? {
            tokio::time::sleep(LOOK).await;
        }
        self.calm(&nodes)?;
        let (mut met, mut hurt, mut all_noticed) = (Vec::new(), Vec::new(), true);
        for (node, since) in nodes.iter().zip(since) {
            let Some(failed) = self.cluster.steer(*node)?.failed()? else { continue };
            let (noticed, ended) = match failed.call {
                // Room is set aside for speed alone.
                Call::Room => (None, false),
                Call::Write | Call::Sync => self.wait_until_noticed(*node, since).await,
            };
            let is_needed = failed.call != Call::Room;
            all_noticed &= noticed.is_some() || !is_needed;
            let file = failed.file.strip_prefix(self.cluster.data_dir(*node)).unwrap_or(&failed.file);
            met.push(json!({
                "node": node, "call": failed.call.name(), "file": file, "noticed": noticed, "ended": ended, "needed": is_needed,
            }));
            hurt.push(*node);
        }
        if hurt.is_empty() {
            return Ok(Broken::skipped(&format!("nobody came to a {} of {only:?}", call.name())));
        }
        if let (Fault::SyncError, Some(disks)) = (fault, &self.cluster.disks) {
            // What was not synced is lost now at the latest.
            for node in &hurt {
                disks.cut_power(*node)?;
                self.cluster.kill(*node)?;
            }
        }
        let mend = if fault == Fault::SyncError { Mend::Replug(hurt) } else { Mend::Restart(hurt) };
        let outcome = if all_noticed { Outcome::Installed } else { Outcome::Unclear };
        Ok(Broken { outcome, what: json!({"target": target, "calls": met}), mend })
    }

    fn all_have_failed(&self, nodes: &[u64]) -> Result<bool> {
        for node in nodes {
            if self.cluster.steer(*node)?.failed()?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a node says of a failure, and whether it has ended.
    async fn wait_until_noticed(&self, node: u64, since: u64) -> (Option<String>, bool) {
        let until = Instant::now() + STOPS;
        loop {
            let said = self.cluster.said_since(node, since);
            let line = end_for_the_disk(&said).map(str::to_owned);
            let ended = self.cluster.state(node) == State::Down;
            if line.is_some() || ended || Instant::now() > until {
                return (line, ended);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) fn calm(&self, nodes: &[u64]) -> Result<()> {
        nodes.iter().try_for_each(|node| self.cluster.steer(*node)?.calm())
    }

    /// The clocks by which leases are measured run at rates of their own: within what the guarantees allow for, or beyond.
    pub(super) async fn drift(&self, fault: Fault, rng: &mut StdRng) -> Result<Broken> {
        // Sometimes a rate stays for a moment only.
        let changes = [1, 20][usize::from(rng.random_ratio(1, 4))];
        for _ in 1..changes {
            self.change_rates(fault, rng)?;
            tokio::time::sleep(STROBE).await;
        }
        let what = json!({"changes": changes, "last": self.change_rates(fault, rng)?});
        Ok(Broken::installed(what, Mend::Rates(self.cluster.nodes())))
    }

    fn change_rates(&self, fault: Fault, rng: &mut StdRng) -> Result<Vec<Value>> {
        let mut what: Vec<Value> = Vec::new();
        for node in self.cluster.nodes() {
            let (rate, ahead) = match fault {
                Fault::LeaseClock => (WITHIN[rng.random_range(0..WITHIN.len())], Duration::ZERO),
                _ => (BEYOND[rng.random_range(0..BEYOND.len())], Duration::from_millis(rng.random_range(0..1_000))),
            };
            self.cluster.steer(node)?.run_clock(rate, ahead)?;
            what.push(json!({"node": node, "millionths": rate, "ahead_ms": ahead.as_millis() as u64}));
        }
        Ok(what)
    }
}

/// The line by which a node says that it ends, or that a replica does, if some line says that it is for a disk that fails: who
/// hears of a replica's end first may know no more than that.
fn end_for_the_disk(said: &str) -> Option<&str> {
    let of = |line: &&str, words: &[&str]| words.iter().any(|words| line.contains(words));
    let because = said.lines().any(|line| !line.contains("\"WARN\"") && of(&line, &BECAUSE));
    said.lines().find(|line| because && of(line, &ENDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_ends_and_says_why_has_noticed() {
        let stopped = r#"{"level":"ERROR","message":"the replica has stopped","why":"channel closed"}"#;
        let why = r#"{"level":"ERROR","message":"RaftCore: IO error: Input/output error"}"#;
        let warned =
            r#"{"level":"WARN","message":"the state machine could not be flushed","error":"Input/output error"}"#;
        let failed = "drover server: the Raft log of this node failed: raftlog: write failed: pwrite: Input/output error (os error 5)";
        let panicked = r#"{"panic":"\"fdatasync: Input/output error (os error 5)\" }","target":"drover_server::lifecycle::panic"}"#;
        assert_eq!(end_for_the_disk(failed), Some(failed));
        assert_eq!(end_for_the_disk(panicked), Some(panicked));
        assert_eq!(end_for_the_disk(&format!("{why}\n{stopped}\n")), Some(stopped));
        assert_eq!(end_for_the_disk(&format!("{warned}\n{stopped}\n")), None, "it stopped and did not say why");
        assert_eq!(end_for_the_disk(&format!("{warned}\n{why}\n")), None, "it went on");
    }

    #[test]
    fn the_rates_of_clocks_are_within_what_is_promised_or_beyond() {
        // `raft.election_max_ms` and the lease that a leader trusts, by their defaults.
        let fits = |slow: u64, fast: u64| 500 * RIGHT * RIGHT / slow < 600 * RIGHT * RIGHT / fast;
        assert!(WITHIN.iter().all(|slow| WITHIN.iter().all(|fast| fits(*slow, *fast))));
        assert!(!fits(BEYOND[0], BEYOND[2]));
    }
}
