//! Moves that are wrong, late or impossible: each is refused as `docs/errors.md` says, before anything was changed, and a
//! dry run tells the same.

use std::collections::HashMap;

use drover_client::{Client, CompatAction, GroupId, NodeId};
use drover_kv::{Certainty, Error, Reason};
use drover_testkit::Cluster;
use drover_testkit::cluster::{PATIENCE, build_with_version};
use drover_testkit::wait::wait_until;
use drover_wire::proto::v1;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use drover_wire::proto::v1::distribution_client::DistributionClient;
use drover_wire::proto::v1::split_job::Phase;
use drover_wire::proto::v1::start_split_migration_request::What;
use drover_wire::status_to_error;
use tonic::transport::Channel;

use crate::disk_full::{SmallDisk, may_mount};
use crate::upgrade::{OWN, cluster_version, replace};

/// The group of the left route, and that of the right one.
const LEFT: u64 = 2;
const RIGHT: u64 = 3;

struct Fixture {
    cluster: Cluster,
    distribution: DistributionClient<Channel>,
    client: Client,
    /// Names the next request.
    next: u8,
}

impl Fixture {
    /// One node is enough where nothing is about replication.
    async fn new() -> Self {
        Self::over(Cluster::builder().nodes(1).data_groups(2).start().await.unwrap()).await
    }

    /// Talks to node 1.
    async fn over(cluster: Cluster) -> Self {
        let distribution = DistributionClient::connect(format!("http://{}", cluster.endpoints()[0])).await.unwrap();
        let client = cluster.client().await.unwrap().with_deadline(PATIENCE);
        // Until the nodes have said what they can do, nothing is moved.
        wait_until("all nodes to have registered", PATIENCE, || async {
            let nodes = client.nodes().await.map_err(|error| error.to_string())?;
            let able = |node: &drover_client::RegisteredNode| node.capabilities.iter().any(|name| name == "moves");
            if nodes.iter().all(able) { Ok(()) } else { Err(format!("{nodes:?}")) }
        })
        .await
        .unwrap();
        Self { cluster, distribution, client, next: 0 }
    }

    /// After node 1 was away.
    async fn reconnect(&mut self) {
        let endpoint = format!("http://{}", self.cluster.endpoints()[0]);
        self.distribution = DistributionClient::connect(endpoint).await.unwrap();
    }

    /// A move of the left route from "c" on to the right group, as the routes are.
    async fn good(&mut self) -> v1::StartSplitMigrationRequest {
        let routes = self.client.routes().await.unwrap();
        self.next += 1;
        v1::StartSplitMigrationRequest {
            expected_version: routes.version.0,
            route_id: routes.routes[0].route_id,
            what: Some(What::SplitKey("c".into())),
            target_group: RIGHT,
            request_id: vec![self.next; 16].into(),
            actor: "test".to_owned(),
            timeout_ms: 20_000,
            ..v1::StartSplitMigrationRequest::default()
        }
    }

    async fn start(&mut self, request: v1::StartSplitMigrationRequest) -> Result<v1::SplitJob, Error> {
        let answer =
            self.distribution.start_split_migration(request).await.map_err(|status| status_to_error(&status))?;
        Ok(answer.into_inner().job.unwrap())
    }

    async fn plan(&mut self, request: v1::StartSplitMigrationRequest) -> v1::MovePlan {
        let request = v1::StartSplitMigrationRequest { dry_run: true, ..request };
        let answer = self.distribution.start_split_migration(request).await.unwrap().into_inner();
        assert_eq!(answer.job, None, "a dry run creates nothing");
        answer.plan.unwrap()
    }

    /// The numbers of all jobs, the newest first.
    async fn ids(&mut self) -> Vec<u64> {
        let request = v1::ListSplitJobsRequest { timeout_ms: 20_000, ..v1::ListSplitJobsRequest::default() };
        let jobs = self.distribution.list_split_jobs(request).await.unwrap().into_inner().jobs;
        jobs.iter().map(|status| status.job.as_ref().unwrap().job_id).collect()
    }

    /// As [`Fixture::good`], at the lowest rate.
    async fn slow(&mut self) -> v1::StartSplitMigrationRequest {
        let options = options(&[("max_bytes_per_second", "65536")]);
        v1::StartSplitMigrationRequest { options, ..self.good().await }
    }

    /// Starts a slow move and pauses it, so soon that the job stays as it is. The range holds something: see
    /// [`Fixture::fill`].
    async fn start_held(&mut self, request: v1::StartSplitMigrationRequest) -> v1::SplitJob {
        let job = self.start(request).await.unwrap();
        let pause = self.change(job.job_id);
        self.distribution.pause_split_job(pause).await.unwrap();
        job
    }

    /// Writes a megabyte under each letter of the left route up to "f".
    async fn fill(&self) {
        for key in ["a", "b", "c", "d", "e", "f"] {
            self.client.put(key, noise(1 << 20)).await.unwrap();
        }
    }

    /// Waits until node 1 knows this version of the catalog.
    async fn knows(&self, version: u64) {
        wait_until("node 1 to know the routes", PATIENCE, || async {
            let known = self.client.routes().await.map_err(|error| error.to_string())?.version.0;
            if known >= version { Ok(()) } else { Err(known.to_string()) }
        })
        .await
        .unwrap();
    }

    /// That a move is refused, definitely, that a dry run tells the same, and that nothing was changed; what was said.
    async fn refused(&mut self, request: v1::StartSplitMigrationRequest, reason: Reason, case: &str) -> String {
        let before = (self.ids().await, self.audit().await, self.client.routes().await.unwrap().version);
        let error = self.start(request.clone()).await.expect_err(case);
        assert_eq!((error.reason, error.certainty), (reason, Certainty::Definite), "{case}: {error}");
        assert!(error.message.contains("nothing was changed"), "{case}: {error}");
        let told = self.plan(request).await.refusal.expect(case);
        assert_eq!(told.reason, reason.as_str(), "{case}: {told:?}");
        assert!(told.message.contains("nothing was changed"), "{case}: {told:?}");
        let after = (self.ids().await, self.audit().await, self.client.routes().await.unwrap().version);
        assert_eq!(after, before, "{case}");
        error.message
    }

    /// The jobs that were started, by the audit log: subject and actor.
    async fn audit(&self) -> Vec<(String, String)> {
        let events = self.client.audit_events(100).await.unwrap();
        events
            .into_iter()
            .filter(|event| event.action == "start-job")
            .map(|event| (event.subject, event.actor))
            .collect()
    }

    fn change(&mut self, job: u64) -> v1::ChangeSplitJobRequest {
        self.next += 1;
        let request_id = vec![self.next; 16].into();
        v1::ChangeSplitJobRequest { job_id: job, request_id, actor: "test".to_owned(), timeout_ms: 20_000 }
    }
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(|_| next()).collect()
}

fn key_range(start: &'static str, end: Option<&'static str>) -> Option<What> {
    Some(What::Range(v1::KeyRange { start: start.into(), end: end.map(Into::into) }))
}

fn options(named: &[(&str, &str)]) -> HashMap<String, String> {
    named.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_move_of_what_is_not_there_or_to_where_it_cannot_go_is_refused_and_changes_nothing() {
    let mut this = Fixture::new().await;
    let good = this.good().await;
    type Request = v1::StartSplitMigrationRequest;
    let (version, route) = (good.expected_version, good.route_id);
    let table: [(&str, Reason, &str, Request); 19] = [
        ("an unknown route", Reason::UnknownRoute, "999", Request { route_id: 999, ..good.clone() }),
        ("an unknown route and a range", Reason::UnknownRoute, "999", {
            Request { route_id: 999, what: key_range("a", Some("b")), ..good.clone() }
        }),
        ("an unknown group", Reason::UnknownGroup, "99", Request { target_group: 99, ..good.clone() }),
        ("no group", Reason::UnknownGroup, "group 0", Request { target_group: 0, ..good.clone() }),
        (
            "the group that has it",
            Reason::FailedPrecondition,
            "group 2",
            Request { target_group: LEFT, ..good.clone() },
        ),
        ("a key of another route", Reason::InvalidArgument, "z", {
            Request { what: Some(What::SplitKey("z".into())), ..good.clone() }
        }),
        ("the first key of the route", Reason::InvalidArgument, "nothing to split", {
            Request { what: Some(What::SplitKey("".into())), ..good.clone() }
        }),
        ("the key behind the last one", Reason::InvalidArgument, "nothing to split", {
            Request { what: Some(What::SplitKey("n".into())), ..good.clone() }
        }),
        ("a range over the end of the route", Reason::InvalidArgument, "does not hold all", {
            Request { what: key_range("c", Some("z")), ..good.clone() }
        }),
        ("a range without end", Reason::InvalidArgument, "does not hold all", {
            Request { what: key_range("c", None), ..good.clone() }
        }),
        ("a reversed range", Reason::RangeReversed, "", Request { what: key_range("d", Some("c")), ..good.clone() }),
        ("no range", Reason::InvalidArgument, "split_key", Request { what: None, ..good.clone() }),
        ("a version that is to come", Reason::VersionMismatch, "read the routes", {
            Request { expected_version: version + 1, ..good.clone() }
        }),
        ("no pause at all", Reason::InvalidArgument, "from 10 to 60000", {
            Request { options: options(&[("max_pause_ms", "0")]), ..good.clone() }
        }),
        ("a pause of weeks", Reason::InvalidArgument, "from 10 to 60000", {
            Request { options: options(&[("max_pause_ms", "9999999999")]), ..good.clone() }
        }),
        ("a byte a second", Reason::InvalidArgument, "at least 65536", {
            Request { options: options(&[("max_bytes_per_second", "1")]), ..good.clone() }
        }),
        ("a rate that is no number", Reason::InvalidArgument, "whole number", {
            Request { options: options(&[("max_bytes_per_second", "-5")]), ..good.clone() }
        }),
        ("an unknown option", Reason::InvalidArgument, "there is no option \"speed\"; there are max_pause_ms", {
            Request { options: options(&[("speed", "1")]), ..good.clone() }
        }),
        ("a key that is too long", Reason::KeyTooLarge, "", {
            Request { what: Some(What::SplitKey(vec![b'c'; 5_000].into())), ..good.clone() }
        }),
    ];
    for (case, reason, says, request) in table {
        let message = this.refused(request, reason, case).await;
        assert!(message.contains(says), "{case}: {message}");
    }

    // By a map that is not the newest.
    let (looked_at, route) = (drover_client::CatalogVersion(version), drover_client::RouteId(route));
    let halves = this.client.split_route(looked_at, route, "k", "test").await.unwrap();
    this.knows(halves.version).await;
    let message = this.refused(good.clone(), Reason::VersionMismatch, "an old version").await;
    assert!(message.contains("read the routes"), "{message}");

    // Without an identity it is not known again; a dry run needs none.
    let nameless = Request { request_id: "short".into(), ..this.good().await };
    let error = this.start(nameless.clone()).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::InvalidArgument, false), "{error}");
    assert_eq!(this.plan(nameless).await.refusal, None);
    assert_eq!(this.ids().await, [0u64; 0]);
}

#[tokio::test]
async fn a_dry_run_tells_what_a_move_comes_to_and_creates_nothing() {
    let mut this = Fixture::new().await;
    for key in ["a", "c", "d", "e", "z"] {
        this.client.put(key, "v").await.unwrap();
    }
    let good = this.good().await;
    let audit = this.audit().await;
    let plan = this.plan(good.clone()).await;
    assert_eq!((plan.refusal, plan.start, plan.end), (None, "c".into(), Some("n".into())));
    assert_eq!((plan.source_group, plan.target_group, plan.keys), (LEFT, RIGHT, Some(3)));
    let bytes = plan.approximate_bytes.unwrap();
    assert_eq!(plan.copy_ms, Some(bytes * 1_000 / (50 << 20)));
    let rooms: Vec<(u64, &str)> = plan.rooms.iter().map(|room| (room.node_id, room.error.as_str())).collect();
    assert_eq!(rooms, [(1, "")]);
    assert!(plan.rooms[0].free_bytes > plan.rooms[0].reserve_bytes, "{:?}", plan.rooms);

    let all = v1::StartSplitMigrationRequest { what: key_range("", Some("n")), ..good.clone() };
    let unlimited = v1::StartSplitMigrationRequest { options: options(&[("max_bytes_per_second", "0")]), ..all };
    let plan = this.plan(unlimited).await;
    assert_eq!((plan.refusal, plan.keys, plan.copy_ms), (None, Some(4), None));

    assert_eq!((this.ids().await, this.audit().await), (Vec::new(), audit));
    // The dry run has not used up the id.
    let job = this.start(good.clone()).await.unwrap();
    assert_eq!((job.start.clone(), job.end.clone(), job.from_route), ("c".into(), Some("n".into()), good.route_id));
    assert_eq!(this.audit().await, [(format!("job {}", job.job_id), "test".to_owned())]);
}

#[tokio::test]
async fn a_start_that_is_sent_again_gets_the_first_answer_whatever_has_become_of_the_routes() {
    let mut this = Fixture::new().await;
    this.fill().await;
    let good = this.slow().await;
    let job = this.start_held(good.clone()).await;
    assert_eq!(this.start(good.clone()).await.unwrap(), job);
    // The other route is divided: the version that the request names is over.
    let right = this.client.routes().await.unwrap();
    let route = drover_client::RouteId(right.routes[1].route_id);
    let divided = this.client.split_route(right.version, route, "t", "test").await.unwrap();
    assert!(divided.version > good.expected_version);
    this.knows(divided.version).await;
    assert_eq!(this.start(good.clone()).await.unwrap(), job);
    assert_eq!(this.ids().await, [job.job_id]);
    // The same id for something else is no retry.
    let other = v1::StartSplitMigrationRequest { target_group: 1, ..good };
    let error = this.start(other).await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::IdempotencyReused, false), "{error}");
}

#[tokio::test]
async fn a_second_job_over_the_same_keys_is_refused_until_the_first_has_ended() {
    let mut this = Fixture::new().await;
    this.fill().await;
    let slow = this.slow().await;
    let job = this.start_held(slow).await;
    let again = this.good().await;
    let table = [
        ("the same", again.what.clone()),
        ("a part of it", key_range("d", Some("e"))),
        ("more than it", key_range("a", Some("n"))),
        ("all of the route", key_range("", Some("n"))),
    ];
    for (case, what) in table {
        let request = v1::StartSplitMigrationRequest { what, target_group: 1, ..again.clone() };
        let message = this.refused(request, Reason::FailedPrecondition, case).await;
        assert!(message.contains(&format!("job {} moves keys of", job.job_id)), "{case}: {message}");
    }
    // What it does not touch may move; the key where it begins is not part of that.
    let beside = v1::StartSplitMigrationRequest { what: key_range("", Some("c")), ..again };
    let beside = this.start(beside).await.unwrap();
    assert_eq!((beside.job_id, beside.end), (job.job_id + 1, Some("c".into())));
}

#[tokio::test]
async fn a_job_is_called_off_paused_and_resumed_and_what_does_not_fit_is_refused() {
    let mut this = Fixture::new().await;
    this.fill().await;
    let slow = this.slow().await;
    let job = this.start_held(slow).await.job_id;
    let resume = this.change(job);
    this.distribution.resume_split_job(resume).await.unwrap();
    let error = |status: tonic::Status| status_to_error(&status);

    let unknown = this.change(99);
    let answers = [
        this.distribution.abandon_split_job(unknown.clone()).await,
        this.distribution.retry_split_job(unknown.clone()).await,
        this.distribution.pause_split_job(unknown.clone()).await,
        this.distribution.resume_split_job(unknown).await,
    ];
    for answer in answers {
        let error = error(answer.unwrap_err());
        assert_eq!((error.reason, error.is_unknown()), (Reason::UnknownJob, false), "{error}");
    }
    let get = v1::GetSplitJobRequest { job_id: 99, timeout_ms: 20_000 };
    assert_eq!(error(this.distribution.get_split_job(get).await.unwrap_err()).reason, Reason::UnknownJob);
    let watch = v1::WatchSplitJobRequest { job_id: 99 };
    assert_eq!(error(this.distribution.watch_split_job(watch).await.unwrap_err()).reason, Reason::UnknownJob);

    let retry = this.change(job);
    let refused = error(this.distribution.retry_split_job(retry).await.unwrap_err());
    assert_eq!((refused.reason, refused.is_unknown()), (Reason::FailedPrecondition, false));
    assert!(refused.message.contains("only a job that has failed can be tried again"), "{refused}");

    let pause = this.change(job);
    let paused = this.distribution.pause_split_job(pause.clone()).await.unwrap().into_inner().job.unwrap();
    assert!(paused.paused);
    let again = this.distribution.pause_split_job(pause).await.unwrap().into_inner().job.unwrap();
    assert_eq!(again, paused, "the same request gets the same answer");
    let resume = this.change(job);
    assert!(!this.distribution.resume_split_job(resume).await.unwrap().into_inner().job.unwrap().paused);

    let abandon = this.change(job);
    let abandoned = this.distribution.abandon_split_job(abandon).await.unwrap().into_inner().job.unwrap();
    assert!(matches!(abandoned.phase(), Phase::Abandoning | Phase::Abandoned), "{abandoned:?}");
    assert_eq!(abandoned.epoch, paused.epoch + 1);
    let actions = this.client.audit_events(10).await.unwrap();
    let details: Vec<&str> =
        actions.iter().filter(|event| event.action == "job").map(|event| event.details.as_str()).collect();
    assert!(details.iter().any(|text| text.starts_with("abandon: ")), "{details:?}");
}

#[tokio::test]
async fn a_move_whose_range_was_handed_over_is_neither_called_off_nor_held_up() {
    let mut this = Fixture::new().await;
    this.fill().await;
    let good = this.good().await;
    let job = this.start(good).await.unwrap().job_id;
    let get = v1::GetSplitJobRequest { job_id: job, timeout_ms: 20_000 };
    let mut events =
        this.distribution.watch_split_job(v1::WatchSplitJobRequest { job_id: job }).await.unwrap().into_inner();
    let is_done = |status: &v1::SplitJobStatus| status.job.as_ref().unwrap().phase() == Phase::Done;
    while !is_done(&events.message().await.unwrap().expect("it goes on until the job has ended")) {}
    let before = (
        this.distribution.get_split_job(get).await.unwrap().into_inner(),
        this.client.routes().await.unwrap(),
        this.client.audit_events(100).await.unwrap(),
    );
    let change = this.change(job);
    let answers = [
        this.distribution.abandon_split_job(change.clone()).await,
        this.distribution.retry_split_job(change.clone()).await,
        this.distribution.pause_split_job(change.clone()).await,
        this.distribution.resume_split_job(change).await,
    ];
    for answer in answers {
        let error = status_to_error(&answer.unwrap_err());
        assert_eq!((error.reason, error.certainty), (Reason::FailedPrecondition, Certainty::Definite), "{error}");
        assert!(error.message.contains("nothing was changed"), "{error}");
    }
    let after = (
        this.distribution.get_split_job(get).await.unwrap().into_inner(),
        this.client.routes().await.unwrap(),
        this.client.audit_events(100).await.unwrap(),
    );
    assert_eq!(after, before);
}

#[tokio::test]
async fn jobs_are_listed_by_what_they_are_in_pages_that_hold_together() {
    let mut this = Fixture::new().await;
    this.fill().await;
    let ranges = [("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")];
    let mut ids = Vec::new();
    for (start, end) in ranges {
        let target_group = if start < "c" { RIGHT } else { 1 };
        let request = this.slow().await;
        let what = key_range(start, Some(end));
        ids.push(this.start_held(v1::StartSplitMigrationRequest { what, target_group, ..request }).await.job_id);
    }
    ids.reverse();
    assert_eq!(this.ids().await, ids);

    let mut list = v1::ListSplitJobsRequest { limit: 2, timeout_ms: 20_000, ..v1::ListSplitJobsRequest::default() };
    let mut pages = Vec::new();
    loop {
        let page = this.distribution.list_split_jobs(list.clone()).await.unwrap().into_inner();
        pages.push(page.jobs.iter().map(|status| status.job.as_ref().unwrap().job_id).collect::<Vec<_>>());
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
        let other = v1::ListSplitJobsRequest { target_group: RIGHT, ..list.clone() };
        let error = status_to_error(&this.distribution.list_split_jobs(other).await.unwrap_err());
        assert_eq!(error.reason, Reason::CursorInvalid, "the next page of another listing: {error}");
    }
    assert_eq!(pages, ids.chunks(2).map(<[u64]>::to_vec).collect::<Vec<_>>());

    let count = async |this: &mut Fixture, request: v1::ListSplitJobsRequest| {
        let request = v1::ListSplitJobsRequest { timeout_ms: 20_000, ..request };
        this.distribution.list_split_jobs(request).await.unwrap().into_inner().jobs.len()
    };
    let all = v1::ListSplitJobsRequest::default;
    assert_eq!(count(&mut this, v1::ListSplitJobsRequest { target_group: RIGHT, ..all() }).await, 2);
    assert_eq!(count(&mut this, v1::ListSplitJobsRequest { source_group: RIGHT, ..all() }).await, 0);
    assert_eq!(count(&mut this, v1::ListSplitJobsRequest { source_group: LEFT, ..all() }).await, 5);
    let bad = [
        (v1::ListSplitJobsRequest { page_token: "nonsense".into(), ..all() }, Reason::CursorInvalid),
        (v1::ListSplitJobsRequest { which: 7, ..all() }, Reason::InvalidArgument),
        (v1::ListSplitJobsRequest { phases: vec![0], ..all() }, Reason::InvalidArgument),
    ];
    for (request, reason) in bad {
        let error = status_to_error(&this.distribution.list_split_jobs(request).await.unwrap_err());
        assert_eq!((error.reason, error.is_unknown()), (reason, false), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_starts_shows_and_follows_a_job() {
    let mut this = Fixture::over(Cluster::builder().data_groups(2).start().await.unwrap()).await;
    this.fill().await;
    let slow = this.slow().await;
    let job = this.start_held(slow).await;
    for endpoint in this.cluster.endpoints() {
        let mut node = DistributionClient::connect(format!("http://{endpoint}")).await.unwrap();
        let get = v1::GetSplitJobRequest { job_id: job.job_id, timeout_ms: 20_000 };
        let shown = node.get_split_job(get).await.unwrap().into_inner();
        assert_eq!(shown.job.map(|shown| (shown.job_id, shown.start)), Some((job.job_id, job.start.clone())));
        let watch = v1::WatchSplitJobRequest { job_id: job.job_id };
        let mut events = node.watch_split_job(watch).await.unwrap().into_inner();
        let first = events.message().await.unwrap().unwrap().job.unwrap();
        assert_eq!(first.job_id, job.job_id);
        assert!(first.paused);
        // Somebody changes it, through another node: the stream tells it.
        let (resume, pause) = (this.change(job.job_id), this.change(job.job_id));
        this.distribution.resume_split_job(resume).await.unwrap();
        while events.message().await.unwrap().unwrap().job.unwrap().paused {}
        this.distribution.pause_split_job(pause).await.unwrap();
        while !events.message().await.unwrap().unwrap().job.unwrap().paused {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_refused_while_a_group_has_no_majority_or_a_node_cannot_take_part() {
    let mut this = Fixture::over(Cluster::builder().nodes(3).data_groups(2).start().await.unwrap()).await;
    // A node of an older build: it is live, and knows nothing of moves.
    let mut cluster = ClusterClient::connect(format!("http://{}", this.cluster.endpoints()[0])).await.unwrap();
    let old = v1::RegisterNodeRequest {
        store_id: vec![9; 16].into(),
        grpc_address: "127.0.0.1:1".to_owned(),
        admin_address: "127.0.0.1:2".to_owned(),
        version: Some(v1::SoftwareVersion { major: 0, minor: 2 }),
        capabilities: vec!["catalog".to_owned()],
        request_id: vec![200; 16].into(),
        actor: "test".to_owned(),
        timeout_ms: 20_000,
        ..v1::RegisterNodeRequest::default()
    };
    let node = cluster.register_node(old).await.unwrap().into_inner().node_id;
    let good = this.good().await;
    let message = this.refused(good, Reason::FailedPrecondition, "an old node").await;
    assert!(message.contains("\"moves\"") && message.contains(&format!("node {node}")), "{message}");
    this.client.remove_node(NodeId(node), "test").await.unwrap();
    let good = this.good().await;
    assert_eq!(this.plan(good).await.refusal, None);

    // The target is left to one node, and that one is gone.
    let target = GroupId(RIGHT);
    for node in [1, 2].map(NodeId) {
        this.client.remove_replicas(target, &[node], "test").await.unwrap();
        wait_until("the replica to be gone", PATIENCE, || async {
            let groups = this.client.groups().await.map_err(|error| error.to_string())?;
            let group = groups.into_iter().find(|group| group.group_id == RIGHT).unwrap();
            if group.replicas.iter().any(|replica| replica.node_id == node.0) {
                Err(format!("{group:?}"))
            } else {
                Ok(())
            }
        })
        .await
        .unwrap();
    }
    this.cluster.node(NodeId(3)).kill().unwrap();
    wait_until("the node to count as gone", PATIENCE, || async {
        let nodes = this.client.nodes().await.map_err(|error| error.to_string())?;
        if nodes.iter().any(|node| node.node_id == 3 && node.live) { Err(format!("{nodes:?}")) } else { Ok(()) }
    })
    .await
    .unwrap();
    let good = this.good().await;
    let message = this.refused(good, Reason::FailedPrecondition, "no quorum").await;
    assert!(message.contains("only 0 of the 1 voters of group 3 are on live nodes"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_refused_while_the_cluster_is_older_than_moves_or_frozen_there() {
    let builds = tempfile::tempdir().unwrap();
    let old = Some(build_with_version("0.1", builds.path()).unwrap());
    let cluster = Cluster::builder().nodes(2).data_groups(2).prepare().unwrap();
    for node in cluster.nodes() {
        node.set_binary(old.clone());
        node.start().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    let mut this = Fixture::over(cluster).await;
    cluster_version(&this.client, "0.1").await;
    let too_low = async |this: &mut Fixture, case: &str| {
        let good = this.good().await;
        let message = this.refused(good, Reason::FailedPrecondition, case).await;
        assert!(message.contains("0.2") && message.contains("0.1"), "{case}: {message}");
    };
    too_low(&mut this, "too old").await;
    this.client.compat(CompatAction::Freeze, "test").await.unwrap();
    for id in this.cluster.node_ids() {
        replace(&this.cluster, id, &None).await;
    }
    this.reconnect().await;
    too_low(&mut this, "frozen below").await;
    this.client.compat(CompatAction::Unfreeze, "test").await.unwrap();
    cluster_version(&this.client, OWN).await;
    let good = this.good().await;
    assert_eq!(this.plan(good).await.refusal, None);
}

#[tokio::test]
async fn a_copy_for_which_the_target_has_no_room_is_refused_before_there_is_a_job() {
    if !may_mount() {
        return;
    }
    const RESERVE: u64 = 32 << 20;
    let builder = Cluster::builder().nodes(1).data_groups(2).set("disk.reserve_bytes", RESERVE as i64);
    let builder = builder.set("disk.check_interval_ms", 50).set("storage.write_buffer_bytes", 1 << 20);
    let builder = builder.set("storage.raftlog_file_bytes", 4 << 20).set("storage.raftlog_max_bytes", 16 << 20);
    let cluster = builder.prepare().unwrap();
    let node = cluster.node(NodeId(1));
    let disk = SmallDisk::mount(node.data_dir(), 512);
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    let mut this = Fixture::over(cluster).await;
    for n in 0..64 {
        this.client.put(format!("d{n:02}"), noise(1 << 20)).await.unwrap();
    }
    let good = this.good().await;
    let bytes = wait_until("the range to be on disk", PATIENCE, || {
        let mut distribution = this.distribution.clone();
        let request = v1::StartSplitMigrationRequest { dry_run: true, ..good.clone() };
        async move {
            let answer = distribution.start_split_migration(request).await.map_err(|status| status.to_string())?;
            let bytes = answer.into_inner().plan.unwrap().approximate_bytes.unwrap();
            if bytes > 48 << 20 { Ok(bytes) } else { Err(format!("{bytes} bytes")) }
        }
    })
    .await
    .unwrap();
    assert_eq!(this.plan(good.clone()).await.refusal, None, "there is room for {bytes} bytes");
    // Less than the copy fits above the reserve, whatever the Raft log gives back yet: the disk is not full, and has no room.
    let ballast = disk.leave_free(((RESERVE * 5 / 4) >> 20) + 4);
    wait_until("the node to look at its disk", PATIENCE, || async {
        let status = this.cluster.node_status(NodeId(1)).await.map_err(|error| error.to_string())?;
        let above = status.disk_free_bytes.saturating_sub(RESERVE);
        assert!(!status.disk_full, "{status:?}");
        if above < bytes { Ok(()) } else { Err(format!("{above} bytes above the reserve")) }
    })
    .await
    .unwrap();
    let message = this.refused(good.clone(), Reason::FailedPrecondition, "no room").await;
    assert!(message.contains("node 1 holds a replica of group 3, and has no room"), "{message}");
    std::fs::remove_file(ballast).unwrap();
    wait_until("the node to look at its disk again", PATIENCE, || async {
        let status = this.cluster.node_status(NodeId(1)).await.map_err(|error| error.to_string())?;
        if status.disk_free_bytes > RESERVE + 2 * bytes { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await
    .unwrap();
    // What this move will take is not there for another one.
    let slow = v1::StartSplitMigrationRequest { options: options(&[("max_bytes_per_second", "65536")]), ..good };
    let job = this.start_held(slow).await;
    let beside = v1::StartSplitMigrationRequest { what: key_range("a", Some("b")), ..this.good().await };
    let plan = this.plan(beside.clone()).await;
    assert_eq!(plan.refusal, None);
    let pending = plan.rooms[0].pending_bytes;
    assert!((40 << 20..80 << 20).contains(&pending), "{pending} bytes of 64 MiB");
    let change = this.change(job.job_id);
    this.distribution.abandon_split_job(change).await.unwrap();
    wait_until("nothing to be on its way", PATIENCE, || {
        let mut distribution = this.distribution.clone();
        let request = v1::StartSplitMigrationRequest { dry_run: true, ..beside.clone() };
        async move {
            let answer = distribution.start_split_migration(request).await.map_err(|status| status.to_string())?;
            let pending = answer.into_inner().plan.unwrap().rooms[0].pending_bytes;
            if pending == 0 { Ok(()) } else { Err(pending.to_string()) }
        }
    })
    .await
    .unwrap();
    // The node has to go before its disk does.
    drop(this);
    drop(disk);
}
