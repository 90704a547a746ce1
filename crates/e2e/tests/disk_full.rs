//! A node whose disk is nearly full refuses writes before anything happened, serves reads, and recovers by itself.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use drover_client::{Client, RetryPolicy};
use drover_keys::NodeId;
use drover_kv::Reason;
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use drover_testkit::wait::wait_until;

/// A file system of its own in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, megabytes: u32) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let options = format!("size={megabytes}m");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status().unwrap();
        assert!(status.success(), "mount ended with {status}");
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazy: the node may still hold files.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Whether this process may mount a disk. Where tests that need root have to run, it fails instead of saying no.
fn may_mount() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let required = std::env::var_os("DROVER_REQUIRE_ROOT_TESTS").is_some_and(|value| value == "1");
        assert!(!required, "DROVER_REQUIRE_ROOT_TESTS=1, and only root can mount a small disk");
        eprintln!("SKIPPED: only root can mount a small disk");
    }
    root
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

    let ballast = disk.0.join("ballast");
    fill(&ballast, 230 << 20);
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

/// A file of so many bytes, really there.
fn fill(path: &Path, bytes: usize) {
    std::fs::write(path, vec![0x55; bytes]).unwrap();
}
