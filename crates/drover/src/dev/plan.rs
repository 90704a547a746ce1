//! What a development cluster consists of.

use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use drover_keys::{ClusterId, NodeId, escape, unescape};
use serde::{Deserialize, Serialize};

use super::made::Made;
use crate::cli::UsageError;

/// The group that holds catalog and oracle and owns no keys of users.
const DEFAULT_GROUP: u64 = 1;
/// Replicas of a group, if there are as many nodes.
const REPLICAS: u64 = 3;

const NODES: RangeInclusive<u64> = 1..=99;
const DATA_GROUPS: RangeInclusive<u64> = 1..=999;

/// What the command line says. Options that are not given leave a cluster as it is, or take their defaults.
#[derive(Debug, Clone, Default, Args)]
pub struct PlanArgs {
    /// Number of nodes [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(NODES))]
    nodes: Option<u64>,
    /// Number of groups that own keys, beside group 1 [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(DATA_GROUPS))]
    data_groups: Option<u64>,
    /// Node N listens on this port plus 2N - 2 (gRPC) and 2N - 1 (health and metrics) [default: 7400].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: Option<u16>,
    /// Keys at which the key space is divided among the groups, in ascending order, one less than groups, with \xNN for other
    /// bytes. Without it: letters that cut a to z into equal parts (for three groups i and r).
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    split_at: Option<Vec<String>>,
}

/// A development cluster; `plan.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    #[serde(with = "as_text")]
    pub cluster_id: ClusterId,
    pub nodes: u64,
    pub data_groups: u64,
    pub base_port: u16,
    /// Escaped keys.
    pub split_at: Vec<String>,
}

/// A route as it stands in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedRoute {
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    group: u64,
}

#[derive(Serialize)]
struct NodeFile {
    node: NodeSection,
    cluster: ClusterSection,
    bootstrap: BootstrapSection,
}

#[derive(Serialize)]
struct NodeSection {
    id: NodeId,
    data_dir: String,
    grpc_listen: String,
    admin_listen: String,
}

#[derive(Serialize)]
struct ClusterSection {
    id: String,
}

#[derive(Serialize)]
struct BootstrapSection {
    nodes: Vec<PlannedNode>,
    groups: Vec<PlannedGroup>,
    routes: Vec<PlannedRoute>,
}

#[derive(Serialize)]
struct PlannedNode {
    id: NodeId,
    grpc: String,
    admin: String,
}

#[derive(Serialize)]
struct PlannedGroup {
    id: u64,
    replicas: Vec<u64>,
}

impl Plan {
    /// The plan of the cluster in `dir`, or, if there is none, a new one after `args`, which is then kept.
    pub fn open(dir: &Path, args: &PlanArgs, made: &mut Made) -> anyhow::Result<Self> {
        let path = dir.join("plan.json");
        match std::fs::read(&path) {
            Ok(text) => {
                let plan = Self::parse(&text)
                    .with_context(|| format!("{} is damaged; use another directory", path.display()))?;
                plan.check_args(args).with_context(|| format!("the cluster in {} stays as it is", dir.display()))?;
                Ok(plan)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let plan = Self::new(ClusterId(rand::random()), args)?;
                let text = serde_json::to_string_pretty(&plan)?;
                made.file(&path, &text)?;
                Ok(plan)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// A plan that was kept. It must be one that the command line could have asked for: counts from elsewhere could be zero, or
    /// more than there is room for.
    fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let Self { cluster_id, nodes, data_groups, base_port, split_at } = serde_json::from_slice(text)?;
        let (nodes, data_groups, base_port) = (Some(nodes), Some(data_groups), Some(base_port));
        let plan = Self::new(cluster_id, &PlanArgs { nodes, data_groups, base_port, split_at: Some(split_at) });
        // The command line is not to blame.
        plan.map_err(|wrong| anyhow::Error::msg(wrong.0))
    }

    fn new(cluster_id: ClusterId, args: &PlanArgs) -> Result<Self, UsageError> {
        let (nodes, data_groups) = (args.nodes.unwrap_or(3), args.data_groups.unwrap_or(3));
        let base_port = args.base_port.unwrap_or(7400);
        if !NODES.contains(&nodes) || !DATA_GROUPS.contains(&data_groups) || base_port == 0 {
            let why =
                format!("there is no cluster of {nodes} nodes and {data_groups} data groups from port {base_port} on");
            return Err(UsageError(why));
        }
        if u64::from(base_port) + 2 * nodes > 1 << 16 {
            return Err(UsageError(format!(
                "--base-port {base_port}: there are not enough ports above it for {nodes} nodes"
            )));
        }
        let split_at = match &args.split_at {
            Some(keys) => checked_splits(keys, data_groups)?,
            None => letters(data_groups)?,
        };
        Ok(Self { cluster_id, nodes, data_groups, base_port, split_at })
    }

    /// Refuses options that say something else than the plan.
    fn check_args(&self, args: &PlanArgs) -> Result<(), UsageError> {
        let split_at = args.split_at.as_ref().map(|keys| checked_splits(keys, self.data_groups)).transpose()?;
        let shown = |keys: &[String]| keys.join(",");
        let table = [
            ("nodes", args.nodes.map(|n| n.to_string()), self.nodes.to_string()),
            ("data-groups", args.data_groups.map(|n| n.to_string()), self.data_groups.to_string()),
            ("base-port", args.base_port.map(|n| n.to_string()), self.base_port.to_string()),
            ("split-at", split_at.as_deref().map(shown), shown(&self.split_at)),
        ];
        for (option, wanted, found) in table {
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
                let why = format!(
                    "--{option} {wanted} contradicts it ({found}); leave the option out, or use another --data"
                );
                return Err(UsageError(why));
            }
        }
        Ok(())
    }

    /// The nodes.
    pub fn node_ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes).map(NodeId)
    }

    /// The routes: equal shares for the groups above [`DEFAULT_GROUP`].
    pub fn routes(&self) -> Vec<PlannedRoute> {
        let starts = std::iter::once(String::new()).chain(self.split_at.iter().cloned());
        let ends = self.split_at.iter().cloned().map(Some).chain(std::iter::once(None));
        (DEFAULT_GROUP + 1..)
            .zip(starts.zip(ends))
            .map(|(group, (start, end))| PlannedRoute { start, end, group })
            .collect()
    }

    /// The text of the configuration file of a node.
    pub fn node_config(&self, id: NodeId, data_dir: &Path) -> anyhow::Result<String> {
        let data_dir = data_dir.to_str().with_context(|| format!("{} is not UTF-8", data_dir.display()))?;
        let nodes = self.node_ids().map(|id| PlannedNode { id, grpc: self.address(id, 0), admin: self.address(id, 1) });
        let file = NodeFile {
            node: NodeSection {
                id,
                data_dir: data_dir.to_owned(),
                grpc_listen: self.address(id, 0),
                admin_listen: self.address(id, 1),
            },
            cluster: ClusterSection { id: self.cluster_id.to_string() },
            bootstrap: BootstrapSection {
                nodes: nodes.collect(),
                groups: (DEFAULT_GROUP..=DEFAULT_GROUP + self.data_groups)
                    .map(|id| PlannedGroup { id, replicas: self.replicas(id) })
                    .collect(),
                routes: self.routes(),
            },
        };
        let text = toml::to_string(&file).context("cannot write the configuration as TOML")?;
        Ok(format!("# Written by drover dev, and kept as it is from then on: changes here stay.\n\n{text}"))
    }

    fn address(&self, id: NodeId, offset: u64) -> String {
        format!("127.0.0.1:{}", u64::from(self.base_port) + 2 * (id.0 - 1) + offset)
    }

    /// Successive groups begin at successive nodes, so that every node holds about as many replicas.
    fn replicas(&self, group: u64) -> Vec<u64> {
        let mut replicas: Vec<u64> =
            (0..REPLICAS.min(self.nodes)).map(|n| 1 + (group - DEFAULT_GROUP + n) % self.nodes).collect();
        replicas.sort_unstable();
        replicas
    }
}

/// One-letter keys that cut a to z into equal parts.
fn letters(groups: u64) -> Result<Vec<String>, UsageError> {
    if groups > 26 {
        return Err(UsageError(format!(
            "--data-groups {groups}: there are only 26 letters to split at; give --split-at"
        )));
    }
    Ok((1..groups).filter_map(|n| u8::try_from(n * 26 / groups).ok()).map(|n| escape(&[b'a' + n])).collect())
}

/// Keys to split at in their one escaped form.
fn checked_splits(keys: &[String], groups: u64) -> Result<Vec<String>, UsageError> {
    let keys: Vec<Vec<u8>> = keys
        .iter()
        .map(|key| unescape(key).map_err(|error| UsageError(format!("--split-at {key}: {error}"))))
        .collect::<Result<_, _>>()?;
    if keys.len() as u64 + 1 != groups {
        return Err(UsageError(format!(
            "--split-at gives {} keys; {groups} data groups need {}",
            keys.len(),
            groups - 1
        )));
    }
    if keys.iter().any(Vec::is_empty) || !keys.is_sorted_by(|a, b| a < b) {
        return Err(UsageError("--split-at: the keys must be in ascending order, without an empty one".to_owned()));
    }
    Ok(keys.iter().map(|key| escape(key)).collect())
}

mod as_text {
    use drover_keys::ClusterId;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(id: &ClusterId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ClusterId, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use drover_server::config::{Config, Sources};
    use proptest::prelude::*;

    use super::*;

    fn open(dir: &Path, args: &PlanArgs) -> anyhow::Result<Plan> {
        let mut made = Made::default();
        let plan = Plan::open(dir, args, &mut made);
        made.keep();
        plan
    }

    fn args(nodes: u64, data_groups: u64, split_at: Option<&[&str]>) -> PlanArgs {
        PlanArgs {
            nodes: Some(nodes),
            data_groups: Some(data_groups),
            base_port: Some(9000),
            split_at: split_at.map(|keys| keys.iter().map(|&key| key.to_owned()).collect()),
        }
    }

    fn load(plan: &Plan, id: NodeId) -> Config {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("node.toml");
        std::fs::write(&file, plan.node_config(id, &temp.path().join("data")).unwrap()).unwrap();
        Config::load(&Sources { file: Some(file), ..Sources::default() }).unwrap()
    }

    #[test]
    fn every_node_accepts_its_configuration_and_all_agree_on_the_cluster() {
        for (nodes, groups, split) in [(1, 1, None), (3, 3, None), (5, 26, None), (4, 3, Some(&["D", "\\xff"][..]))] {
            let plan = Plan::new(ClusterId([5; 16]), &args(nodes, groups, split)).unwrap();
            let configs: Vec<Config> = plan.node_ids().map(|id| load(&plan, id)).collect();
            for config in &configs {
                assert_eq!(config.bootstrap, configs[0].bootstrap);
                assert_eq!(config.cluster.id, plan.cluster_id);
                let listed = config.bootstrap.node(config.node.id).unwrap();
                assert_eq!(listed.grpc.to_string(), config.node.grpc_listen.to_string());
                assert_eq!(listed.admin.to_string(), config.node.admin_listen.to_string());
            }
            let bootstrap = &configs[0].bootstrap;
            assert_eq!(bootstrap.groups.len() as u64, groups + 1);
            let owners: Vec<u64> = bootstrap.assigned_routes().iter().map(|route| route.group.0).collect();
            assert_eq!(owners, (2..=groups + 1).collect::<Vec<_>>(), "group 1 owns nothing, each other one route");
            let most = plan.node_ids().map(|id| bootstrap.groups_of(id).count()).max().unwrap();
            let least = plan.node_ids().map(|id| bootstrap.groups_of(id).count()).min().unwrap();
            assert!(most - least <= 2, "{least} to {most} replicas");
        }
    }

    #[test]
    fn letters_cut_the_alphabet_into_equal_parts() {
        assert_eq!(letters(3).unwrap(), ["i", "r"]);
        assert_eq!(letters(1).unwrap(), [""; 0]);
        let all = letters(26).unwrap();
        assert!(all.is_sorted_by(|a, b| a < b) && all.len() == 25);
        assert!(letters(27).is_err());
    }

    #[test]
    fn splits_that_cannot_be_are_refused() {
        for (split, expect) in [
            (&["a"][..], "need 2"),
            (&["b", "a"], "ascending"),
            (&["a", "a"], "ascending"),
            (&["", "a"], "without an empty one"),
            (&["a", "\\q"], "unknown escape"),
        ] {
            let error = Plan::new(ClusterId([5; 16]), &args(3, 3, Some(split))).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn the_same_directory_gives_the_same_cluster_and_refuses_contradictions() {
        let temp = tempfile::tempdir().unwrap();
        let first = open(temp.path(), &args(3, 3, Some(&["a", "b"]))).unwrap();
        assert_eq!(open(temp.path(), &PlanArgs::default()).unwrap(), first);
        assert_eq!(open(temp.path(), &args(3, 3, Some(&["\\x61", "b"]))).unwrap(), first);
        for (other, option) in [
            (args(4, 3, None), "--nodes 4"),
            (args(3, 2, None), "--data-groups 2"),
            (args(3, 3, Some(&["a", "c"])), "--split-at a,c"),
            (PlanArgs { base_port: Some(1), ..PlanArgs::default() }, "--base-port 1"),
        ] {
            let error = format!("{:#}", open(temp.path(), &other).unwrap_err());
            assert!(error.contains(option) && error.contains("contradicts"), "{error}");
        }
        assert_eq!(open(temp.path(), &PlanArgs::default()).unwrap(), first);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(open(other.path(), &PlanArgs::default()).unwrap().cluster_id, first.cluster_id);
    }

    #[test]
    fn a_damaged_plan_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("plan.json"), "{").unwrap();
        let error = format!("{:#}", open(temp.path(), &PlanArgs::default()).unwrap_err());
        assert!(error.contains("plan.json is damaged"), "{error}");
    }

    fn kept(nodes: &str, data_groups: &str, base_port: &str, split_at: &str) -> String {
        let cluster_id = ClusterId([5; 16]);
        format!(
            r#"{{"cluster_id":"{cluster_id}","nodes":{nodes},"data_groups":{data_groups},"base_port":{base_port},"split_at":{split_at}}}"#
        )
    }

    #[test]
    fn a_kept_plan_that_nobody_could_have_asked_for_is_refused() {
        let good = Plan::parse(kept("4", "2", "9000", r#"["m"]"#).as_bytes()).unwrap();
        assert_eq!(good, Plan::new(ClusterId([5; 16]), &args(4, 2, Some(&["m"]))).unwrap());
        for bad in [
            kept("0", "1", "9000", "[]"),
            kept("18446744073709551615", "1", "9000", "[]"),
            kept("3", "0", "9000", "[]"),
            kept("3", "18446744073709551615", "9000", "[]"),
            kept("3", "1", "0", "[]"),
            kept("3", "1", "65535", "[]"),
            kept("3", "2", "9000", "[]"),
            kept("3", "2", "9000", r#"["\\q"]"#),
            kept("3", "3", "9000", r#"["b", "a"]"#),
        ] {
            assert!(Plan::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![(0u64..120).prop_map(|n| n.to_string()), any::<u64>().prop_map(|n| n.to_string()), "[0-9.e-]{0,4}"]
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(text: Vec<u8>) {
            let _ = Plan::parse(&text);
        }

        #[test]
        fn whatever_a_kept_plan_says_it_is_refused_or_every_node_gets_a_configuration(
            nodes in number(),
            groups in number(),
            port in number(),
            split in prop_oneof![Just("[]".to_owned()), r#"\["[a-z\\x0-9]{0,4}"(,"[a-z]{0,2}")?\]"#],
        ) {
            if let Ok(plan) = Plan::parse(kept(&nodes, &groups, &port, &split).as_bytes()) {
                prop_assert_eq!(plan.routes().len() as u64, plan.data_groups);
                for id in plan.node_ids() {
                    prop_assert!(plan.node_config(id, Path::new("/data")).is_ok());
                }
                prop_assert_eq!(Plan::parse(serde_json::to_string(&plan).unwrap().as_bytes()).unwrap(), plan);
            }
        }
    }

    #[test]
    fn ports_must_fit() {
        let mut args = args(3, 3, None);
        args.base_port = Some(65_530);
        assert!(Plan::new(ClusterId([5; 16]), &args).is_ok());
        args.base_port = Some(65_531);
        assert!(Plan::new(ClusterId([5; 16]), &args).is_err());
    }
}
