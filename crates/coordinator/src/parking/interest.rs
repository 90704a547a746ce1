use bytes::Bytes;
use drover_catalog::{Route, RouteMap, RouteState};

/// What the map says of the routes that a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Writes to one of them are held back.
    Fenced,
    /// Nothing has changed since the last look, and the map does not say that writes are held back. A group says so: the map
    /// may be late, or the group not done yet.
    Unclear,
    /// Another try may succeed: none of them is held back, and one has another owner, or is open again.
    Changed,
}

/// The routes that a request waits for, as they were when they were last looked at.
#[derive(Debug)]
pub struct Interest {
    /// A key of each route, and the route.
    seen: Vec<(Bytes, Route)>,
}

impl Interest {
    /// The routes of `keys` by `routes`, the map that the request was routed by.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a [u8]>, routes: &RouteMap) -> Self {
        let mut seen: Vec<(Bytes, Route)> = Vec::new();
        for key in keys {
            let known = seen.iter().any(|(_, route)| route.interval.contains(key));
            if !known {
                seen.push((Bytes::copy_from_slice(key), routes.route_of(key).clone()));
            }
        }
        Self { seen }
    }

    /// Looks at `routes`, and remembers what it says.
    pub fn look(&mut self, routes: &RouteMap) -> Look {
        let (mut changed, mut fenced) = (false, false);
        for (key, seen) in &mut self.seen {
            let route = routes.route_of(key);
            fenced |= is_fenced(route);
            if route != seen {
                changed = true;
                *seen = route.clone();
            }
        }
        match (fenced, changed) {
            (true, _) => Look::Fenced,
            (false, true) => Look::Changed,
            (false, false) => Look::Unclear,
        }
    }
}

/// Whether the map says that writes to `route` are held back.
pub fn is_fenced(route: &Route) -> bool {
    matches!(route.state, RouteState::WriteFenced { .. })
}

#[cfg(test)]
pub(super) mod tests {
    use drover_keys::{CatalogVersion, End, GroupId, Interval, JobId, RouteId, ShardId};

    use super::*;

    /// Of each route: the group, and whether it is fenced.
    pub type Groups = [(u64, bool); 3];

    /// Routes from "", "m" and "x" on.
    pub fn map(version: u64, routes: Groups) -> RouteMap {
        let bounds = ["", "m", "x"];
        let routes = routes.into_iter().enumerate().map(|(n, (group, fenced))| Route {
            id: RouteId(n as u64 + 1),
            interval: Interval::new(bounds[n], bounds.get(n + 1).map_or(End::Unbounded, |end| End::Key((*end).into())))
                .unwrap(),
            group: GroupId(group),
            shard: ShardId(group),
            state: if fenced { RouteState::WriteFenced { job: JobId(1) } } else { RouteState::Active },
        });
        RouteMap::new(CatalogVersion(version), routes.collect()).unwrap()
    }

    pub fn keys<'a>(keys: &'a [&'static str]) -> impl Iterator<Item = &'a [u8]> {
        keys.iter().map(|key| key.as_bytes())
    }

    const OPEN: Groups = [(2, false), (2, false), (2, false)];
    const LAST_FENCED: Groups = [(2, false), (2, false), (2, true)];
    const LAST_MOVED: Groups = [(2, false), (2, false), (3, false)];
    const FIRST_MOVED: Groups = [(4, false), (2, false), (2, false)];
    const MOVED_AND_FENCED: Groups = [(4, false), (2, false), (2, true)];

    #[test]
    fn a_request_goes_on_when_none_of_its_routes_is_held_back_and_one_has_changed() {
        use Look::{Changed, Fenced, Unclear};
        // By which map it was routed; then what it is told by which map.
        type Case = (&'static str, &'static [&'static str], Groups, &'static [(Groups, Look)]);
        let table: [Case; 8] = [
            ("the news of the fence comes late", &["z"], OPEN, &[(OPEN, Unclear), (LAST_FENCED, Fenced)]),
            ("it moves", &["z"], OPEN, &[(LAST_FENCED, Fenced), (LAST_MOVED, Changed)]),
            ("the fence is lifted", &["z"], LAST_FENCED, &[(LAST_FENCED, Fenced), (OPEN, Changed)]),
            ("the catalog is ahead of the group", &["z"], OPEN, &[(OPEN, Unclear), (OPEN, Unclear)]),
            ("the map was old", &["z"], OPEN, &[(LAST_MOVED, Changed)]),
            ("another route moves", &["z"], LAST_FENCED, &[(MOVED_AND_FENCED, Fenced)]),
            ("another route moves, and no news of the fence", &["z"], OPEN, &[(FIRST_MOVED, Unclear)]),
            ("one of two", &["a", "z"], OPEN, &[(MOVED_AND_FENCED, Fenced), (FIRST_MOVED, Changed)]),
        ];
        for (case, of, routed, looks) in table {
            let mut interest = Interest::new(keys(of), &map(1, routed));
            for (n, (routes, expect)) in looks.iter().enumerate() {
                assert_eq!(interest.look(&map(2 + n as u64, *routes)), *expect, "{case}, look {n}");
            }
        }
    }

    #[test]
    fn a_route_is_remembered_once_whatever_the_number_of_its_keys() {
        let interest = Interest::new(keys(&["a", "b", "z", "c", "y"]), &map(1, OPEN));
        let seen: Vec<_> = interest.seen.iter().map(|(key, route)| (key.clone(), route.id.0)).collect();
        assert_eq!(seen, [("a".into(), 1), ("z".into(), 3)]);
    }
}
