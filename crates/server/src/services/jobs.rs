//! The part of `drover.v1.Distribution` about jobs that move ranges.
//!
//! What is refused is the catalog's to say, also of a dry run: the same command is judged by the leader of the default
//! group instead of being logged. Two things are added here, because no catalog knows them: which key a route ends with, where only
//! the key is named at which it is to be cut; and whether the nodes of the target have room for the copy.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::job::{JobEvent, JobOptions, JobPhase, JobProgress, JobRefusal, SplitJob};
use drover_catalog::{CatalogCommandKind, CatalogRefusal, CatalogReply, CatalogRow, RequestId, RouteMap, StartJob};
use drover_coordinator::Answer;
use drover_keys::{CatalogVersion, End, GroupId, Interval, JobId, RouteId};
use drover_kv::{Error, Reason, ScanLimits};
use drover_wire::proto::v1::{self, start_split_migration_request::What};
use drover_wire::{
    CatalogPart, ReadOptions, Request, ScanPageRequest, WireError, catalog_refusal_to_error, decode_key_range,
    encode_job, encode_job_progress, error_to_status,
};
use futures::StreamExt;
use futures::stream::BoxStream;
use rand::Rng;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::distribution::{actor, deadline, describe, misfit, other_version, request_id};
use super::job_list::{JobFilter, decode_token, encode_token};
use super::room::{check_room, note_pending, room_of};
use super::{Front, Nodes};

/// Jobs in one answer, if the caller does not say.
const PAGE: usize = 100;
/// Jobs that are read at a time, to find those that a listing shows.
const READ: u32 = 256;
/// How often a job that is watched is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long this node may take to hear of the version that a caller has looked at.
const CATCH_UP: Duration = Duration::from_secs(1);

type Events = BoxStream<'static, Result<v1::SplitJobStatus, Status>>;

/// What clients ask of jobs.
#[derive(Clone)]
pub(super) struct Jobs {
    front: Arc<Front>,
    nodes: Arc<Nodes>,
    /// What a caller does not say.
    defaults: JobOptions,
}

impl Jobs {
    /// Over `front`; `nodes` say how much room they have.
    pub(super) fn new(front: Arc<Front>, nodes: Arc<Nodes>, defaults: JobOptions) -> Self {
        Self { front, nodes, defaults }
    }

    pub(super) async fn start(
        &self,
        request: v1::StartSplitMigrationRequest,
    ) -> Result<v1::StartSplitMigrationResponse, Error> {
        let deadline = deadline(request.timeout_ms);
        if request.dry_run {
            let plan = Some(self.plan(&request, deadline).await?);
            return Ok(v1::StartSplitMigrationResponse { job: None, plan });
        }
        let (id, actor) = (request_id(&request.request_id)?, actor(request.actor.clone()));
        let kind = CatalogCommandKind::StartJob(self.asked(&request, deadline).await?);
        let coordinator = self.front.coordinator();
        // Room is looked at before there is a job, but not for the answer to a request that was carried out before.
        let judged = coordinator.judge_catalog(id, actor.clone(), kind.clone(), deadline).await?;
        if let (CatalogReply::Job(job), true) = judged {
            let bytes = self.bytes(job.source, &job.interval, deadline).await?;
            check_room(job.target, bytes, &self.rooms(job.target, deadline).await?)?;
        }
        let job = self.carried_out(id, actor, kind, deadline).await?;
        Ok(v1::StartSplitMigrationResponse { job: Some(job), plan: None })
    }

    async fn carried_out(
        &self,
        id: RequestId,
        actor: String,
        kind: CatalogCommandKind,
        deadline: Instant,
    ) -> Result<v1::SplitJob, Error> {
        match self.front.change_catalog(id, actor, kind, deadline).await? {
            CatalogReply::Job(job) => Ok(encode_job(&job)),
            other => Err(misfit(&other)),
        }
    }

    /// What a move would come to.
    async fn plan(&self, request: &v1::StartSplitMigrationRequest, deadline: Instant) -> Result<v1::MovePlan, Error> {
        let mut plan = v1::MovePlan { target_group: request.target_group, ..v1::MovePlan::default() };
        match self.fill(&mut plan, request, deadline).await {
            Ok(()) => {}
            Err(error) if is_verdict(&error) => {
                let (reason, message) = (error.reason.to_string(), error.message);
                plan.refusal = Some(v1::MoveRefusal { reason, message });
            }
            Err(error) => return Err(error),
        }
        Ok(plan)
    }

    /// Puts into the plan what can be told; the error is why the move would be refused.
    async fn fill(
        &self,
        plan: &mut v1::MovePlan,
        request: &v1::StartSplitMigrationRequest,
        deadline: Instant,
    ) -> Result<(), Error> {
        let start = self.asked(request, deadline).await?;
        let (interval, target, options) = (start.interval.clone(), start.target, start.options);
        (plan.start, plan.end) = (interval.start().clone(), interval.end().as_key().cloned());
        let route = self.front.coordinator().routes().current().route(start.route).cloned();
        let kind = CatalogCommandKind::StartJob(start);
        let id = RequestId(rand::rng().random());
        let judged = self.front.coordinator().judge_catalog(id, actor(request.actor.clone()), kind, deadline).await;
        let Some(route) = route.filter(|route| route.interval.covers(&interval)) else {
            // What is told of a range is of one route.
            return judged.map(drop);
        };
        plan.source_group = route.group.0;
        let soon = deadline.min(Instant::now() + LOOK_TIMEOUT);
        let bytes = match &judged {
            Ok(_) => Some(self.bytes(route.group, &interval, deadline).await?),
            // Among the refusals is that a group cannot answer.
            Err(_) => self.bytes(route.group, &interval, soon).await.ok(),
        };
        plan.approximate_bytes = bytes;
        plan.copy_ms = bytes.and_then(|bytes| options.copy_ms(bytes));
        plan.keys = if bytes.is_some() { self.keys(interval, soon).await } else { None };
        plan.rooms = self.rooms(target, deadline).await?;
        judged?;
        check_room(target, bytes.unwrap_or(0), &plan.rooms)
    }

    /// What is asked for, as the catalog is to judge it.
    async fn asked(&self, request: &v1::StartSplitMigrationRequest, deadline: Instant) -> Result<StartJob, Error> {
        let half = match &request.what {
            Some(What::SplitKey(key)) => {
                let (expected, route) = (CatalogVersion(request.expected_version), RouteId(request.route_id));
                Some(self.right_half(expected, route, key, deadline).await?)
            }
            Some(What::Range(_)) | None => None,
        };
        command(request, self.defaults, |_| Ok(half.expect("there is one where there is a key")))
    }

    /// From `key` to the end of the route, by the map that the caller has looked at.
    async fn right_half(
        &self,
        expected: CatalogVersion,
        route: RouteId,
        key: &Bytes,
        deadline: Instant,
    ) -> Result<Interval, Error> {
        let routes = self.front.coordinator().routes();
        if let Some(before) = expected.0.checked_sub(1) {
            routes.newer_than(CatalogVersion(before), deadline.min(Instant::now() + CATCH_UP)).await;
        }
        let map = routes.current();
        if map.version() < expected {
            return Err(other_version(expected, &map));
        }
        if map.version() == expected {
            return right_half(&map, route, key);
        }
        // The catalog refuses this for its version, whatever the interval is; unless it was carried out before, and then it
        // has to be the same request.
        let rows = self.front.coordinator().read_catalog(all_jobs(), u32::MAX, deadline).await?;
        let mut earlier = rows.iter().filter_map(job_of).filter(|job| job.from_route == route);
        let interval = earlier.find(|job| job.interval.start() == key).map(|job| job.interval.clone());
        Ok(interval.unwrap_or_else(|| Interval::new(key.clone(), End::Unbounded).expect("any key is below no end")))
    }

    async fn bytes(&self, source: GroupId, interval: &Interval, deadline: Instant) -> Result<u64, Error> {
        let facts = describe(&self.front, source, vec![interval.clone()], deadline).await?;
        Ok(facts.iter().map(|facts| facts.approximate_bytes).sum())
    }

    /// The room on the nodes of a group, and what moves that are under way will take of it.
    async fn rooms(&self, target: GroupId, deadline: Instant) -> Result<Vec<v1::NodeRoom>, Error> {
        let members = |group| self.nodes.view().directory.members(group);
        let holders = members(target);
        let mut rooms: Vec<v1::NodeRoom> = self.nodes.some(&holders).await.iter().map(room_of).collect();
        let rows = self.front.coordinator().read_catalog(all_jobs(), u32::MAX, deadline).await?;
        let copied = |job: &&SplitJob| matches!(job.phase, JobPhase::Planned | JobPhase::Backfill);
        let jobs: Vec<&SplitJob> = rows.iter().filter_map(job_of).filter(copied).collect();
        let progress = self.front.coordinator().job_progress(jobs.iter().map(|job| job.id).collect(), deadline).await?;
        let mut pending = Vec::new();
        for job in jobs {
            let nodes = members(job.target);
            if !nodes.iter().any(|node| holders.contains(node)) {
                continue;
            }
            let left = match progress.iter().find(|known| known.job == job.id && known.bytes_total > 0) {
                Some(known) => known.bytes_total.saturating_sub(known.bytes_copied),
                // Nothing is copied of it yet. That its source does not answer is no reason against another move.
                None => {
                    let soon = deadline.min(Instant::now() + LOOK_TIMEOUT);
                    self.bytes(job.source, &job.interval, soon).await.unwrap_or(0)
                }
            };
            pending.push((nodes, left));
        }
        note_pending(&mut rooms, &pending);
        Ok(rooms)
    }

    /// How many keys have a value now, if one page of a scan can tell.
    async fn keys(&self, interval: Interval, deadline: Instant) -> Option<u64> {
        let limits = ScanLimits { rows: 0, bytes: 0 };
        let options = ReadOptions { read_ts: None, timeout_ms: None };
        let (reverse, keys_only, count_only, cursor) = (false, true, true, None);
        let scan = ScanPageRequest { interval, reverse, keys_only, count_only, limits, cursor, options };
        match self.front.coordinator().handle(Request::Scan(scan), deadline).await {
            Ok(Answer::Scan { count, cursor: None, .. }) => Some(count),
            Ok(_) | Err(_) => None,
        }
    }

    /// A job, and how far it is.
    async fn status(&self, id: JobId, deadline: Instant) -> Result<v1::SplitJobStatus, Error> {
        let coordinator = self.front.coordinator();
        let rows = coordinator.read_catalog(CatalogPart::Jobs { newest: id }, 1, deadline).await?;
        let Some(job) = rows.first().and_then(job_of).filter(|job| job.id == id) else {
            return Err(catalog_refusal_to_error(&CatalogRefusal::Job(JobRefusal::Unknown { job: id })));
        };
        let progress = coordinator.job_progress(vec![id], deadline).await?;
        Ok(status(job, progress.first()))
    }

    pub(super) async fn get(&self, request: v1::GetSplitJobRequest) -> Result<v1::SplitJobStatus, Error> {
        self.status(JobId(request.job_id), deadline(request.timeout_ms)).await
    }

    pub(super) async fn list(&self, request: v1::ListSplitJobsRequest) -> Result<v1::ListSplitJobsResponse, Error> {
        let deadline = deadline(request.timeout_ms);
        let filter = JobFilter::of(&request)?;
        let limit = match request.limit {
            0 => PAGE,
            limit => usize::try_from(limit).unwrap_or(PAGE).min(PAGE),
        };
        let coordinator = self.front.coordinator();
        let mut newest = decode_token(&filter, &request.page_token)?;
        let (mut found, mut next_page_token) = (Vec::new(), Bytes::new());
        'pages: while let Some(from) = newest {
            let rows = coordinator.read_catalog(CatalogPart::Jobs { newest: from }, READ, deadline).await?;
            newest = rows.last().and_then(job_of).and_then(|job| job.id.0.checked_sub(1)).map(JobId);
            for job in rows.iter().filter_map(job_of).filter(|job| filter.matches(job)) {
                if found.len() == limit {
                    // There is one more: the page ends before it.
                    let last: Option<&SplitJob> = found.last();
                    next_page_token = last.map(|job| encode_token(&filter, job.id)).unwrap_or_default();
                    break 'pages;
                }
                found.push(job.clone());
            }
        }
        let live = found.iter().filter(|job| !job.phase.has_ended()).map(|job| job.id).collect();
        let progress = coordinator.job_progress(live, deadline).await?;
        let progress: BTreeMap<JobId, &JobProgress> = progress.iter().map(|known| (known.job, known)).collect();
        let jobs = found.iter().map(|job| status(job, progress.get(&job.id).copied())).collect();
        Ok(v1::ListSplitJobsResponse { jobs, next_page_token })
    }

    pub(super) async fn change(
        &self,
        request: v1::ChangeSplitJobRequest,
        event: JobEvent,
    ) -> Result<v1::ChangeSplitJobResponse, Error> {
        let id = request_id(&request.request_id)?;
        let kind = CatalogCommandKind::JobEvent { job: JobId(request.job_id), epoch: None, event };
        let job = self.carried_out(id, actor(request.actor), kind, deadline(request.timeout_ms)).await?;
        Ok(v1::ChangeSplitJobResponse { job: Some(job) })
    }

    /// What a job is like now, and whenever that changes. The first look is taken here, so that a job that there is not is
    /// told at once.
    pub(super) async fn watch(&self, request: v1::WatchSplitJobRequest) -> Result<Events, Error> {
        let id = JobId(request.job_id);
        let first = self.status(id, deadline(0)).await?;
        let watch = Watch { jobs: self.clone(), drained: self.front.drained(), id, last: first.clone(), failed: false };
        let later = futures::stream::unfold(watch, |mut watch| async {
            let next = watch.next().await?;
            Some((next, watch))
        });
        Ok(futures::stream::once(async { Ok(first) }).chain(later).boxed())
    }
}

/// A job that is watched.
struct Watch {
    jobs: Jobs,
    drained: CancellationToken,
    id: JobId,
    /// What was told last.
    last: v1::SplitJobStatus,
    /// An error was told: that was the end.
    failed: bool,
}

impl Watch {
    /// The next change; `None` if there will be no more.
    async fn next(&mut self) -> Option<Result<v1::SplitJobStatus, Status>> {
        while !self.failed && !has_ended(&self.last) {
            tokio::select! {
                () = self.drained.cancelled() => return None,
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.jobs.status(self.id, Instant::now() + LOOK_TIMEOUT).await {
                Ok(status) if status == self.last => {}
                Ok(status) => {
                    self.last = status.clone();
                    return Some(Ok(status));
                }
                Err(error) if error.is_transient() || error.reason == Reason::Timeout => {}
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error_to_status(&error)));
                }
            }
        }
        None
    }
}

fn has_ended(status: &v1::SplitJobStatus) -> bool {
    let phase = status.job.as_ref().and_then(|job| drover_wire::decode_phase(job.phase).ok());
    phase.is_some_and(|phase| phase.has_ended())
}

fn status(job: &SplitJob, progress: Option<&JobProgress>) -> v1::SplitJobStatus {
    v1::SplitJobStatus { job: Some(encode_job(job)), progress: progress.map(encode_job_progress) }
}

fn job_of(row: &CatalogRow) -> Option<&SplitJob> {
    match row {
        CatalogRow::Job(job) => Some(job),
        _ => None,
    }
}

fn all_jobs() -> CatalogPart {
    CatalogPart::Jobs { newest: JobId(u64::MAX) }
}

/// From `key` to the end of the route that it lies in.
fn right_half(map: &RouteMap, route: RouteId, key: &Bytes) -> Result<Interval, Error> {
    let holder = map.holder(route, key).map_err(|refusal| catalog_refusal_to_error(&refusal))?;
    Ok(Interval::new(key.clone(), holder.interval.end().clone()).expect("the key lies in the route"))
}

/// What a request asks of the catalog, with `defaults` for the options that it leaves out. `right_half` tells what a split key stands for.
///
/// # Errors
/// What is missing or malformed, or what `right_half` says.
pub(super) fn command(
    request: &v1::StartSplitMigrationRequest,
    defaults: JobOptions,
    right_half: impl FnOnce(&Bytes) -> Result<Interval, Error>,
) -> Result<StartJob, Error> {
    let interval = match &request.what {
        None => return Err(WireError::Missing("what is to be moved, split_key or range,").into()),
        Some(What::Range(range)) => decode_key_range(Some(range.clone()))?,
        Some(What::SplitKey(key)) => right_half(key)?,
    };
    Ok(StartJob {
        expected_version: CatalogVersion(request.expected_version),
        route: RouteId(request.route_id),
        interval,
        target: GroupId(request.target_group),
        options: options(defaults, request.options.iter())?,
    })
}

/// The options of a move. Those that are wrong are told in the order of their names.
fn options<'a>(
    defaults: JobOptions,
    named: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<JobOptions, Error> {
    let named: BTreeMap<&str, &str> = named.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    defaults.with_named(named).map_err(|why| catalog_refusal_to_error(&CatalogRefusal::BadJobOptions { why }))
}

/// Whether a request itself was refused, not just this attempt of it.
fn is_verdict(error: &Error) -> bool {
    let told = matches!(
        error.reason,
        Reason::InvalidArgument
            | Reason::RangeReversed
            | Reason::KeyTooLarge
            | Reason::UnknownGroup
            | Reason::UnknownRoute
            | Reason::VersionMismatch
            | Reason::FailedPrecondition
    );
    told && !error.is_unknown()
}
