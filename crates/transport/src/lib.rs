//! Everything that goes over the network between nodes.
//!
//! # Model
//!
//! A node has one [`PeerPool`]: an address book, and for each peer one HTTP/2 connection that it keeps up by itself. The
//! first call on every new connection is a *handshake*: both sides name their cluster, their node and the identity of
//! their data directory, and remember the peer's in [`PeerIdentities`]; whoever is not what it was taken for is refused.
//! The answer carries a *session*, without which the server takes no further call on that connection.
//!
//! Each connection carries three long-lived *links* (`Internal.Link`): *control* for what is small and urgent (votes,
//! heartbeats, timestamps), *operations* for what is forwarded to groups, and *bulk* for streamed appends, so that the
//! first never stands in line behind megabytes of the others. A link carries the messages of all groups: whatever waits
//! in its bounded queue goes out packed into as few frames as possible. Snapshots go through calls of their own, file by
//! file.
//!
//! The node that opened a connection asks, the other one answers; so between two nodes there are two connections.
//!
//! On the receiving side [`InternalServer`] calls the node back through [`NodeService`], and a group's Raft through
//! [`RaftEndpoint`].
//!
//! # What an error of a call means
//!
//! A call that never left this node fails with [`Sent::NotSent`]: nothing happened. Once a message is in a frame, a
//! lost connection or a deadline gives [`Sent::Unknown`]. A call that times out while it still stands in the queue is
//! taken out of it, so `NotSent` stays true.
//!
//! # Formats
//!
//! Messages are those of `proto/drover/v1/internal.proto`. `PeerIdentities` is a small file of its own (see there).
//! Staged snapshot files are named by their content.
//!
//! # Invariants
//!
//! - Nothing that a peer sends panics. What does not decode, names unknown things or comes in the wrong order gets an
//!   error or ends the stream or connection it came on; other groups and peers go on.
//! - Every queue is bounded, in messages or in bytes. Every wait has a deadline.
//! - A streamed append is answered in the order of its requests, and a response is believed only if it fits a request.
//! - No path a peer names leaves the staging folder.
//!
//! Knows nothing of routes, of what commands mean, or of who should lead.

mod append_stream;
mod backoff;
mod codec;
mod connection;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod identities;
mod inbound;
mod inbound_append;
mod leaving;
mod link;
mod network;
mod options;
mod outbox;
mod peer;
mod pending;
mod pool;
mod rate;
mod server;
mod service;
mod sessions;
mod snapshot;
mod stats;

pub use error::{CallError, EndpointError, Sent};
pub use identities::{IdentityError, PeerIdentities};
pub use network::{GroupNetwork, GroupNetworkFactory};
pub use options::{LeaseTerms, PeerOptions, Tuning};
pub use pool::PeerPool;
pub use rate::RateLimit;
pub use server::{InternalServer, server_builder};
pub use service::{NodeService, RaftEndpoint, Snapshot};
pub use stats::{PeerStats, PeerStatsSnapshot};
