//! `drover compat`: which version of the software the cluster understands.

use clap::Subcommand;
use drover_client::{CompatAction, CompatOutcome, CompatResponse, SoftwareVersion};
use serde_json::json;

use super::Global;
use super::exit::End;
use super::interrupt::change;
use super::output::Output;
use super::settle::Settle;

#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Shows the cluster's version, the high-water mark, the freeze if there is one, and the nodes
    Show,
    /// Pins the cluster's version, so that nodes can be rolled back to it
    Freeze,
    /// Lets the cluster's version rise again
    Unfreeze,
}

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    let action = match command {
        Command::Show => CompatAction::Show,
        Command::Freeze => CompatAction::Freeze,
        Command::Unfreeze => CompatAction::Unfreeze,
    };
    let (client, actor) = (global.connect().await?, global.actor());
    let state = change(Settle::Look("compat show".to_owned()), client.compat(action, &actor)).await?;
    show(global.json, output, &state)?;
    Ok(End::Done)
}

fn outcome(state: &CompatResponse) -> &'static str {
    match state.outcome() {
        CompatOutcome::Read => "read",
        CompatOutcome::Unspecified => "unknown",
        CompatOutcome::Frozen => "frozen",
        CompatOutcome::AlreadyFrozen => "already frozen",
        CompatOutcome::Unfrozen => "unfrozen",
        CompatOutcome::NothingFrozen => "nothing was frozen",
    }
}

fn show(as_json: bool, output: &mut Output, state: &CompatResponse) -> std::io::Result<()> {
    let known = |version: Option<&SoftwareVersion>| version.map(|version| shown_version(Some(version)));
    if as_json {
        let nodes: Vec<_> = state
            .nodes
            .iter()
            .map(|node| {
                json!({
                    "node": node.node_id,
                    "version": known(node.version.as_ref()),
                    "live": node.live,
                    "serving_since_unix_ms": node.serving_since_unix_ms,
                    "capabilities": node.capabilities,
                })
            })
            .collect();
        let freeze = state.freeze.as_ref().map(|freeze| {
            json!({ "version": known(freeze.version.as_ref()), "by": freeze.by, "at_unix_ms": freeze.at_unix_ms })
        });
        return output.json(&json!({
            "outcome": outcome(state),
            "cluster_version": known(state.cluster_version.as_ref()),
            "high_water": known(state.high_water.as_ref()),
            "freeze": freeze,
            "nodes": nodes,
        }));
    }
    if state.outcome() != CompatOutcome::Read {
        output.line(outcome(state))?;
    }
    let version = match &state.cluster_version {
        Some(version) => shown_version(Some(version)),
        None => "not known until every live node has served for a while".to_owned(),
    };
    output.line(&format!("cluster version: {version}"))?;
    output.line(&format!("nodes below {} are refused", shown_version(state.high_water.as_ref())))?;
    if let Some(freeze) = &state.freeze {
        let (version, at) = (shown_version(freeze.version.as_ref()), shown_time(freeze.at_unix_ms));
        output.line(&format!("frozen at {version} by {} at {at}", freeze.by))?;
    }
    let rows = state.nodes.iter().map(|node| {
        vec![
            node.node_id.to_string(),
            shown_version(node.version.as_ref()),
            if node.live { "live" } else { "silent" }.to_owned(),
            if node.serving_since_unix_ms == 0 { "-".to_owned() } else { shown_time(node.serving_since_unix_ms) },
            node.capabilities.join(" "),
        ]
    });
    output.table(&["node", "version", "state", "serving since", "capabilities"], rows.collect())
}

/// `major.minor`.
pub fn shown_version(version: Option<&SoftwareVersion>) -> String {
    version.map_or_else(|| "-".to_owned(), |version| format!("{}.{}", version.major, version.minor))
}

/// A moment, in UTC.
pub fn shown_time(unix_ms: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Captured;
    use super::*;

    #[test]
    fn a_frozen_version_says_by_whom_and_since_when() {
        let version = |major, minor| Some(SoftwareVersion { major, minor });
        let freeze = drover_client::CompatFreeze { version: version(1, 2), by: "ada".to_owned(), at_unix_ms: 1_000 };
        let state = CompatResponse {
            outcome: CompatOutcome::Frozen.into(),
            cluster_version: version(1, 2),
            high_water: version(1, 2),
            freeze: Some(freeze),
            nodes: vec![],
        };
        let shown = |json| {
            let captured = Captured::default();
            let mut output = Output::to(captured.clone());
            show(json, &mut output, &state).unwrap();
            output.flush().unwrap();
            captured.text()
        };
        let text = shown(false);
        assert!(text.contains("frozen at 1.2 by ada at 1970-01-01T00:00:01.000Z"), "{text}");
        assert!(shown(true).contains(r#""outcome":"frozen""#), "{}", shown(true));
    }
}
