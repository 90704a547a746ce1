//! The catalog of the model is the catalog of the product, and changes by its commands.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use drover_catalog::job::{JobEvent, JobOptions, SplitJob};
use drover_catalog::{
    Bootstrap, BootstrapNode, Catalog, CatalogCommand, CatalogCommandKind, CatalogSettings, MOVES_RANGES, RegisterNode,
    RequestId, Route, RouteState, StartJob, Version,
};
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, End, GroupId, Interval, JobEpoch, JobId, NodeId, RouteId, ShardId, StoreId};

/// The two groups.
pub const GROUPS: [GroupId; 2] = [GroupId(1), GroupId(2)];

/// The key that clients read and write. It lies in the range that moves.
pub fn key() -> Bytes {
    Bytes::from_static(b"c")
}

/// A key left of the range that moves, in the same route until the range is carved out of it. It stays where it is.
pub fn beside() -> Bytes {
    Bytes::from_static(b"a")
}

/// The range that moves: part of the first route, so that it has to be cut out of it.
pub fn moving() -> Interval {
    Interval::new("b", End::Key("d".into())).expect("b lies below d")
}

/// The jobs, the latest last.
fn all_jobs(catalog: &Catalog) -> impl Iterator<Item = &SplitJob> {
    catalog.jobs().map(std::convert::AsRef::as_ref)
}

/// The catalog. Two are equal if nothing but logs and counters for people tells them apart: those decide nothing.
#[derive(Debug, Clone)]
pub struct ModelCatalog {
    catalog: Catalog,
    /// Who serves the moving range by each version of the map, from the first one on.
    owners: Vec<GroupId>,
    /// It has come to what must not be: an assertion of the product says so.
    broken: bool,
}

impl PartialEq for ModelCatalog {
    fn eq(&self, other: &Self) -> bool {
        self.owners == other.owners
            && self.broken == other.broken
            && self.catalog.routes() == other.catalog.routes()
            && all_jobs(&self.catalog).eq(all_jobs(&other.catalog))
            && self.counters() == other.counters()
    }
}

impl Eq for ModelCatalog {}

impl Hash for ModelCatalog {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.owners.hash(state);
        self.broken.hash(state);
        self.counters().hash(state);
        self.catalog.routes().into_iter().flat_map(|map| map.routes()).for_each(|route| route.hash(state));
        all_jobs(&self.catalog).for_each(|job| job.hash(state));
    }
}

/// The only time that commands carry: how long something takes is no part of the model.
fn now() -> PhysicalMs {
    PhysicalMs::new(1_000).expect("it is a small number")
}

impl Default for ModelCatalog {
    fn default() -> Self {
        Self::new()
    }
}

impl ModelCatalog {
    /// Two routes, each of a group of its own. The range that moves is within the first one.
    pub fn new() -> Self {
        let node = NodeId(1);
        let bound = || Bytes::from_static(b"m");
        let route = |id, start: Bytes, end, group| Route {
            id: RouteId(id),
            interval: Interval::new(start, end).expect("the bounds ascend"),
            group,
            shard: ShardId(id),
            state: RouteState::Active,
        };
        let settings = CatalogSettings { delta_log: 1, audit_log: 1, request_log: 1, ..CatalogSettings::default() };
        let bootstrap = Bootstrap {
            settings,
            routes: vec![
                route(1, Bytes::new(), End::Key(bound()), GROUPS[0]),
                route(2, bound(), End::Unbounded, GROUPS[1]),
            ],
            groups: GROUPS.iter().map(|group| (*group, BTreeSet::from([node]))).collect(),
            nodes: BTreeMap::from([(
                node,
                BootstrapNode { address: "n1:1".to_owned(), admin_address: "n1:2".to_owned() },
            )]),
        };
        let register = RegisterNode {
            node: Some(node),
            store: StoreId([1; 16]),
            address: "n1:1".to_owned(),
            admin_address: "n1:2".to_owned(),
            version: Version::new(1, 0),
            capabilities: BTreeSet::from([MOVES_RANGES.to_owned()]),
        };
        let mut catalog = Self { catalog: Catalog::default(), owners: Vec::new(), broken: false };
        for kind in [CatalogCommandKind::Bootstrap(Box::new(bootstrap)), CatalogCommandKind::RegisterNode(register)] {
            assert!(catalog.run(kind), "the catalog of the model can be created");
        }
        catalog
    }

    /// Whether the command was carried out; whether that changed anything is told by comparing.
    fn run(&mut self, kind: CatalogCommandKind) -> bool {
        // Each delivery is a request of its own: to the first answer of a request that comes again nothing is to be tested here.
        let number = self.catalog.meta().map_or(0, |meta| meta.next_request);
        let request_id = RequestId(u128::from(number).to_be_bytes());
        let command = CatalogCommand { request_id, actor: "model".to_owned(), now: now(), kind };
        match catch_unwind(AssertUnwindSafe(|| self.catalog.apply(&command))) {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return false,
            Err(_) => self.broken = true,
        }
        while self.owners.len() < self.version().0 as usize {
            self.owners.push(self.route().group);
        }
        true
    }

    /// Begins a job that moves the range to the group which does not have it.
    pub fn start_job(&mut self) -> bool {
        let route = self.route();
        let target = GROUPS.into_iter().find(|group| *group != route.group).expect("there are two groups");
        let start = StartJob {
            expected_version: self.version(),
            route: route.id,
            interval: moving(),
            target,
            options: JobOptions::default(),
        };
        self.run(CatalogCommandKind::StartJob(start))
    }

    /// Something happens to a job.
    pub fn job_event(&mut self, job: JobId, epoch: Option<JobEpoch>, event: JobEvent) -> bool {
        self.run(CatalogCommandKind::JobEvent { job, epoch, event })
    }

    /// The jobs, the latest last.
    pub fn jobs(&self) -> impl DoubleEndedIterator<Item = &SplitJob> {
        all_jobs(&self.catalog).collect::<Vec<_>>().into_iter()
    }

    /// A job.
    pub fn job(&self, id: JobId) -> Option<&SplitJob> {
        self.catalog.job(id).map(std::convert::AsRef::as_ref)
    }

    /// Those that are not over.
    pub fn live(&self) -> impl Iterator<Item = &SplitJob> {
        self.jobs().filter(|job| !job.phase.has_ended())
    }

    /// Every job below it is over.
    pub fn horizon(&self) -> JobId {
        self.catalog.job_horizon()
    }

    /// Of the routes.
    pub fn version(&self) -> CatalogVersion {
        self.catalog.routes().map_or(CatalogVersion(0), |routes| routes.version())
    }

    /// The route of the key that clients use.
    pub fn route(&self) -> &Route {
        self.catalog.routes().expect("it was created").route_of(&key())
    }

    /// All routes.
    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.catalog.routes().into_iter().flat_map(|map| map.routes())
    }

    /// Who served the range by a version of the map.
    pub fn owner_at(&self, version: CatalogVersion) -> GroupId {
        self.owners[version.0 as usize - 1]
    }

    /// The version since which `group` is without interruption the one to serve the range; `None` if it is not.
    pub fn serves_since(&self, group: GroupId) -> Option<CatalogVersion> {
        let others = self.owners.iter().rev().position(|owner| *owner != group).unwrap_or(self.owners.len());
        (others > 0).then(|| CatalogVersion((self.owners.len() - others) as u64 + 1))
    }

    /// Whether an assertion of the product has failed.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether all that must hold of every catalog does: routes tile the key space, and no job is in a state that must not be.
    pub fn is_valid(&self) -> bool {
        !self.broken && self.catalog.validate().is_ok()
    }
}

impl ModelCatalog {
    fn counters(&self) -> Option<(CatalogVersion, JobId, ShardId, RouteId)> {
        self.catalog.meta().map(|meta| (meta.version, meta.next_job, meta.next_shard, meta.next_route))
    }
}
