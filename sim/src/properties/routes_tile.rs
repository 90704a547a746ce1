use std::collections::BTreeMap;

use drover_catalog::Route;
use drover_keys::{CatalogVersion, End};

use super::{Property, Tick};

/// At every version of the catalog the routes cover every key once, and all replicas have the same routes at a version.
#[derive(Default)]
pub struct RoutesTile {
    known: BTreeMap<CatalogVersion, Vec<Route>>,
}

fn tile(routes: &[Route]) -> Result<(), String> {
    let mut covered_to = End::Key(bytes::Bytes::new());
    for route in routes {
        if covered_to.as_key() != Some(route.interval.start()) {
            return Err(format!("{} does not follow upon {covered_to:?}", route.interval));
        }
        covered_to = route.interval.end().clone();
    }
    if covered_to.as_key().is_some() { Err(format!("nobody has what follows {covered_to:?}")) } else { Ok(()) }
}

impl Property for RoutesTile {
    fn name(&self) -> &'static str {
        "routes tile"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for replica in tick.changed {
            let Some(map) = replica.catalog.as_ref().and_then(|catalog| catalog.routes()) else { continue };
            match self.known.get(&map.version()) {
                Some(known) if !map.routes().eq(known) => {
                    return Err(format!("node {} has other routes at version {}", replica.node, map.version()));
                }
                Some(_) => {}
                None => {
                    let routes: Vec<Route> = map.routes().cloned().collect();
                    tile(&routes).map_err(|why| format!("version {}: {why}", map.version()))?;
                    self.known.insert(map.version(), routes);
                }
            }
        }
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        if self.known.is_empty() { Err("no catalog was seen".to_owned()) } else { Ok(()) }
    }
}
