//! Which group does which part of a transaction. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use drover_catalog::RouteMap;
use drover_keys::{CatalogVersion, GroupId, RouteId};
use drover_kv::{Mutation, ReadSet};

/// What one group has to do with a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// What it writes there, in the order of the request.
    pub mutations: Vec<Mutation>,
    /// What it has read there.
    pub reads: ReadSet,
}

impl Part {
    /// The keys that are written.
    pub fn keys(&self) -> Vec<Bytes> {
        self.mutations.iter().map(|mutation| mutation.key.clone()).collect()
    }
}

/// A transaction by groups, as one route map sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The version of the map.
    pub version: CatalogVersion,
    /// The group of the first key that is written.
    pub primary: GroupId,
    /// What each group does.
    pub parts: BTreeMap<GroupId, Part>,
}

impl Plan {
    /// Divides what is written, which is at least one key, and what was read by `routes`.
    pub fn new(routes: &RouteMap, mutations: &[Mutation], reads: &ReadSet) -> Self {
        let mut parts: BTreeMap<GroupId, Part> = BTreeMap::new();
        for mutation in mutations {
            let group = routes.route_of(&mutation.key).group;
            parts.entry(group).or_default().mutations.push(mutation.clone());
        }
        for (group, reads) in divide_reads(routes, reads) {
            parts.entry(group).or_default().reads = reads;
        }
        let primary = mutations.first().map_or(GroupId::DEFAULT, |first| routes.route_of(&first.key).group);
        Self { version: routes.version(), primary, parts }
    }

    /// The part of the only group, if there is no other.
    pub fn single(&self) -> Option<&Part> {
        self.parts.get(&self.primary).filter(|_| self.parts.len() == 1)
    }

    /// The groups that write something, the primary's first.
    pub fn writers(&self) -> impl Iterator<Item = (GroupId, &Part)> {
        let writers = |primary| {
            let parts = self
                .parts
                .iter()
                .filter(move |(group, part)| (**group == self.primary) == primary && !part.mutations.is_empty());
            parts.map(|(group, part)| (*group, part))
        };
        writers(true).chain(writers(false))
    }
}

/// What was read, by groups.
pub fn divide_reads(routes: &RouteMap, reads: &ReadSet) -> BTreeMap<GroupId, ReadSet> {
    let mut parts: BTreeMap<GroupId, ReadSet> = BTreeMap::new();
    for key in &reads.keys {
        parts.entry(routes.route_of(key).group).or_default().keys.push(key.clone());
    }
    for interval in &reads.intervals {
        for route in routes.intersecting(interval) {
            let part = route.interval.intersection(interval).into_iter();
            parts.entry(route.group).or_default().intervals.extend(part);
        }
    }
    parts
}

/// Keys by groups.
pub fn divide_keys(routes: &RouteMap, keys: &[Bytes]) -> BTreeMap<GroupId, Vec<Bytes>> {
    let mut parts: BTreeMap<GroupId, Vec<Bytes>> = BTreeMap::new();
    for key in keys {
        parts.entry(routes.route_of(key).group).or_default().push(key.clone());
    }
    parts
}

/// Keys by routes.
pub fn divide_keys_by_route(routes: &RouteMap, keys: &[Bytes]) -> Vec<Vec<Bytes>> {
    let mut parts: BTreeMap<RouteId, Vec<Bytes>> = BTreeMap::new();
    for key in keys {
        parts.entry(routes.route_of(key).id).or_default().push(key.clone());
    }
    parts.into_values().collect()
}

#[cfg(test)]
mod tests {
    use drover_catalog::{Route, RouteState};
    use drover_keys::{End, Interval, ShardId};
    use drover_kv::Update;

    use super::*;

    fn interval(start: &'static str, end: Option<&'static str>) -> Interval {
        Interval::new(start, end.map_or(End::Unbounded, |end| End::Key(end.into()))).unwrap()
    }

    /// Up to "h" in group 2, up to "p" in group 3, the rest in group 2 again.
    fn routes() -> RouteMap {
        let route = |id, interval, group| Route {
            id: RouteId(id),
            interval,
            group: GroupId(group),
            shard: ShardId(id),
            state: RouteState::Active,
        };
        let all = [
            route(1, interval("", Some("h")), 2),
            route(2, interval("h", Some("p")), 3),
            route(3, interval("p", None), 2),
        ];
        RouteMap::new(CatalogVersion(7), all.to_vec()).unwrap()
    }

    fn deletes(keys: &[&'static str]) -> Vec<Mutation> {
        keys.iter().map(|key| Mutation { key: Bytes::from_static(key.as_bytes()), update: Update::Delete }).collect()
    }

    fn reads(keys: &[&'static str], intervals: &[Interval]) -> ReadSet {
        ReadSet {
            keys: keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect(),
            intervals: intervals.to_vec(),
        }
    }

    #[test]
    fn each_group_gets_what_it_owns_and_the_primary_is_the_first_key() {
        let plan = Plan::new(&routes(), &deletes(&["z", "k", "a"]), &reads(&["b", "i"], &[interval("g", Some("q"))]));
        let two = Part {
            mutations: deletes(&["z", "a"]),
            reads: reads(&["b"], &[interval("g", Some("h")), interval("p", Some("q"))]),
        };
        let three = Part { mutations: deletes(&["k"]), reads: reads(&["i"], &[interval("h", Some("p"))]) };
        let expect = Plan {
            version: CatalogVersion(7),
            primary: GroupId(2),
            parts: BTreeMap::from([(GroupId(2), two), (GroupId(3), three)]),
        };
        assert_eq!(plan, expect);
        assert_eq!(plan.single(), None);
        assert_eq!(plan.writers().map(|(group, _)| group.0).collect::<Vec<_>>(), [2, 3]);
        let other = Plan::new(&routes(), &deletes(&["k", "a"]), &ReadSet::default());
        assert_eq!(other.writers().map(|(group, _)| group.0).collect::<Vec<_>>(), [3, 2]);
    }

    #[test]
    fn a_group_that_is_only_read_is_a_part_as_well() {
        let plan = Plan::new(&routes(), &deletes(&["a", "z"]), &ReadSet::default());
        assert_eq!(plan.single().map(|part| part.mutations.len()), Some(2));
        let plan = Plan::new(&routes(), &deletes(&["a", "z"]), &reads(&["k"], &[]));
        assert_eq!((plan.single(), plan.parts.len(), plan.writers().count()), (None, 2, 1));
    }

    #[test]
    fn keys_of_one_group_in_two_routes_are_two_parts() {
        let keys: Vec<Bytes> = ["z", "a", "k", "b"].map(Bytes::from).to_vec();
        assert_eq!(divide_keys(&routes(), &keys).len(), 2);
        let parts = divide_keys_by_route(&routes(), &keys);
        assert_eq!(parts, [vec!["a".into(), "b".into()], vec!["k".into()], vec![Bytes::from("z")]]);
    }
}
