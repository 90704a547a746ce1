//! The route catalog as a value: which group serves which interval of route keys, at one version.
//!
//! # Model
//!
//! A [`RouteMap`] is an immutable snapshot: routes in key order that tile the whole route-key space, and the catalog
//! version they stand for. Coordinators look keys up in it and stamp what they send with its version. A [`RouteDelta`]
//! leads from one version to the next.
//!
//! # Invariants
//!
//! - Routes tile the key space: the first starts at the empty key, each starts where the one before ends, the last is
//!   unbounded. No other value of the type can be made.
//! - Route ids are unique within a map. Routes may share a shard; a shard belongs to one group.
//!
//! Knows nothing of time, storage, the wire, or which node leads a group.

mod routes;

pub use routes::{DeltaError, Route, RouteDelta, RouteMap, RouteMapError, RouteState};
