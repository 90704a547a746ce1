//! How the driver of a group's membership hears of the catalog, and tells it what was done.

use std::sync::Arc;
use std::time::Instant;

use drover_catalog::{CatalogCommandKind, CatalogRow, GroupDescriptor, RequestId, Topology};
use drover_coordinator::Coordinator;
use drover_keys::{GroupId, NodeId};
use drover_kv::Error;
use drover_raftgroup::ReplicaPlan;
use drover_wire::CatalogPart;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::Rng;
use tokio::sync::watch;

use super::topology::TopologyCache;

/// The catalog, for the replicas of one group.
pub struct CatalogPlan {
    group: GroupId,
    actor: String,
    coordinator: Arc<Coordinator>,
    known: watch::Receiver<Arc<Topology>>,
}

impl CatalogPlan {
    /// What the catalog wants of `group`, whose leader is on `node`.
    pub fn new(group: GroupId, node: NodeId, coordinator: Arc<Coordinator>, topology: &TopologyCache) -> Self {
        Self { group, actor: format!("node {node}"), coordinator, known: topology.subscribe() }
    }
}

impl ReplicaPlan for CatalogPlan {
    fn known(&self) -> watch::Receiver<Arc<Topology>> {
        self.known.clone()
    }

    fn wanted(&self, deadline: Instant) -> BoxFuture<'_, Result<Option<GroupDescriptor>, Error>> {
        async move {
            let rows = self.coordinator.read_catalog(CatalogPart::Groups, u32::MAX, deadline).await?;
            Ok(rows.into_iter().find_map(|row| match row {
                CatalogRow::Group(found) if found.id == self.group => Some(found),
                _ => None,
            }))
        }
        .boxed()
    }

    fn tell(&self, kind: CatalogCommandKind, deadline: Instant) -> BoxFuture<'_, Result<(), Error>> {
        let id = RequestId(rand::rng().random());
        async move { self.coordinator.catalog(id, self.actor.clone(), kind, deadline).await.map(drop) }.boxed()
    }
}
