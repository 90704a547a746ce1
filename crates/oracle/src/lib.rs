//! The timestamp oracle: one source of strictly increasing timestamps, on the leader of the default group.
//!
//! # Model
//!
//! The leader issues timestamps from memory, up to a *ceiling*: a physical time that is committed through the default
//! group's log and renewed about once a second, up to three seconds ahead. A new leader first commits a ceiling of its
//! own term, above the last one, and issues strictly above the last one: so no timestamp is issued twice whatever was
//! lost with the old leader. (The scheme of Google Percolator's and TiKV's oracles, with Raft in the place of the
//! store that keeps the ceiling.)
//!
//! # Invariants
//!
//! - A timestamp is issued only after a proof of leadership that was begun after the request arrived.
//! - The physical half of an issued timestamp is at or below a ceiling that is applied in the issuer's own term.
//! - A wall clock that jumps back is ignored; one that jumps ahead moves the ceiling by at most a configured step.
//! - A caller gets timestamps only from a request that was sent after it asked.
//!
//! [`OracleCore`] decides and knows no clock, log or network; [`Oracle`] drives it; [`OracleClient`] is how the rest of
//! a node asks.

mod client;
mod core;
mod service;

pub use client::{OracleClient, OracleNetwork};
pub use core::{CoreError, OracleCore};
pub use service::{Oracle, OracleOptions, OracleStats};
