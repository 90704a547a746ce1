use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_keys::{GroupId, JobId};
use drover_raftgroup::{Group, Leadership};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::driver::Driver;
use crate::options::MigratorOptions;
use crate::respawn::Respawn;

/// The number of the first job: below it there are no marks.
const FIRST: JobId = JobId(1);
/// How long one group may take to forget, and when those are asked again that could not be reached.
const FORGET: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(5);

/// Drives the jobs of the catalog while the replica here leads the default group.
pub struct Migrator {
    cluster: Arc<Cluster>,
    options: MigratorOptions,
}

impl Migrator {
    /// Drives them over `cluster`.
    pub fn new(cluster: Arc<Cluster>, options: MigratorOptions) -> Self {
        Self { cluster, options }
    }

    /// Follows the leadership of `group`, the replica of the default group here, until `stop`.
    pub async fn run(self, group: Arc<Group>, stop: CancellationToken) {
        loop {
            let leadership = tokio::select! {
                () = stop.cancelled() => return,
                leadership = group.led() => leadership,
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = leadership.over.cancelled() => {}
                () = self.lead(&group, &leadership) => {}
                () = self.forget(&group) => {}
            }
        }
    }

    /// Lets every group forget the marks of jobs that are over, as the lowest number of one that is not rises. That number
    /// never falls, so whoever leads no longer does no harm.
    async fn forget(&self, group: &Arc<Group>) {
        let mut catalog = group.fsm().catalog();
        let mut told: BTreeMap<GroupId, JobId> = BTreeMap::new();
        loop {
            let horizon = catalog.borrow_and_update().job_horizon();
            for id in self.cluster.directory().groups() {
                if told.get(&id).copied().unwrap_or(FIRST) < horizon
                    && self.cluster.forget(id, horizon, Instant::now() + FORGET).await.is_ok()
                {
                    told.insert(id, horizon);
                }
            }
            tokio::select! {
                changed = catalog.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// A driver for each job that has not ended. They end when this is dropped.
    async fn lead(&self, group: &Arc<Group>, leadership: &Arc<Leadership>) {
        let (mut drivers, mut driven) = (JoinSet::new(), BTreeMap::new());
        let mut respawn = Respawn::default();
        let mut catalog = group.fsm().catalog();
        loop {
            let known = Arc::clone(&catalog.borrow_and_update());
            let now = tokio::time::Instant::now();
            let live = known.jobs().filter(|job| !job.phase.has_ended() && respawn.may_begin(job.id, now));
            for job in live {
                driven.entry(job.id).or_insert_with(|| {
                    let driver = Driver {
                        cluster: Arc::clone(&self.cluster),
                        options: self.options.clone(),
                        group: Arc::clone(group),
                        leadership: Arc::clone(leadership),
                        job: job.id,
                    };
                    drivers.spawn(driver.run()).id()
                });
            }
            let next = respawn.next(now);
            let again = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = catalog.changed() => if changed.is_err() { return },
                () = again => {}
                Some(ended) = drivers.join_next_with_id() => {
                    let (id, why) = match ended {
                        Ok((id, ())) => (id, None),
                        Err(error) => (error.id(), Some(error)),
                    };
                    let Some(job) = driven.iter().find(|(_, task)| **task == id).map(|(job, _)| *job) else { continue };
                    driven.remove(&job);
                    match why {
                        None => respawn.forget(job),
                        Some(error) => {
                            let (times, pause) = respawn.ended_badly(job, tokio::time::Instant::now());
                            tracing::error!(%job, %error, times, ?pause, "the driver of a job ended badly; another one goes on");
                            self.cluster.directory().jobs().driver_failed(job, times, pause);
                        }
                    }
                }
            }
        }
    }
}
