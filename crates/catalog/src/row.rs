//! The catalog as rows, so that a change of it is written with as many rows as it touches.

use std::sync::Arc;

use bytes::Bytes;
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, GroupId, JobId, NodeId, RouteId, ShardId};

use crate::job::SplitJob;
use crate::{
    CatalogReply, CatalogSettings, Freeze, GroupDescriptor, NodeEntry, RemovedNode, RequestId, Route, RouteDelta,
    Version,
};

/// One row to write or to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogChange {
    /// In the place of the row with this key, if there is one.
    Put(CatalogRow),
    /// There is such a row.
    Delete(RowKey),
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogRow {
    /// Everything there is one of.
    Meta(Box<Meta>),
    /// A route.
    Route(Route),
    /// A change of routes that watchers may ask for.
    Delta(Arc<RouteDelta>),
    /// A node.
    Node(NodeEntry),
    /// What is left of a node.
    RemovedNode(RemovedNode),
    /// The replicas of a group.
    Group(GroupDescriptor),
    /// What somebody did.
    Audit(Arc<AuditEvent>),
    /// An answer that a retry would get.
    Request(Arc<RequestRecord>),
    /// A range that moves, or has moved.
    Job(Arc<SplitJob>),
}

/// Names a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowKey {
    /// The one.
    Meta,
    /// By its first key.
    Route(Bytes),
    /// By the version it made.
    Delta(CatalogVersion),
    /// By number.
    Node(NodeId),
    /// By number.
    RemovedNode(NodeId),
    /// By number.
    Group(GroupId),
    /// By sequence number.
    Audit(u64),
    /// By sequence number.
    Request(u64),
    /// By number.
    Job(JobId),
}

/// Everything in the catalog that there is one of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// As the cluster was created with.
    pub settings: CatalogSettings,
    /// Of what the cluster was created with.
    pub bootstrap: u128,
    /// Of the routes.
    pub version: CatalogVersion,
    /// Rises with every change that somebody could see, of routes or anything else.
    pub revision: u64,
    /// The id of the next route.
    pub next_route: RouteId,
    /// The id of the next shard.
    pub next_shard: ShardId,
    /// The id of the next group.
    pub next_group: GroupId,
    /// The id of the next node.
    pub next_node: NodeId,
    /// The id of the next job.
    pub next_job: JobId,
    /// The sequence number of the next audit event.
    pub next_audit: u64,
    /// The sequence number of the next answer that is kept.
    pub next_request: u64,
    /// The highest time that a command has carried.
    pub clock: PhysicalMs,
    /// See [`crate::CompatState`].
    pub cluster_version: Option<Version>,
    /// See [`crate::CompatState`].
    pub high_water: Version,
    /// See [`crate::CompatState`].
    pub freeze: Option<Freeze>,
}

/// What somebody did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// Rises by one with each event.
    pub seq: u64,
    /// By the catalog's clock.
    pub at: PhysicalMs,
    /// Who.
    pub actor: String,
    /// What: the name of a command.
    pub action: String,
    /// To what.
    pub subject: String,
    /// What it came to.
    pub details: String,
}

/// An answer that a retry of a request gets again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Rises by one with each answer that is kept.
    pub seq: u64,
    /// Names the request.
    pub id: RequestId,
    /// Of actor and command, to tell a retry from another use of the id.
    pub fingerprint: u128,
    /// The first and only answer.
    pub reply: CatalogReply,
}

impl CatalogRow {
    /// Names this row.
    pub fn key(&self) -> RowKey {
        match self {
            CatalogRow::Meta(_) => RowKey::Meta,
            CatalogRow::Route(route) => RowKey::Route(route.interval.start().clone()),
            CatalogRow::Delta(delta) => RowKey::Delta(delta.version),
            CatalogRow::Node(node) => RowKey::Node(node.id),
            CatalogRow::RemovedNode(node) => RowKey::RemovedNode(node.id),
            CatalogRow::Group(group) => RowKey::Group(group.id),
            CatalogRow::Audit(event) => RowKey::Audit(event.seq),
            CatalogRow::Request(record) => RowKey::Request(record.seq),
            CatalogRow::Job(job) => RowKey::Job(job.id),
        }
    }
}
