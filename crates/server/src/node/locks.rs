//! Looks after the locks of transactions in the groups that this node leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_coordinator::Coordinator;
use drover_coordinator::txn::LockSweep;
use drover_keys::GroupId;
use tokio_util::sync::CancellationToken;

/// Longest time that one round may take for one group.
const ROUND: Duration = Duration::from_secs(10);

/// Resolves what coordinators have left behind, again and again until `stop`.
pub async fn tend(coordinator: Arc<Coordinator>, lock_ttl: Duration, stop: CancellationToken) {
    let mut sweeps: BTreeMap<GroupId, LockSweep> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(lock_ttl / 4) => {}
        }
        // Side by side: what a group waits for is no business of the others.
        let rounds = coordinator.led_here().into_iter().map(|(id, group)| {
            let (coordinator, mut sweep) = (Arc::clone(&coordinator), sweeps.remove(&id).unwrap_or_default());
            async move {
                let deadline = Instant::now() + ROUND;
                if let Err(error) = coordinator.tend_locks(&group, &mut sweep, deadline).await {
                    tracing::debug!(group = %id, %error, "locks of transactions are left for later");
                }
                (id, sweep)
            }
        });
        sweeps = futures::future::join_all(rounds).await.into_iter().collect();
    }
}
