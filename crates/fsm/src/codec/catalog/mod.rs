//! The catalog: commands in the log of the default group, and rows in its state.
//!
//! Sets and maps stand in ascending order; anything else is damage. So is a number of a later build, except for whole
//! commands of an unknown kind, which the caller tells apart.

pub mod command;
mod job;
mod parts;
mod reply;
pub mod row;
#[cfg(test)]
mod strategies;

use std::sync::Arc;

use bytes::Bytes;
use drover_catalog::{Catalog, CatalogCommand, CatalogReply, CatalogRow};
use drover_kv::{Error, Reason};
use drover_wire::CatalogPart;
use drover_wire::proto::storage::v1 as pb;
use prost::Message;

/// A command as one node sends it to another: an encoded `drover.storage.v1.CatalogCommand`.
///
/// # Errors
/// [`Reason::InvalidArgument`], definite, for a command that no catalog would accept.
pub fn encode_catalog_command(sent: &CatalogCommand) -> Result<Bytes, Error> {
    sent.check().map_err(|refusal| drover_wire::catalog_refusal_to_error(&refusal))?;
    Ok(command::encode(sent).encode_to_vec().into())
}

/// A command that another node has sent.
///
/// # Errors
/// [`Reason::InvalidArgument`], definite, if the bytes are no command that this build knows.
pub fn decode_catalog_command(bytes: Bytes) -> Result<CatalogCommand, Error> {
    let message = pb::CatalogCommand::decode(bytes).map_err(|error| error.to_string());
    message.and_then(command::decode).map_err(|why| {
        let message = format!("the command for the catalog cannot be read: {why}; nothing was changed");
        Error::definite(Reason::InvalidArgument, message)
    })
}

/// Key and value of those rows of `catalog` that belong to `part`, as they stand in the store; at most `limit`.
pub fn catalog_rows(catalog: &Catalog, part: CatalogPart, limit: usize) -> Vec<(Bytes, Bytes)> {
    let stored = |row: CatalogRow| (Bytes::from(row::encode_key(&row.key())), row::encode(&row));
    match part {
        CatalogPart::Meta => {
            catalog.meta().map(|meta| stored(CatalogRow::Meta(Box::new(meta.clone())))).into_iter().collect()
        }
        CatalogPart::Nodes => catalog.nodes().cloned().map(CatalogRow::Node).map(stored).take(limit).collect(),
        CatalogPart::Groups => catalog.groups().cloned().map(CatalogRow::Group).map(stored).take(limit).collect(),
        CatalogPart::Audit => {
            let newest = catalog.audit().rev().take(limit).cloned();
            let mut rows: Vec<_> = newest.map(|event| stored(CatalogRow::Audit(Arc::new(event)))).collect();
            rows.reverse();
            rows
        }
        CatalogPart::Jobs { newest } => {
            let jobs = catalog.jobs().rev().skip_while(|job| job.id > newest).take(limit);
            jobs.map(|job| stored(CatalogRow::Job(Arc::clone(job)))).collect()
        }
    }
}

/// A row that another node has sent.
///
/// # Errors
/// [`Reason::Internal`], definite, if it is none that this build knows: reading changes nothing.
pub fn decode_catalog_row(key: &[u8], value: Bytes) -> Result<CatalogRow, Error> {
    row::decode(key, value).map_err(|error| Error::definite(Reason::Internal, error.to_string()))
}

/// A reply as one node sends it to another: an encoded `drover.storage.v1.CatalogReply`.
pub fn encode_catalog_reply(sent: &CatalogReply) -> Bytes {
    reply::encode(sent).encode_to_vec().into()
}

/// A reply that another node has sent.
///
/// # Errors
/// [`Reason::Internal`], of unknown certainty, if the bytes are no reply that this build knows.
pub fn decode_catalog_reply(bytes: Bytes) -> Result<CatalogReply, Error> {
    let message = pb::CatalogReply::decode(bytes).map_err(|error| error.to_string());
    message.and_then(|message| reply::decode(Some(message))).map_err(|why| {
        let message = format!("the catalog's answer cannot be read: {why}; the command may have been carried out");
        Error::unknown(Reason::Internal, message)
    })
}
