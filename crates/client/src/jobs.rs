//! Jobs that move ranges: starting, following, calling off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_keys::{CatalogVersion, GroupId, Interval, JobId, RouteId};
use drover_kv::{Error, Reason};
use drover_wire::encode_key_range;
use drover_wire::proto::v1::list_split_jobs_request::Which;
use drover_wire::proto::v1::start_split_migration_request::What;
use drover_wire::proto::v1::{
    ChangeSplitJobRequest, GetSplitJobRequest, ListSplitJobsRequest, MovePlan, SplitJob, SplitJobStatus,
    StartSplitMigrationRequest, StartSplitMigrationResponse, WatchSplitJobRequest, split_job::Phase,
};

use crate::Client;
use crate::cluster::{explain, of_a_read};
use crate::membership::request_id;
use crate::node::Node;

/// What is to be moved out of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveWhat {
    /// Everything from this key on, which lies inside of the route and is not its first.
    From(Bytes),
    /// Some of the route, or all of it.
    Range(Interval),
}

/// A range that is to be moved to another group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveRequest {
    /// The version of the map that the caller has looked at.
    pub expected: CatalogVersion,
    /// The route that holds it.
    pub route: RouteId,
    /// Which part of the route.
    pub what: MoveWhat,
    /// The group that is to serve it.
    pub target: GroupId,
    /// How long writes may be held back; `None`: 100 ms.
    pub max_pause: Option<Duration>,
    /// How fast it may be copied, zero for no limit; `None`: 50 MiB.
    pub max_bytes_per_second: Option<u64>,
}

/// Which jobs are to be listed. By default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Whether they have ended; `None`: either.
    pub ended: Option<bool>,
    /// In any of these phases; empty: whatever it is.
    pub phases: Vec<Phase>,
    /// Whose range moves.
    pub source: Option<GroupId>,
    /// Where to.
    pub target: Option<GroupId>,
    /// At most this many, the newest; `None`: all.
    pub limit: Option<usize>,
}

/// What to do about a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// Call it off; possible until the range was handed over.
    Abandon,
    /// Go on after it failed.
    Retry,
    /// Take no further step for now.
    Pause,
    /// Go on.
    Resume,
}

/// A job as it changes.
pub struct JobWatch {
    node: Arc<Node>,
    events: tonic::Streaming<SplitJobStatus>,
}

impl JobWatch {
    /// The job and how far it is, first as it is now; `None` if it has ended, or the node stops.
    ///
    /// # Errors
    /// If the connection fails. Watching again begins with the present.
    pub async fn next(&mut self) -> Result<Option<SplitJobStatus>, Error> {
        self.events.message().await.map_err(|status| of_a_read(explain(&self.node, &status)))
    }
}

/// Whether a job is over: done or abandoned.
pub fn has_ended(phase: Phase) -> bool {
    matches!(phase, Phase::Done | Phase::Abandoned)
}

fn start_request(asked: &MoveRequest, actor: &str, dry_run: bool) -> StartSplitMigrationRequest {
    let mut options = HashMap::new();
    if let Some(pause) = asked.max_pause {
        options.insert("max_pause_ms".to_owned(), pause.as_millis().to_string());
    }
    if let Some(rate) = asked.max_bytes_per_second {
        options.insert("max_bytes_per_second".to_owned(), rate.to_string());
    }
    let what = match &asked.what {
        MoveWhat::From(key) => What::SplitKey(key.clone()),
        MoveWhat::Range(interval) => What::Range(encode_key_range(interval)),
    };
    StartSplitMigrationRequest {
        expected_version: asked.expected.0,
        route_id: asked.route.0,
        what: Some(what),
        target_group: asked.target.0,
        options,
        request_id: request_id(),
        actor: actor.to_owned(),
        dry_run,
        timeout_ms: 0,
    }
}

fn empty_answer() -> Error {
    Error::unknown(Reason::Internal, "the answer has no job in it; it may have been started: list the jobs")
}

impl Client {
    /// Begins to move a range to another group; the job as it is then. [`Client::job`] and [`Client::watch_job`] show how far
    /// it is. Attempts carry the same request id, so one after an unknown outcome gets the first answer.
    ///
    /// # Errors
    /// `VERSION_MISMATCH`, `UNKNOWN_ROUTE`, `UNKNOWN_GROUP`, `INVALID_ARGUMENT` if the range is not part of the route or an
    /// option makes no sense, `FAILED_PRECONDITION` if the move is not possible now; unknown if no attempt was answered.
    pub async fn start_move(&self, asked: &MoveRequest, actor: &str) -> Result<SplitJob, Error> {
        let request = start_request(asked, actor, false);
        let answer = self.ask_nodes(|node, timeout_ms| start(node, &request, timeout_ms)).await?;
        answer.job.ok_or_else(empty_answer)
    }

    /// What a move would come to. Nothing is created.
    ///
    /// # Errors
    /// Definite. What [`Client::start_move`] would be refused for stands in the plan.
    pub async fn plan_move(&self, asked: &MoveRequest, actor: &str) -> Result<MovePlan, Error> {
        let request = start_request(asked, actor, true);
        let answer = self.read_nodes(|node, timeout_ms| start(node, &request, timeout_ms)).await?;
        answer.plan.ok_or_else(|| of_a_read(empty_answer()))
    }

    /// A job, and how far it is.
    ///
    /// # Errors
    /// `UNKNOWN_JOB`; definite.
    pub async fn job(&self, job: JobId) -> Result<SplitJobStatus, Error> {
        self.read_nodes(|node, timeout_ms| {
            let mut distribution = node.distribution();
            async move { distribution.get_split_job(GetSplitJobRequest { job_id: job.0, timeout_ms }).await }
        })
        .await
    }

    /// The jobs under way and those that have ended and are kept, the newest first.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Vec<SplitJobStatus>, Error> {
        let which = match filter.ended {
            None => Which::Unspecified,
            Some(false) => Which::Live,
            Some(true) => Which::Ended,
        };
        let limit = filter.limit.unwrap_or(usize::MAX);
        let (mut found, mut page_token) = (Vec::new(), Bytes::new());
        while found.len() < limit {
            let page = self.read_nodes(|node, timeout_ms| {
                let request = ListSplitJobsRequest {
                    which: which.into(),
                    phases: filter.phases.iter().map(|phase| i32::from(*phase)).collect(),
                    source_group: filter.source.map_or(0, |group| group.0),
                    target_group: filter.target.map_or(0, |group| group.0),
                    limit: u32::try_from(limit - found.len()).unwrap_or(0),
                    page_token: page_token.clone(),
                    timeout_ms,
                };
                let mut distribution = node.distribution();
                async move { distribution.list_split_jobs(request).await }
            });
            let page = page.await?;
            found.extend(page.jobs);
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        Ok(found)
    }

    /// Follows a job until it has ended.
    ///
    /// # Errors
    /// `UNKNOWN_JOB`, or if no node answers; definite.
    pub async fn watch_job(&self, job: JobId) -> Result<JobWatch, Error> {
        let mut last = Error::definite(Reason::Unavailable, "no node is known");
        for node in self.nodes_in_order() {
            let request = WatchSplitJobRequest { job_id: job.0 };
            match tokio::time::timeout(self.deadline(), node.distribution().watch_split_job(request)).await {
                Ok(Ok(events)) => return Ok(JobWatch { node, events: events.into_inner() }),
                Ok(Err(status)) => {
                    last = of_a_read(explain(&node, &status));
                    if !last.is_transient() {
                        return Err(last);
                    }
                }
                Err(_) => last = Error::definite(Reason::Timeout, format!("{} did not answer", node.address())),
            }
        }
        Err(last)
    }

    /// Does something about a job; the job as it is then.
    ///
    /// # Errors
    /// `UNKNOWN_JOB`, `FAILED_PRECONDITION` if it is in no phase for that; unknown if no attempt was answered.
    pub async fn change_job(&self, job: JobId, action: JobAction, actor: &str) -> Result<SplitJob, Error> {
        let request_id = request_id();
        let asked = self.ask_nodes(|node, timeout_ms| {
            let (request_id, actor) = (request_id.clone(), actor.to_owned());
            let request = ChangeSplitJobRequest { job_id: job.0, request_id, actor, timeout_ms };
            let mut distribution = node.distribution();
            async move {
                match action {
                    JobAction::Abandon => distribution.abandon_split_job(request).await,
                    JobAction::Retry => distribution.retry_split_job(request).await,
                    JobAction::Pause => distribution.pause_split_job(request).await,
                    JobAction::Resume => distribution.resume_split_job(request).await,
                }
            }
        });
        asked.await?.job.ok_or_else(empty_answer)
    }
}

fn start(
    node: &Arc<Node>,
    request: &StartSplitMigrationRequest,
    timeout_ms: u32,
) -> impl Future<Output = Result<tonic::Response<StartSplitMigrationResponse>, tonic::Status>> + use<> {
    let request = StartSplitMigrationRequest { timeout_ms, ..request.clone() };
    let mut distribution = node.distribution();
    async move { distribution.start_split_migration(request).await }
}
