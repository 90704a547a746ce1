//! Tests over whole nodes, and the list of everything that reads foreign bytes.
//!
//! # Model
//!
//! - `tests/` starts real `drover server` processes (through `drover-testkit`), breaks them and looks at what clients see.
//! - [`decoders`] names every function that turns bytes from a disk, a peer, a client or a person into values. Each is
//!   run on its seeds and on mutations of them by `tests/decoders.rs`, and for longer by the targets in `fuzz/`.
//!
//! # Invariants
//!
//! - No bytes make a decoder panic.
//! - What a decoder accepts, its encoder writes so that it is accepted again as the same value.

pub mod decoders;
