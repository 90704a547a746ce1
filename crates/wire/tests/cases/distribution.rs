//! The route map and its changes.

use drover_wire::proto::v1::route::State;
use drover_wire::proto::v1::route_event::Event;
use drover_wire::proto::v1::*;

use super::{Case, case};

fn active() -> Route {
    let state = State::Active.into();
    Route { route_id: 1, start: "a".into(), group_id: 2, shard_id: 3, leader: 4, state, ..Route::default() }
}

fn fenced() -> Route {
    let state = State::WriteFenced.into();
    Route { end: Some("m".into()), state, job_id: 5, approximate_bytes: Some(6), ..active() }
}

fn described() -> Route {
    Route { acquired_version: Some(300), approximate_bytes: Some(6), ..active() }
}

pub fn delta() -> RouteDelta {
    RouteDelta { version: 3, removed: vec![1, 300], upserted: vec![active(), fenced()] }
}

fn ownership() -> Ownership {
    Ownership {
        start: "a".into(),
        end: Some("m".into()),
        shard_id: 3,
        acquired_version: 4,
        floor_ts: 5,
        history_start: 6,
        safe_point: 7,
    }
}

pub fn cases() -> Vec<Case> {
    let routes = vec![active(), fenced()];
    let snapshot = RouteSnapshotPart { version: 3, routes: routes.clone(), more: true };
    let request_id = vec![7; 16].into();
    let split = SplitRangeRequest {
        expected_version: 3,
        route_id: 1,
        key: "k".into(),
        request_id,
        actor: "me".to_owned(),
        timeout_ms: 8,
    };
    let list = ListRoutesRequest { start: "a".into(), limit: 2, version: 3, with_sizes: true, timeout_ms: 8 };
    let intersecting =
        GetIntersectingRoutesRequest { start: "a".into(), end: Some("b".into()), version: 3, timeout_ms: 8 };
    let owner = GetRouteOwnershipResponse { version: 3, route: Some(active()), ownership: Some(ownership()) };
    vec![
        case("Route/active", active()),
        case("Route/write_fenced", fenced()),
        case("Route/described", described()),
        case("RouteDelta/both", delta()),
        case("RouteEvent/snapshot", RouteEvent { event: Some(Event::Snapshot(snapshot)) }),
        case("RouteEvent/delta", RouteEvent { event: Some(Event::Delta(delta())) }),
        case("ListRoutesRequest/all", list),
        case("ListRoutesResponse/page", {
            ListRoutesResponse { version: 3, routes: routes.clone(), next: Some("n".into()) }
        }),
        case("WatchRoutesRequest/known", WatchRoutesRequest { known_version: 3, cluster_id: String::new() }),
        case("WatchRoutesRequest/cluster", WatchRoutesRequest { known_version: 3, cluster_id: "0f".into() }),
        case("GetRouteOwnershipRequest/key", GetRouteOwnershipRequest { key: "k".into(), timeout_ms: 8 }),
        case("GetRouteOwnershipResponse/owned", owner),
        case("GetIntersectingRoutesRequest/range", intersecting),
        case("GetIntersectingRoutesResponse/routes", GetIntersectingRoutesResponse { routes }),
        case("SplitRangeRequest/key", split),
        case("SplitRangeResponse/halves", {
            SplitRangeResponse { version: 4, left: Some(active()), right: Some(fenced()) }
        }),
    ]
}
