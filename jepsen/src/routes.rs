//! Looks at the map of routes, through every node, while it changes: at every version the routes tile the key space, and all
//! nodes know the same map by the same version. And asks the groups what they own: no two own a key since the same version, and
//! nobody owns it since an older one once a newer one was seen.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, Route};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::ownership::contains;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// A route, as far as the catalog says: id, bounds, group, shard.
type Known = (u64, Bytes, Option<Bytes>, u64, u64);

/// Which group a map names for a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The first key.
    pub start: String,
    /// The first one behind it; empty: there is none.
    pub end: String,
    /// The group.
    pub group: u64,
}

impl Row {
    /// Whether a key is in the range.
    pub fn holds(&self, key: &str) -> bool {
        contains(&self.start, &self.end, key)
    }
}

/// Keys whose owners are asked for.
const KEYS: [&str; 8] = ["bank/1", "bank/5", "c/x", "k/x", "p/x", "set/b", "set/m", "set/u"];

/// The maps that were seen.
#[derive(Debug, Default)]
pub struct Maps {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    versions: BTreeMap<u64, Vec<Known>>,
    /// The group and the shard that own a key since a version.
    owners: BTreeMap<(String, u64), (u64, u64)>,
    /// Since which version each key is owned, at least.
    newest: BTreeMap<String, u64>,
    problems: Vec<String>,
}

impl Maps {
    /// Takes a map that a node showed.
    pub fn add(&self, version: u64, routes: &[Route], by: usize) {
        let row =
            |route: &Route| (route.route_id, route.start.clone(), route.end.clone(), route.group_id, route.shard_id);
        let rows: Vec<Known> = routes.iter().map(row).collect();
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

    /// Since which version a key is owned, at least, as far as was seen.
    pub fn owned_since(&self, key: &str) -> u64 {
        let inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.newest.get(key).copied().unwrap_or(0)
    }

    /// Takes what the log of a group says of a key: `since` is the version, `owner` the group and the shard. `before` is what
    /// [`Maps::owned_since`] was when it was asked for.
    pub fn own(&self, key: &str, since: u64, owner: (u64, u64), before: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if since < before {
            let what = format!("group {} owns {key} since {since}, after it was owned since {before}", owner.0);
            inner.problems.push(what);
        }
        let known = *inner.owners.entry((key.to_owned(), since)).or_insert(owner);
        if known != owner {
            let what = format!("group and shard {owner:?} and {known:?} both own {key} since version {since}");
            inner.problems.push(what);
        }
        let newest = inner.newest.entry(key.to_owned()).or_default();
        *newest = since.max(*newest);
    }

    /// How often the owner of a key was another one than before.
    pub fn owners_seen(&self) -> u64 {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).owners.len() as u64
    }

    /// How many versions.
    pub fn seen(&self) -> u64 {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).versions.len() as u64
    }

    /// Which group each of them names for which range.
    pub fn rows(&self) -> BTreeMap<u64, Vec<Row>> {
        let text = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        let row = |(_, start, end, group, _): &Known| Row {
            start: text(start),
            end: end.as_ref().map(text).unwrap_or_default(),
            group: *group,
        };
        let inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.versions.iter().map(|(version, rows)| (*version, rows.iter().map(row).collect())).collect()
    }

    /// What was wrong with them.
    pub fn problems(&self) -> Vec<String> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).problems.clone()
    }
}

fn tiles(rows: &[Known]) -> bool {
    let Some((first, last)) = rows.first().zip(rows.last()) else { return false };
    let joined = rows.windows(2).all(|pair| pair[0].2.as_ref() == Some(&pair[1].1));
    first.1.is_empty() && last.2.is_none() && joined
}

/// Looks through every node until `stop`.
pub async fn watch(doors: Vec<Client>, maps: Arc<Maps>, stop: CancellationToken) {
    let mut turn = 0;
    while stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        for (node, door) in doors.iter().enumerate() {
            turn += 1;
            // A node that does not answer shows nothing.
            let asked = door.with_deadline(Duration::from_millis(500));
            if let Ok(map) = asked.routes().await {
                maps.add(map.version.0, &map.routes, node + 1);
            }
            let key = KEYS[turn % KEYS.len()];
            let before = maps.owned_since(key);
            if let Ok(answer) = asked.route_ownership(key).await
                && let Some((ownership, route)) = answer.ownership.zip(answer.route)
            {
                maps.own(key, ownership.acquired_version, (route.group_id, ownership.shard_id), before);
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

    #[test]
    fn two_owners_since_one_version_and_one_that_comes_back_are_told() {
        let maps = Maps::default();
        maps.own("k", 3, (2, 1), maps.owned_since("k"));
        let early = maps.owned_since("k");
        maps.own("k", 5, (3, 4), early);
        // Asked before the new one was seen, answered afterwards.
        maps.own("k", 3, (2, 1), early);
        assert_eq!((maps.problems(), maps.owners_seen()), (Vec::new(), 2));
        maps.own("k", 5, (4, 4), maps.owned_since("k"));
        maps.own("k", 3, (2, 1), maps.owned_since("k"));
        assert_eq!(maps.problems().len(), 2);
    }
}
