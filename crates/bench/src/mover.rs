use std::time::{Duration, Instant, SystemTime};

use drover_client::{
    Client, End, Error, GroupId, Interval, JobFilter, JobId, JobPhase, MoveRequest, MoveWhat, Reason, RouteId, Routes,
    SplitJob, SplitJobStatus, has_ended,
};

/// Between two looks at a job: phases are known this precisely.
const LOOK: Duration = Duration::from_millis(10);
/// Between two attempts at something that does not work for now.
const PAUSE: Duration = Duration::from_millis(100);
/// How long it is tried to begin a move, and to hear of one again.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a range was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Parts of it belong to different groups.
    #[error("the range does not lie within one route")]
    NoRoute,
    /// It cannot be begun, or nobody says any more how far it is.
    #[error(transparent)]
    Client(#[from] Error),
    /// It was called off.
    #[error("job {0} was called off")]
    CalledOff(JobId),
    /// It has failed and waits for people.
    #[error("job {0} failed: {1}")]
    Failed(JobId, String),
}

/// How a range is to be moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MoveTerms {
    /// How long writes may be held back; `None`: as the cluster says.
    pub max_pause: Option<Duration>,
    /// How fast it may be copied, zero for no limit; `None`: as the cluster says.
    pub max_bytes_per_second: Option<u64>,
}

/// A range that was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// By this job.
    pub job: JobId,
    /// From this group.
    pub source: GroupId,
    /// To this group.
    pub target: GroupId,
    /// When it was asked for.
    pub began: SystemTime,
    /// From then until the job had ended.
    pub took: Duration,
    /// From then until the backfill was over, catching up with writers included.
    pub backfill: Duration,
    /// Bytes of rows that were copied, as far as that was heard of; rows that changed meanwhile count each time.
    pub bytes: u64,
    /// How often writes were held back.
    pub fences: u64,
}

/// Whether all of the range was copied at least once, and what it was in the way of has begun.
pub fn has_left_backfill(phase: JobPhase) -> bool {
    match phase {
        JobPhase::Unspecified | JobPhase::Planned | JobPhase::Backfill | JobPhase::Failed | JobPhase::Abandoning => {
            false
        }
        JobPhase::Fence | JobPhase::DeltaCopy | JobPhase::Cutover | JobPhase::Cleanup => true,
        JobPhase::Done | JobPhase::Abandoned => true,
    }
}

/// The route that holds all of the interval, and its group.
///
/// # Errors
/// If there is none.
pub fn route_over(routes: &Routes, interval: &Interval) -> Result<(RouteId, GroupId), MoveError> {
    let after = routes.routes.partition_point(|route| route.start <= interval.start());
    let route = after.checked_sub(1).and_then(|at| routes.routes.get(at)).ok_or(MoveError::NoRoute)?;
    let end = route.end.clone().map_or(End::Unbounded, End::Key);
    let whole = Interval::new(route.start.clone(), end).map_err(|_| MoveError::NoRoute)?;
    if !whole.covers(interval) {
        return Err(MoveError::NoRoute);
    }
    Ok((RouteId(route.route_id), GroupId(route.group_id)))
}

/// Moves an interval to another group and returns when its job has ended. `on_status` is told how far it is. What cannot be begun
/// for now, or is not answered for now, is tried again for a minute.
///
/// # Errors
/// If it was not moved.
pub async fn move_range(
    client: &Client,
    interval: &Interval,
    target: GroupId,
    terms: MoveTerms,
    actor: &str,
    mut on_status: impl FnMut(&SplitJobStatus),
) -> Result<Moved, MoveError> {
    let (began, start) = (SystemTime::now(), Instant::now());
    let known = begin(client, interval, target, terms, actor).await?;
    let (job, source) = (JobId(known.job_id), GroupId(known.source_group));
    let (mut backfill, mut bytes) = (None, 0);
    loop {
        let status = patiently(|| client.job(job)).await?;
        let now = start.elapsed();
        on_status(&status);
        bytes = status.progress.as_ref().map_or(0, |progress| progress.bytes_copied).max(bytes);
        let known = status.job.unwrap_or(known_nothing(job));
        let phase = known.phase();
        if has_left_backfill(phase) {
            backfill.get_or_insert(now);
        }
        if phase == JobPhase::Failed {
            return Err(MoveError::Failed(job, known.failure.map(|failure| failure.why).unwrap_or_default()));
        }
        if has_ended(phase) {
            if phase != JobPhase::Done {
                return Err(MoveError::CalledOff(job));
            }
            let (backfill, fences) = (backfill.unwrap_or(now), known.fences.into());
            return Ok(Moved { job, source, target, began, took: now, backfill, bytes, fences });
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn known_nothing(job: JobId) -> SplitJob {
    SplitJob { job_id: job.0, ..SplitJob::default() }
}

async fn begin(
    client: &Client,
    interval: &Interval,
    target: GroupId,
    terms: MoveTerms,
    actor: &str,
) -> Result<SplitJob, MoveError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let routes = patiently(|| client.routes()).await?;
        let (route, _) = route_over(&routes, interval)?;
        let asked = MoveRequest {
            expected: routes.version,
            route,
            what: MoveWhat::Range(interval.clone()),
            target,
            max_pause: terms.max_pause,
            max_bytes_per_second: terms.max_bytes_per_second,
        };
        let error = match client.start_move(&asked, actor).await {
            Ok(job) => return Ok(job),
            Err(error) => error,
        };
        // An unclear answer may have begun it.
        if error.is_unknown()
            && let Some(job) = begun(client, interval, target).await?
        {
            return Ok(job);
        }
        let passes = error.is_unknown() || error.is_transient() || passes_by_itself(error.reason);
        if !passes || Instant::now() > until {
            return Err(error.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The map has changed meanwhile, or a job before this one is not over yet.
fn passes_by_itself(reason: Reason) -> bool {
    matches!(reason, Reason::VersionMismatch | Reason::UnknownRoute | Reason::FailedPrecondition)
}

async fn begun(client: &Client, interval: &Interval, target: GroupId) -> Result<Option<SplitJob>, Error> {
    let filter = JobFilter { ended: Some(false), target: Some(target), ..JobFilter::default() };
    let jobs = patiently(|| client.jobs(&filter)).await?;
    Ok(jobs.into_iter().filter_map(|status| status.job).find(|job| job.start == interval.start()))
}

/// Asks again for a minute.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let until = Instant::now() + PATIENCE;
    loop {
        match ask().await {
            Err(error) if (error.is_transient() || error.is_unknown()) && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_client::{CatalogVersion, Route};

    use super::*;

    #[test]
    fn a_range_is_moved_out_of_the_route_that_holds_all_of_it() {
        let route = |start: &'static str, end: Option<&'static str>, id: u64| Route {
            start: start.into(),
            end: end.map(Into::into),
            route_id: id,
            group_id: id + 10,
            ..Route::default()
        };
        let routes = Routes { version: CatalogVersion(1), routes: vec![route("", Some("g"), 1), route("g", None, 2)] };
        let over = |start: &'static str, end: End| {
            route_over(&routes, &Interval::new(start, end).unwrap()).ok().map(|(route, group)| (route.0, group.0))
        };
        assert_eq!(over("a", End::Key("g".into())), Some((1, 11)));
        assert_eq!(over("g", End::Key("h".into())), Some((2, 12)));
        assert_eq!(over("k", End::Unbounded), Some((2, 12)));
        assert_eq!(over("a", End::Key("h".into())), None);
        assert_eq!(over("a", End::Unbounded), None);
    }
}
