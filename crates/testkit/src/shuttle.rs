//! Moves one range between two groups, back and forth.

use std::time::Duration;

use drover_client::{
    Client, End, Error, GroupId, Interval, JobAction, JobFilter, JobId, JobPhase, MoveRequest, MoveWhat, Reason,
    RouteId, SplitJobStatus, has_ended,
};

use crate::wait::{WaitError, wait_until};

/// How long one thing may take that is asked of the cluster while nodes are broken.
const BOUND: Duration = Duration::from_secs(60);

/// What a move is allowed; by default what the cluster says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// How long writes may be held back.
    pub max_pause: Option<Duration>,
    /// How fast rows may be copied while the source serves.
    pub max_bytes_per_second: Option<u64>,
}

/// A range, and the two groups that it moves between.
pub struct Shuttle {
    /// Asks for the moves.
    pub client: Client,
    /// The range.
    pub interval: Interval,
    /// The groups.
    pub groups: [GroupId; 2],
}

impl Shuttle {
    /// Where the range is, and where it goes next.
    ///
    /// # Errors
    /// If nobody says.
    pub async fn ends(&self) -> Result<(GroupId, GroupId), WaitError> {
        let route = self.route().await?.1;
        let [first, second] = self.groups;
        Ok(if route.group_id == first.0 { (first, second) } else { (second, first) })
    }

    async fn route(&self) -> Result<(drover_client::CatalogVersion, drover_client::Route), WaitError> {
        wait_until("the routes", BOUND, async || {
            let routes = self.client.routes().await?;
            let after = routes.routes.partition_point(|route| route.start <= *self.interval.start());
            Ok::<_, Error>((routes.version, routes.routes[after - 1].clone()))
        })
        .await
    }

    /// Begins to move the range to the other group. What cannot be begun for now is tried again.
    ///
    /// # Errors
    /// If it cannot be begun for a minute.
    pub async fn begin(&self, pace: Pace) -> Result<JobId, WaitError> {
        let (_, target) = self.ends().await?;
        wait_until("a move to begin", BOUND, async || {
            // An unclear answer may have begun one.
            if let Some(job) = self.live().await?.pop() {
                return Ok(job);
            }
            let (expected, route) =
                self.route().await.map_err(|error| Error::definite(Reason::Timeout, error.to_string()))?;
            let asked = MoveRequest {
                expected,
                route: RouteId(route.route_id),
                what: MoveWhat::Range(self.interval.clone()),
                target,
                max_pause: pace.max_pause,
                max_bytes_per_second: pace.max_bytes_per_second,
            };
            self.client.start_move(&asked, "shuttle").await.map(|job| JobId(job.job_id))
        })
        .await
    }

    async fn live(&self) -> Result<Vec<JobId>, Error> {
        let filter = JobFilter { ended: Some(false), ..JobFilter::default() };
        let jobs = self.client.jobs(&filter).await?.into_iter().filter_map(|status| status.job);
        let here = jobs.filter(|job| job.start == *self.interval.start() && job.end.as_ref() == end(&self.interval));
        Ok(here.map(|job| JobId(job.job_id)).collect())
    }

    /// The job, once somebody says how it is.
    ///
    /// # Errors
    /// If nobody does for a minute.
    pub async fn status(&self, job: JobId) -> Result<SplitJobStatus, WaitError> {
        wait_until(&format!("job {job}"), BOUND, async || self.client.job(job).await).await
    }

    /// Calls a job off.
    ///
    /// # Errors
    /// If that cannot be done for a minute.
    pub async fn abandon(&self, job: JobId) -> Result<(), WaitError> {
        let what = format!("job {job} to be called off");
        wait_until(&what, BOUND, async || self.client.change_job(job, JobAction::Abandon, "shuttle").await.map(drop))
            .await
    }

    /// Has a job that was given up tried again.
    ///
    /// # Errors
    /// If it stays given up for a minute.
    pub async fn retry(&self, job: JobId) -> Result<(), WaitError> {
        let what = format!("job {job} to be tried again");
        wait_until(&what, BOUND, async || match self.client.change_job(job, JobAction::Retry, "shuttle").await {
            Ok(_) => Ok(()),
            // An attempt whose answer was lost may have done it, and then it is refused.
            Err(error) => match self.phase(job).await {
                Ok(phase) if phase != JobPhase::Failed => Ok(()),
                Ok(_) | Err(_) => Err(error.to_string()),
            },
        })
        .await
    }

    /// Waits until a job has ended, or was given up and waits for people.
    ///
    /// # Errors
    /// If neither has come within the bound.
    pub async fn ended_or_failed(&self, job: JobId, bound: Duration) -> Result<JobPhase, WaitError> {
        wait_until(&format!("job {job} to end or to fail"), bound, async || match self.phase(job).await? {
            phase if phase == JobPhase::Failed || has_ended(phase) => Ok(phase),
            phase => Err(format!("it is {phase:?}")),
        })
        .await
    }

    /// How far a job is.
    ///
    /// # Errors
    /// If nobody says.
    pub async fn phase(&self, job: JobId) -> Result<JobPhase, String> {
        let status = self.client.job(job).await.map_err(|error| error.to_string())?;
        Ok(status.job.as_ref().map(|job| job.phase()).ok_or("a job without a record")?)
    }

    /// Waits until a job has ended.
    ///
    /// # Errors
    /// If it has not within the bound.
    pub async fn ended(&self, job: JobId, bound: Duration) -> Result<JobPhase, WaitError> {
        wait_until(&format!("job {job} to end"), bound, async || {
            let status = self.client.job(job).await.map_err(|error| error.to_string())?;
            let phase = status.job.as_ref().map(|job| job.phase()).ok_or("a job without a record")?;
            if has_ended(phase) { Ok(phase) } else { Err(format!("{status:?}")) }
        })
        .await
    }
}

fn end(interval: &Interval) -> Option<&bytes::Bytes> {
    match interval.end() {
        End::Key(end) => Some(end),
        End::Unbounded => None,
    }
}
