//! A snapshot that was interrupted in the middle of its transfer goes on where it broke off.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drover_keys::NodeId;
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::wait::wait_until;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Values that do not compress, so that no snapshot of them is smaller.
const VALUES: u64 = 240;
const VALUE_BYTES: u64 = 100_000;
/// What may pass to the node at first: about half of the snapshot.
const ALLOWANCE: u64 = 12 << 20;
/// What has to be there before the transfer is interrupted.
const STAGED: u64 = 8 << 20;

/// Stands before a node, and lets so many bytes pass to it.
#[derive(Clone)]
struct Gate {
    address: String,
    allowance: Arc<AtomicU64>,
    passed: Arc<AtomicU64>,
}

impl Gate {
    async fn before(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let gate = Self { address, allowance: Arc::new(AtomicU64::new(ALLOWANCE)), passed: Arc::default() };
        let accepting = gate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The node may be down: whoever wants to reach it finds that out.
                if let Ok(server) = TcpStream::connect(&target).await {
                    tokio::spawn(accepting.clone().pass(client, server));
                }
            }
        });
        gate
    }

    async fn pass(self, client: TcpStream, server: TcpStream) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let towards = async {
            let mut buffer = vec![0; 16 << 10];
            loop {
                let n = from_client.read(&mut buffer).await.unwrap_or(0);
                let passed = self.passed.fetch_add(n as u64, Ordering::SeqCst) + n as u64;
                if passed > self.allowance.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                if n == 0 || to_server.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        };
        let back = async {
            // Either end may go away at any time.
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        };
        tokio::select! {
            () = towards => {}
            () = back => {}
        }
    }

    /// Everything may pass; how much passes from now on is counted from zero.
    fn open(&self) {
        self.allowance.store(u64::MAX, Ordering::SeqCst);
        self.passed.store(0, Ordering::SeqCst);
    }

    fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }
}

/// Every configuration names the gate as the address of the node.
fn put_before(cluster: &Cluster, id: NodeId, gate: &Gate) {
    for node in cluster.nodes() {
        let mut config: toml::Table = std::fs::read_to_string(node.config_path()).unwrap().parse().unwrap();
        let nodes = config["bootstrap"].as_table_mut().unwrap()["nodes"].as_array_mut().unwrap();
        let number = i64::try_from(id.0).unwrap();
        let listed = nodes.iter_mut().filter_map(toml::Value::as_table_mut);
        for entry in listed.filter(|entry| entry["id"].as_integer() == Some(number)) {
            entry.insert("grpc".to_owned(), gate.address.clone().into());
        }
        std::fs::write(node.config_path(), config.to_string()).unwrap();
    }
}

/// Bytes of snapshot content that have arrived below a folder and are not installed.
fn staged(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let entries = entries.map(|entry| entry.unwrap());
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => staged(&entry.path()),
            Ok(metadata) if entry.file_name().to_string_lossy().starts_with("content-") => metadata.len(),
            // Moved away meanwhile, or no content.
            _ => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_interrupted_in_the_middle_goes_on_and_sends_nothing_twice() {
    let builder = Cluster::builder().data_groups(1).set("raft.log_retention_entries", 10);
    let builder = builder.set("raft.purge_batch_entries", 1).set("storage.flush_interval_ms", 2_000);
    let cluster = builder.prepare().unwrap();
    let late = cluster.node(NodeId(3));
    let gate = Gate::before(late.grpc_address()).await;
    put_before(&cluster, late.id(), &gate);
    for id in [1, 2] {
        cluster.node(NodeId(id)).start().unwrap();
    }
    cluster.wait_ready(PATIENCE).await.unwrap();
    let client = cluster.client_of(NodeId(1)).await.unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for n in 0..VALUES {
        let mut value = vec![0; VALUE_BYTES as usize];
        rng.fill(&mut value[..]);
        client.put(format!("key {n:03}"), value).await.unwrap();
    }
    wait_until("the log to be purged", PATIENCE, async || {
        for id in [1, 2] {
            let status = cluster.node_status(NodeId(id)).await.map_err(|e| e.to_string())?;
            let group = cluster.data_groups()[0].0;
            let purged = status.replicas.iter().find(|r| r.group_id == group).map_or(0, |r| r.purged_index);
            if purged < VALUES / 2 {
                return Err(format!("node {id} has purged up to {purged}"));
            }
        }
        Ok(())
    })
    .await
    .unwrap();

    late.start().unwrap();
    let snapshots = late.data_dir().join("snapshots");
    wait_until("half of the snapshot", PATIENCE, async || match staged(&snapshots) {
        bytes if bytes >= STAGED && gate.passed() > ALLOWANCE => Ok(()),
        bytes => Err(format!("{bytes} bytes are staged, {} went to the node", gate.passed())),
    })
    .await
    .unwrap();
    late.kill().unwrap();
    let arrived = staged(&snapshots);
    assert!(arrived < VALUES * VALUE_BYTES, "the transfer was not interrupted in the middle: {arrived} bytes");

    gate.open();
    late.start().unwrap();
    late.wait_ready(PATIENCE).await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
    // The snapshot itself has more than the values, and what is no snapshot is small.
    let again = gate.passed();
    let left = VALUES * VALUE_BYTES - arrived;
    assert!(again >= left, "{again} bytes cannot hold the {left} that were missing");
    assert!(again < left + (STAGED / 2), "{again} bytes were sent, {left} were missing: {arrived} had arrived");
}
