//! The catalog of a cluster as a value: which group serves which keys, which nodes there are, which of them hold
//! replicas of which group, and which version of the software they all understand.
//!
//! # Model
//!
//! A [`RouteMap`] is an immutable snapshot: routes in key order that tile the whole route-key space, and the catalog
//! version they stand for. Coordinators look keys up in it and stamp what they send with its version. A [`RouteDelta`]
//! leads from one version to the next.
//!
//! A [`Catalog`] is the replicated state of the default group. [`Catalog::apply`] judges a [`CatalogCommand`] and
//! answers with a [`CatalogReply`] and the rows to write ([`CatalogChange`]), or with a [`CatalogRefusal`].
//! [`Catalog::from_rows`] reads the rows back.
//!
//! [`next_membership_step`] leads a Raft group from the members it has to the replicas that the catalog wants, and
//! [`hosting_steps`] leads a node from the replicas it holds to those that it shall hold.
//!
//! # Invariants
//!
//! - Routes tile the key space: the first starts at the empty key, each starts where the one before ends, the last is
//!   unbounded. No other value of the type can be made.
//! - Route ids are unique within a map. Routes may share a shard; a shard belongs to one group.
//! - Ids of routes, shards, groups, nodes and replicas are never given out twice.
//! - A refusal changes nothing, not even the clock. A request id is carried out once; a retry gets the first answer.
//! - Every change of routes makes the next version. Every change that somebody could see raises the revision.
//! - One change of a group's replicas at a time. Learners catch up before they vote, voters change one by one.
//! - The cluster version never falls, and nodes below it are refused.
//! - A replica whose number was once in use is never opened anew while it has a vote, and never destroyed while it is listed.
//! - The rows of all changes together are the rows of the catalog.
//!
//! Time comes in with commands alone ([`CatalogCommand::now`]), and never goes back.
//!
//! Knows nothing of clocks, storage, the wire, Raft, or which node leads a group.

mod apply;
mod catalog;
mod command;
mod fingerprint;
mod group;
pub mod job;
mod load;
mod membership;
mod node;
mod refusal;
mod reply;
mod routes;
mod row;
mod settings;
mod topology;
mod version;

pub use catalog::Catalog;
pub use command::{
    Bootstrap, BootstrapNode, CHANGES_REPLICAS, CatalogCommand, CatalogCommandKind, Heartbeat, MAX_ACTOR_BYTES,
    MOVES_RANGES, MOVES_SINCE, RegisterNode, RequestId, StartJob,
};
pub use group::{GroupDescriptor, Replica, ReplicaRole, ReplicaState};
pub use load::InvalidCatalog;
pub use membership::{MembershipStep, RaftMembership, next_membership_step};
pub use node::{MAX_ADDRESS_BYTES, MAX_CAPABILITIES, MAX_CAPABILITY_BYTES, NodeEntry, Presence, RemovedNode};
pub use refusal::CatalogRefusal;
pub use reply::{CatalogReply, CompatNode, CompatOutcome, CompatState, Freeze, Split};
pub use routes::{DeltaError, Route, RouteDelta, RouteMap, RouteMapError, RouteState};
pub use row::{AuditEvent, CatalogChange, CatalogRow, Meta, RequestRecord, RowKey};
pub use settings::CatalogSettings;
pub use topology::{Holding, HostingStep, NodeAddresses, Topology, hosting_steps};
pub use version::Version;
