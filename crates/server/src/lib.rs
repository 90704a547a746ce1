//! The composition root: everything a node is made of that is not protocol.
//!
//! # Model
//!
//! [`config::Config`] (file, variables, flags) and [`datadir::DataDir`] (locked, with an identity) go into [`node::run`], which
//! builds the node from the lower layers and serves until [`lifecycle::Shutdown`] says to stop. Around it stand the watch over
//! free space ([`disk`]), health and metrics over HTTP ([`admin`], [`metrics`]), and the ports ([`listen`]).
//!
//! # Formats
//!
//! The identity file of the data directory (`datadir/identity.rs`). Everything else on disk belongs to lower layers.
//!
//! # Invariants
//!
//! - Nothing is opened, created or locked before the whole configuration has been checked.
//! - Nothing of a data directory is read before it is locked and its identity has been compared with the configuration.
//! - A panic anywhere ends the process.
//!
//! Knows nothing of the command line: that is the binary's.

pub mod admin;
pub mod config;
pub mod datadir;
pub mod disk;
pub mod durable;
#[doc(hidden)]
pub mod fuzzing;
pub mod lifecycle;
pub mod listen;
pub mod metrics;
pub mod node;
pub mod services;
