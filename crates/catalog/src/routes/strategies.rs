//! Maps and changes of them, for property tests.

use std::collections::BTreeSet;

use drover_keys::{CatalogVersion, End, GroupId, Interval, JobId, RouteId, ShardId};
use proptest::prelude::*;

use super::{Route, RouteDelta, RouteMap, RouteState};

/// `[start, end)`; `None` is no bound.
pub(crate) fn interval(start: impl Into<Vec<u8>>, end: Option<&[u8]>) -> Interval {
    let end = end.map_or(End::Unbounded, |end| End::Key(end.to_vec().into()));
    Interval::new(start.into(), end).unwrap()
}

pub(crate) fn route(id: u64, start: &str, end: Option<&str>) -> Route {
    Route {
        id: RouteId(id),
        interval: interval(start, end.map(str::as_bytes)),
        group: GroupId(2),
        shard: ShardId(id),
        state: RouteState::Active,
    }
}

/// Routes that start at the empty key and at `cuts`.
pub(crate) fn tiled(cuts: BTreeSet<Vec<u8>>) -> Vec<Route> {
    let mut bounds = vec![Vec::new()];
    bounds.extend(cuts.into_iter().filter(|cut| !cut.is_empty()));
    let route = |(n, start): (usize, &Vec<u8>)| Route {
        interval: interval(start.clone(), bounds.get(n + 1).map(Vec::as_slice)),
        ..self::route(n as u64 + 1, "", None)
    };
    bounds.iter().enumerate().map(route).collect()
}

pub(crate) fn any_map() -> impl Strategy<Value = RouteMap> {
    proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..3), 0..40)
        .prop_map(|cuts| RouteMap::new(CatalogVersion(7), tiled(cuts)).unwrap())
}

/// Asks for a change of whatever map there is.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Cut the route of the key there, if it does not start there.
    Split(Vec<u8>),
    /// Join the route of the key with its right neighbour.
    Merge(Vec<u8>),
    /// Give the route of the key to a group.
    Move(Vec<u8>, u64),
    /// Fence the route of the key.
    Fence(Vec<u8>, u64),
    /// Shift the upper bound of the route of the first key to the second.
    Shift(Vec<u8>, Vec<u8>),
}

pub(crate) fn any_change() -> impl Strategy<Value = Change> {
    let key = || proptest::collection::vec(any::<u8>(), 0..3);
    prop_oneof![
        4 => key().prop_map(Change::Split),
        2 => key().prop_map(Change::Merge),
        1 => (key(), 1u64..9).prop_map(|(key, group)| Change::Move(key, group)),
        1 => (key(), 1u64..9).prop_map(|(key, job)| Change::Fence(key, job)),
        1 => (key(), key()).prop_map(|(at, to)| Change::Shift(at, to)),
    ]
}

/// What `change` makes of `map`, with `fresh` for a new route and a new shard. Removed ids and new routes.
pub(crate) fn delta_of(map: &RouteMap, change: &Change, fresh: u64) -> RouteDelta {
    let version = CatalogVersion(map.version().0 + 1);
    let right_of = |route: &Route| route.interval.end().as_key().map(|end| map.route_of(end).clone());
    let (removed, upserted) = match change {
        Change::Split(key) => {
            let mut left = map.route_of(key).clone();
            if left.interval.start().as_ref() == key.as_slice() {
                (vec![], vec![])
            } else {
                let mut right = Route { id: RouteId(fresh), ..left.clone() };
                right.interval = Interval::new(key.clone(), left.interval.end().clone()).unwrap();
                left.interval = interval(left.interval.start().to_vec(), Some(key));
                (vec![], vec![right, left])
            }
        }
        Change::Merge(key) => {
            let mut left = map.route_of(key).clone();
            match right_of(&left) {
                None => (vec![], vec![]),
                Some(right) => {
                    left.interval = Interval::new(left.interval.start().clone(), right.interval.end().clone()).unwrap();
                    (vec![right.id], vec![left])
                }
            }
        }
        Change::Move(key, group) => {
            let route = map.route_of(key).clone();
            (vec![], vec![Route { group: GroupId(*group), shard: ShardId(fresh), ..route }])
        }
        Change::Fence(key, job) => {
            let state = RouteState::WriteFenced { job: JobId(*job) };
            (vec![], vec![Route { state, ..map.route_of(key).clone() }])
        }
        Change::Shift(at, to) => {
            let mut left = map.route_of(at).clone();
            match right_of(&left) {
                Some(mut right) if left.interval.start() < to && right.interval.end().is_above(to) => {
                    left.interval = interval(left.interval.start().to_vec(), Some(to));
                    right.interval = Interval::new(to.clone(), right.interval.end().clone()).unwrap();
                    (vec![], vec![left, right])
                }
                _ => (vec![], vec![]),
            }
        }
    };
    RouteDelta { version, removed, upserted }
}

/// The map after `delta`, made the slow way.
pub(crate) fn rebuilt(map: &RouteMap, delta: &RouteDelta) -> RouteMap {
    let replaced = |id: RouteId| delta.removed.contains(&id) || delta.upserted.iter().any(|route| route.id == id);
    let kept = map.routes().filter(|route| !replaced(route.id));
    RouteMap::new(delta.version, kept.chain(&delta.upserted).cloned().collect()).unwrap()
}
