//! Commands of the catalog.

use std::sync::Arc;

use drover_catalog::{CatalogChange, CatalogCommand};
use drover_keys::GroupId;
use drover_rafttypes::ControlReply;

use super::Prepared;
use crate::codec::catalog::row;

impl Prepared<'_> {
    /// Applies one command of the catalog, and writes the rows that it changes. Any group but the default one refuses.
    pub(super) fn catalog_command(&mut self, command: &CatalogCommand) -> ControlReply {
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
        ControlReply::Catalog(Box::new(answer))
    }
}
