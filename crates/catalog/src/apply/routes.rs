//! Commands about routes. Each carries the version it was decided by, and makes the next one.

use std::sync::Arc;

use bytes::Bytes;
use drover_keys::{CatalogVersion, End, Interval, RouteId};

use super::{Answer, Decision, Judge, Note, brief};
use crate::row::CatalogRow;
use crate::{CatalogRefusal, CatalogReply, Route, RouteDelta, RouteMap, Split};

impl Judge<'_> {
    pub(super) fn split(&self, expected: CatalogVersion, id: RouteId, key: &Bytes) -> Result<Decision, CatalogRefusal> {
        let meta = &self.contents.meta;
        if expected != meta.version {
            return Err(CatalogRefusal::StaleVersion { expected, current: meta.version });
        }
        let limit = meta.settings.max_key_bytes;
        if key.len() > limit as usize {
            return Err(CatalogRefusal::KeyTooLarge { bytes: key.len(), limit });
        }
        let route = self.contents.routes.holder(id, key)?;
        if let Some(job) = self.contents.live_job_over(&route.interval) {
            return Err(CatalogRefusal::RouteInMove { route: id, job: job.id });
        }
        let part = |start: &Bytes, end| Interval::new(start.clone(), end).expect("the key lies inside");
        let left = Route { interval: part(route.interval.start(), End::Key(key.clone())), ..route.clone() };
        let interval = part(key, route.interval.end().clone());
        let right = Route { id: meta.next_route, interval, ..route.clone() };
        let version = CatalogVersion(meta.version.0 + 1);
        let delta = RouteDelta { version, removed: Vec::new(), upserted: vec![left.clone(), right.clone()] };
        let routes = self.contents.routes.apply(&delta).expect("halves cover what the whole did");

        let details = format!("cut at {}, route {} from there on, version {version}", brief(key), right.id);
        let note = Note { action: "split-range", subject: format!("route {id}"), details };
        let reply = CatalogReply::Split(Box::new(Split { version, left: left.clone(), right: right.clone() }));
        let mut plan = self.plan(Answer::Ready(reply), Some(note));
        plan.meta.version = version;
        plan.meta.next_route = RouteId(right.id.0 + 1);
        plan.routes = Some(routes);
        plan.put(CatalogRow::Route(left))
            .put(CatalogRow::Route(right))
            .put(CatalogRow::Delta(Arc::new(delta)))
            .decided()
    }
}

impl RouteMap {
    /// The route `id`, if `key` lies inside and is not its first key: where it can be cut.
    ///
    /// # Errors
    /// If there is no such route, or the key is that of another one or its first.
    pub fn holder(&self, id: RouteId, key: &[u8]) -> Result<&Route, CatalogRefusal> {
        let holder = self.route_of(key);
        if holder.id != id {
            let Some(route) = self.route(id) else {
                return Err(CatalogRefusal::UnknownRoute { route: id });
            };
            if route.interval.end().as_key().is_none_or(|end| end != key) {
                let end = route.interval.end().as_key().map_or("the end".to_owned(), |end| brief(end));
                let keys = format!("{} to {end}", brief(route.interval.start()));
                return Err(CatalogRefusal::KeyOutside { route: id, keys, key: brief(key), holder: holder.id });
            }
        }
        if holder.interval.start() == key {
            return Err(CatalogRefusal::KeyAtBoundary { holder: holder.id, key: brief(key) });
        }
        Ok(holder)
    }
}
