//! What a cluster consists of when it starts for the first time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use drover_keys::{End, GroupId, Interval, NodeId, RouteId, ShardId, unescape};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::Reader;
use super::table::Bootstrap;
use super::tiling::{self, TilingError};
use super::value::{Address, BadValue, Kind, SettingValue};

/// A node of the new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapNode {
    /// Its number.
    pub id: NodeId,
    /// Where clients and other nodes reach it.
    pub grpc: Address,
    /// Where its health and metrics are.
    pub admin: Address,
}

/// A Raft group of the new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapGroup {
    /// Its number.
    pub id: GroupId,
    /// The nodes that hold a replica.
    pub replicas: Vec<NodeId>,
}

/// A route of the new cluster as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSpec {
    /// The keys.
    pub interval: Interval,
    /// The group that owns them.
    pub group: GroupId,
}

/// A route of the new cluster with the numbers that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapRoute {
    /// Its name for people.
    pub route: RouteId,
    /// The physical keyspace of its rows.
    pub shard: ShardId,
    /// The keys.
    pub interval: Interval,
    /// The group that owns them.
    pub group: GroupId,
}

impl Bootstrap {
    /// The node with this number.
    pub fn node(&self, id: NodeId) -> Option<&BootstrapNode> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The groups of which this node holds a replica.
    pub fn groups_of(&self, id: NodeId) -> impl Iterator<Item = &BootstrapGroup> {
        self.groups.iter().filter(move |group| group.replicas.contains(&id))
    }

    /// The routes in key order. The n-th has route id n and shard id n, in whatever order they were written down, so
    /// nodes whose files differ in that order agree.
    pub fn assigned_routes(&self) -> Vec<BootstrapRoute> {
        let mut routes: Vec<&RouteSpec> = self.routes.iter().collect();
        routes.sort_by(|a, b| a.interval.start().cmp(b.interval.start()));
        (1..)
            .zip(routes)
            .map(|(n, route)| BootstrapRoute {
                route: RouteId(n),
                shard: ShardId(n),
                interval: route.interval.clone(),
                group: route.group,
            })
            .collect()
    }

    /// Notes everything about the lists that cannot be. A node that joins a cluster has none.
    pub(super) fn check(&self, this_node: NodeId, joins: bool, reader: &mut Reader<'_>) {
        let lists = [
            ("bootstrap.nodes", self.nodes.is_empty()),
            ("bootstrap.groups", self.groups.is_empty()),
            ("bootstrap.routes", self.routes.is_empty()),
        ];
        let odd: Vec<_> = lists.into_iter().filter(|(_, is_empty)| *is_empty != joins).collect();
        for (path, _) in &odd {
            match joins {
                true => reader.refuse(*path, "leave it out: this node joins a cluster that exists (cluster.join)"),
                false => reader.lacks(path),
            }
        }
        if joins || !odd.is_empty() {
            return;
        }
        self.check_nodes(this_node, reader);
        self.check_groups(reader);
        self.check_routes(reader);
    }

    fn check_nodes(&self, this_node: NodeId, reader: &mut Reader<'_>) {
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeMap::new();
        for (i, node) in self.nodes.iter().enumerate() {
            if node.id == NodeId(0) {
                reader.refuse(format!("bootstrap.nodes[{i}].id"), "0 is not a node id; they start at 1");
            }
            if !ids.insert(node.id) {
                reader.refuse(format!("bootstrap.nodes[{i}].id"), format!("node {} is listed twice", node.id));
            }
            for (field, address) in [("grpc", &node.grpc), ("admin", &node.admin)] {
                if let Some(other) = addresses.insert(address, node.id) {
                    let message = format!("{address} is already the address of node {other}");
                    reader.refuse(format!("bootstrap.nodes[{i}].{field}"), message);
                }
            }
        }
        if self.node(this_node).is_none() {
            let message = format!("node {this_node}, which is this one (node.id), is not listed");
            reader.refuse("bootstrap.nodes", message);
        }
    }

    fn check_groups(&self, reader: &mut Reader<'_>) {
        let mut ids = BTreeSet::new();
        for (i, group) in self.groups.iter().enumerate() {
            if group.id == GroupId(0) {
                reader.refuse(format!("bootstrap.groups[{i}].id"), "0 is not a group id; they start at 1");
            }
            if !ids.insert(group.id) {
                reader.refuse(format!("bootstrap.groups[{i}].id"), format!("group {} is listed twice", group.id));
            }
            if group.replicas.is_empty() {
                reader.refuse(format!("bootstrap.groups[{i}].replicas"), "the group has no replica");
            }
            let mut replicas = BTreeSet::new();
            for node in &group.replicas {
                if !replicas.insert(node) {
                    let message = format!("node {node} is listed twice");
                    reader.refuse(format!("bootstrap.groups[{i}].replicas"), message);
                }
                if self.node(*node).is_none() {
                    let message = format!("node {node} is not in bootstrap.nodes");
                    reader.refuse(format!("bootstrap.groups[{i}].replicas"), message);
                }
            }
        }
        if !ids.contains(&GroupId::DEFAULT) {
            let message = "group 1 is missing; it holds the catalog and the timestamp oracle";
            reader.refuse("bootstrap.groups", message);
        }
    }

    fn check_routes(&self, reader: &mut Reader<'_>) {
        for (i, route) in self.routes.iter().enumerate() {
            if !self.groups.iter().any(|group| group.id == route.group) {
                let message = format!("group {} is not in bootstrap.groups", route.group);
                reader.refuse(format!("bootstrap.routes[{i}].group"), message);
            }
        }
        let intervals: Vec<&Interval> = self.routes.iter().map(|route| &route.interval).collect();
        if let Err(error) = tiling::check(&intervals) {
            let field = match error {
                TilingError::Empty => "bootstrap.routes".to_owned(),
                TilingError::FirstStart { index, .. }
                | TilingError::Gap { index, .. }
                | TilingError::Overlap { index, .. }
                | TilingError::LastEnd { index, .. } => format!("bootstrap.routes[{index}]"),
            };
            reader.refuse(field, error.to_string());
        }
    }
}

/// The fields of one table of a list.
struct Fields<'a, 'i> {
    item: &'a Spanned<DeValue<'i>>,
    table: &'a DeTable<'i>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Refuses what is not a table, and fields that are not in `known`.
    fn open(item: &'a Spanned<DeValue<'i>>, known: &[&str]) -> Result<Self, BadValue> {
        let DeValue::Table(table) = item.as_ref() else {
            return Err(BadValue::new(item.span(), format!("expected a table, found {}", item.as_ref().type_str())));
        };
        match table.keys().find(|name| !known.contains(&name.as_ref().as_ref())) {
            Some(name) => {
                let message = format!("there is no such field; the fields are {}", known.join(", "));
                Err(BadValue::new(name.span(), message).inside(&format!(".{}", name.as_ref())))
            }
            None => Ok(Self { item, table }),
        }
    }

    fn optional<T: SettingValue>(&self, name: &str) -> Result<Option<T>, BadValue> {
        self.table.get(name).map(T::from_toml).transpose().map_err(|bad| bad.inside(&format!(".{name}")))
    }

    fn required<T: SettingValue>(&self, name: &str) -> Result<T, BadValue> {
        self.optional(name)?.ok_or_else(|| BadValue::new(self.item.span(), "is missing").inside(&format!(".{name}")))
    }

    /// A bound, under its own name as escaped text or with `_hex` behind it as digits.
    fn bound(&self, name: &str) -> Result<Option<Bytes>, BadValue> {
        let hex_name = format!("{name}_hex");
        match (self.optional::<EscapedKey>(name)?, self.optional::<HexKey>(&hex_name)?) {
            (Some(_), Some(_)) => {
                let message = format!("{name} and {hex_name} are both given; give one");
                Err(BadValue::new(self.item.span(), message).inside(&format!(".{hex_name}")))
            }
            (Some(EscapedKey(key)), None) | (None, Some(HexKey(key))) => Ok(Some(key)),
            (None, None) => Ok(None),
        }
    }
}

/// A list element that is read from the tables of a list.
trait Item: Sized {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, BadValue>;
}

impl Item for BootstrapNode {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, BadValue> {
        let fields = Fields::open(item, &["id", "grpc", "admin"])?;
        Ok(Self { id: fields.required("id")?, grpc: fields.required("grpc")?, admin: fields.required("admin")? })
    }
}

impl Item for BootstrapGroup {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, BadValue> {
        let fields = Fields::open(item, &["id", "replicas"])?;
        Ok(Self { id: fields.required("id")?, replicas: fields.required("replicas")? })
    }
}

impl Item for RouteSpec {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, BadValue> {
        let fields = Fields::open(item, &["start", "start_hex", "end", "end_hex", "group"])?;
        let start = fields.bound("start")?.ok_or_else(|| {
            BadValue::new(item.span(), "is missing; the first route has the start ''").inside(".start")
        })?;
        let end = fields.bound("end")?.map_or(End::Unbounded, End::Key);
        if end == End::Key(Bytes::new()) {
            let message = "the end is empty, so no key is below it; leave it out for a route without upper bound";
            return Err(BadValue::new(item.span(), message).inside(".end"));
        }
        let interval = Interval::new(start, end).map_err(|error| BadValue::new(item.span(), error.to_string()))?;
        Ok(Self { interval, group: fields.required("group")? })
    }
}

impl Item for NodeId {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, BadValue> {
        Self::from_toml(item)
    }
}

impl<T: Item> SettingValue for Vec<T> {
    const KIND: Kind = Kind::List;
    const MAY_BE_ABSENT: bool = true;

    fn absent() -> Option<Self> {
        Some(Self::new())
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let value = DeValue::parse(text).map_err(|error| format!("not a list as in TOML: {}", error.message()))?;
        Self::from_toml(&value).map_err(|bad| match bad.at.as_str() {
            "" => bad.message,
            at => format!("{at}: {}", bad.message),
        })
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, BadValue> {
        let DeValue::Array(items) = value.as_ref() else {
            return Err(BadValue::new(value.span(), format!("expected a list, found {}", value.as_ref().type_str())));
        };
        items.iter().enumerate().map(|(i, item)| T::read(item).map_err(|bad| bad.inside(&format!("[{i}]")))).collect()
    }
}

struct EscapedKey(Bytes);

impl SettingValue for EscapedKey {
    const KIND: Kind = Kind::Text("a key");

    fn from_text(text: &str) -> Result<Self, String> {
        unescape(text).map(|key| Self(key.into()))
    }
}

struct HexKey(Bytes);

impl SettingValue for HexKey {
    const KIND: Kind = Kind::Text("hexadecimal digits");

    fn from_text(text: &str) -> Result<Self, String> {
        let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
        match digits {
            Some(digits) if digits.len() % 2 == 0 => {
                Ok(Self(digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()))
            }
            _ => Err(format!("{text:?} is not an even number of hexadecimal digits")),
        }
    }
}
