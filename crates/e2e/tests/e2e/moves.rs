//! Ranges of a running cluster move between groups, while clients use them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_client::{
    Client, End, GroupId, Interval, JobId, JobPhase, MoveRequest, MoveWhat, RouteId, SplitJobStatus, has_ended,
};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::ledger::Ledger;
use drover_testkit::wait::wait_until;
use drover_testkit::workload::{Load, LoadReport};
use tokio_util::sync::CancellationToken;

/// Waits until every node has said what it can do.
async fn all_live(client: &Client, count: usize) {
    wait_until("all nodes to be registered", PATIENCE, || async {
        let nodes = client.nodes().await.map_err(|error| error.to_string())?;
        let live = nodes.iter().filter(|node| node.live).count();
        if live == count { Ok(()) } else { Err(format!("{live} are live")) }
    })
    .await
    .unwrap();
}

/// The route that holds `key` now.
async fn route_of(client: &Client, key: &str) -> (drover_client::CatalogVersion, drover_client::Route) {
    let routes = client.routes().await.unwrap();
    let after = routes.routes.partition_point(|route| route.start.as_ref() <= key.as_bytes());
    (routes.version, routes.routes[after - 1].clone())
}

/// Begins to move what of the route of `key` lies from there on to `target`.
async fn start(client: &Client, key: &'static str, target: GroupId) -> JobId {
    let (expected, route) = route_of(client, key).await;
    let end = route.end.map_or(End::Unbounded, End::Key);
    let asked = MoveRequest {
        expected,
        route: RouteId(route.route_id),
        what: MoveWhat::Range(Interval::new(key, end).unwrap()),
        target,
        max_pause: None,
        max_bytes_per_second: None,
    };
    JobId(client.start_move(&asked, "test").await.unwrap().job_id)
}

/// Waits until a job has ended.
async fn ended(client: &Client, job: JobId) -> SplitJobStatus {
    let waiting = async {
        loop {
            let status = client.job(job).await.unwrap();
            if has_ended(status.job.as_ref().unwrap().phase()) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), waiting).await {
        Ok(status) => status,
        Err(_) => panic!("the job does not end: {:?}", client.job(job).await),
    }
}

/// Writes and reads what it wrote, until it is stopped; how long each of either took.
struct Traffic {
    cluster: Cluster,
    mover: Client,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
}

impl Traffic {
    async fn new() -> Self {
        let cluster = Cluster::builder().start().await.unwrap();
        let mover = Client::connect(cluster.endpoints()).await.unwrap();
        all_live(&mover, cluster.nodes().len()).await;
        Self { cluster, mover, ledger: Arc::new(Ledger::new()), stop: CancellationToken::new() }
    }

    /// Writes with 16 tasks while `work` goes on.
    async fn during<T>(&self, work: impl Future<Output = T>) -> (LoadReport, T) {
        let client = Client::connect(self.cluster.endpoints()).await.unwrap();
        let rows = (0u64..).map(|n| (format!("{:08}", n * 7_919 % 100_000_000).into(), Bytes::from(vec![b'v'; 100])));
        let load = Load { rows, on_row: Arc::new(|_, _| {}) };
        let working = async {
            let done = work.await;
            self.stop.cancel();
            done
        };
        tokio::join!(load.run(vec![client; 16], &self.ledger, &self.stop), working)
    }

    /// The other data group than that of the route of `key`.
    async fn other_group(&self, key: &str) -> GroupId {
        let (_, route) = route_of(&self.mover, key).await;
        self.cluster.data_groups().into_iter().find(|group| group.0 != route.group_id).unwrap()
    }

    async fn assert_whole(&self) {
        for node in self.cluster.node_ids() {
            self.ledger.audit(&self.cluster.all_rows(node).await.unwrap()).assert_clean();
        }
        self.cluster.assert_replicas_equal().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_moves_back_and_forth_under_writes_without_an_error_or_a_loss() {
    const MOVES: usize = 20;
    let traffic = Traffic::new().await;
    let moving = async {
        for _ in 0..MOVES {
            let target = traffic.other_group("05").await;
            let job = start(&traffic.mover, "05", target).await;
            let status = ended(&traffic.mover, job).await;
            assert_eq!(status.job.unwrap().phase(), JobPhase::Done);
            assert_eq!(route_of(&traffic.mover, "05").await.1.group_id, target.0);
        }
    };
    let (report, ()) = traffic.during(moving).await;
    let (acknowledged, refused, unknown) = traffic.ledger.tally();
    println!(
        "{acknowledged} writes, p50 {:?} p99 {:?} p99.9 {:?} max {:?}",
        report.latency(50.0),
        report.latency(99.0),
        report.latency(99.9),
        report.latency(100.0)
    );
    assert!(acknowledged > 100, "only {acknowledged} writes");
    assert_eq!((refused, unknown), (0, 0));
    traffic.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_moves_although_the_leaders_of_all_that_is_concerned_are_killed() {
    let traffic = Traffic::new().await;
    let moving = async {
        for n in 0..6 {
            let (_, route) = route_of(&traffic.mover, "05").await;
            let target = traffic.other_group("05").await;
            let victims = [GroupId::DEFAULT, GroupId(route.group_id), target];
            let victim = traffic.cluster.leader(victims[n % 3], PATIENCE).await.unwrap();
            let job = start(&traffic.mover, "05", target).await;
            tokio::time::sleep(Duration::from_millis(20 * n as u64)).await;
            traffic.cluster.node(victim).kill().unwrap();
            let status = ended(&traffic.mover, job).await;
            assert_eq!(status.job.unwrap().phase(), JobPhase::Done);
            traffic.cluster.node(victim).start().unwrap();
            traffic.cluster.wait_ready(PATIENCE).await.unwrap();
            all_live(&traffic.mover, 3).await;
        }
    };
    let (_, ()) = traffic.during(moving).await;
    let (acknowledged, refused, _) = traffic.ledger.tally();
    println!("{acknowledged} writes");
    assert!(acknowledged > 100, "only {acknowledged} writes");
    assert_eq!(refused, 0);
    traffic.assert_whole().await;
}
