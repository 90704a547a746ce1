//! Identifiers, keys and intervals: the vocabulary that every other crate shares.
//!
//! # Model
//!
//! A *logical key* is `(route_key, family, suffix)`. The route key alone decides which group owns the row, so every
//! row that belongs to a route, whatever its family, lies in one contiguous [`Interval`] of route keys. A plain
//! key-value pair has [`KeyFamily::PLAIN`] and no suffix.
//!
//! # Physical form
//!
//! ```text
//! data key   = shard (8, BE) | memcomparable(route_key) | family (1) | suffix' | !commit_ts (8, BE)
//! suffix'    = nothing for family 0, memcomparable(suffix) for every other family
//! ```
//!
//! Byte order of physical keys is `(shard, route_key, family, suffix, newest version first)`. The suffix is escaped
//! like the route key: raw, the eight timestamp bytes of a short suffix could sort between the versions of a longer
//! one.
//!
//! # Invariants
//!
//! - An unbounded end is a variant of its own ([`End::Unbounded`]), never an empty slice (the empty key sorts first).
//! - Decoders accept exactly what the encoders produce; everything else is a [`DecodeError`], never a panic.
//!
//! Knows nothing of values, time (timestamps pass through as opaque `u64`), RocksDB or the wire.

mod error;
mod ids;
mod interval;
mod logical;
pub mod memcomparable;
mod physical;
mod text;

pub use error::DecodeError;
pub use ids::{CatalogVersion, ClusterId, GroupId, JobEpoch, JobId, NodeId, ReplicaId, RouteId, ShardId, StoreId};
pub use interval::{End, Interval, IntervalError};
pub use logical::{KeyFamily, LogicalKey};
pub use physical::{DataKey, key_prefix, shard_end, shard_prefix, split_versioned_key};
pub use text::{escape, unescape};
