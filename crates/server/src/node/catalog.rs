//! How a node learns of the catalog, and how a new cluster gets one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::{
    Bootstrap, BootstrapNode, Catalog, CatalogCommand, CatalogCommandKind, CatalogRow, CatalogSettings, RequestId,
    Route, RouteState,
};
use drover_coordinator::{Coordinator, GroupDirectory, RouteCache};
use drover_fsm::{Grant, encode_catalog_command};
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_raftgroup::{GrantSource, Group};
use drover_wire::proto::v1;
use drover_wire::proto::v1::distribution_client::DistributionClient;
use drover_wire::proto::v1::route_event::Event;
use drover_wire::{CatalogPart, decode_route, decode_route_delta};
use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use crate::config::Config;

/// How long one attempt to create the catalog may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Pause before another node, or the same one again, is asked for its routes.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows the catalog of the replica here, until `stop`.
pub async fn follow_replica(
    mut catalog: watch::Receiver<Arc<Catalog>>,
    routes: Arc<RouteCache>,
    directory: Arc<GroupDirectory>,
    stop: CancellationToken,
) {
    loop {
        let seen = Arc::clone(&catalog.borrow_and_update());
        routes.follow(&seen);
        for group in seen.groups() {
            directory.set_members(group.id, group.replicas.keys().copied().collect());
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = catalog.changed() => if changed.is_err() { return },
        }
    }
}

/// Follows the routes that one of `sources` knows, for a node without a replica of the default group, until `stop`.
pub async fn follow_nodes(sources: Vec<(NodeId, String)>, routes: Arc<RouteCache>, stop: CancellationToken) {
    let mut next = 0;
    while !stop.is_cancelled() {
        if let Some((node, address)) = sources.get(next % sources.len().max(1)) {
            let followed = tokio::select! {
                () = stop.cancelled() => return,
                followed = follow_node(address, &routes) => followed,
            };
            if let Err(error) = followed {
                tracing::debug!(%node, %error, "the routes of a node cannot be followed any further");
            }
        }
        next += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_node(address: &str, routes: &RouteCache) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    let mut client = DistributionClient::new(endpoint.connect().await?);
    let known_version = routes.current().version().0;
    let mut events = client.watch_routes(v1::WatchRoutesRequest { known_version }).await?.into_inner();
    let mut parts: Vec<Route> = Vec::new();
    while let Some(event) = events.message().await? {
        match event.event {
            Some(Event::Snapshot(part)) => {
                for route in part.routes {
                    parts.push(decode_route(route)?);
                }
                if !part.more {
                    let version = CatalogVersion(part.version);
                    routes.replace(drover_catalog::RouteMap::new(version, std::mem::take(&mut parts))?);
                }
            }
            Some(Event::Delta(delta)) => {
                routes.advance(&Arc::new(decode_route_delta(delta)?))?;
            }
            None => return Err("an event of a kind that this build does not know".into()),
        }
    }
    Ok(())
}

/// What a new group owns from the start: what the catalog says, never the configuration of a node, which may have been
/// changed since the cluster was created. A group that the catalog does not know gets nothing.
pub fn founding_grants(group: GroupId, coordinator: Arc<Coordinator>) -> GrantSource {
    Arc::new(move || {
        let coordinator = Arc::clone(&coordinator);
        async move {
            let deadline = Instant::now() + ATTEMPT;
            let groups = coordinator.read_catalog(CatalogPart::Groups, u32::MAX, deadline).await?;
            if groups.is_empty() {
                return Err(Error::definite(Reason::Unavailable, "the catalog is not created yet"));
            }
            let known = groups.iter().any(|row| matches!(row, CatalogRow::Group(found) if found.id == group));
            if !known {
                tracing::error!(%group, "the catalog does not know this group; it owns nothing");
                return Ok(None);
            }
            // Any version will do: before its first grant a group can only have its routes divided.
            if !coordinator.routes().newer_than(CatalogVersion(0), deadline).await {
                return Err(Error::definite(Reason::Unavailable, "the routes are not known yet"));
            }
            let routes = coordinator.routes().current();
            let grant = |route: &Route| Grant {
                interval: route.interval.clone(),
                route: route.id,
                shard: route.shard,
                acquired_version: CatalogVersion::FIRST,
            };
            Ok(Some(routes.of_group(group).map(grant).collect()))
        }
        .boxed()
    })
}

/// The command that creates the catalog of a new cluster. After it was applied, routes come from the catalog alone.
///
/// # Errors
/// If the configuration cannot be a catalog.
pub fn creation(config: &Config) -> Result<CatalogCommand, Error> {
    let bootstrap = &config.bootstrap;
    let routes = bootstrap.assigned_routes().into_iter().map(|route| Route {
        id: route.route,
        interval: route.interval,
        group: route.group,
        shard: route.shard,
        state: RouteState::Active,
    });
    let nodes = bootstrap.nodes.iter().map(|node| {
        let (address, admin_address) = (node.grpc.as_str().to_owned(), node.admin.as_str().to_owned());
        (node.id, BootstrapNode { address, admin_address })
    });
    let settings = CatalogSettings {
        max_key_bytes: u32::try_from(config.limits.key_bytes.0).unwrap_or(u32::MAX),
        ..CatalogSettings::default()
    };
    let command = CatalogCommand {
        // The same from every node and at every attempt: it is the same request.
        request_id: RequestId(config.cluster.id.0),
        actor: "bootstrap".to_owned(),
        now: PhysicalMs::default(),
        kind: CatalogCommandKind::Bootstrap(Box::new(Bootstrap {
            settings,
            routes: routes.collect(),
            groups: bootstrap.groups.iter().map(|g| (g.id, g.replicas.iter().copied().collect())).collect(),
            nodes: nodes.collect::<BTreeMap<_, _>>(),
        })),
    };
    encode_catalog_command(&command).map(|_| command)
}

/// Creates the catalog when this replica of the default group leads and there is none, until there is one.
pub async fn create(group: Arc<Group>, command: CatalogCommand, stop: CancellationToken) {
    let mut catalog = group.fsm().catalog();
    while !catalog.borrow_and_update().is_bootstrapped() {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = catalog.changed() => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            _ = group.led() => {}
        }
        let created = match encode_catalog_command(&command) {
            Ok(bytes) => group.catalog(bytes, Instant::now() + ATTEMPT).await.map(drop),
            Err(error) => Err(error),
        };
        match created {
            Ok(()) => tracing::info!(group = %GroupId::DEFAULT, "the catalog was created from the configuration"),
            Err(error) if error.is_transient() || error.is_unknown() => {
                tracing::debug!(%error, "the catalog could not be created yet");
            }
            Err(error) => tracing::error!(%error, "the catalog cannot be created from the configuration"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
