//! The client library: what an application links to talk to a Drover cluster.
//!
//! # Model
//!
//! A [`Client`] knows a few *endpoints* and learns the rest: which groups own which keys and which node leads each
//! group. Any node accepts any request and passes it on, so what the client believes about leaders is only a guess
//! that saves a hop; it is corrected by the hint in every answer. A client that was told to use
//! [only its endpoints](ClientBuilder::only_these_endpoints) always lets them pass its requests on.
//!
//! ```text
//! Client ── drive (retry loop) ── decide (pure) ─┐
//!    │                                           └ Retry after … | Fail with …
//!    ├─ Topology   key → group → believed leader → Node     (immutable snapshot, leaders are atomics)
//!    └─ Node       one HTTP/2 connection, one Session
//!         └─ Session   one bidirectional stream: calls are queued, packed into messages, matched by id
//! ```
//!
//! Per node there is one connection and over it one `Kv.Session` stream. The stream's sending half is polled by the
//! connection itself: whenever the network can take more, everything that queued up meanwhile leaves in one message.
//! Batches therefore grow under load and are single calls without it; nothing waits for a batch to fill. (The idea is
//! that of TiKV's `BatchCommands`.)
//!
//! # What an error means
//!
//! Every error is a [`drover_kv::Error`] with a [`Certainty`](drover_kv::Certainty). *Definite*: nothing happened and
//! nothing will. *Unknown*: it may have happened or may still happen. Unknown is sticky: once one attempt of a write
//! has ended without an answer, only an answer that comes from apply ends the write definitely; a later refusal does
//! not.
//!
//! # Retries and idempotency
//!
//! A write that may be sent more than once carries a random 16-byte idempotency key and a `not_after` timestamp, the
//! same for all its attempts, so it applies at most once. Keeping a record per write costs the servers something, so
//! the key is left out where it buys nothing: with [`RetryPolicy::max_attempts`] of one, and with
//! [`Idempotency::Off`](IdempotencyKeys::Off), where an attempt with an unknown outcome is final.
//!
//! The client does not know the cluster's time. It takes the later of its own wall clock and the latest timestamp any
//! answer carried, and adds the deadline and a margin ([`ClientBuilder::settle_window`], two minutes by default). The
//! margin is how far the local clock may lag behind the cluster's before writes are refused with
//! `IDEMPOTENCY_EXPIRED`, and how long after the deadline an unknown outcome can still be settled.
//!
//! # Invariants
//!
//! - A call ends by its deadline, whatever the network does.
//! - A call that was not handed to the network is never reported as unknown; one that was, and got no answer, always is.
//! - Reads never end unknown: they change nothing.
//!
//! Knows nothing of Raft, storage or how a node finds the owner of a key.

mod builder;
mod client;
mod cluster;
mod drive;
mod jobs;
mod membership;
mod node;
mod range_delete;
mod refresh;
mod request;
mod retry;
mod routes;
mod scan;
mod session;
mod topology;
mod txn;

pub use builder::{ClientBuilder, IdempotencyKeys};
pub use client::{BatchGot, Client, CompareAndSet, Settled, WriteAnswer, WriteOptions};
pub use cluster::{DigestComparison, Leadership};
pub use drover_hlc::Timestamp;
pub use drover_keys::{CatalogVersion, ClusterId, End, GroupId, Interval, JobId, NodeId, RouteId};
pub use drover_kv::{
    Certainty, Entry, Error, Expectation, Idempotency, Limits, Reason, ScanLimits, TxnId, Update, Versioned, WriteKind,
};
/// The messages in which nodes describe themselves, as generated from `drover/v1/cluster.proto`.
pub use drover_wire::proto::v1::{
    AuditEvent, CompatFreeze, CompatResponse, GetRouteOwnershipResponse, GetStatusResponse as ClusterStatus, GroupInfo,
    GroupReplica, MovePlan, MoveRefusal, NodeRoom, NodeStatus, Ownership, RegisteredNode, ReplicaDigest, ReplicaStatus,
    Route, RouteDelta, RouteEvent, RouteSnapshotPart, SoftwareVersion, SplitJob, SplitJobFailure, SplitJobPause,
    SplitJobProgress, SplitJobStatus, SplitRangeResponse, compat_response::Outcome as CompatOutcome,
    group_replica::State as ReplicaState, replica_status::Role, route::State as RouteState,
    route_event::Event as RouteEventKind, split_job::Phase as JobPhase,
};
pub use jobs::{JobAction, JobFilter, JobWatch, MoveRequest, MoveWhat, has_ended};
pub use membership::{CompatAction, NewNode};
pub use range_delete::RangeProgress;
pub use retry::{Class, Decision, History, RetryPolicy, decide};
pub use routes::{RouteWatch, Routes};
pub use scan::{Page, Scan, ScanQuery};
pub use txn::{PreparedTransaction, Snapshot, Transaction, TransactionContents, TransactionOptions, TransactionStatus};
