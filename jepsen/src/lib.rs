//! Starts a real cluster, drives it, breaks it, heals it, reads everything once more, and decides whether what clients saw could
//! have happened.
//!
//! # Model
//!
//! - [`net`]: a network namespace for each node, or loopback with proxies; what is wrong with the network is a value.
//! - [`cluster`]: the nodes' processes.
//! - [`workload`]: what clients ask, drawn from a seed, and what comes of it.
//! - [`nemesis`]: what breaks meanwhile; each action is installed, skipped or unclear.
//! - [`routes`], [`ownership`]: who owned what, by the maps that nodes showed and by what they wrote into their logs.
//! - [`event`], [`edn`]: the history in Jepsen's format.
//! - [`check`], [`judge`]: verdicts. Pure; `drover-jepsen check` repeats them.
//! - [`matrix`], [`selftest`]: tables of runs; and runs that must be found wrong.
//!
//! # Invariants
//!
//! - The cluster is touched through the public client, its processes, and the operating system alone.
//! - A check that gave up, or had nothing to judge, is no pass. Neither is a run whose fault never happened.
//! - Everything a run made is removed at its end; what a killed one left, at the start of the next.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

pub mod check;
pub mod cluster;
pub mod disk;
pub mod edn;
pub mod event;
pub mod judge;
pub mod matrix;
pub mod nemesis;
pub mod net;
pub mod ownership;
pub mod plot;
pub mod preload;
pub mod routes;
pub mod run;
pub mod selftest;
pub mod serve;
pub mod timeline;
pub mod workload;

/// Tells people what goes on, beside the answer.
pub fn say(text: &str) {
    eprintln!("{text}");
}
