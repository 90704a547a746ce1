//! The part of every node that takes a client's request to the groups that own its keys.
//!
//! # Model
//!
//! A request is checked against the limits once, where it enters. A single-key operation goes to the group that the
//! route map names, stamped with the map's version; a scan or a multi-key read takes a timestamp from the oracle first
//! and then visits the groups in key order at that snapshot. Each attempt goes to the node that is believed to lead;
//! what comes back is judged by one pure function ([`retry::decide`]) that knows when another attempt is safe. A group
//! that refuses because it does not own what was asked of it, or because the map was too old, makes the coordinator wait
//! for a newer map ([`RouteCache`]) and route the operation anew: each attempt carries the version of its own routing.
//! New writes to a range that is held back while it moves wait in one bounded queue ([`parking`]).
//!
//! # Formats
//!
//! Resume tokens of scans and range deletes (see `cursor`): a version byte, a hash of the request they belong to, the
//! snapshot, the next key, and a checksum.
//!
//! # Invariants
//!
//! - Unknown is sticky: once an attempt of a write may have been logged, only an answer from apply makes the result
//!   definite; and a write without an idempotency key is never sent again after such an attempt.
//! - A read timestamp that comes from a client is checked here, against what the oracle has issued.
//!
//! Knows nothing of storage, Raft's log, or gRPC.

mod answer;
mod coordinator;
pub mod cursor;
mod directory;
mod dispatch;
mod hold;
mod job_board;
mod options;
pub mod parking;
mod reads;
mod retry;
mod route_cache;
mod routing;
mod scan;
pub mod txn;
mod writes;

pub use answer::Answer;
pub use coordinator::Coordinator;
pub use directory::{GroupDirectory, Replica};
pub use dispatch::{Attempts, CallError, Dispatcher};
pub use hold::hold_if_asked;
pub use job_board::JobBoard;
pub use options::CoordinatorOptions;
pub use parking::{Parking, ParkingEvent, ParkingLimits, ParkingObserver};
pub use retry::{Failure, Repeat, is_misrouted};
pub use route_cache::RouteCache;
