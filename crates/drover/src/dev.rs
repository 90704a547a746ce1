//! `drover dev`: a whole cluster on this machine, for trying things out.
//!
//! ```text
//! DIR/LOCK            held by the `drover dev` that uses the directory
//! DIR/plan.json       what the cluster consists of, written on the first start
//! DIR/cluster.json    how to reach the nodes; there while the cluster runs
//! DIR/node-N/node.toml, data/, log
//! ```
//!
//! A start that is refused before a node runs leaves nothing behind that it has made ([`made`]).
//!
//! The nodes are processes of this executable, each in a process group of its own (a Ctrl-C of the terminal reaches only
//! `drover dev`, which then stops them in order) and killed by the kernel if `drover dev` itself dies. The kernel ties them to
//! the *thread* that started them: everything here runs on the main thread.

mod made;
mod plan;
mod process;
mod ready;
mod supervisor;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use drover_server::config::{Config, ConfigError, Sources};
use drover_server::durable;

use made::Made;
use plan::{Plan, PlanArgs};
use process::NodeSpec;
use supervisor::{Announce, Options, supervise};

use crate::cli::{self, UsageError};
use crate::server_cmd;

/// What the command line says.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Directory of the cluster. The same directory brings the same cluster back.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    plan: PlanArgs,
    /// Start nodes again that end by themselves or are killed.
    #[arg(long)]
    restart: bool,
    /// How long the nodes may take until they are ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    ready_timeout: u64,
}

/// Runs a cluster until told to stop.
pub fn run(args: DevArgs) -> ExitCode {
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("drover dev: {}", cli::told(&error));
            let is_usage =
                |cause: &(dyn std::error::Error + 'static)| cause.is::<UsageError>() || cause.is::<ConfigError>();
            ExitCode::from(if error.chain().any(is_usage) { server_cmd::USAGE } else { server_cmd::FAILED })
        }
    }
}

fn start(args: &DevArgs) -> anyhow::Result<()> {
    let mut made = Made::default();
    made.dir(&args.data)?;
    let dir = args.data.canonicalize().with_context(|| format!("cannot find {}", args.data.display()))?;
    made.lock(&dir)?;
    let plan = Plan::open(&dir, &args.plan, &mut made)?;
    let nodes = prepare_nodes(&dir, &plan, &mut made)?;
    // Whoever answers at these addresses before the nodes run is somebody else, and would be taken for them.
    for node in &nodes {
        ready::expect_nobody(node.id, [&node.grpc, &node.admin])?;
    }
    let options = Options {
        restart: args.restart,
        ready_timeout: Duration::from_secs(args.ready_timeout),
        launch: launch_server,
    };
    let record = dir.join("cluster.json");
    remove_record(&record)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let announce = ClusterRecord { path: record.clone(), plan: &plan };
    made.keep();
    let ended = runtime.block_on(supervise(nodes, &options, &announce));
    remove_record(&record)?;
    ended
}

/// Writes the configurations that are not there yet, and reads all of them as the nodes will.
fn prepare_nodes(dir: &Path, plan: &Plan, made: &mut Made) -> anyhow::Result<Vec<NodeSpec>> {
    let mut nodes = Vec::new();
    for id in plan.node_ids() {
        let home = dir.join(format!("node-{id}"));
        let file = home.join("node.toml");
        if !file.exists() {
            made.dir(&home)?;
            made.file(&file, &plan.node_config(id, &home.join("data"))?)?;
        }
        let env = server_cmd::variables(std::env::vars_os())?;
        let config = Config::load(&Sources { file: Some(file.clone()), env, flags: Vec::new() })?;
        if config.node.id != id || config.cluster.id != plan.cluster_id {
            let why = format!(
                "{} or a variable makes this node {} of cluster {}, but it is node {id} of cluster {}; nothing was started",
                file.display(),
                config.node.id,
                config.cluster.id,
                plan.cluster_id,
            );
            return Err(UsageError(why).into());
        }
        nodes.push(NodeSpec {
            id,
            grpc: config.advertised_grpc(),
            admin: config.advertised_admin(),
            config: file,
            log: home.join("log"),
            drain_timeout: config.server.drain_timeout,
        });
    }
    Ok(nodes)
}

fn launch_server(node: &NodeSpec) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this executable")?);
    command.arg("server").arg("--config").arg(&node.config);
    command.arg("--exit-with-parent").arg(std::process::id().to_string());
    Ok(command)
}

/// `cluster.json`.
struct ClusterRecord<'a> {
    path: PathBuf,
    plan: &'a Plan,
}

impl Announce for ClusterRecord<'_> {
    fn announce(&self, nodes: &[(&NodeSpec, Option<u32>)], first: bool) -> anyhow::Result<()> {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|(node, pid)| {
                serde_json::json!({
                    "id": node.id,
                    "grpc": node.grpc,
                    "admin": node.admin,
                    "pid": pid,
                    "config": node.config,
                    "log": node.log,
                })
            })
            .collect();
        let record = serde_json::json!({
            "cluster_id": self.plan.cluster_id.to_string(),
            "pid": std::process::id(),
            "nodes": nodes,
            "routes": self.plan.routes(),
        });
        let text = format!("{}\n", serde_json::to_string_pretty(&record)?);
        durable::write(&self.path, text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))?;
        if first {
            std::io::stdout().write_all(text.as_bytes()).context("cannot print")?;
        }
        Ok(())
    }
}

fn remove_record(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
