use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_guards::{self as guards, Guard};
use drover_keys::{CatalogVersion, End, GroupId, Interval, RouteId, ShardId, escape};

use super::tiles::Tiles;
use super::{DeltaError, Route, RouteDelta, delta};

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
    /// Two routes have the same id.
    #[error("route id {id} is used twice")]
    Duplicate { id: RouteId },
    /// Routes of two groups name one shard.
    #[error("shard {shard} is named by routes of group {first} and of group {second}; a shard belongs to one group")]
    Shard { shard: ShardId, first: GroupId, second: GroupId },
}

/// Routes that tile the route-key space, at one catalog version. Immutable; a clone shares everything.
#[derive(Debug, Clone)]
pub struct RouteMap {
    version: CatalogVersion,
    tiles: Arc<Tiles>,
    /// At or above the id of every route.
    highest: RouteId,
}

/// Two maps are equal if version and routes are.
impl PartialEq for RouteMap {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && (Arc::ptr_eq(&self.tiles, &other.tiles) || self.tiles == other.tiles)
    }
}

impl Eq for RouteMap {}

impl RouteMap {
    /// The map of these routes, in any order.
    ///
    /// # Errors
    /// If they do not tile the key space, an id is used twice, or two groups share a shard.
    pub fn new(version: CatalogVersion, mut routes: Vec<Route>) -> Result<Self, RouteMapError> {
        routes.sort_by(|a, b| a.interval.start().cmp(b.interval.start()));
        let highest = routes.iter().map(|route| route.id).max().unwrap_or_default();
        let map = Self { version, tiles: Arc::new(Tiles::of(&routes)), highest };
        if guards::on(Guard::RoutesTile) {
            map.validate()?;
        }
        Ok(map)
    }

    /// The map that `delta` makes of this one. Costs one chunk of routes and the list of chunks.
    ///
    /// Bounds and ids are checked; that a shard belongs to one group is left to [`RouteMap::validate`].
    ///
    /// # Errors
    /// If the delta does not follow this version, or would leave a key without route or with two.
    pub fn apply(&self, delta: &RouteDelta) -> Result<Self, DeltaError> {
        if Some(delta.version.0) != self.version.0.checked_add(1) {
            return Err(DeltaError::Gap { map: self.version, delta: delta.version });
        }
        let runs = delta::check(&self.tiles, self.highest, delta)?;
        let mut tiles = Tiles::clone(&self.tiles);
        for run in runs {
            let (first, last) = tiles.span(&run.interval);
            tiles.replace(first, last, &run.routes);
        }
        let highest = delta.upserted.iter().map(|route| route.id).fold(self.highest, RouteId::max);
        Ok(Self { version: delta.version, tiles: Arc::new(tiles), highest })
    }

    /// Checks the invariants of the type.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn validate(&self) -> Result<(), RouteMapError> {
        let mut before: Option<&Route> = None;
        let mut ids = BTreeSet::new();
        let mut shards = BTreeMap::new();
        for route in self.routes() {
            let start = route.interval.start();
            match before {
                None if !start.is_empty() => return Err(RouteMapError::Start { start: escape(start) }),
                Some(left) if left.interval.end().as_key() != Some(start) => return Err(seam(left, route)),
                None | Some(_) => before = Some(route),
            }
            if !ids.insert(route.id) {
                return Err(RouteMapError::Duplicate { id: route.id });
            }
            let first = *shards.entry(route.shard).or_insert(route.group);
            if first != route.group {
                return Err(RouteMapError::Shard { shard: route.shard, first, second: route.group });
            }
        }
        match before.map(|last| last.interval.end()) {
            None => Err(RouteMapError::Empty),
            Some(End::Key(end)) => Err(RouteMapError::End { end: escape(end) }),
            Some(End::Unbounded) => Ok(()),
        }
    }

    /// The catalog version this map stands for.
    pub fn version(&self) -> CatalogVersion {
        self.version
    }

    /// How many routes there are.
    pub fn count(&self) -> usize {
        self.tiles.count()
    }

    /// All routes in key order.
    pub fn routes(&self) -> impl DoubleEndedIterator<Item = &Route> + Clone {
        self.tiles.iter()
    }

    /// The route that covers `key`.
    pub fn route_of(&self, key: &[u8]) -> &Route {
        self.tiles.get(self.tiles.find(key))
    }

    /// The route with this id. Looks at all routes: ids are names for people, and not what requests carry.
    pub fn route(&self, id: RouteId) -> Option<&Route> {
        self.routes().find(|route| route.id == id)
    }

    /// The routes that share a key with `interval`, in key order.
    pub fn intersecting<'a>(&'a self, interval: &Interval) -> impl DoubleEndedIterator<Item = &'a Route> + use<'a> {
        let (first, last) = self.tiles.span(interval);
        self.tiles.between(first, last)
    }

    /// The routes that `group` serves, in key order.
    pub fn of_group(&self, group: GroupId) -> impl Iterator<Item = &Route> {
        self.routes().filter(move |route| route.group == group)
    }
}

fn seam(left: &Route, right: &Route) -> RouteMapError {
    let end = left.interval.end().as_key().map_or("no bound".to_owned(), |key| format!("{:?}", escape(key)));
    RouteMapError::Seam { left: left.id, end, right: right.id, start: escape(right.interval.start()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::strategies::{any_change, any_map, delta_of, rebuilt, route, tiled};
    use super::*;

    fn map(routes: Vec<Route>) -> Result<RouteMap, RouteMapError> {
        RouteMap::new(CatalogVersion::FIRST, routes)
    }

    #[test]
    fn h1_only_routes_that_tile_the_key_space_are_a_map() {
        type Check = fn(&RouteMapError) -> bool;
        let foreign = Route { group: GroupId(3), shard: ShardId(1), ..route(2, "m", None) };
        let bad: [(Vec<Route>, Check); 7] = [
            (vec![], |e| matches!(e, RouteMapError::Empty)),
            (vec![route(1, "a", None)], |e| matches!(e, RouteMapError::Start { .. })),
            (vec![route(1, "", Some("m"))], |e| matches!(e, RouteMapError::End { .. })),
            (vec![route(1, "", Some("m")), route(2, "n", None)], |e| matches!(e, RouteMapError::Seam { .. })),
            (vec![route(1, "", Some("m")), route(2, "l", None)], |e| matches!(e, RouteMapError::Seam { .. })),
            (vec![route(1, "", Some("m")), route(1, "m", None)], |e| matches!(e, RouteMapError::Duplicate { .. })),
            (vec![route(1, "", Some("m")), foreign], |e| matches!(e, RouteMapError::Shard { .. })),
        ];
        for (routes, expected) in bad {
            let error = map(routes.clone()).unwrap_err();
            assert!(expected(&error), "{routes:?}: {error}");
        }
        assert!(map(vec![route(2, "m", None), route(1, "", Some("m"))]).is_ok());
        let halves = vec![route(1, "", Some("m")), Route { shard: ShardId(1), ..route(2, "m", None) }];
        assert!(map(halves).is_ok(), "the halves of a route share its shard");
    }

    #[test]
    fn intersecting_includes_the_routes_at_both_edges_and_no_other() {
        let map = map(vec![route(1, "", Some("d")), route(2, "d", Some("m")), route(3, "m", None)]).unwrap();
        let ids = |start: &str, end: Option<&str>| -> Vec<u64> {
            map.intersecting(&route(9, start, end).interval).map(|r| r.id.0).collect()
        };
        assert_eq!(ids("", None), [1, 2, 3]);
        assert_eq!(ids("d", Some("m")), [2]);
        assert_eq!(ids("c", Some("m\0")), [1, 2, 3]);
        assert_eq!(ids("z", None), [3]);
        assert_eq!(ids("a", Some("d")), [1]);
    }

    #[test]
    fn a_delta_that_does_not_fit_is_refused_and_the_map_stays() {
        type Check = fn(&DeltaError) -> bool;
        let before = map(vec![route(1, "", Some("d")), route(2, "d", Some("m")), route(3, "m", None)]).unwrap();
        let delta = |version, removed: &[u64], upserted: &[Route]| RouteDelta {
            version: CatalogVersion(version),
            removed: removed.iter().copied().map(RouteId).collect(),
            upserted: upserted.to_vec(),
        };
        let bad: [(RouteDelta, Check); 14] = [
            (delta(1, &[], &[]), |e| matches!(e, DeltaError::Gap { .. })),
            (delta(3, &[], &[]), |e| matches!(e, DeltaError::Gap { .. })),
            (delta(2, &[9], &[]), |e| *e == DeltaError::Unknown { id: RouteId(9) }),
            (delta(2, &[2], &[]), |e| *e == DeltaError::Hole { id: RouteId(2) }),
            (delta(2, &[2], &[route(1, "", Some("c"))]), |e| *e == DeltaError::Hole { id: RouteId(1) }),
            (delta(2, &[], &[route(2, "e", Some("m"))]), |e| *e == DeltaError::Hole { id: RouteId(2) }),
            (delta(2, &[2], &[route(1, "", Some("k"))]), |e| *e == DeltaError::Hole { id: RouteId(2) }),
            (delta(2, &[], &[route(1, "", Some("e"))]), |e| matches!(e, DeltaError::Overlap { .. })),
            (delta(2, &[], &[route(4, "d", Some("m"))]), |e| matches!(e, DeltaError::Overlap { .. })),
            (delta(2, &[2], &[route(4, "d", Some("n"))]), |e| matches!(e, DeltaError::Overlap { .. })),
            (delta(2, &[2], &[route(4, "d", Some("m")), route(5, "e", Some("m"))]), |e| {
                matches!(e, DeltaError::Overlap { .. })
            }),
            (delta(2, &[2], &[route(3, "d", Some("m"))]), |e| *e == DeltaError::Duplicate { id: RouteId(3) }),
            (delta(2, &[2], &[route(2, "d", Some("m"))]), |e| *e == DeltaError::Duplicate { id: RouteId(2) }),
            (delta(2, &[2], &[route(4, "d", Some("e")), route(4, "e", Some("m"))]), |e| {
                *e == DeltaError::Duplicate { id: RouteId(4) }
            }),
        ];
        for (delta, expected) in bad {
            let error = before.apply(&delta).unwrap_err();
            assert!(expected(&error), "{delta:?}: {error}");
            assert!(error.to_string().contains("nothing was changed"), "{error}");
        }
        let grown = before.apply(&delta(2, &[], &[route(3, "m", Some("p")), route(4, "p", None)])).unwrap();
        let twice = delta(3, &[2], &[route(4, "d", Some("m"))]);
        assert_eq!(grown.apply(&twice), Err(DeltaError::Duplicate { id: RouteId(4) }));
        let good = delta(2, &[2], &[route(4, "d", Some("e")), route(5, "e", Some("m"))]);
        assert_eq!(before.apply(&good).unwrap(), rebuilt(&before, &good));
        assert_eq!(before.count(), 3);
    }

    #[test]
    fn a_delta_leaves_all_chunks_but_one_shared() {
        let cuts = (1u32..20_000).map(|n| n.to_be_bytes().to_vec()).collect();
        let mut map = RouteMap::new(CatalogVersion::FIRST, tiled(cuts)).unwrap();
        for n in 0..1_000u64 {
            let change = super::super::strategies::Change::Split([&9u32.to_be_bytes()[..], &n.to_be_bytes()].concat());
            let delta = delta_of(&map, &change, 100_000 + n);
            let next = map.apply(&delta).unwrap();
            assert!(next.tiles.shared_with(&map.tiles) + 2 >= next.tiles.chunk_sizes().len());
            map = next;
        }
        assert_eq!(map.count(), 21_000);
        assert!(map.tiles.chunk_sizes().into_iter().all(|size| size <= 512));
        map.validate().unwrap();
    }

    proptest! {
           #[test]
           fn a_key_is_found_in_the_one_route_that_contains_it(
               map in any_map(), key in proptest::collection::vec(any::<u8>(), 0..4),
           ) {
               prop_assert!(map.route_of(&key).interval.contains(&key));
               let holders: Vec<_> = map.routes().filter(|r| r.interval.contains(&key)).collect();
               prop_assert_eq!(holders.len(), 1);
               let point = Interval::point(key);
               prop_assert_eq!(map.intersecting(&point).collect::<Vec<_>>(), holders);
           }

           #[test]
           fn intersecting_is_what_overlaps(
               map in any_map(), start in proptest::collection::vec(any::<u8>(), 0..3), end: [u8; 2], open: bool,
           ) {
               let end = if open { End::Unbounded } else { End::Key(end.to_vec().into()) };
               let Ok(interval) = Interval::new(start, end) else { return Ok(()) };
               let overlapping: Vec<_> = map.routes().filter(|r| r.interval.overlaps(&interval)).collect();
               prop_assert_eq!(map.intersecting(&interval).collect::<Vec<_>>(), overlapping.clone());
               prop_assert!(map.intersecting(&interval).rev().eq(overlapping.into_iter().rev()));
           }

           #[test]
           fn a_snapshot_and_its_deltas_are_the_later_snapshot(
               snapshot in any_map(), changes in proptest::collection::vec(any_change(), 0..60),
           ) {
               let mut map = snapshot.clone();
               let mut deltas = Vec::new();
               for (fresh, change) in (1_000..).zip(&changes) {
                   let delta = delta_of(&map, change, fresh);
                   let next = map.apply(&delta).unwrap();
                   prop_assert_eq!(&next, &rebuilt(&map, &delta));
                   prop_assert_eq!(next.count(), next.routes().count());
                   deltas.push(delta);
                   map = next;
               }
               let replayed = deltas.iter().try_fold(snapshot, |map, delta| map.apply(delta));
               prop_assert_eq!(replayed, Ok(map));
           }

        /// Two changes at a distance come as one delta of two runs.
        #[test]
        fn a_delta_may_touch_several_places(map in any_map(), a in any_change(), b in any_change()) {
            let first = delta_of(&map, &a, 1_000);
            let second = delta_of(&map, &b, 2_000);
            let both = RouteDelta {
                version: first.version,
                removed: [first.removed.clone(), second.removed].concat(),
                upserted: [first.upserted.clone(), second.upserted].concat(),
            };
            match map.apply(&both) {
                Ok(next) => {
                    next.validate().unwrap();
                    prop_assert_eq!(next, rebuilt(&map, &both));
                }
                Err(error) => {
                    let gap = matches!(error, DeltaError::Gap { .. });
                    prop_assert!(!gap);
                }
            }
        }

        /// Whatever is accepted tiles the key space, and whatever is refused would not.
        #[test]
        fn an_arbitrary_delta_is_accepted_exactly_if_the_result_is_a_map(
            map in any_map(),
            removed in proptest::collection::btree_set(1u64..6, 0..3),
            cuts in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..2), 1..4),
            ids in proptest::collection::vec(1u64..8, 4),
            bounds in proptest::array::uniform2(0usize..8),
            aligned: bool,
        ) {
            // Mostly over bounds of the map itself, else almost nothing would fit.
            let tiles = if aligned { map.routes().cloned().collect() } else { tiled(cuts) };
            let low = bounds[0].min(bounds[1]).min(tiles.len() - 1);
            let pieces = tiles[low..].iter().take(bounds[0].abs_diff(bounds[1]) + 1);
            let upserted = ids.iter().zip(pieces).map(|(id, piece)| {
                Route { interval: piece.interval.clone(), ..route(*id, "", None) }
            });
            let removed = removed.into_iter().map(RouteId).collect();
            let delta = RouteDelta { version: CatalogVersion(8), removed, upserted: upserted.collect() };
            let replaced = |id: RouteId| delta.removed.contains(&id) || delta.upserted.iter().any(|r| r.id == id);
            let all = map.routes().filter(|r| !replaced(r.id)).chain(&delta.upserted).cloned().collect();
            let expect = RouteMap::new(CatalogVersion(8), all);
            let known = delta.removed.iter().all(|id| {
                map.route(*id).is_some() && !delta.upserted.iter().any(|route| route.id == *id)
            });
            match map.apply(&delta) {
                Ok(next) => prop_assert_eq!(Ok(next), expect),
                Err(_) => prop_assert!(!known || expect.is_err()),
            }
        }
    }
}
