//! A node that must not serve says why and what to do, ends, and changes nothing.

use std::net::TcpListener;
use std::path::Path;

use drover_keys::NodeId;
use drover_testkit::Cluster;
use drover_testkit::cluster::{Node, PATIENCE};
use drover_testkit::wait::wait_until;

fn single() -> Cluster {
    Cluster::builder().nodes(1).data_groups(1).prepare().unwrap()
}

/// Starts the node and waits for it to fail; its log must contain every part.
async fn assert_refuses_to_start(node: &Node, parts: &[&str]) {
    let before = node.log().len();
    node.start().unwrap();
    let status = node.wait_exit(PATIENCE).await.unwrap();
    let log = node.log().split_off(before);
    assert!(!status.success(), "it ended with {status}\n{log}");
    for part in parts {
        assert!(log.contains(part), "{part:?} is not in\n{log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

fn edit(path: &Path, change: impl FnOnce(&mut toml::Table)) {
    let mut table: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    change(&mut table);
    std::fs::write(path, table.to_string()).unwrap();
}

fn set(table: &mut toml::Table, section: &str, name: &str, value: impl Into<toml::Value>) {
    table[section].as_table_mut().unwrap().insert(name.to_owned(), value.into());
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_setting() {
    let cluster = single();
    let node = cluster.node(NodeId(1));
    for (address, setting) in [(node.grpc_address(), "node.grpc_listen"), (node.admin_address(), "node.admin_listen")] {
        let taken = TcpListener::bind(&address).unwrap();
        assert_refuses_to_start(node, &[&address, setting]).await;
        drop(taken);
    }
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn settings_that_are_unknown_or_out_of_range_are_all_named_at_once() {
    let cluster = single();
    let node = cluster.node(NodeId(1));
    edit(node.config_path(), |table| {
        set(table, "node", "no_such_setting", 1);
        table.insert("raft".to_owned(), toml::Table::from_iter([("heartbeat_ms".to_owned(), 1.into())]).into());
    });
    assert_refuses_to_start(node, &["no_such_setting", "heartbeat_ms", "node-1.toml"]).await;
    assert!(!node.data_dir().exists(), "nothing is created before the configuration is known to be good");
}

#[tokio::test]
async fn a_data_directory_of_a_newer_format_is_refused_and_left_as_it_is() {
    let cluster = single();
    let node = cluster.node(NodeId(1));
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    cluster.client().await.unwrap().put("k", "v").await.unwrap();
    node.terminate(PATIENCE).await.unwrap();

    let identity = files_below(node.data_dir()).into_iter().find(|path| path.ends_with("identity")).unwrap();
    let known = std::fs::read(&identity).unwrap();
    let newer = {
        let mut bytes = known.clone();
        // magic (8), version (1), directory format (4, BE) ... checksum (4, BE)
        bytes[12] += 1;
        let body = bytes.len() - 4;
        let sum = crc32c::crc32c(&bytes[..body]).to_be_bytes();
        bytes[body..].copy_from_slice(&sum);
        bytes
    };
    std::fs::write(&identity, &newer).unwrap();
    let files = contents(node.data_dir());
    assert_refuses_to_start(node, &["newer", "start the newer build"]).await;
    assert_eq!(contents(node.data_dir()), files, "a directory that is refused is left as it was");

    std::fs::write(&identity, known).unwrap();
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    assert!(cluster.client().await.unwrap().get("k").await.unwrap().is_some());
}

/// All files but the lock, which names the process that tried last.
fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|path| !path.ends_with("LOCK"));
    entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn contents(dir: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    files_below(dir).into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

#[tokio::test]
async fn groups_and_routes_that_are_added_to_the_configuration_of_a_node_that_was_started_are_not_read() {
    let cluster = single();
    let node = cluster.node(NodeId(1));
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    cluster.client().await.unwrap().put("z", "before").await.unwrap();
    node.terminate(PATIENCE).await.unwrap();

    add_group_nine(node, 1);
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    let replicas = cluster.node_status(node.id()).await.unwrap().replicas;
    assert_eq!(replicas.iter().map(|replica| replica.group_id).collect::<Vec<_>>(), [1, 2]);
    group_two_owns_everything(&cluster).await;
}

#[tokio::test]
async fn groups_and_routes_that_a_node_of_the_cluster_alone_is_configured_with_own_nothing() {
    let cluster = Cluster::builder().nodes(3).data_groups(1).prepare().unwrap();
    for id in [1, 2] {
        cluster.node(NodeId(id)).start().unwrap();
    }
    for id in [1, 2] {
        cluster.node(NodeId(id)).wait_ready(PATIENCE).await.unwrap();
    }
    cluster.client().await.unwrap().put("z", "before").await.unwrap();
    let node = cluster.node(NodeId(3));
    add_group_nine(node, 3);
    node.start().unwrap();
    wait_for_log(node, "the catalog does not know this group here").await;
    group_two_owns_everything(&cluster).await;
}

/// Writes a group into the configuration of a node that no other node knows, and gives it half of the keys.
fn add_group_nine(node: &Node, replica: u64) {
    edit(node.config_path(), |table| {
        let bootstrap = table["bootstrap"].as_table_mut().unwrap();
        let group: toml::Table = format!("id = 9\nreplicas = [{replica}]").parse().unwrap();
        bootstrap["groups"].as_array_mut().unwrap().push(group.into());
        let routes = "routes = [{ start = '', end = 'm', group = 2 }, { start = 'm', group = 9 }]";
        let routes: toml::Table = routes.parse().unwrap();
        bootstrap.insert("routes".to_owned(), routes["routes"].clone());
    });
}

async fn group_two_owns_everything(cluster: &Cluster) {
    let client = cluster.client().await.unwrap();
    let owner = client.route_ownership("z").await.unwrap();
    assert_eq!(owner.route.unwrap().group_id, 2);
    assert_eq!(owner.ownership.unwrap().end, None, "the group still owns all of it");
    assert_eq!(client.get("z").await.unwrap().unwrap().value, "before");
    client.put("z", "after").await.unwrap();
    assert!(client.groups().await.unwrap().iter().all(|group| group.group_id != 9));
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let cluster = single();
    let node = cluster.node(NodeId(1));
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    let intruder = single();
    let second = intruder.node(NodeId(1));
    let cluster_id =
        std::fs::read_to_string(node.config_path()).unwrap().parse::<toml::Table>().unwrap()["cluster"].clone();
    edit(second.config_path(), |table| {
        set(table, "node", "data_dir", node.data_dir().display().to_string());
        table.insert("cluster".to_owned(), cluster_id);
    });
    assert_refuses_to_start(second, &["in use"]).await;
    cluster.client().await.unwrap().put("k", "v").await.unwrap();
}

#[tokio::test]
async fn the_data_directory_of_another_cluster_or_node_is_refused_and_left_as_it_was() {
    let cluster = single();
    let node = cluster.node(NodeId(1));
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    cluster.client().await.unwrap().put("k", "v").await.unwrap();
    node.terminate(PATIENCE).await.unwrap();
    let good = std::fs::read_to_string(node.config_path()).unwrap();

    edit(node.config_path(), |table| set(table, "cluster", "id", "0123456789abcdef0123456789abcdef"));
    assert_refuses_to_start(node, &["belongs to cluster", "cluster.id"]).await;

    std::fs::write(node.config_path(), &good).unwrap();
    edit(node.config_path(), |table| {
        set(table, "node", "id", 7);
        table["bootstrap"]["nodes"][0].as_table_mut().unwrap().insert("id".to_owned(), 7.into());
        for group in table["bootstrap"]["groups"].as_array_mut().unwrap() {
            group.as_table_mut().unwrap().insert("replicas".to_owned(), vec![7].into());
        }
    });
    assert_refuses_to_start(node, &["belongs to node 1"]).await;

    std::fs::write(node.config_path(), good).unwrap();
    node.start().unwrap();
    node.wait_ready(PATIENCE).await.unwrap();
    assert_eq!(cluster.client().await.unwrap().get("k").await.unwrap().unwrap().value, "v");
}

#[tokio::test]
async fn a_directory_that_drover_did_not_make_is_refused() {
    let cluster = single();
    let node = cluster.node(NodeId(1));
    std::fs::create_dir_all(node.data_dir()).unwrap();
    let photo = node.data_dir().join("holiday.jpg");
    std::fs::write(&photo, "not a database").unwrap();
    assert_refuses_to_start(node, &["holiday.jpg", "not made by drover"]).await;
    assert_eq!(std::fs::read_to_string(photo).unwrap(), "not a database");
}

/// Waits until the log of a running or ended node contains `part`.
async fn wait_for_log(node: &Node, part: &str) {
    let what = format!("{part:?} in the log of node {}", node.id());
    wait_until(&what, PATIENCE, async || if node.log().contains(part) { Ok(()) } else { Err("not yet") })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_node_of_another_cluster_is_turned_away_and_the_cluster_serves_on() {
    let cluster = Cluster::builder().data_groups(1).prepare().unwrap();
    let stranger = cluster.node(NodeId(3));
    edit(stranger.config_path(), |table| set(table, "cluster", "id", "0123456789abcdef0123456789abcdef"));
    for node in cluster.nodes() {
        node.start().unwrap();
    }
    for id in [1, 2] {
        cluster.node(NodeId(id)).wait_ready(PATIENCE).await.unwrap();
    }
    let client = cluster.client_of(NodeId(1)).await.unwrap();
    client.put("k", "v").await.unwrap();
    let ended = stranger.wait_exit(PATIENCE).await.unwrap();
    assert!(!ended.success());
    wait_for_log(stranger, "the cluster refuses this node: WRONG_CLUSTER").await;
    client.put("k", "w").await.unwrap();
}

#[tokio::test]
async fn a_node_whose_disk_was_wiped_is_recognised_and_may_not_vote() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let client = cluster.client_of(NodeId(1)).await.unwrap();
    client.put("k", "v").await.unwrap();
    let wiped = cluster.node(NodeId(3));
    wiped.kill().unwrap();
    std::fs::remove_dir_all(wiped.data_dir()).unwrap();
    wiped.start().unwrap();
    wait_for_log(cluster.node(NodeId(1)), "the data directory of node 3 was replaced").await;
    // It is told so, and what to do.
    assert!(!wiped.wait_exit(PATIENCE).await.unwrap().success());
    wait_for_log(wiped, "must join under a new id").await;
    wiped.start().unwrap();
    client.put("k", "w").await.unwrap();
    // Without its vote there is no quorum once another node is gone.
    cluster.node(NodeId(2)).kill().unwrap();
    let hasty = client.with_deadline(std::time::Duration::from_secs(3));
    assert!(hasty.put("k", "x").await.is_err());
    cluster.node(NodeId(2)).start().unwrap();
    cluster.node(NodeId(2)).wait_ready(PATIENCE).await.unwrap();
    client.put("k", "y").await.unwrap();
}

/// The number and the addresses of every node that is registered.
async fn registered(cluster: &Cluster) -> Vec<(u64, String, String)> {
    let nodes = cluster.client().await.unwrap().nodes().await.unwrap();
    nodes.into_iter().map(|node| (node.node_id, node.grpc_address, node.admin_address)).collect()
}

#[tokio::test]
async fn a_second_node_under_the_id_of_a_live_one_is_turned_away_and_changes_nothing() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    cluster.client().await.unwrap().put("k", "v").await.unwrap();
    let before = registered(&cluster).await;

    let spare = single();
    let second = spare.node(NodeId(1));
    std::fs::copy(cluster.node(NodeId(3)).config_path(), second.config_path()).unwrap();
    edit(second.config_path(), |table| {
        set(table, "node", "data_dir", second.data_dir().display().to_string());
        set(table, "node", "grpc_listen", second.grpc_address());
        set(table, "node", "grpc_advertise", second.grpc_address());
        set(table, "node", "admin_listen", second.admin_address());
    });
    second.start().unwrap();
    for node in [cluster.node(NodeId(1)), cluster.node(NodeId(2)), second] {
        wait_for_log(node, "the data directory of node 3 was replaced").await;
    }
    let replicas = spare.node_status(second.id()).await.unwrap().replicas;
    assert!(replicas.iter().all(|replica| replica.term == 0 && replica.last_log_index == 0), "{replicas:?}");
    assert_eq!(registered(&cluster).await, before);
    // The live one is a voter as before.
    cluster.node(NodeId(2)).kill().unwrap();
    let client = cluster.client_of(NodeId(3)).await.unwrap();
    client.put("k", "w").await.unwrap();
    assert_eq!(client.get("k").await.unwrap().unwrap().value, "w");
}
