//! A new version is rolled out, taken back, and rolled out again, under traffic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drover_client::{Client, CompatAction, CompatResponse, NodeId};
use drover_testkit::Cluster;
use drover_testkit::cluster::{PATIENCE, build_with_version};
use drover_testkit::ledger::Ledger;
use drover_testkit::wait::wait_until;
use drover_testkit::workload::Load;
use tokio_util::sync::CancellationToken;

const ME: &str = "test";
/// The version of this build.
pub(crate) const OWN: &str = concat!(env!("CARGO_PKG_VERSION_MAJOR"), ".", env!("CARGO_PKG_VERSION_MINOR"));
/// A version rises only after all nodes have served for ten seconds.
const SETTLE: Duration = Duration::from_secs(90);

async fn state(client: &Client) -> CompatResponse {
    client.compat(CompatAction::Show, ME).await.unwrap()
}

fn shown(version: Option<&drover_client::SoftwareVersion>) -> String {
    version.map_or("-".to_owned(), |version| format!("{}.{}", version.major, version.minor))
}

/// Waits until the cluster has this version.
pub(crate) async fn cluster_version(client: &Client, wanted: &str) {
    wait_until("the cluster's version to rise", SETTLE, || async {
        let now = shown(state(client).await.cluster_version.as_ref());
        if now == wanted { Ok(()) } else { Err(now) }
    })
    .await
    .unwrap();
}

/// Waits until each of these nodes is known to run this version.
async fn versions(client: &Client, wanted: &[(u64, &str)]) {
    wait_until("nodes to report their versions", PATIENCE, || async {
        let state = state(client).await;
        let found: Vec<(u64, String)> =
            state.nodes.iter().map(|node| (node.node_id, shown(node.version.as_ref()))).collect();
        let all = wanted.iter().all(|(node, version)| found.iter().any(|(n, v)| n == node && v == version));
        if all { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await
    .unwrap();
}

/// Waits until all nodes have served for as long as a version needs to rise.
async fn settled(client: &Client) {
    wait_until("all nodes to have served for ten seconds", SETTLE, || async {
        let state = state(client).await;
        // By the cluster's own time: that of the newest audit event, which is of this very look.
        let events = client.audit_events(1).await.map_err(|error| error.to_string())?;
        let now = events.last().map_or(0, |event| event.at_unix_ms);
        let since: Vec<u64> = state.nodes.iter().map(|node| node.serving_since_unix_ms).collect();
        match since.iter().all(|since| *since != 0 && since + 10_000 <= now) {
            true => Ok(()),
            false => Err(format!("{since:?} at {now}")),
        }
    })
    .await
    .unwrap();
}

/// Stops a node and starts it from another binary; `None` is this build.
pub(crate) async fn replace(cluster: &Cluster, node: NodeId, binary: &Option<PathBuf>) {
    let node = cluster.node(node);
    assert!(node.terminate(PATIENCE).await.unwrap().success());
    node.set_binary(binary.clone());
    node.start().unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_cluster_can_go_back_and_one_that_was_let_go_cannot() {
    let cluster = Cluster::builder().start().await.unwrap();
    let builds = tempfile::tempdir().unwrap();
    let (old, new) = (None, Some(build_with_version("7.3", builds.path()).unwrap()));
    let client = Client::connect(cluster.endpoints()).await.unwrap();
    let own = OWN.to_owned();
    let ledger = Arc::new(Ledger::new());
    let stop = CancellationToken::new();
    let rows = (0u64..).map(|n| (format!("k{n:08}").into(), "value".into()));
    let load = Load { rows, on_row: Arc::new(|_, _| {}) };
    let writers = Client::connect(cluster.endpoints()).await.unwrap();
    let rolling = async {
        let is = async |wanted: &str| {
            let state = state(&client).await;
            assert_eq!(
                (shown(state.cluster_version.as_ref()), shown(state.high_water.as_ref())),
                (wanted.into(), wanted.into())
            );
        };
        cluster_version(&client, &own).await;
        client.compat(CompatAction::Freeze, ME).await.unwrap();

        // Rolled out, in mixed versions.
        for id in cluster.node_ids() {
            replace(&cluster, id, &new).await;
        }
        versions(&client, &[(1, "7.3"), (2, "7.3"), (3, "7.3")]).await;
        is(&own).await;

        // Taken back altogether, and only then let go: nothing is left for which the version could rise.
        for id in cluster.node_ids() {
            replace(&cluster, id, &old).await;
        }
        versions(&client, &[(1, &own), (2, &own), (3, &own)]).await;
        let unfrozen = client.compat(CompatAction::Unfreeze, ME).await.unwrap();
        assert_eq!((shown(unfrozen.cluster_version.as_ref()), unfrozen.freeze), (own.clone(), None));
        settled(&client).await;
        is(&own).await;

        // Forward again. The first node in the new version does not make it rise, the last one does.
        for id in cluster.node_ids() {
            is(&own).await;
            replace(&cluster, id, &new).await;
        }
        cluster_version(&client, "7.3").await;
        is("7.3").await;

        // No way back.
        let node = cluster.node(NodeId(3));
        assert!(node.terminate(PATIENCE).await.unwrap().success());
        node.set_binary(old.clone());
        node.start().unwrap();
        let status = node.wait_exit(PATIENCE).await.unwrap();
        assert!(!status.success(), "{status}");
        assert!(node.log().contains("Upgrade the node to 7.3 or later"), "{}", node.log());
        node.set_binary(new.clone());
        node.start().unwrap();
        cluster.wait_ready(PATIENCE).await.unwrap();
        stop.cancel();
    };
    tokio::join!(load.run(vec![writers; 4], &ledger, &stop), rolling);
    let (acknowledged, refused, unknown) = ledger.tally();
    assert!(acknowledged > 100, "only {acknowledged} writes");
    assert_eq!((refused, unknown), (0, 0));
    ledger.audit(&cluster.all_rows(cluster.node_ids()[0]).await.unwrap()).assert_clean();
    cluster.assert_replicas_equal().await.unwrap();
}
