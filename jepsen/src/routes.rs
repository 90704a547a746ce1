//! Looks at the map of routes, through every node, while it changes: at every version the routes tile the key space, and all
//! nodes know the same map by the same version.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, Route};
use tokio_util::sync::CancellationToken;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// A route, as far as the catalog says: id, bounds, group, shard.
type Row = (u64, Bytes, Option<Bytes>, u64, u64);

/// The maps that were seen.
#[derive(Debug, Default)]
pub struct Maps {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    versions: BTreeMap<u64, Vec<Row>>,
    problems: Vec<String>,
}

impl Maps {
    /// Takes a map that a node showed.
    pub fn add(&self, version: u64, routes: &[Route], by: usize) {
        let row =
            |route: &Route| (route.route_id, route.start.clone(), route.end.clone(), route.group_id, route.shard_id);
        let rows: Vec<Row> = routes.iter().map(row).collect();
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match inner.versions.get(&version) {
            Some(known) if *known == rows => {}
            Some(known) => {
                let what = format!("node {by} knows another map {version} than others: {rows:?}, they: {known:?}");
                inner.problems.push(what);
            }
            None => {
                if !tiles(&rows) {
                    inner.problems.push(format!("map {version} does not cover every key once: {rows:?}"));
                }
                inner.versions.insert(version, rows);
            }
        }
    }

    /// How many versions.
    pub fn seen(&self) -> u64 {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).versions.len() as u64
    }

    /// What was wrong with them.
    pub fn problems(&self) -> Vec<String> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).problems.clone()
    }
}

fn tiles(rows: &[Row]) -> bool {
    let Some((first, last)) = rows.first().zip(rows.last()) else { return false };
    let joined = rows.windows(2).all(|pair| pair[0].2.as_ref() == Some(&pair[1].1));
    first.1.is_empty() && last.2.is_none() && joined
}

/// Looks through every node until `stop`.
pub async fn watch(doors: Vec<Client>, maps: Arc<Maps>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        for (node, door) in doors.iter().enumerate() {
            // A node that does not answer shows nothing.
            let asked = door.with_deadline(Duration::from_millis(500));
            if let Ok(map) = asked.routes().await {
                maps.add(map.version.0, &map.routes, node + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_overlaps_and_different_maps_of_one_version_are_told() {
        let route = |start: &'static str, end: Option<&'static str>, group_id| Route {
            start: start.into(),
            end: end.map(Bytes::from),
            group_id,
            ..Route::default()
        };
        let maps = Maps::default();
        maps.add(1, &[route("", Some("m"), 2), route("m", None, 3)], 1);
        maps.add(1, &[route("", Some("m"), 2), route("m", None, 3)], 2);
        assert_eq!(maps.problems(), Vec::<String>::new());
        maps.add(1, &[route("", Some("m"), 2), route("m", None, 2)], 3);
        maps.add(2, &[route("", Some("m"), 2), route("n", None, 3)], 1);
        maps.add(3, &[route("", Some("m"), 2), route("m", Some("z"), 3)], 1);
        assert_eq!((maps.problems().len(), maps.seen()), (3, 3));
    }
}
