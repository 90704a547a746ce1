//! What tests, the demonstration and benchmarks share: a cluster of real processes, workloads over the public client,
//! and checkers that decide whether what clients saw could have happened.
//!
//! # Model
//!
//! - [`cluster`]: starts `drover server` processes on loopback ports with data directories of their own, and kills,
//!   stops, drains and restarts them. Everything is waited for by condition and bound, never by sleeping.
//! - [`history`] and [`check`]: a [`Recorder`] takes down what each client asked and saw;
//!   [`check::linearizable`] searches for an order that explains it, and
//!   [`check::timestamps_follow_real_time`] compares commit timestamps with real time.
//! - [`ledger`]: every write that was acknowledged must be found, none that was refused may be.
//! - [`workload`]: closed-loop clients that feed both.
//! - [`nemesis`]: kills and stops nodes meanwhile.
//! - [`mover`] and [`shuttle`]: move ranges meanwhile.
//! - [`terminal`]: a program at a terminal of its own, typed at and read from.
//!
//! # Invariants
//!
//! - A check that could not be finished is a failure.
//! - No child process outlives the test process, however that ends.
//! - Nothing here retries to make a test pass.

pub mod check;
pub mod cluster;
pub mod history;
pub mod ledger;
pub mod mover;
pub mod nemesis;
pub mod shuttle;
pub mod terminal;
pub mod traffic;
pub mod wait;
pub mod workload;

pub use cluster::Cluster;
pub use history::{History, Recorder};
