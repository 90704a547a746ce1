//! Routes, maps of them, and the differences between maps.
//!
//! A map keeps its routes in chunks of a few hundred ([`tiles`]). Maps of neighbouring versions share all chunks but
//! the ones that differ, so a delta costs one chunk and the list of chunks, whatever the number of routes.

mod delta;
mod index;
mod map;
mod route;
#[cfg(test)]
pub(crate) mod strategies;
mod tiles;

pub use delta::{DeltaError, RouteDelta};
pub use map::{RouteMap, RouteMapError};
pub use route::{Route, RouteState};
