//! Tells a retry from another use of the same request id, and one bootstrap from another.
//!
//! ```text
//! xxh3-128 of: field of the actor | tag (1) | number (8, BE) | field | …        field = length (8, BE) | bytes
//! ```
//!
//! The proposing leader's clock is left out: a retry is another entry. The hashes are persisted: tags are never reused.

use std::collections::BTreeSet;

use drover_keys::{End, Interval, NodeId};
use xxhash_rust::xxh3::xxh3_128;

use crate::job::{HandoverTerms, JobEvent};
use crate::{Bootstrap, CatalogCommand, CatalogCommandKind as Kind, Route, RouteState, Version};

/// Of what a request asks for, and who asks.
pub(crate) fn of_command(command: &CatalogCommand) -> u128 {
    let mut out = Canonical(Vec::new());
    out.field(command.actor.as_bytes());
    out.kind(&command.kind);
    xxh3_128(&out.0)
}

/// Of what a cluster is created with.
pub(crate) fn of_bootstrap(bootstrap: &Bootstrap) -> u128 {
    let mut out = Canonical(Vec::new());
    out.bootstrap(bootstrap);
    xxh3_128(&out.0)
}

/// Bytes that differ if what they stand for does.
struct Canonical(Vec<u8>);

impl Canonical {
    fn kind(&mut self, kind: &Kind) {
        match kind {
            Kind::Bootstrap(bootstrap) => {
                self.tag(1);
                self.bootstrap(bootstrap);
            }
            Kind::SplitRange { expected_version, route, key } => {
                self.tag(2);
                self.numbers([expected_version.0, route.0]);
                self.field(key);
            }
            Kind::RegisterNode(node) => {
                self.tag(3);
                self.numbers([node.node.map_or(0, |id| id.0)]);
                self.field(&node.store.0);
                self.field(node.address.as_bytes());
                self.field(node.admin_address.as_bytes());
                self.version(node.version);
                self.names(&node.capabilities);
            }
            Kind::Heartbeat(heartbeat) => {
                self.tag(4);
                self.numbers([heartbeat.node.0, heartbeat.serving.into()]);
                self.field(&heartbeat.store.0);
                self.version(heartbeat.version);
                self.names(&heartbeat.capabilities);
            }
            Kind::DrainNode { node, on } => {
                self.tag(5);
                self.numbers([node.0, (*on).into()]);
            }
            Kind::RemoveNode { node } => {
                self.tag(6);
                self.numbers([node.0]);
            }
            Kind::AddReplica { group, node } => {
                self.tag(7);
                self.numbers([group.0, node.0]);
            }
            Kind::RemoveReplicas { group, nodes } => {
                self.tag(8);
                self.numbers([group.0]);
                self.nodes(nodes);
            }
            Kind::PromoteReplica { group, node, replica } => {
                self.tag(9);
                self.numbers([group.0, node.0, replica.0]);
            }
            Kind::DropReplica { group, node, replica } => {
                self.tag(10);
                self.numbers([group.0, node.0, replica.0]);
            }
            Kind::Freeze => self.tag(11),
            Kind::Unfreeze => self.tag(12),
            Kind::ReadCompat => self.tag(13),
            Kind::StartJob(start) => {
                self.tag(14);
                self.numbers([start.expected_version.0, start.route.0, start.target.0]);
                self.interval(&start.interval);
                self.numbers([start.options.max_pause_ms.into(), start.options.max_bytes_per_second]);
            }
            Kind::JobEvent { job, epoch, event } => {
                self.tag(15);
                self.numbers([job.0, epoch.is_some().into(), epoch.map_or(0, |epoch| epoch.0)]);
                self.event(event);
            }
        }
    }

    fn event(&mut self, event: &JobEvent) {
        match event {
            JobEvent::Begin => self.tag(1),
            JobEvent::Scanned(base) => {
                self.tag(2);
                self.numbers([base.armed_at, (base.hash >> 64) as u64, base.hash as u64, base.rows]);
            }
            JobEvent::Carve => self.tag(3),
            JobEvent::Fence => self.tag(4),
            JobEvent::Sealed => self.tag(5),
            JobEvent::CutOver => self.tag(6),
            JobEvent::HandOver(terms) => {
                self.tag(7);
                let HandoverTerms { floor_ts, history_start, txn_horizon, record_horizon } = terms;
                self.numbers([floor_ts, history_start, txn_horizon, record_horizon].map(|at| at.raw()));
            }
            JobEvent::Activated => self.tag(8),
            JobEvent::Finish => self.tag(9),
            JobEvent::Unfence => self.tag(10),
            JobEvent::StartOver => self.tag(11),
            JobEvent::Fail { why } => {
                self.tag(12);
                self.field(why.as_bytes());
            }
            JobEvent::Retry => self.tag(13),
            JobEvent::Abandon => self.tag(14),
            JobEvent::Abandoned => self.tag(15),
            JobEvent::Pause => self.tag(16),
            JobEvent::Resume => self.tag(17),
            JobEvent::Held(pause) => {
                self.tag(18);
                self.numbers([pause.fence.into(), pause.write_us, pause.read_us]);
            }
        }
    }

    fn bootstrap(&mut self, bootstrap: &Bootstrap) {
        let settings = &bootstrap.settings;
        self.numbers([settings.node_ttl_ms, settings.settle_ms, settings.max_key_bytes.into()]);
        self.numbers([settings.delta_log.into(), settings.audit_log.into(), settings.request_log.into()]);
        let mut routes: Vec<&Route> = bootstrap.routes.iter().collect();
        routes.sort_by(|a, b| a.interval.start().cmp(b.interval.start()));
        self.numbers([routes.len() as u64]);
        for route in routes {
            self.route(route);
        }
        self.numbers([bootstrap.groups.len() as u64]);
        for (group, voters) in &bootstrap.groups {
            self.numbers([group.0]);
            self.nodes(voters);
        }
        self.numbers([bootstrap.nodes.len() as u64]);
        for (id, node) in &bootstrap.nodes {
            self.numbers([id.0]);
            self.field(node.address.as_bytes());
            self.field(node.admin_address.as_bytes());
        }
    }

    fn route(&mut self, route: &Route) {
        self.numbers([route.id.0, route.group.0, route.shard.0]);
        self.numbers(match route.state {
            RouteState::Active => [0, 0],
            RouteState::WriteFenced { job } => [1, job.0],
        });
        self.interval(&route.interval);
    }

    fn interval(&mut self, interval: &Interval) {
        self.field(interval.start());
        match interval.end() {
            End::Unbounded => self.tag(0),
            End::Key(end) => {
                self.tag(1);
                self.field(end);
            }
        }
    }

    fn version(&mut self, version: Version) {
        self.numbers([version.major.into(), version.minor.into()]);
    }

    fn nodes(&mut self, nodes: &BTreeSet<NodeId>) {
        self.numbers([nodes.len() as u64]);
        nodes.iter().for_each(|node| self.numbers([node.0]));
    }

    fn names(&mut self, names: &BTreeSet<String>) {
        self.numbers([names.len() as u64]);
        names.iter().for_each(|name| self.field(name.as_bytes()));
    }

    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        numbers.iter().for_each(|number| self.0.extend_from_slice(&number.to_be_bytes()));
    }

    fn field(&mut self, bytes: &[u8]) {
        self.numbers([bytes.len() as u64]);
        self.0.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use drover_hlc::PhysicalMs;
    use drover_keys::{CatalogVersion, GroupId, JobEpoch, JobId, ReplicaId, RouteId, StoreId};

    use super::*;
    use crate::job::JobOptions;
    use crate::{BootstrapNode, Heartbeat, RegisterNode, RequestId, StartJob};

    const GOLDEN_SPLIT: u128 = 291983828524259218121951429557858014185;
    const GOLDEN_BOOTSTRAP: u128 = 32216265561760014576271282920181547553;

    fn command(kind: Kind) -> CatalogCommand {
        CatalogCommand { request_id: RequestId([7; 16]), actor: "admin".to_owned(), now: PhysicalMs::default(), kind }
    }

    /// One of each kind, and ones that differ in one field.
    fn kinds() -> Vec<Kind> {
        let (group, node, replica) = (GroupId(1), NodeId(2), ReplicaId(3));
        let register = RegisterNode {
            node: None,
            store: StoreId([1; 16]),
            address: "a".to_owned(),
            admin_address: "b".to_owned(),
            version: Version::new(1, 2),
            capabilities: BTreeSet::from(["x".to_owned()]),
        };
        let heartbeat = Heartbeat {
            node,
            store: StoreId([1; 16]),
            version: Version::new(1, 2),
            capabilities: BTreeSet::new(),
            serving: true,
        };
        let split = |route, key: &'static [u8]| Kind::SplitRange {
            expected_version: CatalogVersion(1),
            route: RouteId(route),
            key: Bytes::from_static(key),
        };
        let address = BootstrapNode { address: "a".to_owned(), admin_address: String::new() };
        let bootstrap = Bootstrap { nodes: BTreeMap::from([(node, address)]), ..Bootstrap::default() };
        vec![
            Kind::Bootstrap(Box::default()),
            Kind::Bootstrap(Box::new(bootstrap)),
            split(1, b"k"),
            split(2, b"k"),
            split(1, b"l"),
            Kind::RegisterNode(RegisterNode { node: Some(node), ..register.clone() }),
            Kind::RegisterNode(RegisterNode { address: "ab".into(), admin_address: "".into(), ..register.clone() }),
            Kind::RegisterNode(register),
            Kind::Heartbeat(heartbeat),
            Kind::DrainNode { node, on: true },
            Kind::DrainNode { node, on: false },
            Kind::RemoveNode { node },
            Kind::AddReplica { group, node },
            Kind::RemoveReplicas { group, nodes: BTreeSet::from([node]) },
            Kind::PromoteReplica { group, node, replica },
            Kind::DropReplica { group, node, replica },
            Kind::Freeze,
            Kind::Unfreeze,
            Kind::ReadCompat,
        ]
        .into_iter()
        .chain(jobs())
        .collect()
    }

    /// A start, and every event.
    fn jobs() -> Vec<Kind> {
        let start = |target, end: &'static str| StartJob {
            expected_version: CatalogVersion(1),
            route: RouteId(1),
            interval: Interval::new("a", End::Key(end.into())).unwrap(),
            target: GroupId(target),
            options: JobOptions::default(),
        };
        let fail = |why: &str| JobEvent::Fail { why: why.to_owned() };
        let mut events = crate::job::all_events();
        events.push(fail("another reason"));
        let event = |epoch, event| Kind::JobEvent { job: JobId(1), epoch, event };
        let mut kinds =
            vec![Kind::StartJob(start(2, "b")), Kind::StartJob(start(3, "b")), Kind::StartJob(start(2, "c"))];
        kinds.push(event(Some(JobEpoch(0)), JobEvent::Begin));
        kinds.extend(events.into_iter().map(|one| event(None, one)));
        kinds
    }

    #[test]
    fn golden_fingerprints() {
        let split = command(kinds().swap_remove(2));
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 5];
        bytes.extend_from_slice(b"admin");
        bytes.extend_from_slice(&[2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, b'k']);
        assert_eq!(of_command(&split), xxh3_128(&bytes));
        assert_eq!(of_command(&split), GOLDEN_SPLIT);
        assert_eq!(of_bootstrap(&Bootstrap::default()), GOLDEN_BOOTSTRAP);
    }

    #[test]
    fn different_requests_differ_and_the_clock_makes_no_difference() {
        let kinds = kinds();
        let distinct: BTreeSet<u128> = kinds.iter().cloned().map(|kind| of_command(&command(kind))).collect();
        assert_eq!(distinct.len(), kinds.len());
        let freeze = command(Kind::Freeze);
        let later = CatalogCommand { now: PhysicalMs::MAX, ..freeze.clone() };
        let other = CatalogCommand { actor: "eve".to_owned(), ..freeze.clone() };
        assert_eq!(of_command(&later), of_command(&freeze));
        assert_ne!(of_command(&other), of_command(&freeze));
    }
}
