//! The first command.

use std::collections::{BTreeMap, VecDeque};

use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, GroupId, JobId, NodeId, RouteId, ShardId};

use super::{Answer, Decision, Judge, MAX_ID, Note, Plan};
use crate::catalog::Contents;
use crate::node::check_addresses;
use crate::row::{CatalogRow, Meta};
use crate::{
    Bootstrap, CatalogChange, CatalogRefusal, CatalogReply, GroupDescriptor, NodeEntry, RouteMap, RouteState, Version,
    fingerprint,
};

impl Bootstrap {
    /// Refuses what cannot be a cluster.
    ///
    /// # Errors
    /// [`CatalogRefusal::BadBootstrap`].
    pub(crate) fn check(&self) -> Result<(), CatalogRefusal> {
        let settings = self.settings.check();
        let checks = settings.and_then(|()| self.check_nodes()).and_then(|()| self.check_groups());
        checks.and_then(|()| self.check_routes()).map_err(|why| CatalogRefusal::BadBootstrap { why })
    }

    fn check_nodes(&self) -> Result<(), String> {
        let mut addresses = BTreeMap::new();
        for (id, node) in &self.nodes {
            check_id("node", id.0)?;
            check_addresses(&node.address, &node.admin_address).map_err(|error| error.to_string())?;
            for address in [&node.address, &node.admin_address].into_iter().filter(|address| !address.is_empty()) {
                if let Some(other) = addresses.insert(address, id) {
                    return Err(format!("{address} is the address of nodes {other} and {id}"));
                }
            }
        }
        if self.nodes.is_empty() { Err("there is no node".to_owned()) } else { Ok(()) }
    }

    fn check_groups(&self) -> Result<(), String> {
        for (id, voters) in &self.groups {
            check_id("group", id.0)?;
            if voters.is_empty() {
                return Err(format!("group {id} has no voter"));
            }
            if let Some(node) = voters.iter().find(|node| !self.nodes.contains_key(node)) {
                return Err(format!("group {id} has a voter on node {node}, which is not listed"));
            }
        }
        let default = GroupId::DEFAULT;
        if self.groups.contains_key(&default) { Ok(()) } else { Err(format!("group {default} is missing")) }
    }

    fn check_routes(&self) -> Result<(), String> {
        let limit = self.settings.max_key_bytes as usize;
        for route in &self.routes {
            check_id("route", route.id.0)?;
            check_id("shard", route.shard.0)?;
            if !self.groups.contains_key(&route.group) {
                return Err(format!("route {} names group {}, which is not listed", route.id, route.group));
            }
            if route.state != RouteState::Active {
                return Err(format!("route {} is not active", route.id));
            }
            if route.interval.start().len() > limit {
                let bytes = route.interval.start().len();
                return Err(format!(
                    "route {} starts at a key of {bytes} bytes; at most {limit} are allowed",
                    route.id
                ));
            }
        }
        self.map().map(drop)
    }

    fn map(&self) -> Result<RouteMap, String> {
        RouteMap::new(CatalogVersion::FIRST, self.routes.clone()).map_err(|error| error.to_string())
    }
}

fn check_id(what: &str, id: u64) -> Result<(), String> {
    if (1..MAX_ID).contains(&id) { Ok(()) } else { Err(format!("{id} is no {what} id: they start at 1")) }
}

/// What to do with a bootstrap that was checked, when there is no cluster.
pub(super) fn create(bootstrap: &Bootstrap, now: PhysicalMs) -> Decision {
    let version = CatalogVersion::FIRST;
    let above = |ids: &mut dyn Iterator<Item = u64>| ids.max().unwrap_or(0) + 1;
    let meta = Meta {
        settings: bootstrap.settings,
        bootstrap: fingerprint::of_bootstrap(bootstrap),
        version,
        revision: 0,
        next_route: RouteId(above(&mut bootstrap.routes.iter().map(|route| route.id.0))),
        next_shard: ShardId(above(&mut bootstrap.routes.iter().map(|route| route.shard.0))),
        next_group: GroupId(above(&mut bootstrap.groups.keys().map(|group| group.0))),
        next_node: NodeId(above(&mut bootstrap.nodes.keys().map(|node| node.0))),
        next_audit: 1,
        next_request: 1,
        next_job: JobId(1),
        clock: now,
        cluster_version: None,
        high_water: Version::default(),
        freeze: None,
    };
    let routes = bootstrap.map().expect("the bootstrap was checked");
    let mut rows: Vec<CatalogRow> = routes.routes().cloned().map(CatalogRow::Route).collect();
    rows.extend(bootstrap.nodes.iter().map(|(&id, node)| {
        let (address, admin_address) = (node.address.clone(), node.admin_address.clone());
        CatalogRow::Node(NodeEntry { id, address, admin_address, draining: false, presence: None })
    }));
    let groups = bootstrap.groups.iter().map(|(&id, voters)| GroupDescriptor::new(id, voters));
    rows.extend(groups.map(CatalogRow::Group));
    let details =
        format!("{} routes, {} groups, {} nodes", routes.count(), bootstrap.groups.len(), bootstrap.nodes.len());
    let created = Contents {
        meta: meta.clone(),
        routes,
        nodes: BTreeMap::new(),
        removed: BTreeMap::new(),
        groups: BTreeMap::new(),
        deltas: VecDeque::new(),
        audit: VecDeque::new(),
        requests: VecDeque::new(),
        request_ids: BTreeMap::new(),
        jobs: BTreeMap::new(),
    };
    Decision::Do(Box::new(Plan {
        created: Some(created),
        routes: None,
        meta,
        rows: rows.into_iter().map(CatalogChange::Put).collect(),
        note: Some(Note { action: "bootstrap", subject: "cluster".to_owned(), details }),
        visible: true,
        answer: Answer::Ready(CatalogReply::Bootstrapped { version }),
    }))
}

impl Judge<'_> {
    /// Every node may try to create the cluster it was configured for; the first one does.
    pub(super) fn bootstrap_again(&self, bootstrap: &Bootstrap) -> Result<Decision, CatalogRefusal> {
        if fingerprint::of_bootstrap(bootstrap) != self.contents.meta.bootstrap {
            return Err(CatalogRefusal::AlreadyBootstrapped);
        }
        Ok(Decision::Nothing(CatalogReply::Bootstrapped { version: CatalogVersion::FIRST }))
    }
}
