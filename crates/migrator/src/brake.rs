//! Keeps the writers of a range slowed down for as long as its driver wants that.

use std::time::{Duration, Instant};

use drover_keys::{GroupId, JobEpoch, JobId};
use tokio::sync::watch;

use crate::cluster::Cluster;

/// For how long the leader of the source slows writers down if it does not hear more.
const LEASE: Duration = Duration::from_secs(3);
/// How often it is told again.
const RENEW: Duration = Duration::from_secs(1);
/// How long it may take to tell it.
const TELL: Duration = Duration::from_secs(1);

/// How fast the writers of a range may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slowdown {
    pub(crate) source: GroupId,
    pub(crate) epoch: JobEpoch,
    /// Zero: as fast as they are.
    pub(crate) bytes_per_second: u64,
}

/// What the driver of a job wants.
#[derive(Debug, Default)]
pub(crate) struct Brake(watch::Sender<Option<Slowdown>>);

impl Brake {
    /// From now on writers may be so fast; `None`: as fast as they are.
    pub(crate) fn set(&self, wanted: Option<Slowdown>) {
        self.0.send_if_modified(|known| std::mem::replace(known, wanted) != wanted);
    }

    /// Tells the leader of the source what is wanted, whenever that changes and again before it would forget. To be dropped with
    /// the driver; the leader forgets by itself then.
    pub(crate) async fn hold(&self, cluster: &Cluster, job: JobId) {
        let (mut wanted, mut held) = (self.0.subscribe(), None);
        loop {
            let now = *wanted.borrow_and_update();
            let lifted = held.filter(|_| now.is_none()).map(|held| Slowdown { bytes_per_second: 0, ..held });
            if let Some(slowdown) = now.or(lifted)
                && let Err(error) = cluster.slow_writers(job, slowdown, LEASE, Instant::now() + TELL).await
            {
                // It is told again, or forgets.
                tracing::debug!(%job, %error, "the leader of the source was not told how fast writers may be");
            }
            held = now;
            let again = async {
                match held {
                    Some(_) => tokio::time::sleep(RENEW).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = wanted.changed() => if changed.is_err() { return },
                () = again => {}
            }
        }
    }
}
