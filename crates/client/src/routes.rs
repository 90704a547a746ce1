//! Routes: listing, following, splitting.

use std::sync::Arc;

use bytes::Bytes;
use drover_keys::{CatalogVersion, RouteId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::{
    GetRouteOwnershipRequest, GetRouteOwnershipResponse, ListRoutesRequest, ListRoutesResponse, Route, RouteEvent,
    SplitRangeRequest, SplitRangeResponse, WatchRoutesRequest,
};
use drover_wire::status_to_error;
use rand::Rng;
use tonic::Status;

use crate::Client;
use crate::cluster::{explain, of_a_read};
use crate::node::Node;

/// How often the pages of one map are asked for anew because the map changed in between.
const RESTARTS: usize = 10;

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

/// Reads the pages of one map from one node; begins again if the map changes in between.
pub(crate) async fn all_routes(node: &Node, with_sizes: bool) -> Result<Routes, Status> {
    let mut last = Status::unavailable("the routes could not be read");
    for _ in 0..RESTARTS {
        match all_pages(node, with_sizes).await {
            Err(status) if status_to_error(&status).reason == Reason::VersionMismatch => last = status,
            done => return done,
        }
    }
    Err(last)
}

async fn all_pages(node: &Node, with_sizes: bool) -> Result<Routes, Status> {
    let mut all = Routes { version: CatalogVersion(0), routes: Vec::new() };
    let mut start = Bytes::new();
    loop {
        let version = all.version.0;
        let request = ListRoutesRequest { start, version, with_sizes, ..ListRoutesRequest::default() };
        let page: ListRoutesResponse = node.distribution().list_routes(request).await?.into_inner();
        all.version = CatalogVersion(page.version);
        all.routes.extend(page.routes);
        match page.next {
            Some(next) => start = next,
            None => return Ok(all),
        }
    }
}

impl Client {
    /// The route map; with sizes, each group is asked how large its routes are.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn list_routes(&self, with_sizes: bool) -> Result<Routes, Error> {
        let asked = self.ask_nodes(|node, _| {
            let node = node.clone();
            async move { all_routes(&node, with_sizes).await.map(tonic::Response::new) }
        });
        asked.await.map_err(of_a_read)
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
        let asked = self.ask_nodes(|node, timeout_ms| {
            let request = GetRouteOwnershipRequest { key: key.clone(), timeout_ms };
            let mut distribution = node.distribution();
            async move { distribution.get_route_ownership(request).await }
        });
        asked.await.map_err(of_a_read)
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
