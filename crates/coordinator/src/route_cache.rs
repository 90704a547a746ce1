//! What this node knows of the route catalog.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use drover_catalog::{Catalog, DeltaError, Route, RouteDelta, RouteMap, RouteState};
use drover_keys::{CatalogVersion, GroupId, Interval, RouteId, ShardId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Changes that are kept for those who follow this node.
const KEPT: usize = 4_096;

/// The newest route map that this node has heard of, an immutable snapshot that is swapped as a whole.
///
/// It only rises. It may be old: groups refuse what was routed by a map that is too old for them, and whoever meets such a
/// refusal waits here for a newer one.
pub struct RouteCache {
    map: ArcSwap<RouteMap>,
    /// Changes that lead to the present map, without a gap. Also keeps writers apart.
    recent: Mutex<VecDeque<Arc<RouteDelta>>>,
    version: watch::Sender<CatalogVersion>,
    /// The highest version that somebody waits for.
    wanted: watch::Sender<CatalogVersion>,
}

impl RouteCache {
    /// A cache that knows `map`.
    pub fn new(map: RouteMap) -> Arc<Self> {
        let version = map.version();
        Arc::new(Self {
            map: ArcSwap::from_pointee(map),
            recent: Mutex::default(),
            version: watch::Sender::new(version),
            wanted: watch::Sender::new(version),
        })
    }

    /// A cache that knows nothing yet: every key leads to the default group, by a version that every group refuses.
    pub fn unknown() -> Arc<Self> {
        let everything = Route {
            id: RouteId(0),
            interval: Interval::all(),
            group: GroupId::DEFAULT,
            shard: ShardId(0),
            state: RouteState::Active,
        };
        Self::new(
            RouteMap::new(CatalogVersion(0), vec![everything]).expect("one route that covers everything is a map"),
        )
    }

    /// Whether a map of the catalog has been heard of.
    pub fn is_known(&self) -> bool {
        self.map.load().version() >= CatalogVersion::FIRST
    }

    /// Goes on to the routes of a newer catalog: by its changes if they lead there, otherwise as a whole.
    pub fn follow(&self, catalog: &Catalog) {
        let Some(routes) = catalog.routes() else { return };
        if let Some(deltas) = catalog.deltas_since(self.map.load().version())
            && deltas.map(|delta| self.advance(delta)).all(|taken| taken.is_ok())
        {
            return;
        }
        self.replace(routes.clone());
    }

    /// The present map.
    pub fn current(&self) -> Arc<RouteMap> {
        self.map.load_full()
    }

    /// The version of the present map, as it rises.
    pub fn versions(&self) -> watch::Receiver<CatalogVersion> {
        self.version.subscribe()
    }

    /// The highest version that somebody waits for, as it rises: whoever feeds the cache hurries then.
    pub fn wanted(&self) -> watch::Receiver<CatalogVersion> {
        self.wanted.subscribe()
    }

    /// Takes the next change; whether it was news.
    ///
    /// # Errors
    /// If it does not follow the present map: the feeder takes a whole map then.
    pub fn advance(&self, delta: &Arc<RouteDelta>) -> Result<bool, DeltaError> {
        let mut recent = self.recent.lock();
        let map = self.map.load();
        if delta.version <= map.version() {
            return Ok(false);
        }
        let next = map.apply(delta)?;
        recent.push_back(Arc::clone(delta));
        if recent.len() > KEPT {
            recent.pop_front();
        }
        self.publish(next);
        Ok(true)
    }

    /// Takes a whole map, if it is newer; whether it was.
    pub fn replace(&self, map: RouteMap) -> bool {
        let mut recent = self.recent.lock();
        if map.version() <= self.map.load().version() {
            return false;
        }
        recent.clear();
        self.publish(map);
        true
    }

    fn publish(&self, map: RouteMap) {
        let version = map.version();
        self.map.store(Arc::new(map));
        self.version.send_replace(version);
    }

    /// The changes after `version`, oldest first, at most `max`; `None` if they are no longer kept. Nothing if there are
    /// none.
    pub fn since(&self, version: CatalogVersion, max: usize) -> Option<Vec<Arc<RouteDelta>>> {
        let recent = self.recent.lock();
        if version >= self.map.load().version() {
            return Some(Vec::new());
        }
        let first = recent.front()?.version;
        let next = CatalogVersion(version.0 + 1);
        if next < first {
            return None;
        }
        let skip = usize::try_from(next.0 - first.0).unwrap_or(usize::MAX);
        Some(recent.iter().skip(skip).take(max).cloned().collect())
    }

    /// Waits until the map is newer than `version`, or until `deadline`; whether it is.
    pub async fn newer_than(&self, version: CatalogVersion, deadline: Instant) -> bool {
        self.wanted.send_if_modified(|wanted| {
            let more = wanted.0 <= version.0;
            if more {
                *wanted = CatalogVersion(version.0.saturating_add(1));
            }
            more
        });
        let mut versions = self.version.subscribe();
        tokio::time::timeout_at(deadline.into(), versions.wait_for(|known| *known > version)).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use drover_keys::End;

    use super::*;

    fn route(id: u64, start: &[u8], end: Option<&[u8]>) -> Route {
        let end = end.map_or(End::Unbounded, |end| End::Key(end.to_vec().into()));
        Route {
            id: RouteId(id),
            interval: Interval::new(start.to_vec(), end).unwrap(),
            group: GroupId(2),
            shard: ShardId(1),
            state: RouteState::Active,
        }
    }

    fn first() -> RouteMap {
        RouteMap::new(CatalogVersion(1), vec![route(1, b"", None)]).unwrap()
    }

    /// Version `v` cuts the last route at the byte `v`.
    fn delta(v: u8) -> Arc<RouteDelta> {
        let start: &[u8] = if v == 2 { b"" } else { &[v - 1] };
        let upserted = vec![route(u64::from(v) - 1, start, Some(&[v])), route(u64::from(v), &[v], None)];
        Arc::new(RouteDelta { version: CatalogVersion(u64::from(v)), removed: vec![], upserted })
    }

    #[test]
    fn changes_are_taken_in_order_once_and_handed_on_without_a_gap() {
        let cache = RouteCache::new(first());
        assert!(cache.advance(&delta(3)).is_err(), "a gap");
        assert_eq!(cache.current().version(), CatalogVersion(1));
        for v in 2..=6 {
            assert_eq!(cache.advance(&delta(v)), Ok(true));
            assert_eq!(cache.advance(&delta(v)), Ok(false), "again");
        }
        assert_eq!(cache.current().count(), 6);
        let since = |v, max| {
            cache.since(CatalogVersion(v), max).map(|deltas| deltas.iter().map(|d| d.version.0).collect::<Vec<_>>())
        };
        assert_eq!(since(1, 9), Some(vec![2, 3, 4, 5, 6]));
        assert_eq!(since(4, 9), Some(vec![5, 6]));
        assert_eq!(since(2, 2), Some(vec![3, 4]));
        assert_eq!(since(6, 9), Some(vec![]));
        assert_eq!(since(0, 9), None, "the change to version 1 is not kept");
    }

    #[test]
    fn a_whole_map_is_taken_only_if_it_is_newer_and_breaks_the_chain() {
        let cache = RouteCache::new(first());
        cache.advance(&delta(2)).unwrap();
        assert!(!cache.replace(first()));
        assert_eq!(cache.current().version(), CatalogVersion(2));
        assert!(cache.replace(RouteMap::new(CatalogVersion(9), vec![route(1, b"", None)]).unwrap()));
        assert_eq!(cache.since(CatalogVersion(1), 9), None);
        assert_eq!(cache.since(CatalogVersion(8), 9), None);
    }

    #[tokio::test]
    async fn waiting_ends_with_a_newer_map_and_tells_the_feeder() {
        let cache = RouteCache::new(first());
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(!cache.newer_than(CatalogVersion(1), soon).await);
        assert_eq!(*cache.wanted().borrow(), CatalogVersion(2));
        let waiting = tokio::spawn({
            let cache = Arc::clone(&cache);
            async move { cache.newer_than(CatalogVersion(1), Instant::now() + Duration::from_secs(60)).await }
        });
        cache.advance(&delta(2)).unwrap();
        assert!(waiting.await.unwrap());
    }
}
