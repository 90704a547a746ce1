//! At each step of a move a node is cut off from the others: who drives the job, the leader of the source, or that of the target. It
//! goes on believing what it believed. Others take its place, the move comes to its end without it, and clients of the other nodes
//! go on. When the links are mended, what the node had sent arrives, and nobody sees any of it, and nothing is left.

use std::time::{Duration, Instant};

use drover_client::{Client, GroupId, JobId, JobPhase, NodeId};
use drover_guards::{CrashPoint, JobMark, Moment, MoveEntry};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::shuttle::{Pace, Shuttle};
use drover_testkit::wait::wait_until;
use drover_testkit::workload::Mixed;
use tokio_util::sync::CancellationToken;

/// Who is cut off, and which group it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Migrator,
    Source,
    Target,
}

/// Seven commits take less also on a busy machine.
const PAUSE: Duration = Duration::from_millis(400);
/// Where somebody waits who is to find that a job was called off.
const LATE: CrashPoint = CrashPoint::Job(JobMark::CutOver, Moment::Unsent);

/// Where a move stands when the links are cut: about to take each step that every move comes to, or every one that is called
/// off.
fn steps() -> Vec<CrashPoint> {
    let rare = |entry| matches!(entry, MoveEntry::ListedChunk | MoveEntry::Seal | MoveEntry::Clear);
    let usual = |mark| {
        use JobMark::*;
        matches!(mark, Begin | Scanned | Carve | Fence | Sealed | CutOver | HandOver | Activated | Finish | Abandoned)
    };
    CrashPoint::all()
        .filter(|point| match point {
            CrashPoint::Move(entry, Moment::Unsent) => !rare(*entry),
            CrashPoint::Job(mark, Moment::Unsent) => usual(*mark),
            _ => false,
        })
        .collect()
}

fn is_called_off(point: CrashPoint) -> bool {
    matches!(point, CrashPoint::Move(MoveEntry::Retire, _) | CrashPoint::Job(JobMark::Abandoned, _))
}

struct Scene {
    cluster: Cluster,
    load: Mixed,
    shuttle: Shuttle,
}

impl Scene {
    async fn start(seed: u64) -> Self {
        let builder = Cluster::builder().data_groups(2).set("txn.lock_ttl_ms", 1_000).cuttable();
        let cluster = builder.start().await.unwrap();
        let client = cluster.client().await.unwrap();
        let load = Mixed::new(seed);
        load.fill(&client).await.unwrap();
        for n in 0..12 {
            client.put(format!("d/much/{n}"), vec![b'm'; 100 << 10]).await.unwrap();
        }
        let groups: [GroupId; 2] = cluster.data_groups().try_into().unwrap();
        Self { cluster, load, shuttle: Shuttle { client, interval: Mixed::range(), groups } }
    }

    async fn cut(&self, point: CrashPoint, role: Role) {
        let began = Instant::now();
        let (source, target) = self.shuttle.ends().await.unwrap();
        let [driver, leads_source, leads_target] =
            self.cluster.spread([GroupId::DEFAULT, source, target]).await.unwrap();
        let (victim, group) = match role {
            Role::Migrator => (driver, GroupId::DEFAULT),
            Role::Source => (leads_source, source),
            Role::Target => (leads_target, target),
        };
        let at = self.cluster.node(driver);
        at.arm(None, Some(if is_called_off(point) { LATE } else { point })).unwrap();
        let job = self.shuttle.begin(Pace { max_pause: Some(PAUSE), ..Pace::default() }).await.unwrap();
        if is_called_off(point) {
            at.wait_held(LATE, 1, PATIENCE).await.unwrap();
            self.shuttle.abandon(job).await.unwrap();
            at.arm(None, Some(point)).unwrap();
        }
        at.wait_held(point, 1, PATIENCE).await.unwrap();
        self.cluster.cut_off(victim);
        at.arm(None, None).unwrap();
        let cut = Instant::now();
        self.led_by_another(group, victim).await;
        let led = cut.elapsed();
        let ended = self.ended_without(job, victim).await;
        let over = cut.elapsed();
        assert_eq!(ended == JobPhase::Abandoned, is_called_off(point), "{point}, {role:?} cut off: {ended:?}");
        self.load.advance_elsewhere(1).await.unwrap();
        let went_on = cut.elapsed();
        let before = cut.duration_since(began);
        self.cluster.mend();
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

async fn cut_off_at_every_step(seed: u64, role: Role) {
    let scene = Scene::start(seed).await;
    let stop = CancellationToken::new();
    let cuts = async {
        scene.load.advance(5).await.unwrap();
        for point in steps() {
            scene.cut(point, role).await;
        }
        scene.load.advance(5).await.unwrap();
        stop.cancel();
    };
    let (came_to, ()) = tokio::join!(scene.load.run(&scene.cluster, &stop), cuts);
    eprintln!("{}", scene.load);
    scene.load.check(&scene.cluster, came_to.unwrap()).await.unwrap();
    scene.cluster.wait_nothing_left(true, PATIENCE).await.unwrap();
    scene.cluster.assert_replicas_equal().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_drives_a_move_is_cut_off_at_each_step_and_what_it_sends_late_does_no_harm() {
    cut_off_at_every_step(41, Role::Migrator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_source_is_cut_off_at_each_step_and_the_move_comes_to_its_end() {
    cut_off_at_every_step(42, Role::Source).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_the_target_is_cut_off_at_each_step_and_the_move_comes_to_its_end() {
    cut_off_at_every_step(43, Role::Target).await;
}
