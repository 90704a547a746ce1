//! How a node learns of the catalog, and how a new cluster gets one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::{
    Bootstrap, BootstrapNode, Catalog, CatalogCommand, CatalogCommandKind, CatalogRow, CatalogSettings, ReplicaState,
    RequestId, Route, RouteState, Topology,
};
use drover_coordinator::{Coordinator, RouteCache};
use drover_fsm::{Grant, encode_catalog_command};
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, ClusterId, GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_raftgroup::{GrantSource, Group};
use drover_seams::net;
use drover_wire::proto::v1;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use drover_wire::proto::v1::distribution_client::DistributionClient;
use drover_wire::proto::v1::route_event::Event;
use drover_wire::{CatalogPart, decode_route, decode_route_delta, decode_topology};
use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::topology::TopologyCache;
use crate::config::Config;

/// How long one attempt to create the catalog may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How often it is asked whether a replica here is in touch with its group, and for how long one that is heard nothing
/// of counts as that.
const LOOK: Duration = Duration::from_secs(1);
const IN_TOUCH: Duration = Duration::from_secs(3);
/// How long a node that knows the catalog may take to say so.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// How long one node is followed before another one is.
const FOLLOW_ONE: Duration = Duration::from_secs(30);
/// Pause before another node, or the same one again, is asked for its routes.
const PAUSE: Duration = Duration::from_millis(200);

/// What a node follows the catalog with.
#[derive(Clone)]
pub struct Followed {
    /// Whose catalog it is. That of another cluster is not followed.
    pub cluster: ClusterId,
    /// The routes.
    pub routes: Arc<RouteCache>,
    /// Nodes and replicas.
    pub topology: Arc<TopologyCache>,
    /// Whether a replica here tells all that is known, so that no other node need be asked.
    pub by_replica: Arc<watch::Sender<bool>>,
}

/// Follows the catalog of the replica here, on `node`, until `stop`.
pub async fn follow_replica(group: Arc<Group>, node: NodeId, followed: Followed, stop: CancellationToken) {
    let mut catalog = group.fsm().catalog();
    loop {
        let seen = Arc::clone(&catalog.borrow_and_update());
        followed.routes.follow(&seen);
        if seen.is_bootstrapped() {
            followed.topology.follow(seen.topology());
        }
        let tells = tells_all(&seen, &followed.topology.current(), node, group.last_contact());
        followed.by_replica.send_if_modified(|told| std::mem::replace(told, tells) != tells);
        tokio::select! {
            () = stop.cancelled() => break,
            changed = catalog.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    followed.by_replica.send_replace(false);
}

/// Whether the replica on `node`, whose catalog this is, tells all that is known: it knows no less than other nodes told, it
/// stays, and it is in touch with its group. One that leaves hears of nothing any more once it has left, not even that.
fn tells_all(catalog: &Catalog, known: &Topology, node: NodeId, last_contact: Option<Duration>) -> bool {
    let mine = catalog.group(GroupId::DEFAULT).and_then(|group| group.replicas.get(&node));
    catalog.revision() >= known.revision
        && mine.is_some_and(|replica| replica.state == ReplicaState::Active)
        && last_contact.is_some_and(|silent| silent < IN_TOUCH)
}

/// Follows what one of the other nodes knows, while no replica here tells it, until `stop`. `seeds` are asked until the nodes
/// of the cluster are known.
pub async fn follow_nodes(me: String, seeds: Vec<String>, followed: Followed, stop: CancellationToken) {
    let mut by_replica = followed.by_replica.subscribe();
    let mut next = 0;
    while !stop.is_cancelled() {
        let known = followed.topology.current();
        // Those that hold the catalog: others may follow this node.
        let members = known.groups.get(&GroupId::DEFAULT).into_iter().flat_map(|group| group.replicas.keys());
        let mut sources: Vec<&str> =
            members.filter_map(|node| known.nodes.get(node)).map(|node| node.address.as_str()).collect();
        // Every other time the seeds, too: all nodes that were known may have moved.
        if known.revision == 0 || next % 2 == 1 {
            sources.extend(seeds.iter().map(String::as_str));
        }
        sources.retain(|address| *address != me);
        let source = sources.get(next % sources.len().max(1)).copied();
        next += 1;
        tokio::select! {
            () = stop.cancelled() => return,
            told = by_replica.wait_for(|told| !*told) => if told.is_err() { return },
        }
        let following = async {
            match source {
                Some(address) => follow_node(address, &followed).await,
                None => Err("no other node is known".into()),
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = by_replica.wait_for(|told| *told) => continue,
            // A source that hears of nothing any more looks like a catalog in which nothing happens.
            () = tokio::time::sleep(FOLLOW_ONE) => continue,
            ended = following => if let Err(error) = ended {
                tracing::debug!(?source, %error, "what a node knows cannot be followed any further");
            },
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether one of these nodes knows the catalog of the cluster. Those that cannot be reached, or know nothing, do not count.
pub async fn exists_elsewhere(addresses: &[String], cluster: ClusterId) -> bool {
    let asked = addresses.iter().map(|address| async move {
        let known = async {
            let mut client = ClusterClient::new(net::connect_to(address).await.ok()?);
            let request = v1::WatchTopologyRequest { known_revision: 0, cluster_id: cluster.to_string() };
            client.watch_topology(request).await.ok()?.into_inner().message().await.ok()?
        };
        tokio::time::timeout(FIRST_WORD, known).await.ok().flatten().is_some()
    });
    futures::future::join_all(asked).await.into_iter().any(|known| known)
}

type FollowError = Box<dyn std::error::Error + Send + Sync>;

async fn follow_node(address: &str, followed: &Followed) -> Result<(), FollowError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    let channel = net::connect(endpoint).await?;
    tokio::select! {
        ended = follow_topology(channel.clone(), followed) => ended,
        ended = follow_routes(channel, followed) => ended,
    }
}

async fn follow_topology(channel: Channel, followed: &Followed) -> Result<(), FollowError> {
    let topology = &followed.topology;
    let (known_revision, cluster_id) = (topology.current().revision, followed.cluster.to_string());
    let request = v1::WatchTopologyRequest { known_revision, cluster_id };
    let mut told = ClusterClient::new(channel).watch_topology(request).await?.into_inner();
    if known_revision == 0 {
        // One that knows nothing itself says nothing; another one may know.
        let first = tokio::time::timeout(FIRST_WORD, told.message()).await?;
        first?.map(decode_topology).transpose()?.into_iter().for_each(|first| topology.follow(first));
    }
    while let Some(next) = told.message().await? {
        topology.follow(decode_topology(next)?);
    }
    Ok(())
}

async fn follow_routes(channel: Channel, followed: &Followed) -> Result<(), FollowError> {
    let routes = &followed.routes;
    let mut client = DistributionClient::new(channel);
    let (known_version, cluster_id) = (routes.current().version().0, followed.cluster.to_string());
    let mut events = client.watch_routes(v1::WatchRoutesRequest { known_version, cluster_id }).await?.into_inner();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_asked_alone_only_while_it_must_know_everything() {
        let id = |n: u64| NodeId(n);
        let node = |n: u64| (id(n), BootstrapNode { address: format!("n{n}:1"), admin_address: format!("n{n}:2") });
        let route = Route {
            id: drover_keys::RouteId(1),
            interval: drover_keys::Interval::all(),
            group: GroupId::DEFAULT,
            shard: drover_keys::ShardId(1),
            state: RouteState::Active,
        };
        let mut catalog = Catalog::default();
        let run = |catalog: &mut Catalog, n: u8, kind| {
            let command = CatalogCommand {
                request_id: RequestId([n; 16]),
                actor: "test".to_owned(),
                now: PhysicalMs::default(),
                kind,
            };
            catalog.apply(&command).unwrap();
        };
        let bootstrap = Bootstrap {
            settings: CatalogSettings::default(),
            routes: vec![route],
            groups: [(GroupId::DEFAULT, [1, 2].map(id).into())].into(),
            nodes: [1, 2].map(node).into(),
        };
        run(&mut catalog, 1, CatalogCommandKind::Bootstrap(Box::new(bootstrap)));
        let (now, long_ago) = (Some(Duration::ZERO), Some(IN_TOUCH));
        let known = catalog.topology();
        let newer = Topology { revision: known.revision + 1, ..known.clone() };
        let table = [
            (&known, 1, now, true),
            (&known, 1, long_ago, false),
            (&known, 1, None, false),
            (&known, 9, now, false),
            (&newer, 1, now, false),
            (&Topology::default(), 1, now, true),
        ];
        for (known, node, contact, tells) in table {
            assert_eq!(tells_all(&catalog, known, id(node), contact), tells, "{} {node} {contact:?}", known.revision);
        }
        assert!(!tells_all(&Catalog::default(), &Topology::default(), id(1), now));
    }
}
