use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use drover_keys::{ClusterId, GroupId, NodeId, escape};

use super::links::Links;
use super::{Cluster, ClusterError, Node, PATIENCE, Port};

/// Where the key space is cut between data groups: route `n` ends before key `n` of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// Evenly, by the first letter of lower-case keys.
    Letters,
    /// At these keys; one less than there are data groups, or any number if the groups take turns.
    At(Vec<Vec<u8>>),
}

/// Describes a cluster before it starts.
#[derive(Debug, Clone)]
pub struct ClusterBuilder {
    nodes: u64,
    data_groups: u64,
    split: Split,
    settings: BTreeMap<String, toml::Value>,
    node_settings: BTreeMap<NodeId, BTreeMap<String, toml::Value>>,
    cuttable: bool,
}

impl Default for ClusterBuilder {
    fn default() -> Self {
        Self {
            nodes: 3,
            data_groups: 3,
            split: Split::Letters,
            settings: BTreeMap::new(),
            node_settings: BTreeMap::new(),
            cuttable: false,
        }
    }
}

impl ClusterBuilder {
    /// How many nodes; each holds a replica of every group.
    #[must_use]
    pub fn nodes(mut self, nodes: u64) -> Self {
        self.nodes = nodes;
        self
    }

    /// How many groups besides the default group.
    #[must_use]
    pub fn data_groups(mut self, data_groups: u64) -> Self {
        self.data_groups = data_groups;
        self
    }

    /// Where the key space is cut.
    #[must_use]
    pub fn split(mut self, split: Split) -> Self {
        self.split = split;
        self
    }

    /// Gives a setting of every node a value: `path` is `section.name`, as in `docs/drover.example.toml`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<toml::Value>) -> Self {
        self.settings.insert(path.to_owned(), value.into());
        self
    }

    /// Gives a setting of one node a value.
    #[must_use]
    pub fn set_on(mut self, node: NodeId, path: &str, value: impl Into<toml::Value>) -> Self {
        self.node_settings.entry(node).or_default().insert(path.to_owned(), value.into());
        self
    }

    /// Lets [`Cluster::cut_off`] work: nodes reach each other through proxies.
    #[must_use]
    pub fn cuttable(mut self) -> Self {
        self.cuttable = true;
        self
    }

    /// Writes the files and starts every process, and waits until all are ready.
    ///
    /// # Errors
    /// If one of them does not become ready.
    pub async fn start(self) -> Result<Cluster, ClusterError> {
        let cluster = self.prepare()?;
        if let Some(links) = &cluster.links {
            for node in &cluster.nodes {
                let serving = links.serve(node.id(), &node.grpc_address(), node.grpc_listen()).await;
                serving.map_err(ClusterError::io(format!("opening {}", node.grpc_address())))?;
            }
        }
        match cluster.start_all(PATIENCE).await {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.mark_failed();
                Err(error)
            }
        }
    }

    /// Writes the files and starts nothing.
    ///
    /// # Errors
    /// If ports or files are not to be had.
    pub fn prepare(self) -> Result<Cluster, ClusterError> {
        let dir = tempfile::Builder::new().prefix("drover-test-").tempdir();
        let dir = dir.map_err(ClusterError::io("making a temporary folder"))?;
        let links = self.cuttable.then(|| Arc::new(Links::new()));
        let mut nodes = Vec::new();
        for id in (1..=self.nodes).map(NodeId) {
            let mut node = Node::new(id, dir.path(), Port::take()?, Port::take()?);
            if let Some(links) = &links {
                node.reach_through(Port::take()?, Arc::clone(links));
            }
            nodes.push(node);
        }
        let cluster_id = ClusterId(rand::random());
        for node in &nodes {
            let text = self.config(cluster_id, &nodes, node);
            write(node.config_path(), &text)?;
        }
        let (settings, data_groups) = (self.settings, self.data_groups);
        Ok(Cluster { dir: Some(dir), nodes, links, settings, data_groups, failed: AtomicBool::new(false) })
    }

    fn config(&self, cluster_id: ClusterId, nodes: &[Node], node: &Node) -> String {
        let mut root = toml::Table::new();
        put(&mut root, "node.id", int(node.id().0));
        put(&mut root, "node.data_dir", node.data_dir().display().to_string().into());
        put(&mut root, "node.grpc_listen", node.grpc_listen().into());
        put(&mut root, "node.admin_listen", node.admin_address().into());
        put(&mut root, "cluster.id", cluster_id.to_string().into());
        put(&mut root, "bootstrap.nodes", nodes.iter().map(bootstrap_node).collect::<Vec<_>>().into());
        put(&mut root, "bootstrap.groups", self.bootstrap_groups(nodes).into());
        put(&mut root, "bootstrap.routes", self.bootstrap_routes().into());
        let own = self.node_settings.get(&node.id()).into_iter().flatten();
        for (path, value) in self.settings.iter().chain(own) {
            put(&mut root, path, value.clone());
        }
        root.to_string()
    }

    fn bootstrap_groups(&self, nodes: &[Node]) -> Vec<toml::Value> {
        let replicas: Vec<toml::Value> = nodes.iter().map(|node| int(node.id().0)).collect();
        let groups = GroupId::DEFAULT.0..=GroupId::DEFAULT.0 + self.data_groups;
        groups
            .map(|id| {
                let fields = [("id".to_owned(), int(id)), ("replicas".to_owned(), replicas.clone().into())];
                toml::Value::Table(fields.into_iter().collect())
            })
            .collect()
    }

    fn bootstrap_routes(&self) -> Vec<toml::Value> {
        let cuts = match &self.split {
            Split::Letters => letters(self.data_groups),
            Split::At(keys) => keys.clone(),
        };
        let starts = std::iter::once(Vec::new()).chain(cuts.iter().cloned());
        let ends = cuts.iter().map(Some).chain(std::iter::once(None));
        let groups = (0..).map(|n| match self.data_groups {
            0 => GroupId::DEFAULT.0,
            count => GroupId::DEFAULT.0 + 1 + n % count,
        });
        let routes = starts.zip(ends).zip(groups);
        routes
            .map(|((start, end), group)| {
                let mut route = toml::Table::new();
                route.insert("start".to_owned(), escape(&start).into());
                if let Some(end) = end {
                    route.insert("end".to_owned(), escape(end).into());
                }
                route.insert("group".to_owned(), int(group));
                toml::Value::Table(route)
            })
            .collect()
    }
}

/// One-letter keys that cut `a` to `z` into equal parts.
fn letters(groups: u64) -> Vec<Vec<u8>> {
    (1..groups).map(|n| vec![b'a' + u8::try_from(n * 26 / groups).expect("less than 26")]).collect()
}

fn bootstrap_node(node: &Node) -> toml::Value {
    let fields = [
        ("id".to_owned(), int(node.id().0)),
        ("grpc".to_owned(), node.grpc_address().into()),
        ("admin".to_owned(), node.admin_address().into()),
    ];
    toml::Value::Table(fields.into_iter().collect())
}

/// Adds settings to a configuration file that a node was given.
pub(super) fn add_settings(path: &Path, settings: &BTreeMap<String, toml::Value>) -> Result<(), ClusterError> {
    let text = std::fs::read_to_string(path).map_err(ClusterError::io(format!("reading {}", path.display())))?;
    let mut root: toml::Table = text.parse().expect("what `drover node join` writes is TOML");
    for (name, value) in settings {
        put(&mut root, name, value.clone());
    }
    write(path, &root.to_string())
}

fn put(root: &mut toml::Table, path: &str, value: toml::Value) {
    let (section, name) = path.split_once('.').expect("a setting is called section.name");
    let section = root.entry(section).or_insert_with(|| toml::Table::new().into());
    let section = section.as_table_mut().expect("only tables stand at the top");
    section.insert(name.to_owned(), value);
}

fn int(number: u64) -> toml::Value {
    toml::Value::Integer(i64::try_from(number).expect("test numbers are small"))
}

fn write(path: &Path, text: &str) -> Result<(), ClusterError> {
    std::fs::write(path, text).map_err(ClusterError::io(format!("writing {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_gets_the_same_bootstrap_and_its_own_settings() {
        let builder = Cluster::builder().data_groups(3).set("raft.heartbeat_ms", 50);
        let cluster = builder.set_on(NodeId(2), "limits.value_bytes", 9).prepare().unwrap();
        let configs: Vec<toml::Table> = cluster
            .nodes()
            .iter()
            .map(|node| std::fs::read_to_string(node.config_path()).unwrap().parse().unwrap())
            .collect();
        for (node, config) in cluster.nodes().iter().zip(&configs) {
            assert_eq!(config["bootstrap"], configs[0]["bootstrap"]);
            assert_eq!(config["cluster"], configs[0]["cluster"]);
            assert_eq!(config["raft"]["heartbeat_ms"].as_integer(), Some(50));
            assert_eq!(config["node"]["grpc_listen"].as_str(), Some(node.grpc_address().as_str()));
            assert_eq!(config.contains_key("limits"), node.id() == NodeId(2));
        }
        let groups: Vec<i64> =
            configs[0]["bootstrap"]["groups"].as_array().unwrap().iter().filter_map(|g| g["id"].as_integer()).collect();
        assert_eq!(groups, [1, 2, 3, 4]);
    }

    #[test]
    fn routes_tile_the_key_space_and_groups_take_turns() {
        let split = Split::At(vec![b"b\0".to_vec(), b"m".to_vec(), b"x".to_vec()]);
        let routes = Cluster::builder().data_groups(2).split(split).bootstrap_routes();
        let bounds: Vec<(&str, Option<&str>, i64)> = routes
            .iter()
            .map(|r| {
                let end = r.get("end").and_then(toml::Value::as_str);
                (r["start"].as_str().unwrap(), end, r["group"].as_integer().unwrap())
            })
            .collect();
        let expect = [("", Some("b\\x00"), 2), ("b\\x00", Some("m"), 3), ("m", Some("x"), 2), ("x", None, 3)];
        assert_eq!(bounds, expect);
        assert_eq!(letters(3), [b"i", b"r"]);
    }
}
