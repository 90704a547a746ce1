//! Nodes that talk to each other over real sockets.

mod calls;
mod endpoint;
mod garbage;
mod handshake;
mod memory;
mod node;
mod proxy;
mod raft;
mod snapshots;
mod streams;
