//! Why a command was not carried out.

use std::collections::BTreeSet;

use drover_keys::{CatalogVersion, GroupId, JobId, NodeId, ReplicaId, RouteId, StoreId};

use crate::command::MAX_ACTOR_BYTES;
use crate::job::{JobRefusal, MAX_WHY_BYTES};
use crate::{ReplicaState, RequestId, Version};

/// Why a command was not carried out. Nothing at all was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogRefusal {
    /// There is no cluster yet.
    #[error("the cluster has not been created yet; nothing was changed, try again when it has")]
    NotBootstrapped,
    /// There is another cluster.
    #[error("the cluster was created with other routes, groups, nodes or settings; nothing was changed")]
    AlreadyBootstrapped,
    /// No cluster could be like that.
    #[error("the cluster cannot be created: {why}; nothing was changed")]
    BadBootstrap { why: String },
    /// The name of who asks is empty or too long.
    #[error("the name of the actor has {bytes} bytes; 1 to {MAX_ACTOR_BYTES} are allowed; nothing was changed")]
    Actor { bytes: usize },
    /// Two different requests have one id.
    #[error("request id {request} was used for another request; nothing was changed, send this one with a new id")]
    RequestReused { request: RequestId },

    /// The caller looked at another version.
    #[error(
        "the catalog is at version {current}, not at {expected}; nothing was changed, read the routes and decide anew"
    )]
    StaleVersion { expected: CatalogVersion, current: CatalogVersion },
    /// No route has this id.
    #[error("there is no route {route}; nothing was changed, read the routes")]
    UnknownRoute { route: RouteId },
    /// The key is longer than keys may be.
    #[error("the key has {bytes} bytes; at most {limit} are allowed; nothing was changed")]
    KeyTooLarge { bytes: usize, limit: u32 },
    /// The key belongs to another route.
    #[error("route {route} covers {keys}, which does not hold {key}: route {holder} does; nothing was changed")]
    KeyOutside { route: RouteId, keys: String, key: String, holder: RouteId },
    /// A route starts there already.
    #[error("route {holder} already starts at {key}: there is nothing to split; nothing was changed")]
    KeyAtBoundary { holder: RouteId, key: String },

    /// A job moves part of the route, or all of it.
    #[error("job {job} moves keys of route {route}; nothing was changed, split it when the job has ended")]
    RouteInMove { route: RouteId, job: JobId },
    /// What is to be moved does not lie within the route.
    #[error("route {route} covers {keys}, which does not hold all of {wanted}; nothing was changed, read the routes")]
    IntervalOutside { route: RouteId, keys: String, wanted: String },
    /// A range cannot be moved to where it is.
    #[error("group {group} serves the range already; nothing was changed")]
    SameGroup { group: GroupId },
    /// Another job moves some of it.
    #[error("job {job} moves keys of {interval}; nothing was changed, try again when it has ended")]
    RangeInMove { interval: String, job: JobId },
    /// Each costs something.
    #[error(
        "{live} jobs are under way, which is as many as there may be; nothing was changed, try again when one has ended"
    )]
    TooManyJobs { live: usize },
    /// A rate or a pause that makes no sense.
    #[error("{why}; nothing was changed")]
    BadJobOptions { why: String },
    /// The group could not take a step.
    #[error(
        "only {live} of the {voters} voters of group {group} are on live nodes, fewer than a majority; nothing was changed, \
         bring those nodes back first"
    )]
    NoQuorum { group: GroupId, live: usize, voters: usize },
    /// Why a job failed takes too much room.
    #[error("the reason has {bytes} bytes; at most {MAX_WHY_BYTES} are kept; nothing was changed")]
    LongReason { bytes: usize },
    /// Nothing happens to the job.
    #[error(transparent)]
    Job(#[from] JobRefusal),

    /// What the node says of itself cannot be.
    #[error("the node cannot be registered: {why}; nothing was changed")]
    BadNode { why: String },
    /// Too many or too long capabilities.
    #[error("the capabilities of the node cannot be kept: {why}; nothing was changed")]
    Capabilities { why: String },
    /// No node has this number.
    #[error("there is no node {node}; nothing was changed, list the nodes")]
    UnknownNode { node: NodeId },
    /// The node is expected, and did not say what it is.
    #[error("node {node} has not registered yet; nothing was changed, it has to register first")]
    NotRegistered { node: NodeId },
    /// The number belongs to another data directory.
    #[error(
        "node {node} has another data directory ({registered}, not {store}); nothing was changed. A node whose disk \
         was wiped or replaced must join under a new id, after node {node} was removed"
    )]
    OtherStore { node: NodeId, registered: StoreId, store: StoreId },
    /// The data directory belongs to another number.
    #[error(
        "data directory {store} belongs to node {node}; nothing was changed. Start it as node {node}, or start with an \
         empty directory"
    )]
    StoreTaken { store: StoreId, node: NodeId },
    /// The number was given up.
    #[error(
        "node {node} was removed from the cluster and ids are not used again; nothing was changed. Start with an empty \
         data directory and a new id"
    )]
    NodeRemoved { node: NodeId },
    /// Another node is reached there.
    #[error(
        "{address} is the address of node {node}; nothing was changed. Use another address, or wait until node {node} \
         has expired or was removed"
    )]
    AddressTaken { address: String, node: NodeId },
    /// The build is too old.
    #[error(
        "the node runs version {version}, and the cluster may hold entries and formats of version {high_water} that it \
         cannot read; nothing was changed. Upgrade the node to {high_water} or later"
    )]
    VersionTooLow { version: Version, high_water: Version },
    /// Groups count on the node.
    #[error("node {node} holds replicas of {}; nothing was changed, remove them first", names(.groups))]
    NodeInUse { node: NodeId, groups: BTreeSet<GroupId> },

    /// No group has this number.
    #[error("there is no group {group}; nothing was changed, list the groups")]
    UnknownGroup { group: GroupId },
    /// One change at a time.
    #[error(
        "the replicas of group {group} are changing: node {node} is {}; nothing was changed, try again when that is \
         done{}", verb(*.state), call_off(*.state)
    )]
    ChangeUnderWay { group: GroupId, node: NodeId, state: ReplicaState },
    /// A replica would never catch up there.
    #[error("node {node} has not been heard of lately; nothing was changed, choose a node that is live")]
    NodeNotLive { node: NodeId },
    /// The node is to become empty.
    #[error("node {node} is draining; nothing was changed, choose another node or stop draining it")]
    NodeDraining { node: NodeId },
    /// There is one already.
    #[error("node {node} already holds a replica of group {group}; nothing was changed")]
    AlreadyReplica { group: GroupId, node: NodeId },
    /// There is none.
    #[error("node {node} holds no replica of group {group}; nothing was changed")]
    NotAReplica { group: GroupId, node: NodeId },
    /// No node was named.
    #[error("no node was named whose replica of group {group} is to go; nothing was changed")]
    NothingToRemove { group: GroupId },
    /// The group would be gone.
    #[error("group {group} would have no replica left; nothing was changed, add another one first")]
    LastReplica { group: GroupId },
    /// What is left might not know what was committed.
    #[error(
        "{removed} of the {voters} voters of group {group} are a majority; nothing was changed, remove fewer at once"
    )]
    Majority { group: GroupId, removed: usize, voters: usize },
    /// What is left could not agree on anything.
    #[error(
        "only {live} of the {voters} replicas that group {group} would have left are on live nodes, fewer than a majority; \
         nothing was changed, bring those nodes back, remove their replicas first, or add others"
    )]
    NoQuorumLeft { group: GroupId, live: usize, voters: usize },
    /// The replica is another one, or not in the state for this step.
    #[error("replica {replica} of group {group} on node {node} {why}; nothing was changed, look at the group again")]
    WrongReplica { group: GroupId, node: NodeId, replica: ReplicaId, why: &'static str },

    /// Some node could not take part, now or when it comes back.
    #[error(
        "this needs all nodes that are live or hold replicas to be able to do {capability:?}, and {} {} not, as far as is \
         known; nothing was changed. Upgrade and start them first",
        node_names(.nodes), if .nodes.len() == 1 { "is" } else { "are" }
    )]
    CapabilityMissing { capability: &'static str, nodes: BTreeSet<NodeId> },
    /// Nodes may still be of, or go back to, builds that would not understand it.
    #[error(
        "this came with version {required}, and the cluster version is {}; nothing was changed. Upgrade all nodes, lift a \
         freeze if there is one, and try again when the cluster version has risen",
        .have.map_or_else(|| "not known yet".to_owned(), |have| have.to_string())
    )]
    ClusterVersionTooLow { required: Version, have: Option<Version> },
    /// No node has settled.
    #[error(
        "the cluster version is not known until every live node has served for a while; nothing was changed, try again"
    )]
    NoClusterVersion,
}

fn names(groups: &BTreeSet<GroupId>) -> String {
    let list: Vec<String> = groups.iter().map(GroupId::to_string).collect();
    format!("group{} {}", if list.len() == 1 { "" } else { "s" }, list.join(", "))
}

fn node_names(nodes: &BTreeSet<NodeId>) -> String {
    let list: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
    format!("node{} {}", if list.len() == 1 { "" } else { "s" }, list.join(", "))
}

fn verb(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Joining => "joining",
        ReplicaState::Active => "active",
        ReplicaState::Leaving => "leaving",
    }
}

fn call_off(state: ReplicaState) -> &'static str {
    match state {
        ReplicaState::Joining => ", or call it off by removing that replica alone",
        ReplicaState::Active | ReplicaState::Leaving => "",
    }
}
