//! What a cluster has to come to, before the clients begin and when all is healed.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use drover_client::{Client, JobAction, JobFilter, JobId, JobPhase};
use drover_testkit::cluster::leftover_lines;

use super::Facts;
use crate::cluster::{Cluster, PATIENCE};

/// How long jobs and locks may take to come to their end when all is healed.
const AFTER_HEALING: Duration = Duration::from_secs(120);

/// Waits until every range is served.
pub(super) async fn wait_for_owners(client: &Client) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    for key in ["a", "d", "k", "p", "set/k", "z"] {
        while let Err(error) = client.get(format!("{key}/ready")).await {
            if Instant::now() > until {
                bail!("the cluster does not serve {key}: {error}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// Waits until every job has come to its end and no transaction holds a lock.
pub(super) async fn settle(client: &Client, facts: &mut Facts) {
    let until = Instant::now() + AFTER_HEALING;
    let filter = JobFilter { ended: Some(false), ..JobFilter::default() };
    loop {
        let left = match client.jobs(&filter).await {
            Ok(jobs) if jobs.is_empty() => break,
            Ok(jobs) => {
                for job in jobs.iter().filter_map(|status| status.job.as_ref()) {
                    // What was broken when they failed is mended.
                    if job.phase() == JobPhase::Failed {
                        let _ = client.change_job(JobId(job.job_id), JobAction::Retry, "jepsen").await;
                    }
                    if job.paused {
                        let _ = client.change_job(JobId(job.job_id), JobAction::Resume, "jepsen").await;
                    }
                }
                format!("{jobs:?}")
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            facts.problems.push(format!("a move does not end within {} s of healing: {left}", AFTER_HEALING.as_secs()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    loop {
        let left = match client.prepared_transactions(None).await {
            Ok((left, _)) if left.is_empty() => break,
            Ok((left, _)) => format!("{left:?}"),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            facts.problems.push(format!("locks are left {} s after healing: {left}", AFTER_HEALING.as_secs()));
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until nothing is left on any node of moves that are over, and no lock: the nodes' own figures say so.
pub(super) async fn nothing_left(cluster: &Cluster, facts: &mut Facts) {
    let until = Instant::now() + AFTER_HEALING;
    for node in cluster.nodes() {
        loop {
            let left = match cluster.metrics(node).await.map(|metrics| leftover_lines(&metrics, true)) {
                Ok(Ok(left)) if left.is_empty() => break,
                Ok(Ok(left)) => left.join(", "),
                Ok(Err(missing)) => format!("it does not know {missing}"),
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > until {
                facts.problems.push(format!("something is left on node {node} after healing: {left}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// The replicas of every group hold the same.
pub(super) async fn compare_replicas(client: &Client, facts: &mut Facts) {
    let until = Instant::now() + AFTER_HEALING;
    for group in Cluster::groups() {
        loop {
            let seen = match client.with_deadline(Duration::from_secs(30)).compare_digests(group).await {
                Ok(answer) if answer.equal => break,
                // Not all of them answered.
                Ok(answer) if answer.digests.iter().any(|digest| !digest.error.is_empty()) => format!("{answer:?}"),
                Ok(answer) => {
                    facts.problems.push(format!("the replicas of group {group} differ: {answer:?}"));
                    break;
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                facts.problems.push(format!("the replicas of group {group} cannot be compared: {seen}"));
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}
