//! What the nodes are told at the start: who there is, which groups there are, what they own.

use toml::{Table, Value};

use super::{CUTS, Cluster, DATA_GROUPS};

impl Cluster {
    /// The configuration of a node at the start.
    pub(super) fn config(&self, id: &str, node: u64) -> Table {
        let addresses = self.net.addresses(node);
        let mut root = Table::new();
        put(&mut root, "node.id", int(node));
        put(&mut root, "node.data_dir", self.data_dir(node).display().to_string().into());
        put(&mut root, "node.grpc_listen", addresses.listen.into());
        put(&mut root, "node.admin_listen", addresses.admin.into());
        put(&mut root, "cluster.id", id.into());
        let nodes = self.nodes().into_iter().map(|other| {
            let addresses = self.net.addresses(other);
            table([("id", int(other)), ("grpc", addresses.advertise.into()), ("admin", addresses.admin.into())])
        });
        put(&mut root, "bootstrap.nodes", nodes.collect::<Vec<_>>().into());
        let groups = Self::groups().into_iter().map(|group| {
            let holders: Vec<Value> = self.replicas(group.0).into_iter().map(int).collect();
            table([("id", int(group.0)), ("replicas", holders.into())])
        });
        put(&mut root, "bootstrap.groups", groups.collect::<Vec<_>>().into());
        put(&mut root, "bootstrap.routes", routes().into());
        for (name, value) in &self.plan.settings {
            put(&mut root, name, value.clone());
        }
        root
    }
}

/// Three of the nodes, another three for each group; all of them if there are no more.
pub(super) fn replicas(nodes: u64, group: u64) -> Vec<u64> {
    let mut holders: Vec<u64> = (0..nodes.min(3)).map(|n| (group - 1 + n) % nodes + 1).collect();
    holders.sort_unstable();
    holders
}

fn routes() -> Vec<Value> {
    let starts = std::iter::once("").chain(CUTS);
    let ends = CUTS.iter().map(Some).chain(std::iter::once(None));
    let groups = (0..).map(|n| 2 + n % DATA_GROUPS);
    let routes = starts.zip(ends).zip(groups);
    routes
        .map(|((start, end), group)| {
            let mut fields = vec![("start", start.into()), ("group", int(group))];
            fields.extend(end.map(|end| ("end", (*end).into())));
            table(fields)
        })
        .collect()
}

/// Sets what is called `section.name`.
pub(super) fn put(root: &mut Table, path: &str, value: Value) {
    let (section, name) = path.split_once('.').expect("a setting is called section.name");
    let section = root.entry(section).or_insert_with(|| Table::new().into());
    section.as_table_mut().expect("only tables stand at the top").insert(name.to_owned(), value);
}

fn table<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Table(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn int(number: u64) -> Value {
    Value::Integer(i64::try_from(number).expect("these numbers are small"))
}

#[cfg(test)]
mod tests {
    use super::super::RANGES;
    use super::*;

    #[test]
    fn groups_lie_on_three_nodes_each_and_not_all_on_the_same() {
        assert_eq!(replicas(5, 1), [1, 2, 3]);
        assert_eq!(replicas(5, 4), [1, 4, 5]);
        assert_eq!(replicas(3, 2), [1, 2, 3]);
        assert_eq!(replicas(1, 4), [1]);
    }

    #[test]
    fn routes_tile_the_keys_and_the_prefixes_lie_in_different_groups() {
        let routes = routes();
        let ends: Vec<Option<&str>> = routes.iter().map(|route| route.get("end").and_then(Value::as_str)).collect();
        let starts: Vec<&str> = routes.iter().filter_map(|route| route["start"].as_str()).collect();
        assert_eq!(starts[0], "");
        assert!(starts[1..].iter().zip(&ends).all(|(start, end)| Some(*start) == *end) && ends.last() == Some(&None));
        let group = |key: &str| {
            let at = starts.partition_point(|start| *start <= key) - 1;
            routes[at]["group"].as_integer()
        };
        let mut groups: Vec<_> = RANGES.iter().map(|prefix| group(prefix)).collect();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), 3);
    }
}
