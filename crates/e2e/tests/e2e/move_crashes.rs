//! A node crashes at each step of a move, where it drives the job, leads the source or leads the target. Each time the move
//! comes to its end, nobody sees any of it but as time that passes, and nothing is left of it.
//!
//! The table of the steps is [`CrashPoint::all`]: the code can crash nowhere else. [`cases`] says who has to crash there, and how
//! the move comes there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::job::{BaseSum, JobEvent};
use drover_catalog::{CatalogCommand, CatalogCommandKind, RequestId};
use drover_client::{Client, End, GroupId, Interval, JobId, JobPhase, NodeId};
use drover_fsm::encode_catalog_command;
use drover_guards::{CrashPoint, JobMark, Moment, MoveEntry};
use drover_hlc::PhysicalMs;
use drover_keys::{ClusterId, JobEpoch, StoreId};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::shuttle::{Pace, Shuttle};
use drover_testkit::workload::Mixed;
use drover_transport::{LeaseTerms, PeerIdentities, PeerOptions, PeerPool, Tuning};
use drover_wire::{GroupCall, GroupOp, decode_group_response, encode_group_request};
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
    /// Its copy differs from what the catalog was told of the source, so it begins once more.
    Differing,
    /// As [`Course::Behind`], until it is given up; then people want another attempt.
    Failing,
}

impl Course {
    /// Where a driver waits for what brings this about.
    fn held(self) -> Option<CrashPoint> {
        match self {
            Course::Unfenced | Course::Abandoned => Some(LATE),
            Course::Differing => Some(SUMMED),
            Course::Forward | Course::Behind | Course::Failing => None,
        }
    }

    /// Whether the pause that it is allowed is too short.
    fn is_tight(self) -> bool {
        matches!(self, Course::Behind | Course::Failing)
    }
}

#[derive(Debug, Clone, Copy)]
struct Case {
    point: CrashPoint,
    role: Role,
    course: Course,
}

/// Where somebody waits who is to find that time has run out, or that the job was called off.
const LATE: CrashPoint = CrashPoint::Job(JobMark::CutOver, Moment::Unsent);
/// Where somebody waits who is to rely on a sum of the source that is wrong.
const SUMMED: CrashPoint = CrashPoint::Job(JobMark::Carve, Moment::Unsent);
/// Longer than a fence may stand with [`PAUSE`].
const TOO_LONG: Duration = Duration::from_millis(2_200);
/// Seven commits take less also on a busy machine.
const PAUSE: Duration = Duration::from_millis(400);
/// Too short for any fence, unless nothing was measured yet and little is left to copy.
const TIGHT_PAUSE: Duration = Duration::from_millis(10);

/// How long a copy may fall behind before it is given up: so long that none is, and as short as can be.
const PATIENT: Duration = Duration::from_secs(600);
const HASTY: Duration = Duration::from_secs(1);

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
        CrashPoint::Job(JobMark::StartOver, _) => Course::Differing,
        CrashPoint::Job(JobMark::Fail | JobMark::Retry, _) => Course::Failing,
        CrashPoint::At(_) | CrashPoint::Txn(..) | CrashPoint::Move(..) | CrashPoint::Job(..) => Course::Forward,
    }
}

/// Whether people ask for it.
fn is_asked(mark: JobMark) -> bool {
    matches!(mark, JobMark::Abandon | JobMark::Retry)
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
    let of = |point| roles(point).into_iter().map(move |role| Case { point, role, course: course(point) });
    CrashPoint::all().flat_map(of).collect()
}

/// A cluster that goes through one crash after the other, under load.
struct Scene {
    cluster: Cluster,
    client: Client,
    load: Mixed,
    shuttle: Shuttle,
    /// Talks to nodes as if it were one.
    stranger: Arc<PeerPool>,
}

impl Scene {
    /// A copy that falls behind for as long as `catch_up` is given up.
    async fn start(seed: u64, catch_up: Duration) -> Self {
        let catch_up_ms = i64::try_from(catch_up.as_millis()).unwrap();
        let builder = Cluster::builder().data_groups(2).set("txn.lock_ttl_ms", 1_000);
        let cluster = builder.set("migration.catch_up_ms", catch_up_ms).start().await.unwrap();
        let client = cluster.client().await.unwrap();
        let load = Mixed::new(seed);
        load.fill(&client).await.unwrap();
        // So that a portion does not hold all of it.
        for n in 0..MUCH {
            client.put(format!("d/much/{n}"), vec![b'm'; 100 << 10]).await.unwrap();
        }
        let groups: [GroupId; 2] = cluster.data_groups().try_into().unwrap();
        let shuttle = Shuttle { client: client.clone(), interval: Mixed::range(), groups };
        let stranger = stranger(&cluster).await;
        Self { cluster, client, load, shuttle, stranger }
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
            let held = course.held();
            self.arm(Some((victim, point)), held);
            let max_pause = Some(if course.is_tight() { TIGHT_PAUSE } else { PAUSE });
            let job = self.shuttle.begin(Pace { max_pause, ..Pace::default() }).await.unwrap();
            let come = async {
                if let Some(held) = held {
                    self.cluster.node(driver).wait_held(held, 1, PATIENCE).await.unwrap();
                    match course {
                        Course::Differing => self.tell_a_wrong_sum(job).await,
                        Course::Abandoned => {
                            self.assert_seen().await;
                            self.shuttle.abandon(job).await.unwrap();
                        }
                        Course::Forward | Course::Behind | Course::Unfenced | Course::Failing => {
                            self.assert_seen().await;
                            tokio::time::sleep(TOO_LONG).await;
                        }
                    }
                    self.arm(Some((victim, point)), None);
                }
                if self.shuttle.ended_or_failed(job, PATIENCE).await.unwrap() == JobPhase::Failed {
                    assert_eq!(course, Course::Failing);
                    self.shuttle.retry(job).await.unwrap();
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

    /// Lets the catalog believe that the rows of a job's range have another sum.
    async fn tell_a_wrong_sum(&self, job: JobId) {
        let status = self.shuttle.status(job).await.unwrap().job.unwrap();
        let sum = BaseSum { armed_at: 1, hash: 7, rows: 7 };
        let kind =
            CatalogCommandKind::JobEvent { job, epoch: Some(JobEpoch(status.epoch)), event: JobEvent::Scanned(sum) };
        let (request_id, actor) = (RequestId(rand::random()), "test".to_owned());
        let command = CatalogCommand { request_id, actor, now: PhysicalMs::default(), kind };
        let op = GroupOp::Catalog { command: encode_catalog_command(&command).unwrap() };
        let leader = self.cluster.leader(GroupId::DEFAULT, PATIENCE).await.unwrap();
        let request = encode_group_request(&GroupCall { group: GroupId::DEFAULT, timeout_ms: 0, op });
        let answer = self.stranger.group_call(leader, request, (Instant::now() + PATIENCE).into()).await.unwrap();
        decode_group_response(answer).unwrap();
    }

    /// Waits until the job has ended, which one that is allowed too short a pause only does after another one has taken it over:
    /// it has measured nothing yet. People who find that it was given up want another attempt.
    async fn finish(&self, job: JobId, course: Course) -> JobPhase {
        if !course.is_tight() {
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
            if course == Course::Failing && self.shuttle.phase(job).await == Ok(JobPhase::Failed) {
                self.shuttle.retry(job).await.unwrap();
            }
        }
        unreachable!("a cluster has nodes")
    }
}

/// What a node talks to the others with. Nobody has heard of this one.
async fn stranger(cluster: &Cluster) -> Arc<PeerPool> {
    let seen_from = cluster.nodes()[0].id();
    let cluster_id: ClusterId = cluster.status(seen_from).await.unwrap().cluster_id.parse().unwrap();
    let options = PeerOptions {
        cluster_id,
        node_id: NodeId(99),
        store_id: StoreId([99; 16]),
        version: "test".to_owned(),
        grpc_address: String::new(),
        admin_address: String::new(),
        lease: LeaseTerms { promise_ms: 600, trust_ms: 500 },
        tuning: Tuning::default(),
    };
    let pool = PeerPool::new(options, PeerIdentities::open(cluster.dir().join("stranger")).unwrap());
    for node in cluster.nodes() {
        pool.set_address(node.id(), &node.grpc_address());
    }
    pool
}

async fn every_crash_of(seed: u64, catch_up: Duration, which: impl Fn(&Case) -> bool) {
    let scene = Scene::start(seed, catch_up).await;
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
