//! `drover node join`: gives a new node a number, a data directory and a configuration file.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use drover_client::{ClusterId, NewNode, NodeId};
use drover_server::datadir::NewDataDir;
use drover_server::node::{CAPABILITIES, build_version};
use serde_json::json;

use super::Global;
use super::exit::{End, UsageError};
use super::interrupt::change;
use super::node::look;
use super::output::Output;

/// `drover node join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Empty directory for everything that the node stores
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Configuration file to write; it must not exist
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Address on which clients and other nodes are served
    #[arg(long, value_name = "IP:PORT")]
    grpc_listen: SocketAddr,
    /// Address on which health and metrics are served
    #[arg(long, value_name = "IP:PORT")]
    admin_listen: SocketAddr,
    /// Address by which others reach --grpc-listen, if it is another one
    #[arg(long, value_name = "HOST:PORT")]
    grpc_advertise: Option<String>,
    /// Address by which others reach --admin-listen, if it is another one
    #[arg(long, value_name = "HOST:PORT")]
    admin_advertise: Option<String>,
}

pub async fn run(global: &Global, args: JoinArgs, output: &mut Output) -> anyhow::Result<End> {
    let client = global.connect().await?;
    for (listen, advertise, flag) in [
        (args.grpc_listen, &args.grpc_advertise, "--grpc-advertise"),
        (args.admin_listen, &args.admin_advertise, "--admin-advertise"),
    ] {
        if listen.ip().is_unspecified() && advertise.is_none() {
            let message = format!("nobody can reach {listen}: give {flag} the address by which others reach this node");
            return Err(UsageError(message).into());
        }
    }
    // Everything that can fail here is tried before the cluster gives out a number.
    let data_dir = std::path::absolute(&args.data_dir).context("the data directory has no absolute path")?;
    let prepared = NewDataDir::prepare(&data_dir)?;
    let mut file = create(&args.config)?;
    let seeds: Vec<String> = client.nodes().await?.into_iter().map(|node| node.grpc_address).collect();
    let version = build_version().map_err(anyhow::Error::msg)?;
    let (grpc, admin) = (args.grpc_listen.to_string(), args.admin_listen.to_string());
    let node = NewNode {
        store: prepared.store_id().0,
        grpc_address: args.grpc_advertise.clone().unwrap_or(grpc),
        admin_address: args.admin_advertise.clone().unwrap_or(admin),
        version: (version.major, version.minor),
        capabilities: CAPABILITIES.iter().map(|&name| name.to_owned()).collect(),
    };
    let registered = change(look(), client.register_node(&node, &global.actor())).await;
    if registered.is_err() {
        // Only the file that was just made here, and is empty.
        let _ = std::fs::remove_file(&args.config);
    }
    let (id, cluster) = registered?;
    let text = configuration(&args, &data_dir, id, cluster, &seeds);
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}; node {id} is registered, remove it", args.config.display()))?;
    prepared.claim(cluster, id).with_context(|| format!("node {id} is registered, remove it"))?;
    let config = args.config.display().to_string();
    match global.json {
        true => output.json(&json!({ "node": id.0, "cluster_id": cluster.to_string(), "config": config }))?,
        false => {
            output.line(&format!("node {id} has joined cluster {cluster}; start it with"))?;
            output.line(&format!("    drover server --config {config}"))?;
        }
    }
    Ok(End::Done)
}

fn create(path: &Path) -> anyhow::Result<std::fs::File> {
    match std::fs::File::create_new(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!("{} exists already; nothing was changed", path.display())
        }
        made => made.with_context(|| format!("cannot make {}; nothing was changed", path.display())),
    }
}

fn configuration(args: &JoinArgs, data_dir: &Path, id: NodeId, cluster: ClusterId, seeds: &[String]) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned());
    let mut node = toml::Table::new();
    node.insert("id".to_owned(), toml::Value::Integer(i64::try_from(id.0).unwrap_or(i64::MAX)));
    node.insert("data_dir".to_owned(), text(&data_dir.to_string_lossy()));
    node.insert("grpc_listen".to_owned(), text(&args.grpc_listen.to_string()));
    node.insert("admin_listen".to_owned(), text(&args.admin_listen.to_string()));
    for (name, address) in [("grpc_advertise", &args.grpc_advertise), ("admin_advertise", &args.admin_advertise)] {
        if let Some(address) = address {
            node.insert(name.to_owned(), text(address));
        }
    }
    let mut joined = toml::Table::new();
    joined.insert("id".to_owned(), text(&cluster.to_string()));
    joined.insert("join".to_owned(), text(&seeds.join(",")));
    let mut root = toml::Table::new();
    root.insert("node".to_owned(), node.into());
    root.insert("cluster".to_owned(), joined.into());
    root.to_string()
}

#[cfg(test)]
mod tests {
    use drover_server::config::{Config, Sources};

    use super::*;

    #[test]
    fn the_file_that_is_written_is_a_configuration() {
        let temp = tempfile::tempdir().unwrap();
        let args = JoinArgs {
            data_dir: "data".into(),
            config: temp.path().join("node.toml"),
            grpc_listen: "127.0.0.1:7430".parse().unwrap(),
            admin_listen: "127.0.0.1:7431".parse().unwrap(),
            grpc_advertise: Some("far.example:7430".to_owned()),
            admin_advertise: None,
        };
        let seeds = ["a:1".to_owned(), "b:2".to_owned()];
        let text = configuration(&args, Path::new("/data"), NodeId(4), ClusterId([7; 16]), &seeds);
        create(&args.config).unwrap().write_all(text.as_bytes()).unwrap();
        let config = Config::load(&Sources { file: Some(args.config.clone()), ..Sources::default() }).unwrap();
        assert_eq!((config.node.id, config.cluster.id), (NodeId(4), ClusterId([7; 16])));
        assert_eq!(config.cluster.join.0.iter().map(|seed| seed.as_str()).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(config.advertised_grpc().as_str(), "far.example:7430");
        assert!(create(&args.config).unwrap_err().to_string().contains("exists already"));
    }
}
