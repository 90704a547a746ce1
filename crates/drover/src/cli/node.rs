//! `drover node`, `drover audit`: the catalog's nodes, and who changed what.

use clap::{Args, Subcommand};
use drover_client::{AuditEvent, NodeId, RegisteredNode};
use serde_json::json;

use super::Global;
use super::compat::{shown_time, shown_version};
use super::exit::End;
use super::interrupt::change;
use super::output::Output;
use super::settle::Settle;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists the nodes that are registered
    List,
    /// Gives a new node its number, a data directory and a configuration file; `drover server` then starts it
    Join(super::join::JoinArgs),
    /// Lets a node get no new replicas
    Drain {
        node: NodeId,
        /// Let it get replicas again
        #[arg(long)]
        undo: bool,
    },
    /// Forgets a node that holds no replica; its id is never used again
    Remove { node: NodeId },
}

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    let command = match command {
        Command::Join(args) => return super::join::run(global, args, output).await,
        command => command,
    };
    let client = global.connect().await?;
    match command {
        Command::Join(_) => unreachable!("it was taken out above"),
        Command::List => list(global.json, output, &client.nodes().await?)?,
        Command::Drain { node, undo } => {
            let changed = change(look(), client.drain_node(node, !undo, &global.actor())).await?;
            match global.json {
                true => output.json(&json!({ "node": node.0, "draining": !undo, "changed": changed }))?,
                false => {
                    let verb = if undo { "gets replicas again" } else { "gets no new replicas" };
                    let before = if changed { "" } else { ", as before" };
                    output.line(&format!("node {node} {verb}{before}"))?;
                }
            }
        }
        Command::Remove { node } => {
            change(look(), client.remove_node(node, &global.actor())).await?;
            match global.json {
                true => output.json(&json!({ "node": node.0, "removed": true }))?,
                false => output.line(&format!("node {node} was removed"))?,
            }
        }
    }
    Ok(End::Done)
}

/// Where it shows whether a node was changed.
pub fn look() -> Settle {
    Settle::Look("node list".to_owned())
}

fn list(as_json: bool, output: &mut Output, nodes: &[RegisteredNode]) -> std::io::Result<()> {
    if as_json {
        let node = |node: &RegisteredNode| {
            json!({
                "node": node.node_id,
                "grpc": node.grpc_address,
                "admin": node.admin_address,
                "live": node.live,
                "draining": node.draining,
                "version": node.version.as_ref().map(|version| shown_version(Some(version))),
                "capabilities": node.capabilities,
                "renewed_unix_ms": node.renewed_unix_ms,
                "groups": node.groups,
            })
        };
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        return output.json(&json!({ "nodes": nodes }));
    }
    let rows = nodes.iter().map(|node| {
        let state = match (node.version.is_some(), node.live, node.draining) {
            (false, _, _) => "never registered",
            (true, false, _) => "silent",
            (true, true, true) => "draining",
            (true, true, false) => "live",
        };
        let groups: Vec<String> = node.groups.iter().map(u64::to_string).collect();
        vec![
            node.node_id.to_string(),
            node.grpc_address.clone(),
            state.to_owned(),
            shown_version(node.version.as_ref()),
            groups.join(" "),
            node.capabilities.join(" "),
        ]
    });
    output.table(&["node", "address", "state", "version", "groups", "capabilities"], rows.collect())
}

/// `drover audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// How many events, the newest ones
    #[arg(long, default_value_t = 100)]
    limit: u32,
}

pub async fn audit(global: &Global, args: AuditArgs, output: &mut Output) -> anyhow::Result<End> {
    let events = global.connect().await?.audit_events(args.limit).await?;
    if global.json {
        for event in &events {
            output.json(&json!({
                "seq": event.seq,
                "at_unix_ms": event.at_unix_ms,
                "actor": event.actor,
                "action": event.action,
                "subject": event.subject,
                "details": event.details,
            }))?;
        }
        return Ok(End::Done);
    }
    let row = |event: &AuditEvent| {
        let at = shown_time(event.at_unix_ms);
        let AuditEvent { seq, actor, action, subject, details, .. } = event.clone();
        vec![seq.to_string(), at, actor, action, subject, details]
    };
    output.table(&["seq", "time", "who", "what", "subject", "details"], events.iter().map(row).collect())?;
    Ok(End::Done)
}
