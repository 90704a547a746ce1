//! What a cluster consists of when it starts for the first time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use drover_keys::{End, GroupId, Interval, NodeId, RouteId, ShardId, unescape};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::{Reader, nearest};
use super::table::Bootstrap;
use super::tiling::{self, TilingError};
use super::value::{Address, BadValue, Kind, SettingValue};

const NODES: &str = "bootstrap.nodes";
const GROUPS: &str = "bootstrap.groups";
const ROUTES: &str = "bootstrap.routes";

/// Which lists the others can be compared with.
#[derive(Debug, Clone, Copy)]
struct Known {
    nodes: bool,
    groups: bool,
}

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
        if reader.is_wrong("cluster.join") {
            return;
        }
        let lists =
            [(NODES, self.nodes.is_empty()), (GROUPS, self.groups.is_empty()), (ROUTES, self.routes.is_empty())];
        for (path, is_empty) in lists {
            match joins {
                _ if reader.is_wrong(path) => {}
                true if is_empty => {}
                true => reader.refuse(path, "leave it out: this node joins a cluster that exists (cluster.join)"),
                false if is_empty => reader.lacks(path),
                false => {}
            }
        }
        if joins {
            return;
        }
        // A list that cannot be read is not compared with the others: it might hold what they name.
        let known = Known { nodes: !self.nodes.is_empty(), groups: !self.groups.is_empty() };
        if known.nodes {
            self.check_nodes(this_node, reader);
        }
        if known.groups {
            self.check_groups(known, reader);
        }
        if !self.routes.is_empty() {
            self.check_routes(known, reader);
        }
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
            reader.refuse_relation(NODES, &["node.id"], message);
        }
    }

    fn check_groups(&self, known: Known, reader: &mut Reader<'_>) {
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
                if known.nodes && self.node(*node).is_none() {
                    let message = format!("node {node} is not in bootstrap.nodes");
                    reader.refuse(format!("bootstrap.groups[{i}].replicas"), message);
                }
            }
        }
        if !ids.contains(&GroupId::DEFAULT) {
            let message = "group 1 is missing; it holds the catalog and the timestamp oracle";
            reader.refuse(GROUPS, message);
        }
    }

    fn check_routes(&self, known: Known, reader: &mut Reader<'_>) {
        for (i, route) in self.routes.iter().enumerate() {
            if known.groups && !self.groups.iter().any(|group| group.id == route.group) {
                let message = format!("group {} is not in bootstrap.groups", route.group);
                reader.refuse(format!("bootstrap.routes[{i}].group"), message);
            }
        }
        let intervals: Vec<&Interval> = self.routes.iter().map(|route| &route.interval).collect();
        for error in tiling::check(&intervals) {
            let field = match error {
                TilingError::Empty => ROUTES.to_owned(),
                TilingError::FirstStart { index, .. }
                | TilingError::Gap { index, .. }
                | TilingError::Overlap { index, .. }
                | TilingError::LastEnd { index, .. } => format!("bootstrap.routes[{index}]"),
            };
            reader.refuse(field, error.to_string());
        }
    }
}

/// The fields of one table of a list, and what is wrong with them.
struct Fields<'a, 'i> {
    item: &'a Spanned<DeValue<'i>>,
    table: &'a DeTable<'i>,
    bad: Vec<BadValue>,
    /// Fields that were probably meant by names that there are not.
    meant: Vec<&'static str>,
}

impl<'a, 'i> Fields<'a, 'i> {
    /// Refuses what is not a table, and notes fields that are not in `known`.
    fn open(item: &'a Spanned<DeValue<'i>>, known: &[&'static str]) -> Result<Self, Vec<BadValue>> {
        let DeValue::Table(table) = item.as_ref() else {
            let message = format!("expected a table, found {}", item.as_ref().type_str());
            return Err(vec![BadValue::new(item.span(), message)]);
        };
        let mut fields = Self { item, table, bad: Vec::new(), meant: Vec::new() };
        for name in table.keys().filter(|name| !known.contains(&name.as_ref().as_ref())) {
            fields.meant.extend(nearest(name.as_ref(), known.iter().copied()));
            let message = format!("there is no such field; the fields are {}", known.join(", "));
            fields.refuse(name.as_ref(), name.span(), message);
        }
        Ok(fields)
    }

    /// Notes that a field is wrong.
    fn refuse(&mut self, name: &str, span: Range<usize>, message: impl Into<String>) {
        self.bad.push(BadValue::new(span, message).inside(&format!(".{name}")));
    }

    /// A field that may be left out: `None` if it is wrong.
    fn optional<T: SettingValue>(&mut self, name: &str) -> Option<Option<T>> {
        match self.table.get(name).map(T::from_toml).transpose() {
            Ok(value) => Some(value),
            Err(all) => {
                self.bad.extend(all.into_iter().map(|bad| bad.inside(&format!(".{name}"))));
                None
            }
        }
    }

    fn required<T: SettingValue>(&mut self, name: &str) -> Option<T> {
        let value = self.optional(name)?;
        if value.is_none() {
            self.lacks(name, "is missing");
        }
        value
    }

    /// Notes that a field is missing, unless it may have been given under a wrong name.
    fn lacks(&mut self, name: &str, message: &str) {
        if !self.meant.contains(&name) {
            self.refuse(name, self.item.span(), message);
        }
    }

    /// A bound, under its own name as escaped text or with `_hex` behind it as digits.
    fn bound(&mut self, name: &str) -> Option<Option<Bytes>> {
        let hex_name = format!("{name}_hex");
        let (text, digits) = (self.optional::<EscapedKey>(name), self.optional::<HexKey>(&hex_name));
        match (text?, digits?) {
            (Some(_), Some(_)) => {
                let message = format!("{name} and {hex_name} are both given; give one");
                self.refuse(&hex_name, self.item.span(), message);
                None
            }
            (Some(EscapedKey(key)), None) | (None, Some(HexKey(key))) => Some(Some(key)),
            (None, None) => Some(None),
        }
    }

    /// The element, if nothing was wrong with its fields.
    fn close<T>(self, element: Option<T>) -> Result<T, Vec<BadValue>> {
        element.filter(|_| self.bad.is_empty()).ok_or(self.bad)
    }
}

/// A list element that is read from the tables of a list.
trait Item: Sized {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, Vec<BadValue>>;
}

impl Item for BootstrapNode {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, Vec<BadValue>> {
        let mut fields = Fields::open(item, &["id", "grpc", "admin"])?;
        let (id, grpc, admin) = (fields.required("id"), fields.required("grpc"), fields.required("admin"));
        fields.close((|| Some(Self { id: id?, grpc: grpc?, admin: admin? }))())
    }
}

impl Item for BootstrapGroup {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, Vec<BadValue>> {
        let mut fields = Fields::open(item, &["id", "replicas"])?;
        let (id, replicas) = (fields.required("id"), fields.required("replicas"));
        fields.close((|| Some(Self { id: id?, replicas: replicas? }))())
    }
}

impl Item for RouteSpec {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, Vec<BadValue>> {
        let mut fields = Fields::open(item, &["start", "start_hex", "end", "end_hex", "group"])?;
        let (start, end, group) = (fields.bound("start"), fields.bound("end"), fields.required("group"));
        if start == Some(None) {
            fields.lacks("start", "is missing; the first route has the start ''");
        }
        if end == Some(Some(Bytes::new())) {
            let message = "the end is empty, so no key is below it; leave it out for a route without upper bound";
            fields.refuse("end", item.span(), message);
        } else if let (Some(Some(start)), Some(end)) = (&start, &end)
            && let Err(error) = Interval::new(start.clone(), end.clone().map_or(End::Unbounded, End::Key))
        {
            fields.bad.push(BadValue::new(item.span(), error.to_string()));
        }
        let interval = || Interval::new(start??, end?.map_or(End::Unbounded, End::Key)).ok();
        let interval = interval();
        fields.close((|| Some(Self { interval: interval?, group: group? }))())
    }
}

impl Item for NodeId {
    fn read(item: &Spanned<DeValue<'_>>) -> Result<Self, Vec<BadValue>> {
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
        let told = |bad: BadValue| match bad.at.as_str() {
            "" => bad.message,
            at => format!("{at}: {}", bad.message),
        };
        Self::from_toml(&value).map_err(|all| all.into_iter().map(told).collect::<Vec<_>>().join("; "))
    }

    fn from_toml(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<BadValue>> {
        let DeValue::Array(items) = value.as_ref() else {
            let message = format!("expected a list, found {}", value.as_ref().type_str());
            return Err(vec![BadValue::new(value.span(), message)]);
        };
        let (mut read, mut bad) = (Vec::new(), Vec::new());
        for (i, item) in items.iter().enumerate() {
            match T::read(item) {
                Ok(item) => read.push(item),
                Err(all) => bad.extend(all.into_iter().map(|bad| bad.inside(&format!("[{i}]")))),
            }
        }
        if bad.is_empty() { Ok(read) } else { Err(bad) }
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
