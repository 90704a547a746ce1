//! `drover group`: leadership and digests of one group.

use std::time::Duration;

use clap::Subcommand;
use drover_client::{Client, ClusterStatus, DigestComparison, GroupId, GroupInfo, GroupReplica, NodeId, ReplicaState};
use indicatif::ProgressBar;
use serde_json::json;

use super::exit::End;
use super::interrupt::change;
use super::notation::format_hex;
use super::output::Output;
use super::settle::Settle;
use super::{Global, notice};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hands the leadership of a group to one of its voters, and waits until it leads
    TransferLeader {
        group: GroupId,
        /// Node that shall lead
        #[arg(long, value_name = "NODE")]
        to: NodeId,
    },
    /// Lists the groups and their replicas as the catalog wants them
    List,
    /// Lets a node get a replica of a group, and waits until it votes
    AddReplica {
        group: GroupId,
        node: NodeId,
        /// Return as soon as that is decided
        #[arg(long)]
        no_wait: bool,
    },
    /// Lets nodes give up their replicas of a group, and waits until they are gone; calls off one that is joining
    RemoveReplica {
        group: GroupId,
        #[arg(required = true)]
        nodes: Vec<NodeId>,
        /// Return as soon as that is decided
        #[arg(long)]
        no_wait: bool,
    },
    /// Compares digests of all replicas of a group at one log index; exit code 1 if they are not all there and equal
    Digests { group: GroupId },
}

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    let client = global.connect().await?;
    match command {
        Command::TransferLeader { group, to } => {
            let now = change(Settle::Again, client.transfer_leader(group, to)).await?;
            match global.json {
                true => output.json(&json!({ "group_id": group.0, "leader": now.leader.0, "term": now.term }))?,
                false => output.line(&format!("node {} leads group {group} in term {}", now.leader, now.term))?,
            }
            Ok(End::Done)
        }
        Command::List => {
            print_groups(global.json, output, &client.groups().await?)?;
            Ok(End::Done)
        }
        Command::AddReplica { group, node, no_wait } => {
            let actor = global.actor();
            let mut info = change(look(), client.add_replica(group, node, &actor)).await?;
            let added =
                info.replicas.iter().find(|replica| replica.node_id == node.0).map(|replica| replica.replica_id);
            let mut end = End::Done;
            if !no_wait {
                let what = format!("group {group}: the replica on node {node} is joining");
                let state = |info: &GroupInfo| replica(info, added?).map(GroupReplica::state);
                info = changed(&client, group, &what, |info| match state(info) {
                    Some(ReplicaState::Joining | ReplicaState::Unspecified) => false,
                    Some(ReplicaState::Active | ReplicaState::Leaving) | None => true,
                })
                .await?;
                if state(&info) != Some(ReplicaState::Active) {
                    notice(&format!("the replica on node {node} did not join: somebody called it off"));
                    end = End::No;
                }
            }
            print_groups(global.json, output, &[info])?;
            Ok(end)
        }
        Command::RemoveReplica { group, nodes, no_wait } => {
            let actor = global.actor();
            let mut info = change(look(), client.remove_replicas(group, &nodes, &actor)).await?;
            if !no_wait {
                let what = format!("group {group}: replicas are leaving");
                let is_named = |found: &&GroupReplica| nodes.contains(&NodeId(found.node_id));
                let leaving: Vec<u64> = info.replicas.iter().filter(is_named).map(|found| found.replica_id).collect();
                let gone = |info: &GroupInfo| leaving.iter().all(|id| replica(info, *id).is_none());
                info = changed(&client, group, &what, gone).await?;
            }
            print_groups(global.json, output, &[info])?;
            Ok(End::Done)
        }
        Command::Digests { group } => {
            let comparison = client.compare_digests(group).await?;
            print_digests(global.json, output, &comparison)?;
            Ok(if comparison.equal { End::Done } else { End::No })
        }
    }
}

/// Where it shows whether the replicas of a group were changed.
fn look() -> Settle {
    Settle::Look("group list".to_owned())
}

/// The replica of a group with this number. Its node may hold another one later.
fn replica(group: &GroupInfo, id: u64) -> Option<&GroupReplica> {
    group.replicas.iter().find(|replica| replica.replica_id == id)
}

/// How often a change of replicas is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until a change of a group's replicas has ended, and shows how far it is.
async fn changed(
    client: &Client,
    group: GroupId,
    what: &str,
    ended: impl Fn(&GroupInfo) -> bool,
) -> anyhow::Result<GroupInfo> {
    let spinner = ProgressBar::new_spinner();
    loop {
        let found = match client.groups().await {
            Ok(groups) => groups.into_iter().find(|info| info.group_id == group.0),
            // It goes on without being watched.
            Err(error) if error.is_transient() => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(info) = found.filter(|info| ended(info)) {
            spinner.finish_and_clear();
            return Ok(info);
        }
        let behind = client.status().await.ok().and_then(|status| furthest_behind(&status, group));
        spinner.set_message(behind.map_or(what.to_owned(), |lag| format!("{what}, {lag} entries behind")));
        spinner.tick();
        tokio::time::sleep(LOOK).await;
    }
}

/// How many entries the replica of a group is behind that is furthest behind.
fn furthest_behind(status: &ClusterStatus, group: GroupId) -> Option<u64> {
    let replicas = status.nodes.iter().flat_map(|node| &node.replicas).filter(|replica| replica.group_id == group.0);
    replicas.flat_map(|replica| replica.follower_lag.values()).copied().max()
}

fn print_groups(as_json: bool, output: &mut Output, groups: &[GroupInfo]) -> std::io::Result<()> {
    let state = |replica: &GroupReplica| match replica.state() {
        ReplicaState::Joining => "joining",
        ReplicaState::Active => "active",
        ReplicaState::Leaving => "leaving",
        ReplicaState::Unspecified => "?",
    };
    if as_json {
        let replica = |replica: &GroupReplica| {
            json!({
                "node": replica.node_id,
                "replica": replica.replica_id,
                "votes": replica.votes,
                "state": state(replica),
            })
        };
        let group = |group: &GroupInfo| {
            let replicas: Vec<_> = group.replicas.iter().map(replica).collect();
            json!({ "group": group.group_id, "leader": group.leader, "replicas": replicas })
        };
        let groups: Vec<_> = groups.iter().map(group).collect();
        return output.json(&json!({ "groups": groups }));
    }
    let rows = groups.iter().map(|group| {
        let shown = |replica: &GroupReplica| match replica.state() {
            ReplicaState::Active => replica.node_id.to_string(),
            _ => format!("{} ({})", replica.node_id, state(replica)),
        };
        let replicas: Vec<String> = group.replicas.iter().map(shown).collect();
        let leader = if group.leader == 0 { "?".to_owned() } else { group.leader.to_string() };
        vec![group.group_id.to_string(), leader, replicas.join(", ")]
    });
    output.table(&["group", "leader", "replicas on nodes"], rows.collect())
}

fn print_digests(as_json: bool, output: &mut Output, comparison: &DigestComparison) -> std::io::Result<()> {
    if as_json {
        let digests: Vec<_> = comparison
            .digests
            .iter()
            .map(|digest| {
                json!({
                    "node_id": digest.node_id,
                    "digest": (!digest.digest.is_empty()).then(|| format_hex(&digest.digest)),
                    "rows": digest.rows,
                    "error": (!digest.error.is_empty()).then_some(&digest.error),
                })
            })
            .collect();
        return output.json(&json!({ "index": comparison.index, "equal": comparison.equal, "digests": digests }));
    }
    let verdict = if comparison.equal { "all equal" } else { "NOT all equal" };
    output.line(&format!("at log index {}: {verdict}", comparison.index))?;
    let rows = comparison.digests.iter().map(|digest| {
        let shown = if digest.error.is_empty() { format_hex(&digest.digest) } else { digest.error.clone() };
        vec![digest.node_id.to_string(), shown, digest.rows.to_string()]
    });
    output.table(&["node", "digest", "rows"], rows.collect())
}

#[cfg(test)]
mod tests {
    use drover_client::ReplicaDigest;

    use super::super::output::tests::Captured;
    use super::*;

    #[test]
    fn a_replica_without_digest_says_why() {
        let silent = ReplicaDigest { node_id: 2, error: "no answer".into(), ..ReplicaDigest::default() };
        let digest = ReplicaDigest { node_id: 1, digest: vec![0xab; 2].into(), rows: 7, error: String::new() };
        let comparison = DigestComparison { index: 9, digests: vec![digest, silent], equal: false };
        let shown = |json| {
            let captured = Captured::default();
            let mut output = Output::to(captured.clone());
            print_digests(json, &mut output, &comparison).unwrap();
            output.flush().unwrap();
            captured.text()
        };
        let text = shown(false);
        assert!(text.starts_with("at log index 9: NOT all equal\n") && text.contains("no answer"), "{text}");
        assert!(shown(true).contains(r#""digest":"abab""#), "{}", shown(true));
    }
}
