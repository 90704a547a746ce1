//! Commands of the catalog.

use std::sync::Arc;

use drover_catalog::{CatalogChange, CatalogCommand};
use drover_keys::GroupId;
use drover_rafttypes::ControlReply;

use super::Prepared;
use crate::codec::catalog::row;
use crate::ownership::OwnershipChange;

impl Prepared<'_> {
    /// Applies one command of the catalog, which stands at `index` in the log, and writes the rows that it changes. Any group
    /// but the default one refuses.
    pub(super) fn catalog_command(&mut self, index: u64, command: &CatalogCommand) -> ControlReply {
        if self.applied.group != GroupId::DEFAULT {
            let why = format!("group {} has no catalog; nothing was changed", self.applied.group);
            return ControlReply::Refused(why);
        }
        let applied = Arc::make_mut(&mut self.catalog).apply(command);
        let answer = applied.map(|(reply, changes)| {
            for change in changes {
                match change {
                    CatalogChange::Put(changed) => {
                        self.batch.put_catalog_row(&row::encode_key(&changed.key()), Some(row::encode(&changed)));
                    }
                    CatalogChange::Delete(key) => self.batch.put_catalog_row(&row::encode_key(&key), None),
                }
            }
            reply
        });
        if answer.is_ok() {
            self.changes.extend(OwnershipChange::scanned(index, command, &self.catalog));
        }
        ControlReply::Catalog(Box::new(answer))
    }
}
