//! How moves come to each of their steps: most by themselves, some only if something goes wrong, or if people call them off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::job::{BaseSum, JobEvent};
use drover_catalog::{CatalogCommand, CatalogCommandKind, RequestId};
use drover_client::{End, GroupId, Interval, JobId, JobPhase, NodeId};
use drover_fsm::encode_catalog_command;
use drover_guards::{CrashPoint, JobMark, Moment, MoveEntry};
use drover_hlc::PhysicalMs;
use drover_keys::{ClusterId, JobEpoch, StoreId};
use drover_testkit::Cluster;
use drover_testkit::cluster::{ClusterBuilder, Node, PATIENCE};
use drover_testkit::shuttle::{Pace, Shuttle};
use drover_testkit::workload::Mixed;
use drover_transport::{LeaseTerms, PeerIdentities, PeerOptions, PeerPool, Tuning};
use drover_wire::{GroupCall, GroupOp, decode_group_response, encode_group_request};
use tokio_util::sync::CancellationToken;

/// Who something happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The leader of the default group: it drives the job and holds the catalog.
    Migrator,
    /// The leader of the group that the range moves away from.
    Source,
    /// The leader of the group that it moves to.
    Target,
}

/// How a move comes to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
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
pub const PATIENT: Duration = Duration::from_secs(600);
pub const HASTY: Duration = Duration::from_secs(1);

/// Rows that together are more than a portion holds.
const MUCH: u64 = 12;

impl Course {
    /// The one that leads to a step.
    pub fn to(point: CrashPoint) -> Course {
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

    /// Where a driver waits for what brings this about.
    pub fn held(self) -> Option<CrashPoint> {
        match self {
            Course::Unfenced | Course::Abandoned => Some(LATE),
            Course::Differing => Some(SUMMED),
            Course::Forward | Course::Behind | Course::Failing => None,
        }
    }

    /// Whether the pause that it is allowed is too short.
    pub fn is_tight(self) -> bool {
        matches!(self, Course::Behind | Course::Failing)
    }

    fn pace(self) -> Pace {
        Pace { max_pause: Some(if self.is_tight() { TIGHT_PAUSE } else { PAUSE }), ..Pace::default() }
    }
}

/// Whether people ask for it.
pub fn is_asked(mark: JobMark) -> bool {
    matches!(mark, JobMark::Abandon | JobMark::Retry)
}

/// A cluster under load, with a range that goes back and forth.
pub struct Scene {
    pub cluster: Cluster,
    pub load: Mixed,
    pub shuttle: Shuttle,
    /// Talks to nodes as if it were one.
    stranger: Arc<PeerPool>,
}

impl Scene {
    /// A copy that falls behind for as long as `catch_up` is given up.
    pub async fn start(seed: u64, catch_up: Duration, builder: ClusterBuilder) -> Self {
        let catch_up_ms = i64::try_from(catch_up.as_millis()).unwrap();
        let builder = builder.data_groups(2).set("txn.lock_ttl_ms", 1_000).set("migration.catch_up_ms", catch_up_ms);
        let cluster = builder.start().await.unwrap();
        let client = cluster.client().await.unwrap();
        let load = Mixed::new(seed);
        load.fill(&client).await.unwrap();
        // So that a portion does not hold all of it.
        for n in 0..MUCH {
            client.put(format!("d/much/{n}"), vec![b'm'; 100 << 10]).await.unwrap();
        }
        let groups: [GroupId; 2] = cluster.data_groups().try_into().unwrap();
        let shuttle = Shuttle { client, interval: Mixed::range(), groups };
        let stranger = stranger(&cluster).await;
        Self { cluster, load, shuttle, stranger }
    }

    /// Lets `faults` happen one after the other under load, and judges what the load has seen in the end.
    pub async fn under_load(&self, faults: impl AsyncFnOnce()) {
        let stop = CancellationToken::new();
        let faults = async {
            self.load.advance(5).await.unwrap();
            faults().await;
            self.load.advance(5).await.unwrap();
            stop.cancel();
        };
        let (came_to, ()) = tokio::join!(self.load.run(&self.cluster, &stop), faults);
        eprintln!("{}", self.load);
        self.load.check(&self.cluster, came_to.unwrap()).await.unwrap();
        self.cluster.wait_nothing_left(true, PATIENCE).await.unwrap();
        self.cluster.assert_replicas_equal().await.unwrap();
        let much = Interval::new("d/much/", End::Key("d/much0".into())).unwrap();
        assert_eq!(self.shuttle.client.count(much, None).await.unwrap(), MUCH);
    }

    /// Has each role in other hands: who drives the next move and leads its source and its target.
    pub async fn spread(&self) -> [NodeId; 3] {
        let (source, target) = self.shuttle.ends().await.unwrap();
        self.cluster.spread([GroupId::DEFAULT, source, target]).await.unwrap()
    }

    /// Begins a move on a course.
    pub async fn begin(&self, course: Course) -> JobId {
        self.shuttle.begin(course.pace()).await.unwrap()
    }

    /// Brings about what a move needs to come on its course, while its driver waits for that. `released`, the driver goes on, and
    /// the move is seen to its end. How it ends.
    pub async fn follow(&self, course: Course, driver: &Node, job: JobId, release: impl FnOnce()) -> JobPhase {
        if let Some(held) = course.held() {
            driver.wait_held(held, 1, PATIENCE).await.unwrap();
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
            release();
        }
        if self.shuttle.ended_or_failed(job, PATIENCE).await.unwrap() == JobPhase::Failed {
            assert_eq!(course, Course::Failing);
            self.shuttle.retry(job).await.unwrap();
        }
        self.shuttle.ended(job, PATIENCE).await.unwrap()
    }

    /// What is looked for when a move is over can be seen while it is not.
    async fn assert_seen(&self) {
        let there = self.cluster.leftovers(false).await.unwrap();
        for what in ["leaving", "fenced", "arriving"] {
            assert!(there.iter().any(|leftover| leftover.line.contains(what)), "nothing is {what}: {there:?}");
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
    pub async fn finish(&self, job: JobId, course: Course) -> JobPhase {
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
