//! What a move could leave behind, on every replica.

use std::fmt;
use std::time::Duration;

use drover_keys::NodeId;

use super::{Cluster, ClusterError, NodeState, http};
use crate::wait::wait_until;

/// What is zero while nothing moves, as the metrics of a node call it.
const OF_MOVES: [&str; 6] = [
    "drover_replica_leaving_ranges",
    "drover_replica_fenced_ranges",
    "drover_replica_arriving_ranges",
    "drover_replica_ended_moves",
    "drover_replica_stray_ranges",
    "drover_parked_requests",
];
/// What is zero besides, while nobody writes.
const OF_WRITERS: &str = "drover_replica_locks";

/// Something that should be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Where.
    pub node: NodeId,
    /// What, as the node's metrics call it, and how many.
    pub line: String,
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}: {}", self.node, self.line)
    }
}

/// The lines of metrics with one of these names whose value is not zero.
fn above_zero(metrics: &str, names: &[&str]) -> Vec<String> {
    let named = |line: &&str| {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        names.contains(&name)
    };
    let zero = |line: &&str| line.rsplit_once(' ').is_some_and(|(_, value)| value == "0");
    metrics.lines().filter(named).filter(|line| !zero(line)).map(str::to_owned).collect()
}

/// The lines of a node's metrics that tell of something which should be gone when all moves are over; `of_writers`: locks as well.
///
/// # Errors
/// The name of a figure that the node does not know.
pub fn leftover_lines(metrics: &str, of_writers: bool) -> Result<Vec<String>, &'static str> {
    let names: Vec<&'static str> = OF_MOVES.into_iter().chain(of_writers.then_some(OF_WRITERS)).collect();
    let knows = |name: &str| metrics.contains(&format!("\n{name}"));
    // A node without replicas says nothing of any.
    let all = knows("drover_replica_is_leader");
    let expected = |name: &&&'static str| all || !name.starts_with("drover_replica_");
    match names.iter().filter(expected).find(|name| !knows(name)) {
        Some(missing) => Err(missing),
        None => Ok(above_zero(metrics, &names)),
    }
}

impl Cluster {
    /// What is left on running nodes of moves that are over, while no other is under way: ranges that are pinned, listed or fenced,
    /// copies, marks that a move is over, rows that nobody owns, requests that wait; `of_writers`: locks as well.
    ///
    /// # Errors
    /// If a node does not answer, or does not know one of these figures.
    pub async fn leftovers(&self, of_writers: bool) -> Result<Vec<Leftover>, ClusterError> {
        let mut found = Vec::new();
        for node in self.nodes().iter().filter(|node| node.state() == NodeState::Running) {
            let what = format!("asking node {} for its metrics", node.id());
            let answer = http::get(&node.admin_address(), "/metrics").await.map_err(ClusterError::io(&what))?;
            let lines = leftover_lines(&answer.body, of_writers).map_err(|name| {
                let missing = std::io::Error::other(format!("it does not know {name}"));
                ClusterError::Io { what, source: missing }
            })?;
            found.extend(lines.into_iter().map(|line| Leftover { node: node.id(), line }));
        }
        Ok(found)
    }

    /// Waits until nothing is left of moves that are over; see [`Cluster::leftovers`]. What followers have not applied yet, and who is
    /// just being woken, is waited for.
    ///
    /// # Errors
    /// If something is left after the bound.
    pub async fn wait_nothing_left(&self, of_writers: bool, bound: Duration) -> Result<(), ClusterError> {
        Ok(wait_until("nothing to be left of moves", bound, async || match self.leftovers(of_writers).await {
            Ok(found) if found.is_empty() => Ok(()),
            Ok(found) => Err(found.iter().map(|leftover| format!("{leftover}; ")).collect()),
            Err(error) => Err(error.to_string()),
        })
        .await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_zero_is_found_under_its_whole_name() {
        let metrics = "# HELP drover_replica_locks Locks\n\
                       drover_replica_locks{group=\"1\"} 0\n\
                       drover_replica_locks{group=\"2\"} 10\n\
                       drover_replica_locks_old{group=\"2\"} 3\n\
                       drover_parked_requests 1\n";
        assert_eq!(above_zero(metrics, &["drover_replica_locks"]), ["drover_replica_locks{group=\"2\"} 10"]);
        assert_eq!(above_zero(metrics, &["drover_parked_requests"]), ["drover_parked_requests 1"]);
    }

    #[test]
    fn a_figure_that_is_missing_is_not_taken_for_zero() {
        assert_eq!(leftover_lines("#\ndrover_parked_requests 0\n", true), Ok(Vec::new()), "no replicas");
        assert_eq!(leftover_lines("#\n", false), Err("drover_parked_requests"));
        let some = "#\ndrover_parked_requests 0\ndrover_replica_is_leader{group=\"1\"} 1\n";
        assert_eq!(leftover_lines(some, false), Err("drover_replica_leaving_ranges"));
    }
}
