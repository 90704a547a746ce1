//! `drover.storage.v1.CatalogRow`, and the keys that rows stand under.
//!
//! ```text
//! key = 1                       the one of its kind
//!     | 2 | start of the route  routes, in key order
//!     | tag (1) | number (8, BE)
//!         3 version of a delta, 4 node, 5 removed node, 6 group, 7 audit event, 8 answer to a request, 9 job
//! ```
//!
//! The tags are those of the messages. Rows sort as [`RowKey`] does. A tag is never reused.

use std::sync::Arc;

use bytes::Bytes;
use drover_catalog::{
    AuditEvent, CatalogRow, Meta, NodeEntry, Presence, RemovedNode, RequestId, RequestRecord, RouteDelta, RowKey,
};
use drover_keys::{CatalogVersion, GroupId, JobId, NodeId, RouteId, ShardId, StoreId};
use drover_wire::proto::storage::v1 as pb;
use pb::catalog_row::Row;
use prost::Message;

use super::parts::{
    decode_freeze, decode_group, decode_known_version, decode_route, decode_routes, decode_settings, decode_version,
    encode_freeze, encode_group, encode_route, encode_settings, encode_version, missing, set, sixteen, time,
};
use super::{job, reply};
use crate::ApplyError;

/// The bytes that a row stands under.
pub fn encode_key(key: &RowKey) -> Vec<u8> {
    let numbered = |tag: u8, number: u64| [&[tag][..], &number.to_be_bytes()].concat();
    match key {
        RowKey::Meta => vec![1],
        RowKey::Route(start) => [&[2][..], start].concat(),
        RowKey::Delta(version) => numbered(3, version.0),
        RowKey::Node(node) => numbered(4, node.0),
        RowKey::RemovedNode(node) => numbered(5, node.0),
        RowKey::Group(group) => numbered(6, group.0),
        RowKey::Audit(seq) => numbered(7, *seq),
        RowKey::Request(seq) => numbered(8, *seq),
        RowKey::Job(job) => numbered(9, job.0),
    }
}

/// The stored bytes.
pub fn encode(row: &CatalogRow) -> Bytes {
    let row = match row {
        CatalogRow::Meta(meta) => Row::Meta(encode_meta(meta)),
        CatalogRow::Route(route) => Row::Route(encode_route(route)),
        CatalogRow::Delta(delta) => Row::Delta(pb::CatalogDelta {
            version: delta.version.0,
            removed: delta.removed.iter().map(|id| id.0).collect(),
            upserted: delta.upserted.iter().map(encode_route).collect(),
        }),
        CatalogRow::Node(node) => Row::Node(encode_node(node)),
        CatalogRow::RemovedNode(node) => Row::RemovedNode(pb::RemovedNode {
            node_id: node.id.0,
            store_id: node.store.map_or(Bytes::new(), |store| store.0.to_vec().into()),
            at_ms: node.at.unix_ms(),
        }),
        CatalogRow::Group(group) => Row::Group(encode_group(group)),
        CatalogRow::Audit(event) => Row::Audit(pb::AuditEvent {
            seq: event.seq,
            at_ms: event.at.unix_ms(),
            actor: event.actor.clone(),
            action: event.action.clone(),
            subject: event.subject.clone(),
            details: event.details.clone(),
        }),
        CatalogRow::Request(record) => Row::Request(pb::CatalogRequest {
            seq: record.seq,
            request_id: record.id.0.to_vec().into(),
            fingerprint: record.fingerprint.to_be_bytes().to_vec().into(),
            reply: Some(reply::encode(&record.reply)),
        }),
        CatalogRow::Job(job) => Row::Job(job::encode(job)),
    };
    pb::CatalogRow { row: Some(row) }.encode_to_vec().into()
}

/// Reads a row from stored bytes and those it stands under.
///
/// # Errors
/// [`ApplyError::Corrupt`] if the bytes are no row, or one that belongs elsewhere.
pub fn decode(key: &[u8], bytes: Bytes) -> Result<CatalogRow, ApplyError> {
    let corrupt = |why: String| ApplyError::Corrupt { what: "catalog row", why };
    let message = pb::CatalogRow::decode(bytes).map_err(|e| corrupt(e.to_string()))?;
    let row = decode_row(message.row.ok_or_else(|| corrupt(missing("its content")()))?).map_err(corrupt)?;
    if encode_key(&row.key()) != key {
        return Err(corrupt(format!("{:?} stands under {:?}", row.key(), drover_keys::escape(key))));
    }
    Ok(row)
}

fn decode_row(row: Row) -> Result<CatalogRow, String> {
    Ok(match row {
        Row::Meta(meta) => CatalogRow::Meta(Box::new(decode_meta(meta)?)),
        Row::Route(route) => CatalogRow::Route(decode_route(route)?),
        Row::Delta(delta) => CatalogRow::Delta(Arc::new(RouteDelta {
            version: CatalogVersion(delta.version),
            removed: delta.removed.into_iter().map(RouteId).collect(),
            upserted: decode_routes(delta.upserted)?,
        })),
        Row::Node(node) => CatalogRow::Node(decode_node(node)?),
        Row::RemovedNode(node) => CatalogRow::RemovedNode(RemovedNode {
            id: NodeId(node.node_id),
            store: match node.store_id.is_empty() {
                true => None,
                false => Some(StoreId(sixteen("the data directory's id", &node.store_id)?)),
            },
            at: time(node.at_ms)?,
        }),
        Row::Group(group) => CatalogRow::Group(decode_group(group)?),
        Row::Audit(event) => CatalogRow::Audit(Arc::new(AuditEvent {
            seq: event.seq,
            at: time(event.at_ms)?,
            actor: event.actor,
            action: event.action,
            subject: event.subject,
            details: event.details,
        })),
        Row::Request(request) => CatalogRow::Request(Arc::new(RequestRecord {
            seq: request.seq,
            id: RequestId(sixteen("the request id", &request.request_id)?),
            fingerprint: u128::from_be_bytes(sixteen("the fingerprint", &request.fingerprint)?),
            reply: reply::decode(request.reply)?,
        })),
        Row::Job(job) => CatalogRow::Job(Arc::new(job::decode(job)?)),
    })
}

fn encode_meta(meta: &Meta) -> pb::CatalogMeta {
    pb::CatalogMeta {
        settings: Some(encode_settings(&meta.settings)),
        bootstrap: meta.bootstrap.to_be_bytes().to_vec().into(),
        version: meta.version.0,
        revision: meta.revision,
        next_route: meta.next_route.0,
        next_shard: meta.next_shard.0,
        next_group: meta.next_group.0,
        next_node: meta.next_node.0,
        next_audit: meta.next_audit,
        next_request: meta.next_request,
        clock_ms: meta.clock.unix_ms(),
        cluster_version: meta.cluster_version.map(encode_version),
        high_water: Some(encode_version(meta.high_water)),
        freeze: meta.freeze.as_ref().map(encode_freeze),
        jobs_begun: meta.next_job.0 - 1,
    }
}

fn decode_meta(meta: pb::CatalogMeta) -> Result<Meta, String> {
    Ok(Meta {
        settings: decode_settings(meta.settings)?,
        bootstrap: u128::from_be_bytes(sixteen("the bootstrap's fingerprint", &meta.bootstrap)?),
        version: CatalogVersion(meta.version),
        revision: meta.revision,
        next_route: RouteId(meta.next_route),
        next_shard: ShardId(meta.next_shard),
        next_group: GroupId(meta.next_group),
        next_node: NodeId(meta.next_node),
        next_job: JobId(meta.jobs_begun.checked_add(1).ok_or("there are too many jobs")?),
        next_audit: meta.next_audit,
        next_request: meta.next_request,
        clock: time(meta.clock_ms)?,
        cluster_version: decode_known_version(meta.cluster_version)?,
        high_water: decode_version(meta.high_water)?,
        freeze: meta.freeze.map(decode_freeze).transpose()?,
    })
}

fn encode_node(node: &NodeEntry) -> pb::CatalogNode {
    let presence = |presence: &Presence| pb::NodePresence {
        store_id: presence.store.0.to_vec().into(),
        version: Some(encode_version(presence.version)),
        capabilities: presence.capabilities.iter().cloned().collect(),
        renewed_ms: presence.renewed.unix_ms(),
        serving_since_ms: presence.serving_since.map(|since| since.unix_ms()),
    };
    pb::CatalogNode {
        node_id: node.id.0,
        address: node.address.clone(),
        admin_address: node.admin_address.clone(),
        draining: node.draining,
        presence: node.presence.as_ref().map(presence),
    }
}

fn decode_node(node: pb::CatalogNode) -> Result<NodeEntry, String> {
    let presence = |presence: pb::NodePresence| -> Result<Presence, String> {
        Ok(Presence {
            store: StoreId(sixteen("the data directory's id", &presence.store_id)?),
            version: decode_version(presence.version)?,
            capabilities: set("the capabilities", presence.capabilities)?,
            renewed: time(presence.renewed_ms)?,
            serving_since: presence.serving_since_ms.map(time).transpose()?,
        })
    };
    Ok(NodeEntry {
        id: NodeId(node.node_id),
        address: node.address,
        admin_address: node.admin_address,
        draining: node.draining,
        presence: node.presence.map(presence).transpose()?,
    })
}

#[cfg(test)]
mod tests;
