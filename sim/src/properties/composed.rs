use std::collections::BTreeMap;
use std::sync::Arc;

use drover_catalog::Catalog;
use drover_keys::{CatalogVersion, GroupId};

use super::{Newest, Property, Tick};

/// Composed-1: a group owns a range since the version of the catalog at which the route names it, and not before. So the version
/// by which a request was routed tells whether it may be served.
#[derive(Default)]
pub struct Composed {
    newest: Newest,
    catalogs: BTreeMap<CatalogVersion, Arc<Catalog>>,
}

impl Composed {
    /// Whether the routes of `interval` at `version` name `group`; `None` if that version was not seen, or some do and some do not.
    fn names(&self, version: CatalogVersion, interval: &drover_keys::Interval, group: GroupId) -> Option<bool> {
        let map = self.catalogs.get(&version)?.routes()?;
        let mut named = map.intersecting(interval).map(|route| route.group == group);
        let first = named.next()?;
        named.all(|other| other == first).then_some(first)
    }
}

impl Property for Composed {
    fn name(&self) -> &'static str {
        "ownership begins with the route"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for replica in tick.changed {
            if let Some(catalog) = &replica.catalog
                && let Some(map) = catalog.routes()
            {
                self.catalogs.entry(map.version()).or_insert_with(|| Arc::clone(catalog));
            }
        }
        if !self.newest.note(tick.changed) {
            return Ok(());
        }
        for (group, (_, state)) in &self.newest.0 {
            for owned in &state.owned {
                let (interval, since) = (&owned.interval, owned.acquired_version);
                if self.names(since, interval, *group) == Some(false) {
                    return Err(format!(
                        "group {group} owns {interval} since version {since}, which names another one"
                    ));
                }
                let before = since.0.checked_sub(1).map(CatalogVersion);
                if since > CatalogVersion::FIRST
                    && before.and_then(|before| self.names(before, interval, *group)) == Some(true)
                {
                    return Err(format!(
                        "group {group} owns {interval} since version {since}, and the one before names it"
                    ));
                }
            }
        }
        Ok(())
    }
}
