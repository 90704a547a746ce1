//! At each step of a move a node is cut off from the others: who drives the job, the leader of the source, or that of the target. It
//! goes on believing what it believed. Others take its place, the move comes to its end without it, and clients of the other nodes
//! go on. When the links are mended, what the node had sent arrives, and nobody sees any of it, and nothing is left.

use std::time::{Duration, Instant};

use drover_client::{Client, GroupId, JobId, JobPhase, NodeId};
use drover_guards::{CrashPoint, Moment};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::shuttle::Shuttle;
use drover_testkit::wait::wait_until;

use crate::move_courses::{Course, HASTY, PATIENT, Role, Scene, is_asked};

/// Where a move stands when the links are cut: its driver is about to take a step. What people ask for is no step of the driver.
fn steps() -> Vec<CrashPoint> {
    CrashPoint::all()
        .filter(|point| match point {
            CrashPoint::Move(_, Moment::Unsent) => true,
            CrashPoint::Job(mark, Moment::Unsent) => !is_asked(*mark),
            _ => false,
        })
        .collect()
}

impl Scene {
    async fn cut(&self, point: CrashPoint, role: Role) {
        let (began, course) = (Instant::now(), Course::to(point));
        let (victim, group, job) = self.come_to_cut(point, role).await;
        let cut = Instant::now();
        self.led_by_another(group, victim).await;
        let led = cut.elapsed();
        // One that is allowed too short a pause is not over before all nodes can take their turn at it.
        let ended = match course.is_tight() {
            true => None,
            false => Some(self.ended_without(job, victim).await),
        };
        let over = cut.elapsed();
        self.load.advance_elsewhere(1).await.unwrap();
        let went_on = cut.elapsed();
        let before = cut.duration_since(began);
        self.cluster.mend();
        let ended = match ended {
            Some(ended) => ended,
            None => self.finish(job, course).await,
        };
        assert_eq!(ended == JobPhase::Abandoned, course == Course::Abandoned, "{point}, {role:?} cut off: {ended:?}");
        self.cluster.wait_ready(PATIENCE).await.unwrap();
        let ready = cut.elapsed();
        self.cluster.wait_nothing_left(false, PATIENCE).await.unwrap();
        let clean = cut.elapsed();
        self.cluster.assert_replicas_equal().await.unwrap();
        eprintln!(
            "{point}, {role:?} cut off after {before:?}: {led:?} until another led, {over:?} until the move was over, {went_on:?} until \
             clients had gone on and the link was mended, {ready:?} until all were ready, {clean:?} until nothing was left, {:?} \
             until the replicas were equal",
            cut.elapsed()
        );
    }

    /// Moves the range until its driver is about to take the step, which not every move comes to, and cuts a node off then. Which
    /// one, the group that it led, and the job.
    async fn come_to_cut(&self, point: CrashPoint, role: Role) -> (NodeId, GroupId, JobId) {
        let (course, until) = (Course::to(point), Instant::now() + PATIENCE);
        loop {
            let (source, target) = self.shuttle.ends().await.unwrap();
            let [driver, leads_source, leads_target] = self.spread().await;
            let (victim, group) = match role {
                Role::Migrator => (driver, GroupId::DEFAULT),
                Role::Source => (leads_source, source),
                Role::Target => (leads_target, target),
            };
            let at = self.cluster.node(driver);
            at.arm(None, Some(course.held().unwrap_or(point))).unwrap();
            let job = self.begin(course).await;
            let release = || at.arm(None, Some(point)).unwrap();
            tokio::select! {
                biased;
                held = at.wait_held(point, 1, 2 * PATIENCE) => {
                    held.unwrap();
                    self.cluster.cut_off(victim);
                    at.arm(None, None).unwrap();
                    return (victim, group, job);
                }
                _ = self.follow(course, at, job, release) => {
                    assert!(Instant::now() < until, "no move comes to {point}, where the {role:?} is to be cut off");
                }
            }
        }
    }

    /// How the job ends while a node is away.
    async fn ended_without(&self, job: JobId, away: NodeId) -> JobPhase {
        let others = self.cluster.nodes().iter().filter(|node| node.id() != away).map(|node| node.grpc_address());
        let client = Client::builder().endpoints(others).only_these_endpoints().connect().await.unwrap();
        let Shuttle { interval, groups, .. } = &self.shuttle;
        let shuttle = Shuttle { client, interval: interval.clone(), groups: *groups };
        shuttle.ended(job, PATIENCE).await.unwrap()
    }

    async fn led_by_another(&self, group: GroupId, cut_off: NodeId) {
        wait_until("another leader", PATIENCE, async || match self.cluster.leader(group, PATIENCE).await {
            Ok(leader) if leader != cut_off => Ok(()),
            Ok(leader) => Err(format!("node {leader} leads group {group}")),
            Err(error) => Err(error.to_string()),
        })
        .await
        .unwrap();
    }
}

/// Cuts nodes of a role off at the steps of moves that are given up, or at all others.
async fn cut_off_at_steps(seed: u64, roles: &[Role], given_up: bool) {
    let catch_up: Duration = if given_up { HASTY } else { PATIENT };
    let scene = Scene::start(seed, catch_up, Cluster::builder().cuttable()).await;
    let steps: Vec<CrashPoint> =
        steps().into_iter().filter(|point| (Course::to(*point) == Course::Failing) == given_up).collect();
    assert!(!steps.is_empty());
    scene
        .under_load(async || {
            for role in roles {
                for point in &steps {
                    scene.cut(*point, *role).await;
                }
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_move_is_cut_off_at_each_step_and_what_it_sends_late_does_no_harm() {
    cut_off_at_steps(41, &[Role::Migrator], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_source_is_cut_off_at_each_step_and_the_move_comes_to_its_end() {
    cut_off_at_steps(42, &[Role::Source], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_target_is_cut_off_at_each_step_and_the_move_comes_to_its_end() {
    cut_off_at_steps(43, &[Role::Target], false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_is_cut_off_when_a_move_is_given_up_and_it_is_tried_again() {
    cut_off_at_steps(44, &[Role::Migrator, Role::Source, Role::Target], true).await;
}
