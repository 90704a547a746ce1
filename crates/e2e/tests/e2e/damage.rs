//! A replica whose files were changed behind its back stops and says where; the others go on.

use std::path::{Path, PathBuf};

use drover_keys::{GroupId, NodeId};
use drover_testkit::Cluster;
use drover_testkit::cluster::{Node, NodeState, PATIENCE};
use drover_testkit::wait::wait_until;
use drover_wire::proto::v1::replica_status::Role;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Turns over bytes at several places of a file.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let length = bytes.len();
    for place in [length / 4, length / 3, length / 2] {
        bytes[place] ^= 0xff;
    }
    std::fs::write(path, bytes).unwrap();
}

/// Cuts a file off in the middle.
fn cut(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

/// Three nodes that have written enough to have several log files, and table files; node 3 is down.
async fn cluster_with_files() -> Cluster {
    let builder = Cluster::builder().data_groups(1).set("storage.flush_interval_ms", 200);
    let cluster = builder.set("storage.raftlog_file_bytes", 1 << 20).start().await.unwrap();
    let client = cluster.client().await.unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for n in 0..500 {
        // Does not compress.
        let mut value = vec![0; 4_000];
        rng.fill(&mut value[..]);
        client.put(format!("key {n:05}"), value).await.unwrap();
    }
    let node = cluster.node(NodeId(3));
    let has_tables = || files(node.data_dir()).iter().any(|path| path.extension().is_some_and(|e| e == "sst"));
    wait_until("table files", PATIENCE, async || if has_tables() { Ok(()) } else { Err("none") }).await.unwrap();
    node.terminate(PATIENCE).await.unwrap();
    cluster
}

/// The files below a node's folder whose names end so, oldest first.
fn files_ending(node: &Node, suffix: &str) -> Vec<PathBuf> {
    let mut found = files(node.data_dir());
    found.retain(|path| path.to_string_lossy().ends_with(suffix));
    found.sort();
    found
}

/// The node ends, or a replica of it says that it stopped; the file and the place in it are named in either case.
async fn assert_stops_and_names(cluster: &Cluster, node: &Node, file: &Path, place: &str) {
    let file = file.file_name().unwrap().to_str().unwrap();
    let told = |text: &str| text.lines().any(|line| line.contains(file) && line.contains(place));
    wait_until("the damage to be noticed", PATIENCE, async || {
        // A damaged table is noticed when it is read: all replicas read everything. Some of these calls must fail.
        let _ = cluster.compare_digests(NodeId(1), cluster.data_groups()[0]).await;
        if !told(&node.log()) {
            return Err(format!("{file} and {place:?} are not named in the log"));
        }
        if node.state() == NodeState::Down {
            return Ok(());
        }
        let status = cluster.node_status(node.id()).await.map_err(|e| e.to_string())?;
        let stopped = status.replicas.iter().any(|r| r.role == Role::Stopped as i32 && told(&r.error));
        if stopped { Ok(()) } else { Err(format!("{:?}", status.replicas)) }
    })
    .await
    .unwrap();
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// A damaged store is one replica's: the replica of the default group on the same node takes part in its group.
async fn assert_the_other_replica_goes_on(cluster: &Cluster, node: &Node) {
    wait_until("the other replica", PATIENCE, async || {
        let status = cluster.node_status(node.id()).await.map_err(|e| e.to_string())?;
        let other = status.replicas.iter().find(|r| r.group_id == GroupId::DEFAULT.0).ok_or("it is not there")?;
        assert_ne!(other.role, Role::Stopped as i32, "{other:?}");
        let part = other.role == Role::Follower as i32 || other.role == Role::Leader as i32;
        if part && other.error.is_empty() { Ok(()) } else { Err(format!("{other:?}")) }
    })
    .await
    .unwrap();
    let digests = cluster.compare_digests(NodeId(1), GroupId::DEFAULT).await.unwrap();
    assert!(digests.equal, "{digests:?}");
    assert_eq!(node.state(), NodeState::Running);
}

async fn assert_others_serve(cluster: &Cluster) {
    let client = cluster.client_of(NodeId(1)).await.unwrap();
    client.put("after", "damage").await.unwrap();
    assert_eq!(client.get("key 00017").await.unwrap().unwrap().value.len(), 4_000);
}

/// Harms one file of node 3, starts the node, and waits until it says what is wrong where; the others serve.
async fn noticed(suffix: &str, choose: impl Fn(Vec<PathBuf>) -> PathBuf, harm: impl Fn(&Path), place: &str) -> Cluster {
    let cluster = cluster_with_files().await;
    let node = cluster.node(NodeId(3));
    let file = choose(files_ending(node, suffix));
    harm(&file);
    node.start().unwrap();
    assert_stops_and_names(&cluster, node, &file, place).await;
    assert_others_serve(&cluster).await;
    cluster
}

/// As [`noticed`], in the data group's store.
async fn noticed_in_store(harm: impl Fn(&Path), place: &str) {
    let cluster = noticed(".sst", largest, harm, place).await;
    assert_the_other_replica_goes_on(&cluster, cluster.node(NodeId(3))).await;
}

/// The largest one holds values of the data group.
fn largest(files: Vec<PathBuf>) -> PathBuf {
    files.into_iter().max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

fn oldest(files: Vec<PathBuf>) -> PathBuf {
    assert!(files.len() > 1, "{files:?}");
    files[0].clone()
}

fn newest(files: Vec<PathBuf>) -> PathBuf {
    files.last().unwrap().clone()
}

#[tokio::test]
async fn a_damaged_raft_log_stops_the_node_and_names_the_file_and_the_place() {
    noticed(".raftlog", newest, damage, " at byte ").await;
}

#[tokio::test]
async fn an_old_file_of_a_raft_log_that_was_cut_off_stops_the_node_and_names_the_file_and_the_place() {
    noticed(".raftlog", oldest, cut, " at byte ").await;
}

/// It looks as a crash would leave it, and the leader knows what this replica has acknowledged.
#[tokio::test]
async fn the_newest_file_of_a_raft_log_that_was_cut_off_stops_the_node_and_names_the_file_and_the_place() {
    noticed(".raftlog", newest, cut, " at byte ").await;
}

#[tokio::test]
async fn a_damaged_table_file_stops_the_replica_and_names_the_file_and_the_place() {
    noticed_in_store(damage, " offset ").await;
}

#[tokio::test]
async fn a_table_file_that_was_cut_off_stops_the_replica_and_names_the_file_and_the_place() {
    noticed_in_store(cut, " was cut off at offset ").await;
}

/// Before anything of its stores was flushed, nothing but the log knows what a node has acknowledged.
#[tokio::test]
async fn a_node_whose_raft_log_is_gone_refuses_to_start_and_goes_on_when_it_is_put_back() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = cluster.client().await.unwrap();
    for n in 0..20 {
        client.put(format!("key {n}"), "v").await.unwrap();
    }
    let node = cluster.node(NodeId(3));
    let (log, away) = (node.data_dir().join("raftlog"), cluster.dir().join("away"));
    node.kill().unwrap();
    std::fs::rename(&log, &away).unwrap();
    for _ in 0..2 {
        node.start().unwrap();
        let status = node.wait_exit(PATIENCE).await.unwrap();
        assert!(!status.success(), "{status}");
    }
    let refused = node.log().matches("the Raft log of this node is missing").count();
    assert_eq!(refused, 2, "{}", node.log());
    client.put("after", "v").await.unwrap();

    std::fs::remove_dir_all(&log).unwrap();
    std::fs::rename(&away, &log).unwrap();
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    cluster.assert_replicas_equal().await.unwrap();
}
