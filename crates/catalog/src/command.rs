//! What the catalog can be asked to do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId, NodeId, ReplicaId, RouteId, StoreId};

use crate::job::{JobEvent, JobOptions, MAX_WHY_BYTES};
use crate::node::{check_addresses, check_capabilities};
use crate::{CatalogRefusal, CatalogSettings, Route, Version};

/// Longest name of an actor.
pub const MAX_ACTOR_BYTES: usize = 128;

/// What a node has to be able to do before replicas of the cluster are added or removed: open, hand over and destroy them.
pub const CHANGES_REPLICAS: &str = "replicas";

/// What a node has to be able to do before a range is moved: know every entry of a move, and take part in it.
pub const MOVES_RANGES: &str = "moves";
/// The version in which jobs came into the log of the default group, and the steps of moves into those of all groups.
pub const MOVES_SINCE: Version = Version::new(0, 2);

/// Names one request, chosen at random by whoever makes it. A retry after an unknown outcome carries it again.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub [u8; 16]);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

/// A command in the log of the default group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogCommand {
    /// Names the request.
    pub request_id: RequestId,
    /// Who asks, for the audit log.
    pub actor: String,
    /// The oracle's time when its leader proposed it, never that of a machine's clock. The only time that apply knows.
    pub now: PhysicalMs,
    /// What to do.
    pub kind: CatalogCommandKind,
}

/// What the catalog can be asked to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogCommandKind {
    /// Creates the cluster. Once; the same again is no error.
    Bootstrap(Box<Bootstrap>),
    /// Cuts a route in two at `key`, which becomes the first key of the right half. Group and shard stay.
    SplitRange {
        /// The version of the map that the caller looked at.
        expected_version: CatalogVersion,
        /// The route that holds the key.
        route: RouteId,
        /// Where to cut.
        key: Bytes,
    },
    /// A node starts.
    RegisterNode(RegisterNode),
    /// A node is there.
    Heartbeat(Heartbeat),
    /// A node gets no new replicas, or gets them again.
    DrainNode {
        /// Which.
        node: NodeId,
        /// Whether it is to drain.
        on: bool,
    },
    /// A node that holds no replica is forgotten. Its number is not given out again.
    RemoveNode {
        /// Which.
        node: NodeId,
    },
    /// A node is to hold a replica of a group.
    AddReplica {
        /// Of which group.
        group: GroupId,
        /// On which node.
        node: NodeId,
    },
    /// Nodes are to give up their replicas of a group. Names a node that is joining to call that off.
    RemoveReplicas {
        /// Of which group.
        group: GroupId,
        /// On which nodes.
        nodes: BTreeSet<NodeId>,
    },
    /// Raft has made a joining replica a voter.
    PromoteReplica {
        /// Of which group.
        group: GroupId,
        /// On which node.
        node: NodeId,
        /// Which replica.
        replica: ReplicaId,
    },
    /// Raft has removed a leaving replica.
    DropReplica {
        /// Of which group.
        group: GroupId,
        /// On which node.
        node: NodeId,
        /// Which replica.
        replica: ReplicaId,
    },
    /// Keeps the cluster version where it is.
    Freeze,
    /// Lets it rise again.
    Unfreeze,
    /// Tells the compatibility state, and leaves an audit event.
    ReadCompat,
    /// A range is to be moved to another group.
    StartJob(StartJob),
    /// Something happens to a job.
    JobEvent {
        /// To which.
        job: JobId,
        /// The course of whoever drives it; `None` if people ask.
        epoch: Option<JobEpoch>,
        /// What.
        event: JobEvent,
    },
}

/// A range is to be moved to another group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartJob {
    /// The version of the map that the caller looked at.
    pub expected_version: CatalogVersion,
    /// The route that holds the range.
    pub route: RouteId,
    /// What is to be moved: some of the route, or all of it.
    pub interval: Interval,
    /// Where to.
    pub target: GroupId,
    /// How.
    pub options: JobOptions,
}

/// What a cluster consists of when it is created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// Fixed from now on.
    pub settings: CatalogSettings,
    /// In any order. They tile the key space and are active.
    pub routes: Vec<Route>,
    /// The voters of each group. The default group is among them.
    pub groups: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// The nodes. Their data directories become known when they register.
    pub nodes: BTreeMap<NodeId, BootstrapNode>,
}

/// A node of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootstrapNode {
    /// Where clients and other nodes reach it.
    pub address: String,
    /// Where its health and metrics are. May be empty.
    pub admin_address: String,
}

/// A node starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterNode {
    /// Its number, or `None` for the next one that is free.
    pub node: Option<NodeId>,
    /// Its data directory.
    pub store: StoreId,
    /// Where clients and other nodes reach it.
    pub address: String,
    /// Where its health and metrics are. May be empty.
    pub admin_address: String,
    /// Of its build.
    pub version: Version,
    /// What its build can do.
    pub capabilities: BTreeSet<String>,
}

/// A node is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Which.
    pub node: NodeId,
    /// Its data directory.
    pub store: StoreId,
    /// Of its build.
    pub version: Version,
    /// What its build can do.
    pub capabilities: BTreeSet<String>,
    /// Whether it serves requests.
    pub serving: bool,
}

impl CatalogCommand {
    /// Refuses what no state of the catalog would accept. The leader asks before it proposes, so that nothing oversized
    /// gets into the log; apply asks again.
    ///
    /// # Errors
    /// Sizes and characters that are not allowed.
    pub fn check(&self) -> Result<(), CatalogRefusal> {
        if self.actor.is_empty() || self.actor.len() > MAX_ACTOR_BYTES {
            return Err(CatalogRefusal::Actor { bytes: self.actor.len() });
        }
        match &self.kind {
            CatalogCommandKind::Bootstrap(bootstrap) => bootstrap.check(),
            CatalogCommandKind::RegisterNode(node) => {
                check_addresses(&node.address, &node.admin_address)?;
                check_capabilities(&node.capabilities)
            }
            CatalogCommandKind::Heartbeat(heartbeat) => check_capabilities(&heartbeat.capabilities),
            CatalogCommandKind::SplitRange { .. }
            | CatalogCommandKind::DrainNode { .. }
            | CatalogCommandKind::RemoveNode { .. }
            | CatalogCommandKind::AddReplica { .. }
            | CatalogCommandKind::RemoveReplicas { .. }
            | CatalogCommandKind::PromoteReplica { .. }
            | CatalogCommandKind::DropReplica { .. }
            | CatalogCommandKind::Freeze
            | CatalogCommandKind::Unfreeze
            | CatalogCommandKind::ReadCompat
            | CatalogCommandKind::StartJob(_) => Ok(()),
            CatalogCommandKind::JobEvent { event: JobEvent::Fail { why }, .. } if why.len() > MAX_WHY_BYTES => {
                Err(CatalogRefusal::LongReason { bytes: why.len() })
            }
            CatalogCommandKind::JobEvent { .. } => Ok(()),
        }
    }
}

impl CatalogCommandKind {
    /// Whether this is news of a node rather than somebody's decision: it leaves neither an audit event nor an answer
    /// for retries.
    pub fn is_heartbeat(&self) -> bool {
        matches!(self, CatalogCommandKind::Heartbeat(_))
    }

    /// Whether the cluster asks for this by itself, and cannot do without: it is carried out even where disks are full.
    pub fn is_upkeep(&self) -> bool {
        match self {
            CatalogCommandKind::Bootstrap(_)
            | CatalogCommandKind::RegisterNode(_)
            | CatalogCommandKind::Heartbeat(_)
            | CatalogCommandKind::PromoteReplica { .. }
            | CatalogCommandKind::DropReplica { .. }
            | CatalogCommandKind::JobEvent { .. } => true,
            CatalogCommandKind::SplitRange { .. }
            | CatalogCommandKind::DrainNode { .. }
            | CatalogCommandKind::RemoveNode { .. }
            | CatalogCommandKind::AddReplica { .. }
            | CatalogCommandKind::RemoveReplicas { .. }
            | CatalogCommandKind::Freeze
            | CatalogCommandKind::Unfreeze
            | CatalogCommandKind::ReadCompat
            | CatalogCommandKind::StartJob(_) => false,
        }
    }

    /// What every node that is live or holds a replica has to be able to do before this may be asked for. Right for what
    /// nodes do beside the log; what stands in the log needs [`CatalogCommandKind::required_version`] as well, since
    /// capabilities do not know of a freeze.
    pub fn required_capability(&self) -> Option<&'static str> {
        match self {
            CatalogCommandKind::AddReplica { .. } | CatalogCommandKind::RemoveReplicas { .. } => Some(CHANGES_REPLICAS),
            CatalogCommandKind::StartJob(_) => Some(MOVES_RANGES),
            // What was begun is finished, whoever has come back since.
            CatalogCommandKind::PromoteReplica { .. }
            | CatalogCommandKind::DropReplica { .. }
            | CatalogCommandKind::JobEvent { .. } => None,
            CatalogCommandKind::Bootstrap(_)
            | CatalogCommandKind::SplitRange { .. }
            | CatalogCommandKind::RegisterNode(_)
            | CatalogCommandKind::Heartbeat(_)
            | CatalogCommandKind::DrainNode { .. }
            | CatalogCommandKind::RemoveNode { .. }
            | CatalogCommandKind::Freeze
            | CatalogCommandKind::Unfreeze
            | CatalogCommandKind::ReadCompat => None,
        }
    }

    /// The cluster version from which on this may stand in the log: that of the build in which it came. While the version
    /// is frozen, nodes may go back to builds that do not know what came later. `None` of what was there from the first
    /// version on.
    pub fn required_version(&self) -> Option<Version> {
        match self {
            CatalogCommandKind::Bootstrap(_)
            | CatalogCommandKind::SplitRange { .. }
            | CatalogCommandKind::RegisterNode(_)
            | CatalogCommandKind::Heartbeat(_)
            | CatalogCommandKind::DrainNode { .. }
            | CatalogCommandKind::RemoveNode { .. }
            | CatalogCommandKind::AddReplica { .. }
            | CatalogCommandKind::RemoveReplicas { .. }
            | CatalogCommandKind::PromoteReplica { .. }
            | CatalogCommandKind::DropReplica { .. }
            | CatalogCommandKind::Freeze
            | CatalogCommandKind::Unfreeze
            | CatalogCommandKind::ReadCompat => None,
            CatalogCommandKind::StartJob(_) => Some(MOVES_SINCE),
            // Of a job that was begun, so the cluster cannot go back behind that.
            CatalogCommandKind::JobEvent { .. } => None,
        }
    }
}
