//! The replicated state, and what can be asked of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, GroupId, Interval, JobId, NodeId};

use crate::job::SplitJob;
use crate::row::{AuditEvent, CatalogRow, Meta, RequestRecord};
use crate::{
    CatalogChange, CatalogSettings, CompatNode, CompatState, GroupDescriptor, NodeEntry, RemovedNode, RequestId,
    RouteDelta, RouteMap, RowKey, Version,
};

/// The catalog of a cluster. Empty until the cluster is created. Changes through [`Catalog::apply`] alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    pub(crate) contents: Option<Contents>,
}

/// The catalog of a cluster that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) meta: Meta,
    pub(crate) routes: RouteMap,
    pub(crate) nodes: BTreeMap<NodeId, NodeEntry>,
    pub(crate) removed: BTreeMap<NodeId, RemovedNode>,
    pub(crate) groups: BTreeMap<GroupId, GroupDescriptor>,
    /// The last of them made the version of `routes`.
    pub(crate) deltas: VecDeque<Arc<RouteDelta>>,
    pub(crate) audit: VecDeque<Arc<AuditEvent>>,
    pub(crate) requests: VecDeque<Arc<RequestRecord>>,
    /// Where in `requests`, as a sequence number.
    pub(crate) request_ids: BTreeMap<RequestId, u64>,
    /// Those under way, and those that have ended and are kept.
    pub(crate) jobs: BTreeMap<JobId, Arc<SplitJob>>,
}

impl Catalog {
    /// Whether the cluster was created.
    pub fn is_bootstrapped(&self) -> bool {
        self.contents.is_some()
    }

    /// Counters, settings and versions, as they are stored.
    pub fn meta(&self) -> Option<&Meta> {
        self.contents.as_ref().map(|contents| &contents.meta)
    }

    /// The settings that the cluster was created with.
    pub fn settings(&self) -> Option<&CatalogSettings> {
        self.contents.as_ref().map(|contents| &contents.meta.settings)
    }

    /// The routes, and their version.
    pub fn routes(&self) -> Option<&RouteMap> {
        self.contents.as_ref().map(|contents| &contents.routes)
    }

    /// Rises with every change that somebody could see. Zero of an empty catalog.
    pub fn revision(&self) -> u64 {
        self.contents.as_ref().map_or(0, |contents| contents.meta.revision)
    }

    /// The highest time that a command has carried, of those that its leaders took from the oracle: what "now" means for
    /// nodes that fall silent.
    pub fn clock(&self) -> PhysicalMs {
        self.contents.as_ref().map_or(PhysicalMs::default(), |contents| contents.meta.clock)
    }

    /// What leads from the map at `version` to the present one, oldest first. `None` if that is not known any more, or
    /// not yet: whoever asks takes a snapshot.
    pub fn deltas_since(&self, version: CatalogVersion) -> Option<impl Iterator<Item = &Arc<RouteDelta>>> {
        let contents = self.contents.as_ref()?;
        let behind = contents.meta.version.0.checked_sub(version.0)?;
        let skip = contents.deltas.len().checked_sub(usize::try_from(behind).ok()?)?;
        Some(contents.deltas.iter().skip(skip))
    }

    /// The nodes, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeEntry> {
        self.contents.iter().flat_map(|contents| contents.nodes.values())
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&NodeEntry> {
        self.contents.as_ref()?.nodes.get(&id)
    }

    /// What is left of the nodes that were removed, by number.
    pub fn removed_nodes(&self) -> impl Iterator<Item = &RemovedNode> {
        self.contents.iter().flat_map(|contents| contents.removed.values())
    }

    /// The nodes that have been heard of within the time to live before `now`.
    pub fn live_nodes(&self, now: PhysicalMs) -> impl Iterator<Item = &NodeEntry> {
        self.contents.iter().flat_map(move |contents| contents.live(now).map(|(node, _)| node))
    }

    /// Which replicas the groups shall have, by number of the group.
    pub fn groups(&self) -> impl Iterator<Item = &GroupDescriptor> {
        self.contents.iter().flat_map(|contents| contents.groups.values())
    }

    /// Which replicas a group shall have.
    pub fn group(&self, id: GroupId) -> Option<&GroupDescriptor> {
        self.contents.as_ref()?.groups.get(&id)
    }

    /// The jobs, by number: those under way, and those that have ended and are kept.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &Arc<SplitJob>> {
        self.contents.iter().flat_map(|contents| contents.jobs.values())
    }

    /// A job.
    pub fn job(&self, id: JobId) -> Option<&Arc<SplitJob>> {
        self.contents.as_ref()?.jobs.get(&id)
    }

    /// Every job below it is over.
    pub fn job_horizon(&self) -> JobId {
        let Some(contents) = &self.contents else { return JobId(0) };
        let live = contents.jobs.values().find(|job| !job.phase.has_ended());
        live.map_or(contents.meta.next_job, |job| job.id)
    }

    /// What has been done, oldest first, as far as it is kept.
    pub fn audit(&self) -> impl DoubleEndedIterator<Item = &AuditEvent> {
        self.contents.iter().flat_map(|contents| contents.audit.iter().map(Arc::as_ref))
    }

    /// The compatibility state. `None` if there is no cluster.
    pub fn compat(&self) -> Option<CompatState> {
        self.contents.as_ref().map(Contents::compat)
    }

    /// Whether every node, now and later, understands what belongs to `version`.
    pub fn at_least(&self, version: Version) -> bool {
        self.contents.as_ref().is_some_and(|contents| contents.at_least(version))
    }

    /// Whether all of `nodes` said that they can do `capability`, when they were last heard of.
    ///
    /// # Errors
    /// Those that did not, and those that nobody knows.
    pub fn all_have(&self, capability: &str, nodes: &BTreeSet<NodeId>) -> Result<(), Vec<NodeId>> {
        let has = |node: &&NodeId| {
            let presence = self.node(**node).and_then(|entry| entry.presence.as_ref());
            presence.is_some_and(|presence| presence.capabilities.contains(capability))
        };
        let lacking: Vec<NodeId> = nodes.iter().filter(|node| !has(node)).copied().collect();
        if lacking.is_empty() { Ok(()) } else { Err(lacking) }
    }

    /// All rows, in the order of their keys.
    pub fn rows(&self) -> impl Iterator<Item = CatalogRow> {
        self.contents.iter().flat_map(Contents::rows)
    }
}

impl Contents {
    /// The nodes that were heard of within the time to live before `now`, and what they said.
    pub(crate) fn live(&self, now: PhysicalMs) -> impl Iterator<Item = (&NodeEntry, &crate::Presence)> {
        self.nodes.values().filter_map(move |node| Some((node, node.live(now, &self.meta.settings)?)))
    }

    pub(crate) fn at_least(&self, version: Version) -> bool {
        self.meta.cluster_version.is_some_and(|have| have >= version)
    }

    pub(crate) fn compat(&self) -> CompatState {
        let node = |entry: &NodeEntry| CompatNode {
            node: entry.id,
            version: entry.presence.as_ref().map(|presence| presence.version),
            live: entry.live(self.meta.clock, &self.meta.settings).is_some(),
            serving_since: entry.presence.as_ref().and_then(|presence| presence.serving_since),
        };
        CompatState {
            cluster_version: self.meta.cluster_version,
            high_water: self.meta.high_water,
            freeze: self.meta.freeze.clone(),
            nodes: self.nodes.values().map(node).collect(),
        }
    }

    /// A job under way that moves a key of `interval`.
    pub(crate) fn live_job_over(&self, interval: &Interval) -> Option<&SplitJob> {
        let live = self.jobs.values().filter(|job| !job.phase.has_ended());
        live.map(Arc::as_ref).find(|job| job.interval.overlaps(interval))
    }

    /// The answer that is kept for this request.
    pub(crate) fn recorded(&self, id: RequestId) -> Option<&RequestRecord> {
        let oldest = self.requests.front()?.seq;
        let at = usize::try_from(self.request_ids.get(&id)? - oldest).ok()?;
        self.requests.get(at).map(Arc::as_ref)
    }

    fn rows(&self) -> impl Iterator<Item = CatalogRow> {
        std::iter::once(CatalogRow::Meta(Box::new(self.meta.clone())))
            .chain(self.routes.routes().cloned().map(CatalogRow::Route))
            .chain(self.deltas.iter().cloned().map(CatalogRow::Delta))
            .chain(self.nodes.values().cloned().map(CatalogRow::Node))
            .chain(self.removed.values().copied().map(CatalogRow::RemovedNode))
            .chain(self.groups.values().cloned().map(CatalogRow::Group))
            .chain(self.audit.iter().cloned().map(CatalogRow::Audit))
            .chain(self.requests.iter().cloned().map(CatalogRow::Request))
            .chain(self.jobs.values().cloned().map(CatalogRow::Job))
    }

    /// Makes a change that was decided on, except of routes, whose map changes as a whole.
    pub(crate) fn absorb(&mut self, change: &CatalogChange) {
        match change {
            CatalogChange::Put(row) => match row {
                CatalogRow::Route(_) => {}
                CatalogRow::Meta(meta) => self.meta = Meta::clone(meta),
                CatalogRow::Delta(delta) => self.deltas.push_back(delta.clone()),
                CatalogRow::Node(node) => drop(self.nodes.insert(node.id, node.clone())),
                CatalogRow::RemovedNode(node) => drop(self.removed.insert(node.id, *node)),
                CatalogRow::Group(group) => drop(self.groups.insert(group.id, group.clone())),
                CatalogRow::Audit(event) => self.audit.push_back(event.clone()),
                CatalogRow::Request(record) => {
                    self.request_ids.insert(record.id, record.seq);
                    self.requests.push_back(record.clone());
                }
                CatalogRow::Job(job) => drop(self.jobs.insert(job.id, job.clone())),
            },
            CatalogChange::Delete(key) => match key {
                RowKey::Route(_) => {}
                RowKey::Node(node) => drop(self.nodes.remove(node)),
                RowKey::Delta(_) => drop(self.deltas.pop_front()),
                RowKey::Audit(_) => drop(self.audit.pop_front()),
                RowKey::Request(_) => {
                    if let Some(record) = self.requests.pop_front() {
                        self.request_ids.remove(&record.id);
                    }
                }
                RowKey::Job(job) => drop(self.jobs.remove(job)),
                RowKey::Meta | RowKey::RemovedNode(_) | RowKey::Group(_) => unreachable!("these rows stay"),
            },
        }
    }
}
