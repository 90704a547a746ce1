//! Looks after the locks of transactions in the groups that this node leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_coordinator::Coordinator;
use drover_keys::GroupId;
use tokio_util::sync::CancellationToken;

/// Longest time that one round may take for one group.
const ROUND: Duration = Duration::from_secs(10);

/// Resolves what coordinators have left behind, again and again until `stop`.
pub async fn tend(coordinator: Arc<Coordinator>, lock_ttl: Duration, stop: CancellationToken) {
    let mut sweeps: BTreeMap<GroupId, Bytes> = BTreeMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(lock_ttl / 4) => {}
        }
        for (id, group) in coordinator.led_here() {
            let deadline = Instant::now() + ROUND;
            if let Err(error) = coordinator.tend_locks(&group, sweeps.entry(id).or_default(), deadline).await {
                tracing::debug!(group = %id, %error, "locks of transactions are left for later");
            }
        }
    }
}
