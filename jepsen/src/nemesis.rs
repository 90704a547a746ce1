//! Breaks things while the clients work. Each nemesis goes through: wait, break, hold, mend; what it draws comes from the seed,
//! whom it meets depends on who leads what by then.

mod act;
mod crash;
mod damage;
mod fault;
mod jobs;
mod members;
mod mend;
mod partition;
mod replace;
mod steered;
mod target;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_client::Client;
use drover_guards::CrashPoint;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use crash::points;
pub use fault::Fault;
pub use target::Target;

use crate::cluster::Cluster;
use crate::event::Recorder;

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
    /// Nothing is slow any more.
    Calm(Vec<u64>),
    /// Kill, if that is needed, and start.
    Restart(Vec<u64>),
    /// Clocks run at the right rate.
    Rates(Vec<u64>),
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
    /// Steps at which a node was to end itself so far.
    pub tried: Arc<Mutex<BTreeSet<CrashPoint>>>,
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
                Fault::CrashTxn | Fault::CrashMove => self.crash(fault, &mut rng, &stop).await,
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
