//! A node whose disk is nearly full refuses writes before anything happened, serves reads, and recovers by itself.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_client::{Client, Interval, RetryPolicy};
use drover_keys::NodeId;
use drover_kv::Reason;
use drover_testkit::Cluster;
use drover_testkit::cluster::{Node, PATIENCE, http_get};
use drover_testkit::ledger::Ledger;
use drover_testkit::wait::wait_until;
use drover_testkit::workload::Load;
use tokio_util::sync::CancellationToken;

/// A file system of its own in memory.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path, megabytes: u32) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={megabytes}m");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status().unwrap();
        assert!(status.success(), "mount ended with {status}");
        Self(path.to_owned())
    }

    /// Puts a file there so that this much is free. Returns its path.
    pub fn leave_free(&self, megabytes: u64) -> PathBuf {
        let ballast = self.0.join("ballast");
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let bytes = (stat.f_bavail * stat.f_frsize).saturating_sub(megabytes << 20);
        std::fs::write(&ballast, vec![0x55; usize::try_from(bytes).unwrap()]).unwrap();
        ballast
    }

    /// Puts a file there that takes whatever is left, to the last block. Returns its path.
    fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        loop {
            match file.write_all(&[0x55; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return ballast,
                Err(error) => panic!("{}: {error}", ballast.display()),
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: the node may still hold files.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Whether this process may mount a disk. Where tests that need root have to run, it fails instead of saying no.
pub fn may_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let required = std::env::var_os("DROVER_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
        assert!(!required, "DROVER_REQUIRE_ROOT_TESTS=1, and only root can mount a small disk");
        eprintln!("SKIPPED: only root can mount a small disk");
    }
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_and_the_status_of_a_node_tell_the_same_size_of_its_directory() {
    let cluster = Cluster::builder().nodes(1).data_groups(1).start().await.unwrap();
    let node = NodeId(1);
    wait_until("both to tell the same", PATIENCE, async || {
        let status = async || cluster.node_status(node).await.map(|status| status.disk_used_bytes).unwrap();
        let before = status().await;
        let metrics = http_get(&cluster.node(node).admin_address(), "/metrics").await.unwrap().body;
        let named = metrics.lines().find_map(|line| line.strip_prefix("drover_disk_used_bytes ")).unwrap();
        let (told, after) = (named.parse::<u64>().unwrap(), status().await);
        // It is counted now and then, perhaps in between.
        match before == after && before > 0 {
            true if told == before => Ok(()),
            _ => Err(format!("{before} and {after} in the status, {told} in the metrics")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers_when_space_returns() {
    if !may_mount() {
        return;
    }
    let builder = Cluster::builder().nodes(1).data_groups(1).set("disk.reserve_bytes", 32 << 20);
    let builder = builder.set("disk.check_interval_ms", 50).set("storage.raftlog_file_bytes", 4 << 20);
    let cluster = builder.set("storage.raftlog_max_bytes", 16 << 20).prepare().unwrap();
    let node = cluster.node(NodeId(1));
    let disk = SmallDisk::mount(node.data_dir(), 256);
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    let client = Client::builder().endpoints(cluster.endpoints()).retry(RetryPolicy::never()).connect().await.unwrap();
    client.put("before", "full").await.unwrap();

    let ballast = disk.leave_free(24);
    let refused = wait_until("writes to be refused", PATIENCE, async || match client.put("k", "v").await {
        Ok(_) => Err("a write was taken".to_owned()),
        Err(error) if error.reason == Reason::DiskFull => Ok(error),
        Err(error) => Err(error.to_string()),
    });
    let error = refused.await.unwrap();
    assert!(!error.is_unknown(), "{error}");
    assert_eq!(client.get("before").await.unwrap().unwrap().value, "full");
    assert!(cluster.node_status(node.id()).await.unwrap().disk_full);

    std::fs::remove_file(&ballast).unwrap();
    wait_until("writes to be taken again", PATIENCE, async || client.put("after", "full").await).await.unwrap();
    assert!(!cluster.node_status(node.id()).await.unwrap().disk_full);
    // The node has to go before its disk does.
    drop(cluster);
    drop(disk);
}

/// The reserve of nodes in clusters of three. What the Raft log makes ready in advance is small beside it.
const RESERVE_MEGABYTES: u64 = 64;

/// A cluster of three nodes, with a small disk for each of `small`. Everything is in place when the disks fill up.
async fn three(small: &[NodeId]) -> (Cluster, Vec<SmallDisk>) {
    let reserve = i64::try_from(RESERVE_MEGABYTES << 20).unwrap();
    let builder = Cluster::builder().data_groups(1).set("disk.reserve_bytes", reserve);
    let builder = builder.set("disk.check_interval_ms", 50).set("storage.raftlog_file_bytes", 4 << 20);
    let cluster = builder.set("storage.raftlog_max_bytes", 16 << 20).prepare().unwrap();
    let disks = small.iter().map(|node| SmallDisk::mount(cluster.node(*node).data_dir(), 320)).collect();
    cluster.start_all(PATIENCE).await.unwrap();
    (cluster, disks)
}

async fn once(cluster: &Cluster, node: NodeId) -> Client {
    let builder = Client::builder().endpoints([cluster.node(node).grpc_address()]).only_these_endpoints();
    builder.retry(RetryPolicy::never()).connect().await.unwrap()
}

async fn wait_full(cluster: &Cluster, node: NodeId, full: bool) {
    let state = wait_until("the node to look at its disk", PATIENCE, async || {
        match cluster.node_status(node).await.unwrap().disk_full {
            now if now == full => Ok(()),
            now => Err(format!("full: {now}")),
        }
    });
    state.await.unwrap();
}

/// Reads in every way.
async fn assert_reads(client: &Client) {
    assert_eq!(client.get("before").await.unwrap().unwrap().value, "full");
    let got = client.batch_get(vec!["before".into(), "never".into()], None).await.unwrap();
    assert_eq!(got.versions.iter().flatten().count(), 1);
    assert_eq!(client.count(Interval::all(), None).await.unwrap(), 1);
}

/// Timestamps need a ceiling that the default group has logged, three seconds ahead at most, and a new leader needs an entry
/// of its own: full followers have to take these.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_disks_are_all_full_serves_reads_and_recovers_when_space_returns() {
    if !may_mount() {
        return;
    }
    let nodes = [1, 2, 3].map(NodeId);
    let (cluster, disks) = three(&nodes).await;
    cluster.client().await.unwrap().put("before", "full").await.unwrap();
    let ballast: Vec<PathBuf> = disks.iter().map(|disk| disk.leave_free(RESERVE_MEGABYTES * 3 / 4)).collect();
    let mut clients = Vec::new();
    for node in nodes {
        wait_full(&cluster, node, true).await;
        clients.push(once(&cluster, node).await);
    }
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        for client in &clients {
            assert_reads(client).await;
            let error = client.put("k", "v").await.unwrap_err();
            assert_eq!((error.reason, error.is_unknown()), (Reason::DiskFull, false), "{error}");
        }
    }
    // Whoever leads next has to begin its term on full disks.
    for group in cluster.groups() {
        let leader = cluster.leader(group, PATIENCE).await.unwrap();
        let next = nodes.into_iter().find(|node| *node != leader).unwrap();
        let admin = cluster.client().await.unwrap();
        assert_eq!(admin.transfer_leader(group, next).await.unwrap().leader, next);
    }
    assert_reads(&clients[0]).await;

    for (node, file) in nodes.into_iter().zip(&ballast) {
        std::fs::remove_file(file).unwrap();
        wait_full(&cluster, node, false).await;
    }
    for client in &clients {
        client.put("after", "full").await.unwrap();
    }
    cluster.assert_replicas_equal().await.unwrap();
    // The nodes have to go before their disks do.
    drop(cluster);
    drop(disks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_hands_its_leaderships_to_nodes_that_have_space() {
    if !may_mount() {
        return;
    }
    let full = NodeId(1);
    let (cluster, disks) = three(&[full]).await;
    let admin = cluster.client().await.unwrap();
    for group in cluster.groups() {
        admin.transfer_leader(group, full).await.unwrap();
    }
    let ballast = disks[0].leave_free(RESERVE_MEGABYTES * 3 / 4);
    wait_full(&cluster, full, true).await;
    for group in cluster.groups() {
        let handed = wait_until("another leader", PATIENCE, async || {
            match cluster.leader(group, PATIENCE).await.map_err(|error| error.to_string())? {
                leader if leader == full => Err("the full node leads".to_owned()),
                leader => Ok(leader),
            }
        });
        handed.await.unwrap();
    }
    cluster.client_of(NodeId(2)).await.unwrap().put("k", "v").await.unwrap();
    let error = once(&cluster, full).await.put("k", "v").await.unwrap_err();
    assert_eq!((error.reason, error.is_unknown()), (Reason::DiskFull, false), "{error}");
    // It takes the entries of the others all the same.
    cluster.assert_replicas_equal().await.unwrap();
    std::fs::remove_file(&ballast).unwrap();
    wait_full(&cluster, full, false).await;
    once(&cluster, full).await.put("k", "v").await.unwrap();
    drop(cluster);
    drop(disks);
}

/// What a node says whose Raft log or store met a full disk.
fn says_why(node: &Node) -> bool {
    node.log().lines().any(|line| line.contains(" ERROR ") && line.contains("No space left on device"))
}

/// Waits until so many writes more are acknowledged.
async fn acknowledged_more(ledger: &Ledger, more: usize) {
    let before = ledger.tally().0;
    let written = wait_until("writes to be acknowledged", PATIENCE, async || match ledger.tally().0 - before {
        now if now >= more => Ok(()),
        now => Err(format!("{now} are")),
    });
    written.await.unwrap();
}

/// No reserve: nothing is refused in advance, and the write that does not fit is the first to know.
#[tokio::test(flavor = "multi_thread")]
async fn disks_filled_to_the_last_byte_stop_who_writes_to_them_and_lose_nothing() {
    if !may_mount() {
        return;
    }
    let builder = Cluster::builder().data_groups(1).set("disk.reserve_bytes", 0).set("storage.flush_interval_ms", 500);
    let builder = builder.set("storage.raftlog_file_bytes", 4 << 20).set("storage.raftlog_max_bytes", 16 << 20);
    let cluster = builder.prepare().unwrap();
    let disks: Vec<SmallDisk> = cluster.nodes().iter().map(|node| SmallDisk::mount(node.data_dir(), 320)).collect();
    cluster.start_all(PATIENCE).await.unwrap();

    let (ledger, stop) = (Arc::new(Ledger::new()), CancellationToken::new());
    let rows = (0..).map(|n| (Bytes::from(format!("row{n:08}")), Bytes::from(vec![b'v'; 4096])));
    let load = Load { rows, on_row: Arc::new(|_, _| {}) };
    let client =
        Client::builder().endpoints(cluster.endpoints()).deadline(Duration::from_secs(5)).connect().await.unwrap();
    let filling = async {
        acknowledged_more(&ledger, 500).await;
        let leader = cluster.leader(cluster.data_groups()[0], PATIENCE).await.unwrap();
        let (first, others): (Vec<_>, Vec<_>) =
            disks.iter().zip(cluster.nodes()).partition(|(_, node)| node.id() == leader);
        let met = async |nodes: &[(&SmallDisk, &Node)]| {
            let said = async || match nodes.iter().any(|(_, node)| says_why(node)) {
                true => Ok(()),
                false => Err("not a word"),
            };
            wait_until("a node to say that its disk is full", PATIENCE, said).await.unwrap();
        };
        let mut ballast = vec![first[0].0.fill()];
        met(&first).await;
        // Two of three are enough.
        acknowledged_more(&ledger, 500).await;
        // When one of them has met its end, nothing is written on the last one any more.
        ballast.extend(others.iter().map(|(disk, _)| disk.fill()));
        met(&others).await;
        stop.cancel();
        ballast
    };
    let (_, ballast) = tokio::join!(load.run(vec![client; 8], &ledger, &stop), filling);

    for file in &ballast {
        std::fs::remove_file(file).unwrap();
    }
    for node in cluster.nodes() {
        node.restart().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    for node in cluster.node_ids() {
        ledger.audit(&cluster.all_rows(node).await.unwrap()).assert_clean();
    }
    cluster.assert_replicas_equal().await.unwrap();
    // The nodes have to go before their disks do.
    drop(cluster);
    drop(disks);
}
