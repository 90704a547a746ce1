//! A replica whose files were changed behind its back stops and says where; the others go on.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use drover_keys::NodeId;
use drover_testkit::Cluster;
use drover_testkit::cluster::{Node, NodeState, PATIENCE};
use drover_testkit::wait::wait_until;
use drover_wire::proto::v1::replica_status::Role;

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Turns over bytes at several places of a file, but not at its very end, which a crash may cut.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = bytes.len();
    for place in [length / 4, length / 3, length / 2] {
        bytes[place] ^= 0xff;
    }
    std::fs::write(path, bytes).unwrap();
}

/// Three nodes that have written enough to have log files and table files; node 3 is down.
async fn cluster_with_files() -> Cluster {
    let builder = Cluster::builder().data_groups(1).set("storage.flush_interval_ms", 200);
    let cluster = builder.start().await.unwrap();
    let client = cluster.client().await.unwrap();
    for n in 0..500 {
        client.put(format!("key {n:05}"), vec![b'x'; 500]).await.unwrap();
    }
    let node = cluster.node(NodeId(3));
    let has_tables = || files(node.data_dir()).iter().any(|path| path.extension().is_some_and(|e| e == "sst"));
    wait_until("table files", PATIENCE, async || if has_tables() { Ok(()) } else { Err("none") }).await.unwrap();
    node.terminate(PATIENCE).await.unwrap();
    cluster
}

/// The node ends, or a replica of it says that it stopped; `file` is named in either case.
async fn assert_stops_and_names(cluster: &Cluster, node: &Node, file: &str) {
    wait_until("the damage to be noticed", PATIENCE, async || {
        // A damaged table is noticed when it is read: all replicas read everything. Some of these calls must fail.
        let _ = cluster.compare_digests(NodeId(1), cluster.data_groups()[0]).await;
        if !node.log().contains(file) {
            return Err(format!("{file} is not named in the log"));
        }
        if node.state() == NodeState::Down {
            return Ok(());
        }
        let status = cluster.node_status(node.id()).await.map_err(|e| e.to_string())?;
        let stopped = status.replicas.iter().any(|r| r.role == Role::Stopped as i32 && r.error.contains(file));
        if stopped { Ok(()) } else { Err(format!("{:?}", status.replicas)) }
    })
    .await
    .unwrap();
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

async fn assert_others_serve(cluster: &Cluster) {
    let client = cluster.client_of(NodeId(1)).await.unwrap();
    client.put("after", "damage").await.unwrap();
    assert_eq!(client.get("key 00017").await.unwrap().unwrap().value.len(), 500);
}

#[tokio::test]
async fn a_damaged_raft_log_stops_the_node_and_names_the_file() {
    let cluster = cluster_with_files().await;
    let node = cluster.node(NodeId(3));
    let logs = files(node.data_dir()).into_iter().filter(|path| path.components().any(|c| c.as_os_str() == "raftlog"));
    let log = logs.max_by_key(|path| std::fs::metadata(path).unwrap().len()).expect("the node has a raft log");
    damage(&log);
    node.start().unwrap();
    assert_stops_and_names(&cluster, node, log.file_name().unwrap().to_str().unwrap()).await;
    assert_others_serve(&cluster).await;
}

#[tokio::test]
async fn a_damaged_table_file_stops_the_replica_and_names_the_file() {
    let cluster = cluster_with_files().await;
    let node = cluster.node(NodeId(3));
    let tables = files(node.data_dir()).into_iter().filter(|path| path.extension().is_some_and(|e| e == "sst"));
    // The largest one holds values of the data group.
    let table = tables.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    damage(&table);
    node.start().unwrap();
    assert_stops_and_names(&cluster, node, table.file_name().unwrap().to_str().unwrap()).await;
    assert_others_serve(&cluster).await;
}
