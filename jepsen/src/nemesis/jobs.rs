//! Moves ranges, calls moves off, and pauses them.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use drover_client::{End, GroupId, Interval, JobAction, JobId, JobPhase, MoveRequest, MoveWhat, RouteId, has_ended};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::act::ACTOR;
use super::{Broken, Fault, Mend, Nemesis, Outcome};
use crate::cluster::DATA_GROUPS;

/// Between two looks at a job.
const LOOK: Duration = Duration::from_millis(20);
/// Where a range may begin, other than where a route does.
const PLACES: [&str; 8] = ["bank/2", "bank/6", "c/", "d", "k/", "p/", "set/f", "set/n"];

impl Nemesis {
    /// One move. What is still under way at `stop` is left to the end of the run, which waits for it.
    pub(super) async fn moves(&self, fault: Fault, rng: &mut StdRng, stop: &CancellationToken) -> Result<Broken> {
        let Some(asked) = self.draw_move(rng).await? else { return Ok(Broken::skipped("it is there already")) };
        let job = self.client.start_move(&asked, ACTOR).await.map_err(|error| anyhow!("{error}"))?;
        let id = JobId(job.job_id);
        let what = json!({"job": job.job_id, "source": job.source_group, "target": job.target_group});
        // When something is done about it.
        let after = Instant::now() + Duration::from_millis(rng.random_range(0..60));
        let mut acted = fault == Fault::Move;
        let mut last = None;
        while !stop.is_cancelled() {
            let Some(job) = self.client.job(id).await.ok().and_then(|status| status.job) else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            self.note_phase(&job, &mut last);
            if has_ended(job.phase()) {
                let done = job.phase() == JobPhase::Done;
                let mut what = what;
                what["ended"] = if done { "done".into() } else { "abandoned".into() };
                let meant = if fault == Fault::Abandon { !done } else { done && acted };
                let outcome = if meant { Outcome::Installed } else { Outcome::Unclear };
                return Ok(Broken { outcome, what, mend: Mend::Nothing });
            }
            if job.phase() == JobPhase::Failed {
                let _ = self.client.change_job(id, JobAction::Retry, ACTOR).await;
            }
            if !acted && Instant::now() >= after {
                acted = match fault {
                    Fault::Abandon => self.client.change_job(id, JobAction::Abandon, ACTOR).await.is_ok(),
                    _ => self.stand_still(id).await,
                };
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(Broken { outcome: Outcome::Unclear, what, mend: Mend::Nothing })
    }

    /// Pauses a job for a while; whether it was.
    async fn stand_still(&self, id: JobId) -> bool {
        if self.client.change_job(id, JobAction::Pause, ACTOR).await.is_err() {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        for _ in 0..50 {
            if self.client.change_job(id, JobAction::Resume, ACTOR).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// A move that changes something, unless there is none in many attempts.
    pub(super) async fn draw_move_at_last(&self, rng: &mut StdRng) -> Result<Option<MoveRequest>> {
        for _ in 0..20 {
            if let Some(asked) = self.draw_move(rng).await? {
                return Ok(Some(asked));
            }
        }
        Ok(None)
    }

    async fn draw_move(&self, rng: &mut StdRng) -> Result<Option<MoveRequest>> {
        let map = self.client.routes().await.map_err(|error| anyhow!("{error}"))?;
        let place = PLACES.choose(rng).copied().unwrap_or("c/");
        let target = GroupId(2 + rng.random_range(0..DATA_GROUPS));
        let from_there = rng.random_bool(0.5);
        let holds = |start: &[u8], end: Option<&bytes::Bytes>| {
            start <= place.as_bytes() && end.is_none_or(|end| place.as_bytes() < end.as_ref())
        };
        let Some(route) = map.routes.iter().find(|route| holds(&route.start, route.end.as_ref())) else {
            return Err(anyhow!("the routes do not cover {place}"));
        };
        if route.group_id == target.0 {
            return Ok(None);
        }
        let end = route.end.clone().map_or(End::Unbounded, End::Key);
        let start = if from_there { place.as_bytes().to_vec().into() } else { route.start.clone() };
        let range = Interval::new(start, end).map_err(|error| anyhow!("a route is no interval: {error}"))?;
        Ok(Some(MoveRequest {
            expected: map.version,
            route: RouteId(route.route_id),
            what: MoveWhat::Range(range),
            target,
            max_pause: None,
            max_bytes_per_second: None,
        }))
    }
}
