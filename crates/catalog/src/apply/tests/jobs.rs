use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, Interval, JobEpoch, JobId};

use super::*;
use crate::job::{
    BaseSum, HandoverTerms, JOB_HISTORY, JOB_HISTORY_MS, JobEvent, JobOptions, JobPhase, JobRefusal, MAX_LIVE_JOBS,
    SplitJob,
};
use crate::routes::strategies::interval;
use crate::{MOVES_SINCE, RouteState, StartJob};

/// A start of a job with the default options.
pub(super) fn start(version: u64, route: u64, interval: Interval, target: u64) -> Kind {
    Kind::StartJob(StartJob {
        expected_version: CatalogVersion(version),
        route: RouteId(route),
        interval,
        target: GroupId(target),
        options: JobOptions::default(),
    })
}

/// Of two keys the lower to the higher; from one key to the end if they are the same.
pub(super) fn some_interval(a: Vec<u8>, b: Vec<u8>) -> Interval {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    let end = if low == high { End::Unbounded } else { End::Key(high.into()) };
    Interval::new(low, end).unwrap()
}

fn event(job: u64, epoch: u64, event: JobEvent) -> Kind {
    Kind::JobEvent { job: JobId(job), epoch: Some(JobEpoch(epoch)), event }
}

fn asked(job: u64, event: JobEvent) -> Kind {
    Kind::JobEvent { job: JobId(job), epoch: None, event }
}

fn terms() -> HandoverTerms {
    let at = Timestamp::from_raw;
    HandoverTerms { floor_ts: at(50), history_start: at(10), txn_horizon: at(11), record_horizon: at(12) }
}

impl World {
    /// Starts a job on route 1, which is of group 2, to group 1.
    fn moving(&mut self, start_key: &str, end: &str) -> SplitJob {
        let version = self.version().0;
        self.job(start(version, 1, interval(start_key, Some(end.as_bytes())), 1))
    }

    fn job(&mut self, kind: Kind) -> SplitJob {
        match self.run(kind).unwrap() {
            CatalogReply::Job(job) => *job,
            other => panic!("{other:?}"),
        }
    }

    fn route_at(&self, key: &str) -> (u64, u64, u64, RouteState) {
        let route = self.catalog.routes().unwrap().route_of(key.as_bytes());
        (route.id.0, route.group.0, route.shard.0, route.state)
    }
}

const BASE: BaseSum = BaseSum { armed_at: 7, hash: 8, rows: 9 };

#[test]
fn a_job_gets_a_route_of_its_own_fences_it_and_hands_it_over() {
    let mut world = World::settled();
    let job = world.moving("c", "f");
    assert_eq!((job.id, job.source, job.target, job.shard), (JobId(1), GroupId(2), GroupId(1), ShardId(3)));
    assert_eq!((world.version(), world.catalog.meta().unwrap().next_shard), (CatalogVersion(1), ShardId(4)));
    assert_eq!(world.audited(), r#"admin start-job job 1: "c" to "f" of route 1 from group 2 to group 1"#);
    for quiet in [JobEvent::Begin, JobEvent::Scanned(BASE)] {
        world.job(event(1, 1, quiet));
    }
    assert_eq!(world.version(), CatalogVersion(1));
    let carved = world.job(event(1, 1, JobEvent::Carve));
    assert_eq!((carved.own_route, world.version()), (Some(RouteId(3)), CatalogVersion(2)));
    let active = RouteState::Active;
    assert_eq!(
        ["b", "d", "g"].map(|key| world.route_at(key)),
        [(1, 2, 1, active), (3, 2, 1, active), (4, 2, 1, active)]
    );
    world.job(event(1, 1, JobEvent::Fence));
    let fenced = RouteState::WriteFenced { job: JobId(1) };
    assert_eq!((world.route_at("d"), world.version()), ((3, 2, 1, fenced), CatalogVersion(3)));
    world.job(event(1, 1, JobEvent::Sealed));
    world.job(event(1, 1, JobEvent::CutOver));
    assert_eq!(world.version(), CatalogVersion(3));
    let handed = world.job(event(1, 1, JobEvent::HandOver(terms())));
    assert_eq!(handed.handover.map(|handover| handover.version), Some(CatalogVersion(4)));
    assert_eq!((world.route_at("d"), world.route_at("b")), ((3, 1, 3, active), (1, 2, 1, active)));
    // Said again, because the answer was lost: nothing changes.
    assert_eq!(world.job(event(1, 1, JobEvent::HandOver(terms()))), handed);
    assert_eq!(world.version(), CatalogVersion(4));
    assert!(matches!(world.run(asked(1, JobEvent::Abandon)), Err(CatalogRefusal::Job(JobRefusal::WrongPhase { .. }))));
    world.job(event(1, 1, JobEvent::Activated));
    assert_eq!(world.job(event(1, 1, JobEvent::Finish)).phase, JobPhase::Done);
    assert_eq!((world.version(), world.catalog.job_horizon()), (CatalogVersion(4), JobId(2)));
}

#[test]
fn the_whole_of_a_route_keeps_its_name_and_needs_no_new_version() {
    let mut world = World::settled();
    let whole = interval("m", None);
    world.job(start(1, 2, whole, 1));
    world.job(event(1, 1, JobEvent::Begin));
    let carved = world.job(event(1, 1, JobEvent::Carve));
    assert_eq!((carved.own_route, world.version()), (Some(RouteId(2)), CatalogVersion(1)));
    world.job(event(1, 1, JobEvent::Fence));
    assert_eq!(world.route_at("z"), (2, 2, 2, RouteState::WriteFenced { job: JobId(1) }));
}

#[test]
fn a_change_of_course_opens_the_route_and_a_deposed_driver_changes_nothing() {
    let fenced = |world: &mut World| {
        world.moving("c", "f");
        for next in [JobEvent::Begin, JobEvent::Carve, JobEvent::Fence] {
            world.job(event(1, 1, next));
        }
    };
    let fail = JobEvent::Fail { why: "no disk".to_owned() };
    let table =
        [(JobEvent::Unfence, JobPhase::Backfill), (JobEvent::StartOver, JobPhase::Planned), (fail, JobPhase::Failed)];
    for (course, phase) in table {
        let mut world = World::settled();
        fenced(&mut world);
        let after = world.job(event(1, 1, course.clone()));
        assert_eq!((after.phase, after.epoch), (phase, JobEpoch(2)), "{course:?}");
        assert_eq!((world.route_at("d").3, world.version()), (RouteState::Active, CatalogVersion(4)), "{course:?}");
        let shard = if course == JobEvent::StartOver { 4 } else { 3 };
        assert_eq!((after.shard, world.catalog.meta().unwrap().next_shard), (ShardId(shard), ShardId(shard + 1)));
        let late = world.run(event(1, 1, JobEvent::Sealed));
        assert!(matches!(late, Err(CatalogRefusal::Job(JobRefusal::OtherEpoch { .. }))), "{late:?}");
    }
    let mut world = World::settled();
    fenced(&mut world);
    assert_eq!(world.job(asked(1, JobEvent::Abandon)).phase, JobPhase::Abandoning);
    assert_eq!(world.route_at("d").3, RouteState::Active);
    assert_eq!(world.job(event(1, 2, JobEvent::Abandoned)).phase, JobPhase::Abandoned);
    assert_eq!(world.catalog.job_horizon(), JobId(2));
    assert!(world.run(split(world.version().0, 3, "d")).is_ok(), "its route is one like any other");
}

#[test]
fn what_cannot_be_moved_is_refused() {
    let mut world = World::settled();
    let at = |start_key: &str, end: &str| interval(start_key, (!end.is_empty()).then_some(end.as_bytes()));
    let with = |options: JobOptions| {
        let Kind::StartJob(start) = start(1, 1, interval("c", Some(b"f")), 1) else { unreachable!() };
        Kind::StartJob(StartJob { options, ..start })
    };
    let pause = |max_pause_ms| with(JobOptions { max_pause_ms, ..JobOptions::default() });
    let rate = |max_bytes_per_second| with(JobOptions { max_bytes_per_second, ..JobOptions::default() });
    let long = "x".repeat(5_000);
    let table = [
        (start(2, 1, at("c", "f"), 1), "is at version 1, not at 2"),
        (start(1, 9, at("c", "f"), 1), "there is no route 9"),
        (start(1, 1, at("c", "z"), 1), "which does not hold all of"),
        (start(1, 1, at("n", ""), 1), "which does not hold all of"),
        (start(1, 1, at("c", "f"), 9), "there is no group 9"),
        (start(1, 1, at("c", "f"), 2), "group 2 serves the range already"),
        (start(1, 2, at(&long, ""), 1), "has 5000 bytes"),
        (pause(0), "the longest pause is 0 ms"),
        (pause(1_000_000), "the longest pause is 1000000 ms"),
        (rate(7), "the rate is 7 bytes a second"),
    ];
    for (kind, words) in table {
        let refusal = world.run(kind).unwrap_err().to_string();
        assert!(refusal.contains(words), "{refusal}");
    }
    world.moving("c", "f");
    for (from, to) in [("d", "e"), ("a", "d"), ("e", "k"), ("c", "f")] {
        let refusal = world.run(start(1, 1, at(from, to), 1)).unwrap_err();
        assert!(matches!(refusal, CatalogRefusal::RangeInMove { job: JobId(1), .. }), "{refusal}");
    }
    assert!(matches!(world.run(split(1, 1, "k")), Err(CatalogRefusal::RouteInMove { job: JobId(1), .. })));
    world.moving("f", "k");
    assert!(matches!(
        world.run(asked(9, JobEvent::Abandon)),
        Err(CatalogRefusal::Job(JobRefusal::Unknown { job: JobId(9) }))
    ));
}

#[test]
fn a_move_needs_a_majority_of_every_group_and_nodes_that_know_how() {
    let mut world = World::settled();
    world.now += CatalogSettings::default().node_ttl_ms + 1;
    world.run(heartbeat(1, V1)).unwrap();
    let refusal = world.run(start(1, 1, interval("c", Some(b"f")), 1)).unwrap_err();
    assert!(matches!(refusal, CatalogRefusal::NoQuorum { live: 1, voters: 3, .. }), "{refusal}");
    let mut world = World::settled();
    let Kind::Heartbeat(mut old) = heartbeat(2, V1) else { unreachable!() };
    old.capabilities.remove(MOVES_RANGES);
    world.run(Kind::Heartbeat(old)).unwrap();
    let refusal = world.run(start(1, 1, interval("c", Some(b"f")), 1)).unwrap_err();
    assert!(matches!(refusal, CatalogRefusal::CapabilityMissing { capability: MOVES_RANGES, .. }), "{refusal}");
}

#[test]
fn a_move_needs_a_cluster_that_cannot_go_back_behind_moves() {
    let before = Version::new(0, 1);
    let begin = || start(1, 1, interval("c", Some(b"f")), 1);
    let too_low = |have| Err(CatalogRefusal::ClusterVersionTooLow { required: MOVES_SINCE, have });
    let mut world = World::new();
    (1..=2).for_each(|n| drop(world.run(register(n, before)).unwrap()));
    assert_eq!(world.run(begin()), too_low(None), "node 3 was not heard of");
    world.run(register(3, before)).unwrap();
    assert_eq!(world.run(begin()), too_low(Some(before)));
    world.run(Kind::Freeze).unwrap();
    (1..=3).for_each(|n| drop(world.run(register(n, MOVES_SINCE)).unwrap()));
    world.settle();
    assert_eq!(world.run(begin()), too_low(Some(before)), "all nodes understand it, and may be rolled back");
    world.run(Kind::Unfreeze).unwrap();
    assert!(world.run(begin()).is_ok());
}

#[test]
fn h31_jobs_under_way_are_bounded_and_so_are_those_that_have_ended() {
    let mut world = World::settled();
    let key = |n: usize| format!("k{n:05}");
    for n in 0..MAX_LIVE_JOBS {
        world.moving(&key(n), &key(n + 1));
    }
    let over = world.run(start(1, 1, interval("a", Some(b"b")), 1));
    assert_eq!(over, Err(CatalogRefusal::TooManyJobs { live: MAX_LIVE_JOBS }));
    for job in 1..=MAX_LIVE_JOBS as u64 {
        world.job(asked(job, JobEvent::Abandon));
        world.job(event(job, 2, JobEvent::Abandoned));
    }
    for _ in 0..JOB_HISTORY {
        let job = world.moving("a", "b").id.0;
        world.job(asked(job, JobEvent::Abandon));
        world.job(event(job, 2, JobEvent::Abandoned));
    }
    assert_eq!(world.catalog.jobs().count(), JOB_HISTORY);
    assert_eq!(world.catalog.jobs().next().unwrap().id, JobId(MAX_LIVE_JOBS as u64 + 1));
    world.now += JOB_HISTORY_MS + 1;
    (1..=4).for_each(|n| drop(world.run(heartbeat(n, V1)).unwrap()));
    world.moving("a", "b");
    assert_eq!(world.catalog.jobs().count(), 1, "those of last week are gone");
}
