//! A node crashes at each step of a move, where it drives the job, leads the source or leads the target. Each time the move
//! comes to its end, nobody sees any of it but as time that passes, and nothing is left of it.
//!
//! The table of the steps is [`CrashPoint::all`]: the code can crash nowhere else. [`cases`] says who has to crash there, and how
//! the move comes there.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use drover_client::{Client, End, GroupId, Interval, JobId, JobPhase, NodeId};
use drover_guards::{CrashPoint, JobMark, Moment, MoveEntry};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::shuttle::{Pace, Shuttle};
use drover_testkit::workload::Mixed;
use tokio_util::sync::CancellationToken;

/// Who crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The leader of the default group: it drives the job and holds the catalog.
    Migrator,
    /// The leader of the group that the range moves away from.
    Source,
    /// The leader of the group that it moves to.
    Target,
}

/// How a move comes to the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// By itself.
    Forward,
    /// The pause that it is allowed is so short that it copies again and again what is written meanwhile.
    Behind,
    /// Its fence stands for too long, so it is lifted and set again.
    Unfenced,
    /// It is called off when the source is sealed and the copy complete.
    Abandoned,
}

#[derive(Debug, Clone, Copy)]
struct Case {
    point: CrashPoint,
    role: Role,
    course: Course,
}

/// Where somebody waits who is to find that time has run out, or that the job was called off.
const LATE: CrashPoint = CrashPoint::Job(JobMark::CutOver, Moment::Unsent);
/// Longer than a fence may stand with [`PAUSE`].
const TOO_LONG: Duration = Duration::from_millis(2_200);
/// Seven commits take less also on a busy machine.
const PAUSE: Duration = Duration::from_millis(400);
/// Too short for any fence, unless nothing was measured yet and little is left to copy.
const TIGHT_PAUSE: Duration = Duration::from_millis(10);

/// Rows that together are more than a portion holds.
const MUCH: u64 = 12;

/// The groups whose logs hold an entry.
fn places(entry: MoveEntry) -> &'static [Role] {
    use MoveEntry::*;
    match entry {
        Arm | FenceWrites | Seal | FenceReads | Release => &[Role::Source],
        PrepareImport | FirstChunk | LaterChunk | ListedChunk | LastChunk | Activate => &[Role::Target],
        Clear | Retire => &[Role::Source, Role::Target],
    }
}

fn course(point: CrashPoint) -> Course {
    match point {
        CrashPoint::Move(MoveEntry::ListedChunk, _) => Course::Behind,
        CrashPoint::Move(MoveEntry::Clear, _) | CrashPoint::Job(JobMark::Unfence, _) => Course::Unfenced,
        CrashPoint::Move(MoveEntry::Retire, _) | CrashPoint::Job(JobMark::Abandon | JobMark::Abandoned, _) => {
            Course::Abandoned
        }
        CrashPoint::At(_) | CrashPoint::Txn(..) | CrashPoint::Move(..) | CrashPoint::Job(..) => Course::Forward,
    }
}

/// Every step of a move, and everybody who can crash there.
fn cases() -> Vec<Case> {
    let roles = |point| match point {
        CrashPoint::At(_) | CrashPoint::Txn(..) => vec![],
        CrashPoint::Move(_, moment) if moment.is_on_the_coordinator() => vec![Role::Migrator],
        CrashPoint::Move(entry, _) => places(entry).to_vec(),
        // People ask for it, by whichever node.
        CrashPoint::Job(JobMark::Abandon, moment) if moment.is_on_the_coordinator() => vec![],
        // Who drives the job holds the catalog as well: it is about to propose what it is about to send, and has the answer
        // when it has applied it.
        CrashPoint::Job(mark, Moment::Unproposed | Moment::Applied) if mark != JobMark::Abandon => vec![],
        CrashPoint::Job(..) => vec![Role::Migrator],
    };
    let of = |point| roles(point).into_iter().map(move |role| Case { point, role, course: course(point) });
    CrashPoint::all().flat_map(of).collect()
}

/// A cluster that goes through one crash after the other, under load.
struct Scene {
    cluster: Cluster,
    client: Client,
    load: Mixed,
    shuttle: Shuttle,
}

impl Scene {
    async fn start(seed: u64) -> Self {
        let cluster = Cluster::builder().data_groups(2).set("txn.lock_ttl_ms", 1_000).start().await.unwrap();
        let client = cluster.client().await.unwrap();
        let load = Mixed::new(seed);
        load.fill(&client).await.unwrap();
        // So that a portion does not hold all of it.
        for n in 0..MUCH {
            client.put(format!("d/much/{n}"), vec![b'm'; 100 << 10]).await.unwrap();
        }
        let groups: [GroupId; 2] = cluster.data_groups().try_into().unwrap();
        let shuttle = Shuttle { client: client.clone(), interval: Mixed::range(), groups };
        Self { cluster, client, load, shuttle }
    }

    /// Lets a node crash at a step, and come back; then the move comes to its end, and nothing is left of it.
    async fn crash(&self, case: Case) {
        let Case { point, role, course } = case;
        let began = Instant::now();
        let (victim, job) = self.come_to(case).await;
        let crashed = began.elapsed();
        if let CrashPoint::Job(JobMark::Abandon, _) = point {
            // Whoever asked for it has no answer, and asks again. Who drives the job now waits as well.
            self.shuttle.abandon(job).await.unwrap();
        }
        self.arm(None, None);
        self.cluster.node(victim).start().unwrap();
        let ended = self.finish(job, course).await;
        self.cluster.wait_ready(PATIENCE).await.unwrap();
        assert_eq!(ended == JobPhase::Abandoned, course == Course::Abandoned, "{point} at the {role:?}: {ended:?}");
        self.cluster.wait_nothing_left(false, PATIENCE).await.unwrap();
        self.cluster.assert_replicas_equal().await.unwrap();
        eprintln!("{point} at the {role:?}: {crashed:?} until it crashed, {:?} in all", began.elapsed());
    }

    /// Moves the range until somebody crashes at the step: not every move comes to each. Who it is, and the job.
    async fn come_to(&self, case: Case) -> (NodeId, JobId) {
        let Case { point, role, course } = case;
        let until = Instant::now() + PATIENCE;
        loop {
            let (source, target) = self.shuttle.ends().await.unwrap();
            let [driver, source, target] = self.cluster.spread([GroupId::DEFAULT, source, target]).await.unwrap();
            let victim = match role {
                Role::Migrator => driver,
                Role::Source => source,
                Role::Target => target,
            };
            let held = matches!(course, Course::Unfenced | Course::Abandoned).then_some(LATE);
            self.arm(Some((victim, point)), held);
            let max_pause = Some(if course == Course::Behind { TIGHT_PAUSE } else { PAUSE });
            let job = self.shuttle.begin(Pace { max_pause, ..Pace::default() }).await.unwrap();
            let come = async {
                if held.is_some() {
                    self.cluster.node(driver).wait_held(LATE, 1, PATIENCE).await.unwrap();
                    self.assert_seen().await;
                    match course {
                        Course::Abandoned => self.shuttle.abandon(job).await.unwrap(),
                        _ => tokio::time::sleep(TOO_LONG).await,
                    }
                    self.arm(Some((victim, point)), None);
                }
                self.shuttle.ended(job, PATIENCE).await.unwrap()
            };
            tokio::select! {
                biased;
                crashed = self.cluster.node(victim).wait_crash(point, 2 * PATIENCE) => {
                    crashed.unwrap();
                    return (victim, job);
                }
                _ = come => assert!(Instant::now() < until, "no move comes to {point} at the {role:?}"),
            }
        }
    }

    /// What is looked for when a move is over can be seen while it is not.
    async fn assert_seen(&self) {
        let there = self.cluster.leftovers(false).await.unwrap();
        for what in ["leaving", "fenced", "arriving"] {
            assert!(there.iter().any(|leftover| leftover.line.contains(what)), "nothing is {what}: {there:?}");
        }
    }

    /// One node crashes at a point; whoever drives a job waits at another.
    fn arm(&self, crash: Option<(NodeId, CrashPoint)>, hold: Option<CrashPoint>) {
        for node in self.cluster.nodes() {
            let point = crash.filter(|(victim, _)| *victim == node.id()).map(|(_, point)| point);
            node.arm(point, hold).unwrap();
        }
    }

    /// Waits until the job has ended, which one that is allowed too short a pause only does after another one has taken it over:
    /// it has measured nothing yet.
    async fn finish(&self, job: JobId, course: Course) -> JobPhase {
        if course != Course::Behind {
            return self.shuttle.ended(job, PATIENCE).await.unwrap();
        }
        self.cluster.wait_ready(PATIENCE).await.unwrap();
        let until = Instant::now() + PATIENCE;
        for node in self.cluster.node_ids().into_iter().cycle() {
            self.cluster.lead(GroupId::DEFAULT, node, PATIENCE).await.unwrap();
            match self.shuttle.ended(job, Duration::from_secs(1)).await {
                Ok(ended) => return ended,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        }
        unreachable!("a cluster has nodes")
    }
}

async fn every_crash_of(seed: u64, which: impl Fn(&Case) -> bool) {
    let scene = Scene::start(seed).await;
    // Those of a tight pause last: they need the most time.
    let mut cases: Vec<Case> = cases().into_iter().filter(which).collect();
    cases.sort_by_key(|case| case.course == Course::Behind);
    assert!(!cases.is_empty());
    let stop = CancellationToken::new();
    let crashes = async {
        scene.load.advance(5).await.unwrap();
        for case in cases {
            scene.crash(case).await;
        }
        scene.load.advance(5).await.unwrap();
        stop.cancel();
    };
    let (came_to, ()) = tokio::join!(scene.load.run(&scene.cluster, &stop), crashes);
    eprintln!("{}", scene.load);
    scene.load.check(&scene.cluster, came_to.unwrap()).await.unwrap();
    scene.cluster.wait_nothing_left(true, PATIENCE).await.unwrap();
    scene.cluster.assert_replicas_equal().await.unwrap();
    let much = Interval::new("d/much/", End::Key("d/much0".into())).unwrap();
    assert_eq!(scene.client.count(much, None).await.unwrap(), MUCH);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_move_crashes_before_and_after_each_step_of_the_groups_and_another_goes_on() {
    every_crash_of(31, |case| case.role == Role::Migrator && matches!(case.point, CrashPoint::Move(..))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_move_crashes_around_each_note_of_the_catalog_and_another_goes_on() {
    every_crash_of(32, |case| matches!(case.point, CrashPoint::Job(..))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_source_crashes_around_each_step_and_the_move_comes_to_its_end() {
    every_crash_of(33, |case| case.role == Role::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_target_crashes_around_each_step_and_the_move_comes_to_its_end() {
    every_crash_of(34, |case| case.role == Role::Target).await;
}
