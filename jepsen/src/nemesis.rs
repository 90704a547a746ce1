//! Breaks things while the clients work. Each nemesis goes through: wait, break, hold, mend; what it draws comes from the seed,
//! whom it meets depends on who leads what by then.

mod act;
mod jobs;
mod target;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use drover_client::Client;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use target::Target;

use crate::cluster::Cluster;
use crate::event::Recorder;

/// Something that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL, and a start afterwards.
    Kill,
    /// SIGSTOP, and SIGCONT afterwards.
    Pause,
    /// Any of the partitions below.
    Partition,
    /// One node hears nobody and is not heard.
    PartitionOne,
    /// The nodes fall into two parts.
    PartitionHalves,
    /// Each node hears a majority, and no two the same.
    PartitionRing,
    /// Two parts that only one node joins.
    PartitionBridge,
    /// A node is heard and hears nobody, or the other way round.
    PartitionOneway,
    /// The leader of a group is alone.
    PartitionLeader,
    /// The leader of the source of a move and that of its target do not hear each other.
    PartitionMigration,
    /// A node does not hear those that hold the default group.
    PartitionDefault,
    /// Packets are lost.
    Loss,
    /// Packets reset their connections.
    Reset,
    /// Packets come late and out of their order.
    Delay,
    /// Leadership is handed over.
    Leader,
    /// A range moves.
    Move,
    /// A move is called off, and tried again.
    Abandon,
    /// A move is paused, and goes on.
    JobPause,
    /// A route is divided where the clients work.
    Split,
    /// Clocks are wrong: by an amount, in jumps, too fast.
    Clock,
    /// Groups get replicas and give others up.
    Membership,
    /// A node is away until the log behind it is gone, and gets a snapshot.
    Snapshot,
    /// A node ends itself at a step of a transaction, of a move or of a replica (builds with debug assertions).
    Crash,
    /// Nodes and their disks lose their power: what was not synced is gone.
    Power,
    /// A disk has no space left.
    DiskFull,
}

impl Fault {
    /// All of them.
    pub const ALL: [Fault; 25] = [
        Fault::Kill,
        Fault::Pause,
        Fault::Partition,
        Fault::PartitionOne,
        Fault::PartitionHalves,
        Fault::PartitionRing,
        Fault::PartitionBridge,
        Fault::PartitionOneway,
        Fault::PartitionLeader,
        Fault::PartitionMigration,
        Fault::PartitionDefault,
        Fault::Loss,
        Fault::Reset,
        Fault::Delay,
        Fault::Leader,
        Fault::Move,
        Fault::Abandon,
        Fault::JobPause,
        Fault::Split,
        Fault::Clock,
        Fault::Membership,
        Fault::Snapshot,
        Fault::Crash,
        Fault::Power,
        Fault::DiskFull,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Pause => "pause",
            Fault::Partition => "partition",
            Fault::PartitionOne => "partition-one",
            Fault::PartitionHalves => "partition-halves",
            Fault::PartitionRing => "partition-ring",
            Fault::PartitionBridge => "partition-bridge",
            Fault::PartitionOneway => "partition-oneway",
            Fault::PartitionLeader => "partition-leader",
            Fault::PartitionMigration => "partition-migration",
            Fault::PartitionDefault => "partition-default",
            Fault::Loss => "loss",
            Fault::Reset => "reset",
            Fault::Delay => "delay",
            Fault::Leader => "leader",
            Fault::Move => "move",
            Fault::Abandon => "abandon",
            Fault::JobPause => "job-pause",
            Fault::Split => "split",
            Fault::Clock => "clock",
            Fault::Membership => "membership",
            Fault::Snapshot => "snapshot",
            Fault::Crash => "crash",
            Fault::Power => "power",
            Fault::DiskFull => "disk-full",
        }
    }

    /// Reads `none`, or names with commas between them. A name that is there twice breaks twice at once.
    ///
    /// # Errors
    /// For a name that nothing has.
    pub fn parse_all(text: &str) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "none") {
            match Fault::ALL.into_iter().find(|fault| fault.name() == name) {
                Some(fault) => faults.push(fault),
                None => {
                    let known: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
                    bail!("there is no nemesis {name}; there are none, {}", known.join(", "))
                }
            }
        }
        Ok(faults)
    }
}

/// What became of an attempt to break something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is broken.
    Installed,
    /// There was nothing to break.
    Skipped,
    /// Nobody knows.
    Unclear,
}

/// What came of an attempt, and what is to be mended.
#[derive(Debug)]
struct Broken {
    outcome: Outcome,
    what: Value,
    mend: Mend,
}

impl Broken {
    fn installed(what: Value, mend: Mend) -> Self {
        Self { outcome: Outcome::Installed, what, mend }
    }

    fn skipped(why: &str) -> Self {
        Self { outcome: Outcome::Skipped, what: json!({"why": why}), mend: Mend::Nothing }
    }

    fn unclear(why: impl Into<String>) -> Self {
        Self { outcome: Outcome::Unclear, what: json!({"why": why.into()}), mend: Mend::Nothing }
    }
}

/// What has to be done to mend something.
#[derive(Debug)]
enum Mend {
    Nothing,
    Start(Vec<u64>),
    Resume(Vec<u64>),
    Network,
    Clocks(Vec<u64>),
    /// Mount the disks again, and start.
    Replug(Vec<u64>),
    Free(Vec<u64>),
    /// Look whether the node ended itself, and start it.
    StartCrashed {
        node: u64,
        point: String,
    },
    /// Start, and look whether the node's log had ended behind what the leaders still have.
    StartBehind {
        node: u64,
        had: Vec<(u64, u64)>,
    },
}

/// How long things are broken, and how long they are not.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Shortest and longest time that something stays broken.
    pub hold_ms: (u64, u64),
    /// Shortest and longest time between.
    pub rest_ms: (u64, u64),
}

impl Default for Pace {
    fn default() -> Self {
        Self { hold_ms: (1_500, 4_000), rest_ms: (1_000, 3_000) }
    }
}

/// Everything a nemesis works with.
#[derive(Clone)]
pub struct Nemesis {
    /// The nodes.
    pub cluster: Arc<Cluster>,
    /// Asks for changes of the cluster. Its deadline bounds how long one call may take.
    pub client: Client,
    /// Where everything is taken down.
    pub recorder: Arc<Recorder>,
    /// Whom kills and pauses may meet; empty: anybody.
    pub targets: Vec<Target>,
    /// How fast.
    pub pace: Pace,
    /// Keys that the clients use, to divide routes at.
    pub hot: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
}

impl Nemesis {
    /// Breaks and mends until `stop`. `number` tells nemeses of one kind apart.
    pub async fn run(self, fault: Fault, number: usize, seed: u64, stop: CancellationToken) {
        let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(31).wrapping_add(number as u64 * 1_000_003));
        let owner = format!("{}-{number}", fault.name());
        while self.rest(self.pace.rest_ms, &mut rng, &stop).await {
            self.record("start", fault, number, json!({"asked": true}));
            let broken = match fault {
                Fault::Move | Fault::Abandon | Fault::JobPause => self.moves(fault, &mut rng, &stop).await,
                _ => self.act(fault, &owner, &mut rng).await,
            };
            let broken = broken.unwrap_or_else(|error| Broken::unclear(format!("{error:#}")));
            self.record("start", fault, number, json!({"outcome": broken.outcome, "what": broken.what}));
            if !matches!(broken.mend, Mend::Nothing) {
                self.rest(self.pace.hold_ms, &mut rng, &stop).await;
            }
            let mended = match self.mend(fault, &owner, broken.mend).await {
                Ok(what) => what,
                Err(error) => json!({"why": format!("{error:#}")}),
            };
            self.record("stop", fault, number, mended);
        }
    }

    fn record(&self, what: &str, fault: Fault, number: usize, mut value: Value) {
        if let Some(fields) = value.as_object_mut() {
            fields.insert("number".to_owned(), number.into());
        }
        self.recorder.nemesis(&format!("{what}-{}", fault.name()), value);
    }

    /// Whether there is time left.
    async fn rest(&self, (least, most): (u64, u64), rng: &mut StdRng, stop: &CancellationToken) -> bool {
        let pause = Duration::from_millis(rng.random_range(least..=most.max(least)));
        stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_a_wrong_one_is_told() {
        assert_eq!(Fault::parse_all("none").unwrap(), []);
        assert_eq!(Fault::parse_all("kill, move,kill").unwrap(), [Fault::Kill, Fault::Move, Fault::Kill]);
        assert!(Fault::parse_all("kil").unwrap_err().to_string().contains("partition-ring"));
        for fault in Fault::ALL {
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
        }
    }
}
