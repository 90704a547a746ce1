//! From rows to a catalog, and what must hold of every catalog.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use drover_keys::{CatalogVersion, GroupId, JobId, NodeId, StoreId};

use crate::catalog::{Catalog, Contents};
use crate::node::{check_addresses, check_capabilities};
use crate::row::CatalogRow;
use crate::{RouteMap, RouteMapError, RouteState, Version};

/// Why rows are not a catalog, or a catalog must not exist. The rows are damaged, or this is a defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCatalog {
    /// There are rows, and not the one that there is one of.
    #[error("there are rows of a catalog, and its counters are missing")]
    NoMeta,
    /// The routes are not a map.
    #[error("the routes are not a map: {0}")]
    Routes(#[from] RouteMapError),
    /// Something has an id that has not been given out.
    #[error("{what} {id} exists, and the next one would be {next}")]
    NotGivenOut { what: &'static str, id: u64, next: u64 },
    /// Entries are missing from a log.
    #[error("the log of {what} has {have} entries up to {last}; it should have {want} up to {end}")]
    Log { what: &'static str, have: usize, last: u64, want: u64, end: u64 },
    /// Something refers to a group that does not exist.
    #[error("route {route} names group {group}, which does not exist")]
    RouteGroup { route: drover_keys::RouteId, group: GroupId },
    /// A group cannot be like that.
    #[error("group {group}: {why}")]
    Group { group: GroupId, why: String },
    /// A node cannot be like that.
    #[error("node {node}: {why}")]
    Node { node: NodeId, why: String },
    /// A job cannot be like that.
    #[error("job {job}: {why}")]
    Job { job: JobId, why: String },
    /// Compatibility versions contradict each other.
    #[error("the compatibility versions contradict each other: {why}")]
    Compat { why: &'static str },
}

impl Catalog {
    /// The catalog that these rows are, in any order.
    ///
    /// # Errors
    /// If they are not the rows of one.
    pub fn from_rows(rows: impl IntoIterator<Item = CatalogRow>) -> Result<Self, InvalidCatalog> {
        let (mut meta, mut routes, mut any) = (None, Vec::new(), false);
        let (mut deltas, mut audit, mut requests) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut nodes, mut removed, mut groups) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut jobs = BTreeMap::new();
        for row in rows {
            any = true;
            match row {
                CatalogRow::Meta(row) => meta = Some(*row),
                CatalogRow::Route(route) => routes.push(route),
                CatalogRow::Delta(delta) => drop(deltas.insert(delta.version, delta)),
                CatalogRow::Node(node) => drop(nodes.insert(node.id, node)),
                CatalogRow::RemovedNode(node) => drop(removed.insert(node.id, node)),
                CatalogRow::Group(group) => drop(groups.insert(group.id, group)),
                CatalogRow::Audit(event) => drop(audit.insert(event.seq, event)),
                CatalogRow::Request(record) => drop(requests.insert(record.seq, record)),
                CatalogRow::Job(job) => drop(jobs.insert(job.id, job)),
            }
        }
        let Some(meta) = meta else { return if any { Err(InvalidCatalog::NoMeta) } else { Ok(Self::default()) } };
        let contents = Contents {
            routes: RouteMap::new(meta.version, routes)?,
            meta,
            nodes,
            removed,
            groups,
            deltas: deltas.into_values().collect(),
            audit: audit.into_values().collect(),
            request_ids: requests.values().map(|record| (record.id, record.seq)).collect(),
            requests: requests.into_values().collect(),
            jobs,
        };
        let catalog = Self { contents: Some(contents) };
        catalog.validate()?;
        Ok(catalog)
    }

    /// Checks what must hold of every catalog. Looks at all of it.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn validate(&self) -> Result<(), InvalidCatalog> {
        match &self.contents {
            Some(contents) => contents.validate(),
            None => Ok(()),
        }
    }
}

impl Contents {
    fn validate(&self) -> Result<(), InvalidCatalog> {
        self.validate_routes()?;
        self.validate_groups()?;
        self.validate_nodes()?;
        self.validate_logs()?;
        self.validate_jobs()?;
        self.validate_compat()
    }

    fn validate_routes(&self) -> Result<(), InvalidCatalog> {
        self.routes.validate()?;
        for route in self.routes.routes() {
            given_out("route", route.id.0, self.meta.next_route.0)?;
            given_out("shard", route.shard.0, self.meta.next_shard.0)?;
            if !self.groups.contains_key(&route.group) {
                return Err(InvalidCatalog::RouteGroup { route: route.id, group: route.group });
            }
        }
        Ok(())
    }

    fn validate_groups(&self) -> Result<(), InvalidCatalog> {
        if !self.groups.contains_key(&GroupId::DEFAULT) {
            return Err(InvalidCatalog::Group { group: GroupId::DEFAULT, why: "it is missing".to_owned() });
        }
        for (&group, descriptor) in &self.groups {
            given_out("group", group.0, self.meta.next_group.0)?;
            descriptor.validate().map_err(|why| InvalidCatalog::Group { group, why })?;
            if let Some(node) = descriptor.replicas.keys().find(|node| !self.nodes.contains_key(node)) {
                let why = format!("it has a replica on node {node}, which does not exist");
                return Err(InvalidCatalog::Group { group, why });
            }
        }
        Ok(())
    }

    fn validate_nodes(&self) -> Result<(), InvalidCatalog> {
        let mut stores: BTreeMap<StoreId, NodeId> = BTreeMap::new();
        let present = self.nodes.values().map(|node| (node.id, node.presence.as_ref().map(|p| p.store)));
        let gone = self.removed.values().map(|node| (node.id, node.store));
        for (node, store) in present.chain(gone) {
            given_out("node", node.0, self.meta.next_node.0)?;
            if let Some(other) = store.and_then(|store| stores.insert(store, node)) {
                let why = format!("its data directory is also that of node {other}");
                return Err(InvalidCatalog::Node { node, why });
            }
        }
        for (&node, entry) in &self.nodes {
            let invalid = |why| InvalidCatalog::Node { node, why };
            if self.removed.contains_key(&node) {
                return Err(invalid("it was removed, and is there".to_owned()));
            }
            check_addresses(&entry.address, &entry.admin_address).map_err(|e| invalid(e.to_string()))?;
            if let Some(presence) = &entry.presence {
                check_capabilities(&presence.capabilities).map_err(|e| invalid(e.to_string()))?;
                if presence.renewed > self.meta.clock || presence.serving_since > Some(presence.renewed) {
                    return Err(invalid("it was heard of in the future".to_owned()));
                }
            }
        }
        Ok(())
    }

    fn validate_logs(&self) -> Result<(), InvalidCatalog> {
        let Contents { meta, .. } = self;
        let versions: VecDeque<u64> = self.deltas.iter().map(|delta| delta.version.0).collect();
        check_log("route changes", &versions, CatalogVersion::FIRST.0, meta.version.0, meta.settings.delta_log)?;
        let audit: VecDeque<u64> = self.audit.iter().map(|event| event.seq).collect();
        check_log("audit events", &audit, 0, meta.next_audit.saturating_sub(1), meta.settings.audit_log)?;
        let requests: VecDeque<u64> = self.requests.iter().map(|record| record.seq).collect();
        check_log("answers", &requests, 0, meta.next_request.saturating_sub(1), meta.settings.request_log)?;
        let ids: BTreeSet<_> = self.requests.iter().map(|record| record.id).collect();
        if ids.len() != self.requests.len() || self.request_ids.len() != ids.len() {
            let (have, want) = (ids.len(), self.requests.len() as u64);
            let end = meta.next_request.saturating_sub(1);
            return Err(InvalidCatalog::Log { what: "answers to different requests", have, last: end, want, end });
        }
        Ok(())
    }

    fn validate_jobs(&self) -> Result<(), InvalidCatalog> {
        let live: Vec<_> = self.jobs.values().filter(|job| !job.phase.has_ended()).collect();
        for (&job, record) in &self.jobs {
            let invalid = |why: String| InvalidCatalog::Job { job, why };
            given_out("job", job.0, self.meta.next_job.0)?;
            given_out("shard", record.shard.0, self.meta.next_shard.0)?;
            record.validate().map_err(invalid)?;
            for group in [record.source, record.target] {
                if !self.groups.contains_key(&group) {
                    return Err(invalid(format!("it names group {group}, which does not exist")));
                }
            }
        }
        for (n, job) in live.iter().enumerate() {
            let invalid = |why: String| Err(InvalidCatalog::Job { job: job.id, why });
            if let Some(other) = live[n + 1..].iter().find(|other| other.interval.overlaps(&job.interval)) {
                return invalid(format!("its interval overlaps with that of job {}", other.id));
            }
            let route = self.routes.route_of(job.interval.start());
            let expected = if job.is_handed_over() { (job.target, job.shard) } else { (job.source, route.shard) };
            if (route.group, route.shard) != expected {
                return invalid(format!("route {} names group {}", route.id, route.group));
            }
            match job.own_route {
                Some(own) if (own, &job.interval) != (route.id, &route.interval) => {
                    return invalid(format!("its interval is not that of route {own}"));
                }
                None if !route.interval.covers(&job.interval) => {
                    return invalid(format!("its interval does not lie within route {}", route.id));
                }
                Some(_) | None => {}
            }
        }
        let fenced = self.routes.routes().filter_map(|route| match route.state {
            RouteState::WriteFenced { job } => Some((route, job)),
            RouteState::Active => None,
        });
        for (route, job) in fenced {
            if !live.iter().any(|live| live.id == job && live.own_route == Some(route.id)) {
                return Err(InvalidCatalog::Job {
                    job,
                    why: format!("it has fenced route {} and is not there", route.id),
                });
            }
        }
        Ok(())
    }

    fn validate_compat(&self) -> Result<(), InvalidCatalog> {
        let Contents { meta, .. } = self;
        let contradiction = match (meta.cluster_version, &meta.freeze) {
            (None, Some(_)) => Some("the version is frozen, and not known"),
            (None, None) if meta.high_water > Version::default() => Some("nodes are refused, and no version is known"),
            (Some(version), _) if version != meta.high_water => Some("the high-water mark is not the cluster version"),
            (Some(version), Some(freeze)) if freeze.version != version => Some("another version is frozen"),
            (None | Some(_), _) => None,
        };
        contradiction.map_or(Ok(()), |why| Err(InvalidCatalog::Compat { why }))
    }
}

fn given_out(what: &'static str, id: u64, next: u64) -> Result<(), InvalidCatalog> {
    if id == 0 || id >= next { Err(InvalidCatalog::NotGivenOut { what, id, next }) } else { Ok(()) }
}

/// Entries are numbered without a gap from after `start` to `end`, of which the last `bound` are kept.
fn check_log(
    what: &'static str,
    numbers: &VecDeque<u64>,
    start: u64,
    end: u64,
    bound: u32,
) -> Result<(), InvalidCatalog> {
    let want = end.saturating_sub(start).min(bound.into());
    let expected = end + 1 - want..=end;
    if numbers.len() as u64 == want && numbers.iter().copied().eq(expected) {
        return Ok(());
    }
    Err(InvalidCatalog::Log { what, have: numbers.len(), last: numbers.back().copied().unwrap_or(0), want, end })
}
