//! Nodes that talk to each other over real sockets.

#![allow(clippy::unwrap_used, reason = "a step that fails fails its test")]

mod calls;
mod endpoint;
mod garbage;
mod handshake;
mod leaving;
mod memory;
mod node;
mod proxy;
mod raft;
mod snapshots;
mod streams;
