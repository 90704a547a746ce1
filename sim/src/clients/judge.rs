//! What is looked at when everything is over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, bail};
use drover_client::{GroupId, GroupReplica, JobAction, JobFilter, JobId, ReplicaState, has_ended};

use super::numbers::{WRITERS, keys, number};
use super::{PATIENCE, Worker};
use crate::history::What;
use crate::machine::now;
use crate::node::DATA_GROUPS;

impl Worker {
    /// Waits until everything has come to rest, reads all once more, and compares the replicas.
    pub(super) async fn judge(&mut self) -> Result<()> {
        self.client = self.client.with_deadline(Duration::from_secs(20));
        while self.shared.at_work.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let until = now() + PATIENCE;
        loop {
            let live = self.client.jobs(&JobFilter { ended: Some(false), ..JobFilter::default() }).await;
            match live {
                Ok(jobs) if jobs.is_empty() => break,
                Ok(jobs) => {
                    let job = jobs.iter().filter_map(|status| status.job.as_ref()).find(|job| !has_ended(job.phase()));
                    let waits: Vec<_> = jobs.iter().filter_map(|status| status.progress.as_ref()).collect();
                    if now() > until {
                        bail!("a move does not come to its end: {job:?} {waits:?}");
                    }
                    if let Some(failed) = job.filter(|job| job.phase().as_str_name().ends_with("FAILED")) {
                        // Somebody has to decide; a refusal means that it has gone on by itself.
                        let _ = self.client.change_job(JobId(failed.job_id), JobAction::Abandon, "sim").await;
                    }
                }
                Err(error) if now() > until => bail!("the jobs cannot be listed: {error}"),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        while !self.members_rest().await {
            if now() > until {
                bail!("a change of membership does not come to its end: {:?}", self.client.groups().await);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for key in (0..WRITERS).flat_map(keys) {
            let began = now();
            let found = self.client.get(key.clone()).await?;
            let number = found.map_or(Ok(0), |found| number(&found.value))?;
            self.note(began, What::Read { key, number });
        }
        self.read_lists().await?;
        let began = now();
        let total = self.total().await??;
        self.note(began, What::Counted(total));
        for group in (1..=1 + DATA_GROUPS).map(GroupId) {
            let began = now();
            let found = self.client.compare_digests(group).await?;
            let digests = format!("{:?}", found.digests);
            self.note(began, What::Compared { group, equal: found.equal, digests });
        }
        Ok(())
    }

    /// Whether no replica joins or leaves.
    async fn members_rest(&self) -> bool {
        let settled = |replica: &GroupReplica| replica.state() == ReplicaState::Active && replica.votes;
        let groups = self.client.groups().await;
        groups.is_ok_and(|groups| groups.iter().all(|group| group.replicas.iter().all(settled)))
    }
}
