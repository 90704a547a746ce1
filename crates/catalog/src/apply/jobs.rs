//! Commands about jobs that move ranges: what the catalog keeps of them, and what becomes of the routes.

use std::sync::Arc;

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_keys::{CatalogVersion, End, GroupId, Interval, JobEpoch, JobId, RouteId, ShardId};

use super::{Answer, Decision, Judge, Note, Plan, brief};
use crate::job::{
    JOB_HISTORY, JOB_HISTORY_MS, JobEvent, JobPhase, JobRefusal, MAX_LIVE_JOBS, NewJob, SplitJob, Surroundings,
};
use crate::row::CatalogRow;
use crate::{CatalogChange, CatalogRefusal, CatalogReply, Route, RouteDelta, RouteState, RowKey, StartJob};

impl Judge<'_> {
    pub(super) fn start_job(&self, start: &StartJob) -> Result<Decision, CatalogRefusal> {
        let StartJob { expected_version, route: id, interval, target, options } = start;
        let meta = &self.contents.meta;
        if *expected_version != meta.version {
            return Err(CatalogRefusal::StaleVersion { expected: *expected_version, current: meta.version });
        }
        options.check().map_err(|why| CatalogRefusal::BadJobOptions { why })?;
        let limit = meta.settings.max_key_bytes;
        let bounds = [Some(interval.start()), interval.end().as_key()];
        if let Some(key) = bounds.into_iter().flatten().find(|key| key.len() > limit as usize) {
            return Err(CatalogRefusal::KeyTooLarge { bytes: key.len(), limit });
        }
        let route = self.contents.routes.route(*id).ok_or(CatalogRefusal::UnknownRoute { route: *id })?;
        if !route.interval.covers(interval) {
            let (keys, wanted) = (described(&route.interval), described(interval));
            return Err(CatalogRefusal::IntervalOutside { route: *id, keys, wanted });
        }
        self.group(*target)?;
        if *target == route.group {
            return Err(CatalogRefusal::SameGroup { group: *target });
        }
        if let Some(job) = self.contents.live_job_over(interval).filter(|_| guards::on(Guard::JobsDisjoint)) {
            return Err(CatalogRefusal::RangeInMove { interval: described(interval), job: job.id });
        }
        let live = self.contents.jobs.values().filter(|job| !job.phase.has_ended()).count();
        if live >= MAX_LIVE_JOBS && guards::on(Guard::LiveJobsBounded) {
            return Err(CatalogRefusal::TooManyJobs { live });
        }
        for group in [route.group, *target, GroupId::DEFAULT] {
            self.check_live_quorum(group)?;
        }
        let job = SplitJob::begun(NewJob {
            id: meta.next_job,
            interval: interval.clone(),
            from_route: *id,
            source: route.group,
            target: *target,
            shard: meta.next_shard,
            options: *options,
            actor: self.actor.to_owned(),
            now: self.now,
        });
        let details = format!("{} of route {id} from group {} to group {target}", described(interval), route.group);
        let note = Note { action: "start-job", subject: format!("job {}", job.id), details };
        let mut plan = self.plan(Answer::Ready(CatalogReply::Job(Box::new(job.clone()))), Some(note));
        plan.meta.next_job = JobId(job.id.0 + 1);
        plan.meta.next_shard = ShardId(job.shard.0 + 1);
        let forgotten = if guards::on(Guard::JobHistoryBounded) { self.forgotten_jobs() } else { Vec::new() };
        plan.rows.extend(forgotten.into_iter().map(|id| CatalogChange::Delete(RowKey::Job(id))));
        plan.put(CatalogRow::Job(Arc::new(job))).decided()
    }

    pub(super) fn job_event(
        &self,
        id: JobId,
        epoch: Option<JobEpoch>,
        event: &JobEvent,
    ) -> Result<Decision, CatalogRefusal> {
        let meta = &self.contents.meta;
        let job = self.contents.jobs.get(&id).ok_or(JobRefusal::Unknown { job: id })?;
        let whole =
            *event == JobEvent::Carve && self.contents.routes.route_of(job.interval.start()).interval == job.interval;
        let own_route = match whole {
            true => self.contents.routes.route_of(job.interval.start()).id,
            false => meta.next_route,
        };
        let next_version = CatalogVersion(meta.version.0 + 1);
        let around = Surroundings { now: self.now, next_version, own_route, next_shard: meta.next_shard };
        let Some(next) = job.after(epoch, event, &around)? else {
            return Ok(Decision::Nothing(CatalogReply::Job(Box::new(SplitJob::clone(job)))));
        };
        let note = Note {
            action: "job",
            subject: format!("job {id}"),
            details: format!("{}: {}, epoch {}", event.name(), next.phase, next.epoch),
        };
        let mut plan = self.plan(Answer::Ready(CatalogReply::Job(Box::new(next.clone()))), Some(note));
        if next.shard == meta.next_shard {
            plan.meta.next_shard = ShardId(next.shard.0 + 1);
        }
        let changed = match event {
            JobEvent::Carve => self.carve(&next, &mut plan),
            _ => self.job_route(job, &next).into_iter().collect(),
        };
        if !changed.is_empty() {
            self.change_routes(&mut plan, changed);
        }
        plan.put(CatalogRow::Job(Arc::new(next))).decided()
    }

    /// The routes that the one which holds a moving interval becomes, if it is not that interval alone.
    fn carve(&self, job: &SplitJob, plan: &mut Plan) -> Vec<Route> {
        let whole = self.contents.routes.route_of(job.interval.start());
        if whole.interval == job.interval {
            return Vec::new();
        }
        let part = |start: &Bytes, end: &End| Interval::new(start.clone(), end.clone()).ok();
        let before = part(whole.interval.start(), &End::Key(job.interval.start().clone()));
        let after = job.interval.end().as_key().and_then(|end| part(end, whole.interval.end()));
        let own = job.own_route.expect("the job was given a route of its own");
        let mut routes = vec![Route { id: own, interval: job.interval.clone(), ..whole.clone() }];
        let mut next_route = RouteId(own.0 + 1);
        // One of the rest keeps the name.
        for (n, interval) in before.into_iter().chain(after).enumerate() {
            let id = if n == 0 { whole.id } else { next_route };
            next_route = if n == 0 { next_route } else { RouteId(next_route.0 + 1) };
            routes.push(Route { id, interval, ..whole.clone() });
        }
        plan.meta.next_route = next_route;
        routes
    }

    /// What the route of a job becomes, if it becomes another.
    fn job_route(&self, before: &SplitJob, after: &SplitJob) -> Option<Route> {
        let own = after.own_route?;
        let route = self.contents.routes.route_of(after.interval.start());
        debug_assert_eq!((route.id, &route.interval), (own, &after.interval));
        let fenced = matches!(after.phase, JobPhase::Fence | JobPhase::DeltaCopy | JobPhase::Cutover)
            && after.handover.is_none();
        let state = if fenced { RouteState::WriteFenced { job: after.id } } else { RouteState::Active };
        let handed_over = before.handover.is_none() && after.handover.is_some();
        let (group, shard) = if handed_over { (after.target, after.shard) } else { (route.group, route.shard) };
        let next = Route { state, group, shard, ..route.clone() };
        (next != *route && !after.phase.has_ended()).then_some(next)
    }

    fn change_routes(&self, plan: &mut Plan, upserted: Vec<Route>) {
        let version = CatalogVersion(self.contents.meta.version.0 + 1);
        let delta = RouteDelta { version, removed: Vec::new(), upserted: upserted.clone() };
        plan.routes = Some(self.contents.routes.apply(&delta).expect("the parts cover what the whole did"));
        plan.meta.version = version;
        plan.rows.extend(upserted.into_iter().map(|route| CatalogChange::Put(CatalogRow::Route(route))));
        plan.rows.push(CatalogChange::Put(CatalogRow::Delta(Arc::new(delta))));
    }

    /// Refuses unless a majority of a group's voters are on live nodes.
    fn check_live_quorum(&self, id: GroupId) -> Result<(), CatalogRefusal> {
        let voters = self.group(id)?.active();
        let live = self.contents.live(self.now).filter(|(node, _)| voters.contains(&node.id)).count();
        match 2 * live > voters.len() {
            true => Ok(()),
            false => Err(CatalogRefusal::NoQuorum { group: id, live, voters: voters.len() }),
        }
    }

    /// Jobs that have ended, and are too many or too old to be kept when another one comes.
    fn forgotten_jobs(&self) -> Vec<JobId> {
        let ended: Vec<&Arc<SplitJob>> = self.contents.jobs.values().filter(|job| job.phase.has_ended()).collect();
        let surplus = (ended.len() + 1).saturating_sub(JOB_HISTORY);
        let old = |job: &SplitJob| job.changed.saturating_add_ms(JOB_HISTORY_MS) < self.now;
        let forgotten = ended.iter().enumerate().filter(|(n, job)| *n < surplus || old(job));
        forgotten.map(|(_, job)| job.id).collect()
    }
}

/// An interval for people.
fn described(interval: &Interval) -> String {
    let end = interval.end().as_key().map_or("the end".to_owned(), |end| brief(end));
    format!("{} to {end}", brief(interval.start()))
}
