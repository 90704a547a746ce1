//! Moves ranges between the groups of a cluster, again and again.

use std::time::Duration;

use drover_client::{
    Client, End, Error, GroupId, Interval, JobFilter, JobId, JobPhase, MoveRequest, MoveWhat, RouteId, Routes,
    has_ended,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_util::sync::CancellationToken;

/// Pause after something that did not work, and between looks at a job.
const PAUSE: Duration = Duration::from_millis(50);

/// Moves ranges, one after the other.
pub struct Mover {
    /// Asks for the moves. Its deadline bounds how long one call may take.
    pub client: Client,
    /// Where to.
    pub groups: Vec<GroupId>,
    /// Where a range may begin, other than where a route does.
    pub keys: Vec<String>,
}

/// What has become of the moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MoverReport {
    /// The range was moved.
    pub done: usize,
    /// The job was called off.
    pub abandoned: usize,
    /// Held writes back more than once, or was begun anew.
    pub repeated: usize,
}

/// How long it may take until enough have moved, once it is to stop.
const AFTER_STOP: Duration = Duration::from_secs(120);

impl Mover {
    /// Moves a random range to a random group, again and again until `stop`, and then until `moves` have come to their end. Waits for
    /// the end of the last job. What cannot be begun for now is tried again.
    ///
    /// # Errors
    /// If a job cannot be looked at for a minute, or does not end within two; or if not enough have ended two minutes after `stop`.
    pub async fn run(&self, seed: u64, moves: usize, stop: &CancellationToken) -> Result<MoverReport, String> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut report = MoverReport::default();
        let mut until = None;
        while !stop.is_cancelled() || report.done < moves {
            let now = tokio::time::Instant::now();
            if stop.is_cancelled() && now > *until.get_or_insert(now + AFTER_STOP) {
                return Err(format!("{moves} moves were to come to their end: {report:?}"));
            }
            // What cannot be begun for now is tried again: a node is down, or the map has changed meanwhile.
            if self.begin(&mut rng).await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            // An unclear answer may have begun one.
            for job in self.live().await? {
                self.end(job, &mut report).await?;
            }
        }
        Ok(report)
    }

    async fn begin(&self, rng: &mut StdRng) -> Result<(), Error> {
        let Routes { version, routes, .. } = self.client.routes().await?;
        let route = &routes[rng.random_range(0..routes.len())];
        let target = self.groups[rng.random_range(0..self.groups.len())];
        if target.0 == route.group_id {
            return Ok(());
        }
        let end = route.end.clone().map_or(End::Unbounded, End::Key);
        let whole = Interval::new(route.start.clone(), end).map_err(|error| {
            Error::definite(drover_client::Reason::Internal, format!("a route is no interval: {error}"))
        })?;
        let start = self.keys[rng.random_range(0..self.keys.len())].clone();
        let part = Interval::new(start, whole.end().clone()).ok().filter(|part| whole.covers(part));
        let asked = MoveRequest {
            expected: version,
            route: RouteId(route.route_id),
            what: MoveWhat::Range(part.unwrap_or(whole)),
            target,
            max_pause: None,
            max_bytes_per_second: None,
        };
        self.client.start_move(&asked, "mover").await.map(drop)
    }

    async fn live(&self) -> Result<Vec<JobId>, String> {
        let filter = JobFilter { ended: Some(false), ..JobFilter::default() };
        let jobs = patiently(|| self.client.jobs(&filter)).await?;
        Ok(jobs.into_iter().filter_map(|status| status.job).map(|job| JobId(job.job_id)).collect())
    }

    /// Waits until a job has ended.
    async fn end(&self, job: JobId, report: &mut MoverReport) -> Result<(), String> {
        let waiting = async {
            loop {
                let status = patiently(|| self.client.job(job)).await?;
                let known = status.job.ok_or("a job without a record")?;
                if has_ended(known.phase()) {
                    return Ok::<_, String>(known);
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(120), waiting).await;
        let ended = match waited {
            Ok(ended) => ended?,
            Err(_) => return Err(format!("job {job} does not end: {:?}", self.client.job(job).await)),
        };
        report.repeated += usize::from(ended.starts > 1 || ended.fences > 1);
        match ended.phase() {
            JobPhase::Done => report.done += 1,
            _ => report.abandoned += 1,
        }
        Ok(())
    }
}

/// Asks again for a minute.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, String> {
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if tokio::time::Instant::now() > until => return Err(error.to_string()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
