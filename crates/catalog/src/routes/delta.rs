//! The difference between a map and the next one.

use std::collections::BTreeSet;

use drover_guards::{self as guards, Guard};
use drover_keys::{CatalogVersion, Interval, RouteId, escape};

use super::Route;
use super::tiles::Tiles;

/// What changed from the map at `version - 1` to the one at `version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteDelta {
    /// The version that the change made.
    pub version: CatalogVersion,
    /// Ids that are gone.
    pub removed: Vec<RouteId>,
    /// Routes that are new, or differ from the one with the same id.
    pub upserted: Vec<Route>,
}

/// Why a delta does not fit a map. The map is unchanged; whoever follows the catalog takes a new snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It does not start where the map is.
    #[error("a change to version {delta} does not follow version {map} of the map; nothing was changed, read the map")]
    Gap { map: CatalogVersion, delta: CatalogVersion },
    /// It removes what is not there.
    #[error("route {id} is to be removed and is not in the map; nothing was changed, read the map")]
    Unknown { id: RouteId },
    /// It names an id twice.
    #[error("route {id} would be in the map twice; nothing was changed, read the map")]
    Duplicate { id: RouteId },
    /// It takes away keys without giving them to another route.
    #[error("nothing would cover all of what route {id} covered; nothing was changed, read the map")]
    Hole { id: RouteId },
    /// Two routes would cover one key.
    #[error("routes {first} and {second} would both cover {at:?}; nothing was changed, read the map")]
    Overlap { first: RouteId, second: RouteId, at: String },
}

/// New routes that follow each other without a gap, and what they cover together.
pub(super) struct Run {
    pub(super) interval: Interval,
    pub(super) routes: Vec<Route>,
}

/// Cuts `routes`, in any order, where they leave a gap.
fn runs(routes: &[Route]) -> Result<Vec<Run>, DeltaError> {
    let mut sorted = routes.to_vec();
    sorted.sort_by(|a, b| a.interval.start().cmp(b.interval.start()));
    let mut runs: Vec<Run> = Vec::new();
    for route in sorted {
        if let Some(run) = runs.last_mut() {
            let start = route.interval.start();
            if run.interval.end().is_above(start) {
                let last = run.routes.last().expect("a run has a route");
                return Err(DeltaError::Overlap { first: last.id, second: route.id, at: escape(start) });
            }
            if run.interval.end().as_key() == Some(start) {
                run.interval = Interval::new(run.interval.start().clone(), route.interval.end().clone())
                    .expect("it ends above a route that is not empty");
                run.routes.push(route);
                continue;
            }
        }
        runs.push(Run { interval: route.interval.clone(), routes: vec![route] });
    }
    Ok(runs)
}

/// Judges the ids and bounds of `delta` by the part of the map that it touches. `highest` is at or above every id in
/// the map.
pub(super) fn check(tiles: &Tiles, highest: RouteId, delta: &RouteDelta) -> Result<Vec<Run>, DeltaError> {
    let removed: BTreeSet<RouteId> = delta.removed.iter().copied().collect();
    let mut upserted = BTreeSet::new();
    for route in &delta.upserted {
        if !upserted.insert(route.id) || removed.contains(&route.id) {
            return Err(DeltaError::Duplicate { id: route.id });
        }
    }
    let runs = runs(&delta.upserted)?;
    let mut replaced = BTreeSet::new();
    for run in &runs {
        let (first, last) = tiles.span(&run.interval);
        for old in tiles.between(first, last) {
            if !removed.contains(&old.id) && !upserted.contains(&old.id) && guards::on(Guard::DeltaFits) {
                let both = old.interval.intersection(&run.interval).expect("the span holds what shares a key");
                let new = run.routes.iter().find(|new| new.interval.contains(both.start()));
                let second = new.expect("a run has no gap").id;
                return Err(DeltaError::Overlap { first: old.id, second, at: escape(both.start()) });
            }
            if !run.interval.covers(&old.interval) && guards::on(Guard::DeltaFits) {
                return Err(DeltaError::Hole { id: old.id });
            }
            replaced.insert(old.id);
        }
    }
    // Whatever else the map holds stays. Only a delta that is refused, or gives an old number to a new route, looks at
    // all of it.
    let stays = |id: RouteId| id <= highest && tiles.iter().any(|route| route.id == id);
    if let Some(&id) = removed.difference(&replaced).next() {
        return Err(if stays(id) { DeltaError::Hole { id } } else { DeltaError::Unknown { id } });
    }
    match upserted.difference(&replaced).find(|id| stays(**id)) {
        Some(&id) => Err(DeltaError::Duplicate { id }),
        None => Ok(runs),
    }
}
