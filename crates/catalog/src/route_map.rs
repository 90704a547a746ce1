use std::collections::BTreeSet;

use drover_keys::{CatalogVersion, End, GroupId, Interval, RouteId, ShardId, escape};

/// One interval of route keys and who serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// A name for people.
    pub id: RouteId,
    /// What it covers.
    pub interval: Interval,
    /// Who serves it.
    pub group: GroupId,
    /// Where its rows are inside the group's store.
    pub shard: ShardId,
}

/// Why routes are not a route map. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteMapError {
    /// There is no route.
    #[error("there is no route; the key space must be covered")]
    Empty,
    /// The first route does not start at the start of the key space.
    #[error("the first route starts at {start:?}; it must start at the empty key")]
    Start { start: String },
    /// A route does not start where the one before it ends.
    #[error(
        "route {right} starts at {start:?} but route {left} ends at {end}: routes must neither overlap nor leave a gap"
    )]
    Seam { left: RouteId, end: String, right: RouteId, start: String },
    /// The last route has an end.
    #[error("the last route ends at {end:?}; it must be unbounded")]
    End { end: String },
    /// Two routes have the same id, or the same shard.
    #[error("{what} {id} is used twice")]
    Duplicate { what: &'static str, id: u64 },
}

/// Routes that tile the route-key space, at one catalog version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteMap {
    version: CatalogVersion,
    routes: Vec<Route>,
}

impl RouteMap {
    /// The map of these routes, in any order.
    ///
    /// # Errors
    /// If they do not tile the key space or an id is used twice.
    pub fn new(version: CatalogVersion, mut routes: Vec<Route>) -> Result<Self, RouteMapError> {
        routes.sort_by(|a, b| a.interval.start().cmp(b.interval.start()));
        let map = Self { version, routes };
        map.validate()?;
        Ok(map)
    }

    /// Checks the invariants of the type.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn validate(&self) -> Result<(), RouteMapError> {
        let (Some(first), Some(last)) = (self.routes.first(), self.routes.last()) else {
            return Err(RouteMapError::Empty);
        };
        if !first.interval.start().is_empty() {
            return Err(RouteMapError::Start { start: escape(first.interval.start()) });
        }
        for pair in self.routes.windows(2) {
            let (left, right) = (&pair[0], &pair[1]);
            if left.interval.end().as_key() != Some(right.interval.start()) {
                return Err(RouteMapError::Seam {
                    left: left.id,
                    end: left.interval.end().as_key().map_or("no bound".to_owned(), |k| format!("{:?}", escape(k))),
                    right: right.id,
                    start: escape(right.interval.start()),
                });
            }
        }
        if let End::Key(end) = last.interval.end() {
            return Err(RouteMapError::End { end: escape(end) });
        }
        let mut ids = BTreeSet::new();
        let mut shards = BTreeSet::new();
        for route in &self.routes {
            if !ids.insert(route.id) {
                return Err(RouteMapError::Duplicate { what: "route id", id: route.id.0 });
            }
            if !shards.insert((route.group, route.shard)) {
                return Err(RouteMapError::Duplicate { what: "shard", id: route.shard.0 });
            }
        }
        Ok(())
    }

    /// The catalog version this map stands for.
    pub fn version(&self) -> CatalogVersion {
        self.version
    }

    /// All routes in key order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// The route that covers `key`.
    pub fn route_of(&self, key: &[u8]) -> &Route {
        let after = self.routes.partition_point(|route| route.interval.start().as_ref() <= key);
        // The first route starts at the empty key, so at least one start is at or below any key.
        &self.routes[after - 1]
    }

    /// The routes that share a key with `interval`, in key order.
    pub fn intersecting<'a>(&'a self, interval: &'a Interval) -> impl DoubleEndedIterator<Item = &'a Route> {
        let first = self.routes.partition_point(|route| !route.interval.end().is_above(interval.start()));
        let count = self.routes[first..].partition_point(|route| interval.end().is_above(route.interval.start()));
        self.routes[first..first + count].iter()
    }

    /// The routes that `group` serves, in key order.
    pub fn of_group(&self, group: GroupId) -> impl Iterator<Item = &Route> {
        self.routes.iter().filter(move |route| route.group == group)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(id: u64, start: &str, end: Option<&str>) -> Route {
        let end = end.map_or(End::Unbounded, |e| End::Key(e.to_owned().into()));
        let interval = Interval::new(start.to_owned(), end).unwrap();
        Route { id: RouteId(id), interval, group: GroupId(2), shard: ShardId(id) }
    }

    fn map(routes: Vec<Route>) -> Result<RouteMap, RouteMapError> {
        RouteMap::new(CatalogVersion::FIRST, routes)
    }

    #[test]
    fn only_routes_that_tile_the_key_space_are_a_map() {
        type Check = fn(&RouteMapError) -> bool;
        let bad: [(Vec<Route>, Check); 6] = [
            (vec![], |e| matches!(e, RouteMapError::Empty)),
            (vec![route(1, "a", None)], |e| matches!(e, RouteMapError::Start { .. })),
            (vec![route(1, "", Some("m"))], |e| matches!(e, RouteMapError::End { .. })),
            (vec![route(1, "", Some("m")), route(2, "n", None)], |e| matches!(e, RouteMapError::Seam { .. })),
            (vec![route(1, "", Some("m")), route(2, "l", None)], |e| matches!(e, RouteMapError::Seam { .. })),
            (vec![route(1, "", Some("m")), route(1, "m", None)], |e| matches!(e, RouteMapError::Duplicate { .. })),
        ];
        for (routes, expected) in bad {
            let error = map(routes.clone()).unwrap_err();
            assert!(expected(&error), "{routes:?}: {error}");
        }
        assert!(map(vec![route(2, "m", None), route(1, "", Some("m"))]).is_ok());
    }

    #[test]
    fn intersecting_includes_the_routes_at_both_edges_and_no_other() {
        let map = map(vec![route(1, "", Some("d")), route(2, "d", Some("m")), route(3, "m", None)]).unwrap();
        let ids = |start: &str, end: Option<&str>| -> Vec<u64> {
            let interval = route(9, start, end).interval;
            map.intersecting(&interval).map(|r| r.id.0).collect()
        };
        assert_eq!(ids("", None), [1, 2, 3]);
        assert_eq!(ids("d", Some("m")), [2]);
        assert_eq!(ids("c", Some("m\0")), [1, 2, 3]);
        assert_eq!(ids("z", None), [3]);
        assert_eq!(ids("a", Some("d")), [1]);
    }

    proptest! {
        #[test]
        fn a_key_is_found_in_the_one_route_that_contains_it(
            splits in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..3), 0..20),
            key in proptest::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut bounds: Vec<Vec<u8>> = vec![vec![]];
            bounds.extend(splits);
            let routes = bounds.iter().enumerate().map(|(i, start)| Route {
                id: RouteId(i as u64 + 1),
                interval: Interval::new(
                    start.clone(),
                    bounds.get(i + 1).map_or(End::Unbounded, |end| End::Key(end.clone().into())),
                ).unwrap(),
                group: GroupId(2),
                shard: ShardId(i as u64 + 1),
            }).collect();
            let map = map(routes).unwrap();
            prop_assert!(map.route_of(&key).interval.contains(&key));
            let holders: Vec<_> = map.routes().iter().filter(|r| r.interval.contains(&key)).collect();
            prop_assert_eq!(holders.len(), 1);
            let point = Interval::point(key);
            prop_assert_eq!(map.intersecting(&point).collect::<Vec<_>>(), holders);
        }
    }
}
