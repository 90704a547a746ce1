//! `drover status`: nodes, groups and leaders at a glance.

use std::collections::BTreeMap;

use drover_client::{ClusterStatus, NodeStatus, ReplicaStatus, Role};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::Global;
use super::exit::End;
use super::output::Output;

pub async fn run(global: &Global, output: &mut Output) -> anyhow::Result<End> {
    show(global.json, output, &global.connect().await?.status().await?)?;
    Ok(End::Done)
}

/// Nodes, groups and leaders.
pub fn show(as_json: bool, output: &mut Output, status: &ClusterStatus) -> std::io::Result<()> {
    if as_json {
        return output.json(&status_json(status));
    }
    output.line(&format!("cluster {}", status.cluster_id))?;
    output.line("")?;
    output.table(
        &["node", "address", "version", "uptime", "disk used", "disk free", "state"],
        status.nodes.iter().map(node_row).collect(),
    )?;
    output.line("")?;
    output.table(
        &["group", "node", "role", "term", "leader", "last", "committed", "applied", "flushed", "state size", "lag"],
        replica_rows(&status.nodes),
    )
}

fn node_row(node: &NodeStatus) -> Vec<String> {
    let id = node.node_id.to_string();
    if !node.error.is_empty() {
        let unknown = || "-".to_owned();
        let state = format!("no answer: {}", node.error);
        return vec![id, node.grpc_address.clone(), unknown(), unknown(), unknown(), unknown(), state];
    }
    let state = match (node.disk_full, node.draining) {
        (true, _) => "disk full",
        (false, true) => "draining",
        (false, false) => "ok",
    };
    vec![
        id,
        node.grpc_address.clone(),
        node.version.clone(),
        uptime(node.uptime_ms),
        HumanBytes(node.disk_used_bytes).to_string(),
        HumanBytes(node.disk_free_bytes).to_string(),
        state.to_owned(),
    ]
}

fn uptime(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

fn role(replica: &ReplicaStatus) -> &'static str {
    match replica.role() {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "STOPPED",
        Role::Unspecified => "unknown",
    }
}

/// One row per replica, sorted by group, leaders first.
fn replica_rows(nodes: &[NodeStatus]) -> Vec<Vec<String>> {
    let mut replicas: Vec<(&NodeStatus, &ReplicaStatus)> =
        nodes.iter().flat_map(|node| node.replicas.iter().map(move |replica| (node, replica))).collect();
    replicas.sort_by_key(|(node, replica)| (replica.group_id, replica.role() != Role::Leader, node.node_id));
    replicas
        .into_iter()
        .map(|(node, replica)| {
            let note = if replica.error.is_empty() { lag(node.node_id, replica) } else { replica.error.clone() };
            let leader = if replica.leader == 0 { "-".to_owned() } else { replica.leader.to_string() };
            vec![
                replica.group_id.to_string(),
                node.node_id.to_string(),
                role(replica).to_owned(),
                replica.term.to_string(),
                leader,
                replica.last_log_index.to_string(),
                replica.committed_index.to_string(),
                replica.applied_index.to_string(),
                replica.flushed_index.to_string(),
                HumanBytes(replica.state_bytes).to_string(),
                note,
            ]
        })
        .collect()
}

/// By how many entries each other node is behind this leader; `None`: it was not heard from.
fn lags(leader: u64, replica: &ReplicaStatus) -> BTreeMap<u64, Option<u64>> {
    if replica.role() != Role::Leader {
        return BTreeMap::new();
    }
    let others = replica.voters.iter().chain(&replica.learners).filter(|node| **node != leader);
    others.map(|node| (*node, replica.follower_lag.get(node).copied())).collect()
}

fn lag(leader: u64, replica: &ReplicaStatus) -> String {
    let entries = |entries: Option<u64>| entries.map_or("?".to_owned(), |entries| entries.to_string());
    let lags = lags(leader, replica).into_iter().map(|(node, lag)| format!("{node}:{}", entries(lag)));
    lags.collect::<Vec<_>>().join(" ")
}

fn status_json(status: &ClusterStatus) -> Value {
    json!({ "cluster_id": status.cluster_id, "nodes": status.nodes.iter().map(node_json).collect::<Vec<_>>() })
}

fn node_json(node: &NodeStatus) -> Value {
    json!({
        "node_id": node.node_id,
        "grpc_address": node.grpc_address,
        "admin_address": node.admin_address,
        "version": node.version,
        "uptime_ms": node.uptime_ms,
        "disk_used_bytes": node.disk_used_bytes,
        "disk_free_bytes": node.disk_free_bytes,
        "disk_full": node.disk_full,
        "draining": node.draining,
        "error": (!node.error.is_empty()).then_some(&node.error),
        "replicas": node.replicas.iter().map(|replica| replica_json(node.node_id, replica)).collect::<Vec<_>>(),
    })
}

fn replica_json(node: u64, replica: &ReplicaStatus) -> Value {
    json!({
        "group_id": replica.group_id,
        "role": role(replica),
        "term": replica.term,
        "leader": (replica.leader != 0).then_some(replica.leader),
        "last_log_index": replica.last_log_index,
        "committed_index": replica.committed_index,
        "applied_index": replica.applied_index,
        "flushed_index": replica.flushed_index,
        "purged_index": replica.purged_index,
        "voters": replica.voters,
        "learners": replica.learners,
        "state_bytes": replica.state_bytes,
        "follower_lag": lags(node, replica).into_iter().map(|(node, lag)| (node.to_string(), lag)).collect::<BTreeMap<_, _>>(),
        "error": (!replica.error.is_empty()).then_some(&replica.error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(group_id: u64, role: Role) -> ReplicaStatus {
        ReplicaStatus { group_id, role: role.into(), ..ReplicaStatus::default() }
    }

    #[test]
    fn replicas_stand_together_by_group_with_the_leader_first() {
        let nodes = [
            NodeStatus {
                node_id: 1,
                replicas: vec![replica(2, Role::Follower), replica(1, Role::Leader)],
                ..NodeStatus::default()
            },
            NodeStatus {
                node_id: 2,
                replicas: vec![replica(1, Role::Follower), replica(2, Role::Leader)],
                ..NodeStatus::default()
            },
        ];
        let rows = replica_rows(&nodes);
        let order: Vec<_> = rows.iter().map(|row| format!("{}/{} {}", row[0], row[1], row[2])).collect();
        assert_eq!(order, ["1/1 leader", "1/2 follower", "2/2 leader", "2/1 follower"]);
    }

    #[test]
    fn a_leader_tells_how_far_the_others_are_behind_and_of_whom_it_does_not_know() {
        let leader = ReplicaStatus {
            voters: vec![1, 2, 3],
            learners: vec![4],
            follower_lag: [(2, 0), (4, 17)].into(),
            ..replica(1, Role::Leader)
        };
        assert_eq!(lag(1, &leader), "2:0 3:? 4:17");
        assert_eq!(replica_json(1, &leader)["follower_lag"], json!({ "2": 0, "3": null, "4": 17 }));
        let follower = ReplicaStatus { role: Role::Follower.into(), ..leader };
        assert_eq!(lag(1, &follower), "");
    }

    #[test]
    fn a_node_that_did_not_answer_says_why_in_place_of_figures() {
        let node = NodeStatus { node_id: 3, error: "connection refused".into(), ..NodeStatus::default() };
        assert_eq!(node_row(&node).last().unwrap(), "no answer: connection refused");
        assert_eq!(node_json(&node)["error"], "connection refused");
        assert_eq!(node_json(&NodeStatus::default())["error"], Value::Null);
    }

    #[test]
    fn uptime_is_shown_in_its_two_largest_units() {
        for (ms, text) in [(999, "0s"), (61_000, "1m1s"), (3_660_000, "1h1m"), (90_000_000, "1d1h")] {
            assert_eq!(uptime(ms), text);
        }
    }
}
