//! A node crashes at each step of a move, where it drives the job, leads the source or leads the target. Each time the move
//! comes to its end, nobody sees any of it but as time that passes, and nothing is left of it.
//!
//! The table of the steps is [`CrashPoint::all`]: the code can crash nowhere else. [`cases`] says who has to crash there.

use std::time::{Duration, Instant};

use drover_client::{JobId, JobPhase, NodeId};
use drover_guards::{CrashPoint, JobMark, Moment, MoveEntry};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;

use crate::move_courses::{Course, HASTY, PATIENT, Role, Scene, is_asked};

#[derive(Debug, Clone, Copy)]
struct Case {
    point: CrashPoint,
    role: Role,
    course: Course,
}

/// The groups whose logs hold an entry.
fn places(entry: MoveEntry) -> &'static [Role] {
    use MoveEntry::*;
    match entry {
        Arm | FenceWrites | Seal | FenceReads | Release => &[Role::Source],
        PrepareImport | FirstChunk | LaterChunk | ListedChunk | LastChunk | Activate => &[Role::Target],
        Clear | Retire => &[Role::Source, Role::Target],
    }
}

/// Every step of a move, and everybody who can crash there.
fn cases() -> Vec<Case> {
    let roles = |point| match point {
        CrashPoint::At(_) | CrashPoint::Txn(..) => vec![],
        CrashPoint::Move(_, moment) if moment.is_on_the_coordinator() => vec![Role::Migrator],
        CrashPoint::Move(entry, _) => places(entry).to_vec(),
        // People ask for it, by whichever node.
        CrashPoint::Job(mark, moment) if is_asked(mark) && moment.is_on_the_coordinator() => vec![],
        // Who drives the job holds the catalog as well: it is about to propose what it is about to send, and has the answer
        // when it has applied it.
        CrashPoint::Job(mark, Moment::Unproposed | Moment::Applied) if !is_asked(mark) => vec![],
        CrashPoint::Job(..) => vec![Role::Migrator],
    };
    let of = |point| roles(point).into_iter().map(move |role| Case { point, role, course: Course::to(point) });
    CrashPoint::all().flat_map(of).collect()
}

impl Scene {
    /// Lets a node crash at a step, and come back; then the move comes to its end, and nothing is left of it.
    async fn crash(&self, case: Case) {
        let Case { point, role, course } = case;
        let began = Instant::now();
        let (victim, job) = self.come_to_crash(case).await;
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
    async fn come_to_crash(&self, case: Case) -> (NodeId, JobId) {
        let Case { point, role, course } = case;
        let until = Instant::now() + PATIENCE;
        loop {
            let [driver, source, target] = self.spread().await;
            let victim = match role {
                Role::Migrator => driver,
                Role::Source => source,
                Role::Target => target,
            };
            self.arm(Some((victim, point)), course.held());
            let job = self.begin(course).await;
            let release = || self.arm(Some((victim, point)), None);
            tokio::select! {
                biased;
                crashed = self.cluster.node(victim).wait_crash(point, 2 * PATIENCE) => {
                    crashed.unwrap();
                    return (victim, job);
                }
                _ = self.follow(course, self.cluster.node(driver), job, release) => {
                    assert!(Instant::now() < until, "no move comes to {point} at the {role:?}");
                }
            }
        }
    }

    /// One node crashes at a point; whoever drives a job waits at another.
    fn arm(&self, crash: Option<(NodeId, CrashPoint)>, hold: Option<CrashPoint>) {
        for node in self.cluster.nodes() {
            let point = crash.filter(|(victim, _)| *victim == node.id()).map(|(_, point)| point);
            node.arm(point, hold).unwrap();
        }
    }
}

async fn every_crash_of(seed: u64, catch_up: Duration, which: impl Fn(&Case) -> bool) {
    let scene = Scene::start(seed, catch_up, Cluster::builder()).await;
    // Those of a tight pause last: they need the most time.
    let mut cases: Vec<Case> = cases().into_iter().filter(which).collect();
    cases.sort_by_key(|case| case.course == Course::Behind);
    assert!(!cases.is_empty());
    scene
        .under_load(async || {
            for case in cases {
                scene.crash(case).await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_move_crashes_before_and_after_each_step_of_the_groups_and_another_goes_on() {
    every_crash_of(31, PATIENT, |case| case.role == Role::Migrator && matches!(case.point, CrashPoint::Move(..))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_move_crashes_around_each_note_of_the_catalog_and_another_goes_on() {
    every_crash_of(32, PATIENT, |case| matches!(case.point, CrashPoint::Job(..)) && case.course != Course::Failing)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_move_crashes_around_the_notes_that_it_was_given_up_and_is_tried_again() {
    every_crash_of(35, HASTY, |case| case.course == Course::Failing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_source_crashes_around_each_step_and_the_move_comes_to_its_end() {
    every_crash_of(33, PATIENT, |case| case.role == Role::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_target_crashes_around_each_step_and_the_move_comes_to_its_end() {
    every_crash_of(34, PATIENT, |case| case.role == Role::Target).await;
}
