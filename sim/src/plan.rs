//! The faults of a run, drawn from its seed before it begins.

use std::fmt;
use std::time::Duration;

use drover_keys::NodeId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::node::NODES;
use crate::steps::Step;

/// When the first fault may happen: the cluster exists by then.
const QUIET: Duration = Duration::from_secs(6);
/// How long faults happen.
const FAULTS: Duration = Duration::from_secs(24);

/// Something that happens to nodes, and ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is gone, with all that was not durable.
    Crash(NodeId),
    /// The process is asked to stop, and killed if it has not by then.
    Stop(NodeId),
    /// Messages between the node and all others are lost.
    CutOff(NodeId),
    /// Messages between two nodes are lost.
    Cut(NodeId, NodeId),
    /// Messages from the first to the second are lost.
    CutOneWay(NodeId, NodeId),
    /// Messages between two nodes are delivered late.
    Hold(NodeId, NodeId),
    /// The wall clock of the node is ahead, or behind, by so many milliseconds.
    Clock(NodeId, i64),
}

impl Fault {
    /// Whether the end of one would end the other as well, or both cannot be at once.
    pub fn shares(&self, other: &Fault) -> bool {
        match (self, other) {
            (Fault::Crash(a) | Fault::Stop(a), Fault::Crash(b) | Fault::Stop(b))
            | (Fault::Clock(a, _), Fault::Clock(b, _)) => a == b,
            (Fault::Crash(_) | Fault::Stop(_) | Fault::Clock(..), _)
            | (_, Fault::Crash(_) | Fault::Stop(_) | Fault::Clock(..)) => false,
            _ => self.links().iter().any(|link| other.links().contains(link)),
        }
    }

    /// The links that it is about.
    fn links(&self) -> Vec<(NodeId, NodeId)> {
        match self {
            Fault::Crash(_) | Fault::Stop(_) | Fault::Clock(..) => Vec::new(),
            Fault::Cut(a, b) | Fault::CutOneWay(a, b) | Fault::Hold(a, b) => vec![(*a.min(b), *a.max(b))],
            Fault::CutOff(node) => {
                let others = (1..=NODES).map(NodeId).filter(|other| other != node);
                others.map(|other| (*node.min(&other), *node.max(&other))).collect()
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Crash(node) => write!(f, "crash of node {node}"),
            Fault::Stop(node) => write!(f, "stop of node {node}"),
            Fault::CutOff(node) => write!(f, "node {node} is cut off"),
            Fault::Cut(a, b) => write!(f, "nodes {a} and {b} are cut off from each other"),
            Fault::CutOneWay(a, b) => write!(f, "nothing comes from node {a} to node {b}"),
            Fault::Hold(a, b) => write!(f, "messages between nodes {a} and {b} are held back"),
            Fault::Clock(node, ms) => write!(f, "the clock of node {node} is wrong by {ms} ms"),
        }
    }
}

/// A fault with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// When it begins.
    pub from: Duration,
    /// When it ends.
    pub until: Duration,
    /// What it is.
    pub fault: Fault,
}

/// Whom an ambush strikes: the node that leads a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The default group, and with it the move.
    Driver,
    /// The group that the range leaves.
    Source,
    /// The group that the range comes to.
    Target,
}

/// What an ambush does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// See [`Fault::Crash`].
    Crash,
    /// See [`Fault::CutOff`].
    CutOff,
    /// See [`Fault::Hold`]: with the node that comes so many places behind.
    Hold(u64),
}

impl Blow {
    /// The fault, against a node.
    pub fn on(self, node: NodeId) -> Fault {
        match self {
            Blow::Crash => Fault::Crash(node),
            Blow::CutOff => Fault::CutOff(node),
            Blow::Hold(places) => Fault::Hold(node, NodeId((node.0 + places - 1) % NODES + 1)),
        }
    }
}

/// A fault that waits until a move comes to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambush {
    /// Since when it waits.
    pub from: Duration,
    /// Which step it waits for.
    pub step: Step,
    /// Whom it strikes.
    pub victim: Victim,
    /// What it does.
    pub blow: Blow,
    /// How long that lasts.
    pub lasts: Duration,
}

/// When nothing new may happen any more.
pub const FAULTS_END: Duration = Duration::from_secs(QUIET.as_secs() + FAULTS.as_secs());

/// The ambushes of a run, by the time from which they wait.
pub fn draw_ambushes(seed: u64) -> Vec<Ambush> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x00a3_b057);
    let mut at = QUIET;
    let mut ambushes = Vec::new();
    loop {
        at += Duration::from_millis(random.random_range(500..6_000));
        if at >= FAULTS_END {
            return ambushes;
        }
        let step = Step::ALL[random.random_range(0..Step::ALL.len())];
        let victim = match random.random_range(0..4) {
            0..2 => Victim::Driver,
            2 => Victim::Source,
            _ => Victim::Target,
        };
        let blow = match random.random_range(0..4) {
            0 => Blow::Crash,
            1 => Blow::CutOff,
            _ => Blow::Hold(random.random_range(1..NODES)),
        };
        ambushes.push(Ambush {
            from: at,
            step,
            victim,
            blow,
            lasts: Duration::from_millis(random.random_range(100..3_000)),
        });
    }
}

/// The faults of a run, by the time at which they begin.
pub fn draw(seed: u64) -> Vec<Planned> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut plan = Vec::new();
    let mut at = QUIET;
    // Some runs have few faults and some have many.
    let pause_ms = random.random_range(400..4_000);
    loop {
        at += Duration::from_millis(random.random_range(pause_ms / 4..pause_ms * 2));
        if at >= FAULTS_END {
            return plan;
        }
        let one = NodeId(random.random_range(1..=NODES));
        let other = NodeId((one.0 + random.random_range(0..NODES - 1)) % NODES + 1);
        let (fault, longest_ms) = match random.random_range(0..14) {
            0..4 => (Fault::Crash(one), 3_000),
            10..12 => (Fault::Stop(one), 5_000),
            4..6 => (Fault::CutOff(one), 4_000),
            6 => (Fault::Cut(one, other), 4_000),
            7 => (Fault::CutOneWay(one, other), 3_000),
            8..10 => (Fault::Hold(one, other), 1_500),
            _ => (Fault::Clock(one, random.random_range(-20_000..20_000)), 6_000),
        };
        let until = at + Duration::from_millis(random.random_range(50..longest_ms));
        plan.push(Planned { from: at, until, fault });
    }
}

/// When the last fault has ended, whatever was drawn.
pub const QUIET_AGAIN: Duration = Duration::from_secs(36);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_follow_from_seeds_and_end_in_time() {
        let mut crashes = 0;
        for seed in 0..200 {
            let plan = draw(seed);
            assert_eq!(plan, draw(seed));
            assert!(plan.is_sorted_by_key(|planned| planned.from));
            for Planned { from, until, fault } in &plan {
                assert!(QUIET <= *from && from < until && *until <= QUIET_AGAIN, "{seed}: {fault}");
                let nodes = match fault {
                    Fault::Crash(node) | Fault::Stop(node) | Fault::CutOff(node) | Fault::Clock(node, _) => vec![node],
                    Fault::Cut(a, b) | Fault::CutOneWay(a, b) | Fault::Hold(a, b) => vec![a, b],
                };
                assert!(nodes.iter().all(|node| (1..=NODES).contains(&node.0)), "{fault}");
                assert!(nodes.len() < 2 || nodes[0] != nodes[1], "{fault}");
                crashes += usize::from(matches!(fault, Fault::Crash(_)));
            }
        }
        assert!(crashes > 200);
    }

    #[test]
    fn ambushes_follow_from_seeds_and_strike_two_nodes_or_one() {
        for seed in 0..200 {
            let ambushes = draw_ambushes(seed);
            assert_eq!(ambushes, draw_ambushes(seed));
            assert!(!ambushes.is_empty() && ambushes.is_sorted_by_key(|ambush| ambush.from));
            for ambush in ambushes {
                assert!(FAULTS_END + ambush.lasts <= QUIET_AGAIN);
                for node in (1..=NODES).map(NodeId) {
                    if let Fault::Hold(one, other) = ambush.blow.on(node) {
                        assert!(one == node && one != other && (1..=NODES).contains(&other.0), "{ambush:?}");
                    }
                }
            }
        }
    }
}
