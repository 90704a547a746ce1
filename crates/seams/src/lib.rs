//! The places at which a simulation takes the place of the machine: work that blocks, and connections.
//!
//! # Model
//!
//! A simulation runs all nodes on one thread and calls [`simulate`] once, before it starts the first. From then on
//! [`blocking`] runs work where it is called instead of on a thread of its own, and [`net`] connects over the network that was
//! given instead of TCP. The product never calls it: there each of these functions is the one of tokio or tonic that it
//! stands for, behind one load of an atomic.
//!
//! What can be handed to a node when it is composed is not here: the wall clock, the log and the ports come with
//! `drover_server::node::Surroundings`. The monotonic clock and randomness are replaced below the standard library
//! (`sim/src/machine.rs`).
//!
//! Knows nothing of what is computed, sent or stored.

pub mod blocking;
pub mod net;

use std::sync::{Arc, OnceLock};

use net::Network;

static NETWORK: OnceLock<Arc<dyn Network>> = OnceLock::new();

/// Lets this process simulate, for good: nothing leaves the calling thread, and connections go over `network`.
///
/// # Panics
/// If it simulates already.
pub fn simulate(network: Arc<dyn Network>) {
    assert!(NETWORK.set(network).is_ok(), "a process simulates once");
}

/// Whether this process simulates.
pub fn is_simulated() -> bool {
    simulated().is_some()
}

/// The network of the simulation, if this process simulates.
pub fn simulated() -> Option<&'static Arc<dyn Network>> {
    NETWORK.get()
}
