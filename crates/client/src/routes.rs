//! Routes: listing, following, splitting.

use std::sync::Arc;

use bytes::Bytes;
use drover_keys::{CatalogVersion, RouteId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::{
    GetRouteOwnershipRequest, GetRouteOwnershipResponse, ListRoutesRequest, ListRoutesResponse, Route, RouteEvent,
    SplitRangeRequest, SplitRangeResponse, WatchRoutesRequest, route_event::Event,
};
use rand::Rng;
use tonic::Status;

use crate::Client;
use crate::cluster::{explain, of_a_read};
use crate::node::Node;

/// The route map as one node knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Catalog version.
    pub version: CatalogVersion,
    /// The routes in key order; they tile the key space.
    pub routes: Vec<Route>,
}

/// A stream of changes of the route map: first the whole map, then each change.
pub struct RouteWatch {
    node: Arc<Node>,
    events: tonic::Streaming<RouteEvent>,
}

impl RouteWatch {
    /// The next event; `None` if the node ends the stream, because it stops.
    ///
    /// # Errors
    /// If the connection fails. Watching again from the version known goes on without a gap.
    pub async fn next(&mut self) -> Result<Option<RouteEvent>, Error> {
        self.events.message().await.map_err(|status| of_a_read(explain(&self.node, &status)))
    }
}

/// Reads the map of one node.
///
/// # Errors
/// What the node answered.
pub(crate) async fn all_routes(node: &Node, with_sizes: bool, timeout_ms: u32) -> Result<Routes, Status> {
    let page = async |start| {
        let request = ListRoutesRequest { start, with_sizes, timeout_ms, ..ListRoutesRequest::default() };
        Ok::<ListRoutesResponse, Status>(node.distribution().list_routes(request).await?.into_inner())
    };
    let first = page(Bytes::new()).await?;
    if first.next.is_none() {
        return Ok(Routes { version: CatalogVersion(first.version), routes: first.routes });
    }
    // Further pages may be of another map each, while routes are divided quickly. What a watch begins with is one map.
    let mut map = snapshot(node).await?;
    if with_sizes {
        // Read after the map, they have each of its routes, or what it was divided into since.
        let (mut described, mut next) = (Vec::new(), Some(Bytes::new()));
        while let Some(start) = next {
            let further = page(start).await?;
            described.extend(further.routes);
            next = further.next;
        }
        describe(&mut map.routes, &described);
    }
    Ok(map)
}

/// What a watch from the beginning starts with.
async fn snapshot(node: &Node) -> Result<Routes, Status> {
    let mut events = node.distribution().watch_routes(WatchRoutesRequest::default()).await?.into_inner();
    let mut routes = Vec::new();
    while let Some(event) = events.message().await? {
        let Some(Event::Snapshot(part)) = event.event else {
            return Err(Status::internal("the node began with something else than the whole map"));
        };
        routes.extend(part.routes);
        if !part.more {
            return Ok(Routes { version: CatalogVersion(part.version), routes });
        }
    }
    Err(Status::unavailable("the node stopped before it had told all routes"))
}

/// Gives each route what is known of those that start in it: it may have been divided since. Both are in key order.
fn describe(routes: &mut [Route], described: &[Route]) {
    for route in routes {
        let first = described.partition_point(|other| other.start < route.start);
        let ends = |other: &Route| route.end.as_ref().is_some_and(|end| other.start >= *end);
        for other in described[first..].iter().take_while(|other| !ends(other)) {
            let bytes = other.approximate_bytes.map(|bytes| bytes.saturating_add(route.approximate_bytes.unwrap_or(0)));
            route.approximate_bytes = bytes.or(route.approximate_bytes);
            route.acquired_version = route.acquired_version.max(other.acquired_version);
            route.leader = if other.leader == 0 { route.leader } else { other.leader };
        }
    }
}

impl Client {
    /// The route map; with sizes, each group is asked how large its routes are, and since which version it has owned them.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn list_routes(&self, with_sizes: bool) -> Result<Routes, Error> {
        self.read_nodes(|node, timeout_ms| {
            let node = node.clone();
            async move { all_routes(&node, with_sizes, timeout_ms).await.map(tonic::Response::new) }
        })
        .await
    }

    /// The route map, without sizes.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn routes(&self) -> Result<Routes, Error> {
        self.list_routes(false).await
    }

    /// Who shall own a key by the catalog, and what the log of that group says.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn route_ownership(&self, key: impl Into<Bytes>) -> Result<GetRouteOwnershipResponse, Error> {
        let key = key.into();
        self.read_nodes(|node, timeout_ms| {
            let request = GetRouteOwnershipRequest { key: key.clone(), timeout_ms };
            let mut distribution = node.distribution();
            async move { distribution.get_route_ownership(request).await }
        })
        .await
    }

    /// Follows the route map from a version that is known, or from the whole map.
    ///
    /// # Errors
    /// If no node answers.
    pub async fn watch_routes(&self, known: Option<CatalogVersion>) -> Result<RouteWatch, Error> {
        let mut last = Error::definite(Reason::Unavailable, "no node is known");
        for node in self.nodes_in_order() {
            let request =
                WatchRoutesRequest { known_version: known.map_or(0, |version| version.0), cluster_id: String::new() };
            match tokio::time::timeout(self.deadline(), node.distribution().watch_routes(request)).await {
                Ok(Ok(events)) => return Ok(RouteWatch { node, events: events.into_inner() }),
                Ok(Err(status)) => last = explain(&node, &status),
                Err(_) => last = Error::definite(Reason::Timeout, format!("{} did not answer", node.address())),
            }
        }
        Err(of_a_read(last))
    }

    /// Cuts a route in two at `key`, which becomes the first key of the right half; both stay in their group. The
    /// catalog must be at `expected`. Attempts carry the same request id, so one after an unknown outcome gets the
    /// first answer.
    ///
    /// # Errors
    /// `VERSION_MISMATCH`, `UNKNOWN_ROUTE`, `INVALID_ARGUMENT` if the key is not inside the route or starts one,
    /// `FAILED_PRECONDITION` if the route is fenced; unknown if no attempt was answered.
    pub async fn split_route(
        &self,
        expected: CatalogVersion,
        route: RouteId,
        key: impl Into<Bytes>,
        actor: &str,
    ) -> Result<SplitRangeResponse, Error> {
        let key = key.into();
        let id: [u8; 16] = rand::rng().random();
        self.ask_nodes(|node, timeout_ms| {
            let request = SplitRangeRequest {
                expected_version: expected.0,
                route_id: route.0,
                key: key.clone(),
                request_id: Bytes::copy_from_slice(&id),
                actor: actor.to_owned(),
                timeout_ms,
            };
            let mut distribution = node.distribution();
            async move { distribution.split_range(request).await }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_as_large_as_what_became_of_it() {
        let route = |start: &'static str, end: Option<&'static str>, approximate_bytes: Option<u64>| Route {
            start: start.into(),
            end: end.map(Bytes::from),
            approximate_bytes,
            acquired_version: approximate_bytes,
            leader: approximate_bytes.map_or(0, |_| 2),
            ..Route::default()
        };
        let mut map = [route("", Some("c"), None), route("c", Some("m"), None), route("m", None, None)];
        let sized = [
            route("", Some("b"), Some(1)),
            route("b", Some("c"), Some(2)),
            route("c", Some("m"), None),
            route("m", Some("x"), Some(8)),
            route("x", None, Some(16)),
        ];
        describe(&mut map, &sized);
        let facts = map.map(|route| (route.approximate_bytes, route.acquired_version, route.leader));
        assert_eq!(facts, [(Some(3), Some(2), 2), (None, None, 0), (Some(24), Some(16), 2)]);
    }
}
