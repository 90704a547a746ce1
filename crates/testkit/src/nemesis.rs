//! Breaks nodes of a cluster, round by round, and lets them come back.

use drover_guards::{CrashPoint, Moment, Place, TxnEntry};
use drover_keys::{GroupId, NodeId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::cluster::{Cluster, ClusterError, PATIENCE};
use crate::wait::{WaitError, wait_until};

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a new start once the group has another leader.
    KillLeader,
    /// SIGSTOP until the group has another leader, then SIGCONT: a leader that does not know that it was replaced.
    StopLeader,
    /// SIGKILL of any node, and a new start at once.
    KillAny,
    /// SIGKILL of all nodes at once, and new starts.
    KillAll,
    /// SIGSTOP of any node while the workload makes progress through the others, then SIGCONT.
    StopAny,
    /// A node that crashes while it coordinates a transaction, at a random step, and starts again. The workload has to commit
    /// transactions of several groups through every node.
    LoseCoordinator,
}

/// Between the steps of a transaction that is committed.
const COORDINATOR_POINTS: [CrashPoint; 7] = [
    CrashPoint::Txn(TxnEntry::PreparePrimary, Moment::Answered),
    CrashPoint::Txn(TxnEntry::PrepareSecondary, Moment::Answered),
    CrashPoint::At(Place::TxnPrepared),
    CrashPoint::At(Place::TxnTimestamped),
    CrashPoint::Txn(TxnEntry::Decide, Moment::Unsent),
    CrashPoint::Txn(TxnEntry::Decide, Moment::Answered),
    CrashPoint::Txn(TxnEntry::ResolveCommitted, Moment::Answered),
];

/// Does one fault after the other, each on the leader of a random one of `groups`. Before the first, and after each,
/// waits until all nodes are ready and the workload has made progress: until `successes` has grown by `progress`.
///
/// # Errors
/// If the cluster does not recover.
pub async fn strike(
    cluster: &Cluster,
    groups: &[GroupId],
    faults: &[Fault],
    seed: u64,
    progress: usize,
    successes: impl Fn() -> usize,
) -> Result<(), ClusterError> {
    let mut rng = StdRng::seed_from_u64(seed);
    advance(progress, &successes).await?;
    for fault in faults {
        let group = groups[rng.random_range(0..groups.len())];
        match fault {
            Fault::KillLeader => {
                let leader = cluster.leader(group, PATIENCE).await?;
                cluster.node(leader).kill()?;
                other_leader(cluster, group, leader).await?;
                cluster.node(leader).start()?;
            }
            Fault::StopLeader => {
                let leader = cluster.leader(group, PATIENCE).await?;
                cluster.node(leader).stop()?;
                other_leader(cluster, group, leader).await?;
                cluster.node(leader).resume()?;
            }
            Fault::KillAny => {
                let nodes = cluster.nodes();
                nodes[rng.random_range(0..nodes.len())].restart()?;
            }
            Fault::KillAll => {
                cluster.kill_all()?;
                cluster.start_all(PATIENCE).await?;
            }
            Fault::StopAny => {
                let node = &cluster.nodes()[rng.random_range(0..cluster.nodes().len())];
                node.stop()?;
                let advanced = advance(progress, &successes).await;
                node.resume()?;
                advanced?;
            }
            Fault::LoseCoordinator => {
                let node = &cluster.nodes()[rng.random_range(0..cluster.nodes().len())];
                let point = COORDINATOR_POINTS[rng.random_range(0..COORDINATOR_POINTS.len())];
                node.crash_at(Some(&point.to_string()));
                let restarted = node.restart();
                node.crash_at(None);
                restarted?;
                node.wait_crash(point, PATIENCE).await?;
                node.start()?;
            }
        }
        cluster.wait_ready(PATIENCE).await?;
        advance(progress, &successes).await?;
    }
    Ok(())
}

async fn advance(progress: usize, successes: impl Fn() -> usize) -> Result<(), WaitError> {
    let goal = successes() + progress;
    let what = format!("{goal} operations to have succeeded");
    wait_until(&what, PATIENCE, async || {
        let now = successes();
        if now >= goal { Ok(()) } else { Err(format!("{now} operations")) }
    })
    .await
}

/// Waits until a node that runs, and so is not the one that was struck, leads the group.
async fn other_leader(cluster: &Cluster, group: GroupId, struck: NodeId) -> Result<(), ClusterError> {
    let leader = cluster.leader(group, PATIENCE).await?;
    assert_ne!(leader, struck, "only running nodes are asked who leads");
    Ok(())
}
