//! A catalog under test: every command is also checked for what holds of all commands.

mod compat;
mod groups;
mod jobs;
mod nodes;
mod properties;
mod requests;
mod routes;

use std::collections::{BTreeMap, BTreeSet};

use drover_hlc::PhysicalMs;
use drover_keys::{GroupId, NodeId, RouteId, ShardId, StoreId};

use crate::routes::strategies::route;
use crate::{
    Bootstrap, BootstrapNode, CHANGES_REPLICAS, Catalog, CatalogChange, CatalogCommand, CatalogCommandKind as Kind,
    CatalogRefusal, CatalogReply, CatalogRow, CatalogSettings, Heartbeat, MOVES_RANGES, RegisterNode, RequestId, Route,
    RowKey, Version,
};

pub(crate) const V1: Version = Version::new(1, 0);
pub(crate) const V2: Version = Version::new(1, 1);

/// A catalog, and the rows that its changes have written.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) catalog: Catalog,
    pub(crate) rows: BTreeMap<RowKey, CatalogRow>,
    pub(crate) now: u64,
    requests: u128,
}

impl World {
    /// A cluster of groups 1 and 2 on nodes 1 to 3, and of two routes, of group 2, that meet at "m".
    pub(crate) fn new() -> Self {
        Self::with(CatalogSettings::default())
    }

    pub(crate) fn with(settings: CatalogSettings) -> Self {
        let mut world = Self { now: 1_000, ..Self::default() };
        world.run(Kind::Bootstrap(Box::new(Bootstrap { settings, ..bootstrap() }))).unwrap();
        world
    }

    /// As [`World::new`], with nodes 1 to 3 registered, settled at version 1.0, and node 4 live.
    pub(crate) fn settled() -> Self {
        let mut world = Self::new();
        (1..=4).for_each(|n| drop(world.run(register(n, V1)).unwrap()));
        world.settle();
        world
    }

    /// All registered nodes serve, and go on to, for the settle time.
    pub(crate) fn settle(&mut self) {
        self.beat();
        self.now += CatalogSettings::default().settle_ms;
        self.beat();
    }

    /// Every registered node is heard, as it registered.
    pub(crate) fn beat(&mut self) {
        let nodes: Vec<_> = self.catalog.nodes().cloned().collect();
        for node in nodes {
            let Some(presence) = node.presence else { continue };
            self.run(heartbeat(node.id.0, presence.version)).unwrap();
        }
    }

    pub(crate) fn command(&mut self, kind: Kind) -> CatalogCommand {
        self.requests += 1;
        let now = PhysicalMs::new(self.now).unwrap();
        let request_id = RequestId(self.requests.to_be_bytes());
        CatalogCommand { request_id, actor: "admin".to_owned(), now, kind }
    }

    pub(crate) fn run(&mut self, kind: Kind) -> Result<CatalogReply, CatalogRefusal> {
        let command = self.command(kind);
        self.apply(&command)
    }

    /// Applies a command, and checks that rows and catalog agree, and that a refusal changes nothing.
    pub(crate) fn apply(&mut self, command: &CatalogCommand) -> Result<CatalogReply, CatalogRefusal> {
        let before = self.catalog.clone();
        match self.catalog.apply(command) {
            Ok((reply, changes)) => {
                changes.into_iter().for_each(|change| self.write(change));
                assert!(self.catalog.rows().eq(self.rows.values().cloned()), "after {command:?}");
                assert_eq!(Catalog::from_rows(self.rows.values().cloned()).as_ref(), Ok(&self.catalog));
                assert!(self.catalog.revision() >= before.revision() && self.catalog.clock() >= before.clock());
                Ok(reply)
            }
            Err(refusal) => {
                assert_eq!(self.catalog, before, "{refusal}");
                let text = refusal.to_string();
                assert!(text.contains("nothing was changed"), "{text}");
                Err(refusal)
            }
        }
    }

    fn write(&mut self, change: CatalogChange) {
        match change {
            CatalogChange::Put(row) => drop(self.rows.insert(row.key(), row)),
            CatalogChange::Delete(key) => drop(self.rows.remove(&key).expect("a deleted row was there")),
        }
    }

    pub(crate) fn version(&self) -> drover_keys::CatalogVersion {
        self.catalog.routes().unwrap().version()
    }

    /// The newest audit event, as one line.
    pub(crate) fn audited(&self) -> String {
        let event = self.catalog.audit().next_back().unwrap();
        format!("{} {} {}: {}", event.actor, event.action, event.subject, event.details)
    }
}

pub(crate) fn bootstrap() -> Bootstrap {
    let node = |n: u64| (NodeId(n), BootstrapNode { address: format!("n{n}:1"), admin_address: format!("n{n}:2") });
    let voters = nodes([1, 2, 3]);
    Bootstrap {
        settings: CatalogSettings::default(),
        routes: vec![route(1, "", Some("m")), Route { shard: ShardId(2), ..route(2, "m", None) }],
        groups: BTreeMap::from([(GroupId(1), voters.clone()), (GroupId(2), voters)]),
        nodes: (1..=3).map(node).collect(),
    }
}

pub(crate) fn nodes<const N: usize>(ids: [u64; N]) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

pub(crate) fn store(n: u64) -> StoreId {
    StoreId(u128::from(n).to_be_bytes())
}

/// Node `n` starts, with the data directory and the addresses that are its.
pub(crate) fn node(n: u64, version: Version) -> RegisterNode {
    RegisterNode {
        node: Some(NodeId(n)),
        store: store(n),
        address: format!("n{n}:1"),
        admin_address: format!("n{n}:2"),
        version,
        capabilities: BTreeSet::from(["move", CHANGES_REPLICAS, MOVES_RANGES].map(str::to_owned)),
    }
}

pub(crate) fn register(n: u64, version: Version) -> Kind {
    Kind::RegisterNode(node(n, version))
}

pub(crate) fn heard(n: u64, version: Version) -> Heartbeat {
    let RegisterNode { store, capabilities, .. } = node(n, version);
    Heartbeat { node: NodeId(n), store, version, capabilities, serving: true }
}

pub(crate) fn heartbeat(n: u64, version: Version) -> Kind {
    Kind::Heartbeat(heard(n, version))
}

pub(crate) fn split(version: u64, route: u64, key: &str) -> Kind {
    let key = key.to_owned().into();
    Kind::SplitRange { expected_version: drover_keys::CatalogVersion(version), route: RouteId(route), key }
}
