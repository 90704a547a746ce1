//! The state of one group replica on disk: versions of rows, locks, records and control state, in one RocksDB.
//!
//! # Model
//!
//! A [`StoreEnv`] holds what the stores of a node share (block cache, memtable budget, threads). [`StoreEnv::open`] gives
//! the [`GroupStore`] of one group. The state machine writes through a [`Batch`], one at a time, which sees its own
//! writes and is written as a whole together with the applied log id. Readers take a [`StoreSnapshot`].
//!
//! # Formats
//!
//! Five column families, each keyed by shard first except the control state:
//!
//! ```text
//! data     drover_keys::DataKey                                   value header, expiry, bytes (see `value`)
//! locks    shard | memcomparable(route_key) | family | suffix'    opaque
//! records  shard | memcomparable(route_key) | kind | name         opaque
//! meta     one tag byte                                           store format, applied state, group state, catalog
//! tracker  shard | job | number                                   row of a moving interval that was written meanwhile
//! ```
//!
//! Beside them lies a file `FORMAT`. The design record is `docs/design/0001-storage-format.md`.
//!
//! # Invariants
//!
//! - There is no write-ahead log here. A crash, and closing, forgets what came after some atomic flush: all of it, over
//!   all families, applied state included. The Raft log is replayed from there, and may be purged only behind
//!   [`GroupStore::durable_applied_state`].
//! - Garbage collection uses safe points that a crash cannot forget, and removes nothing that a read at or above them, or
//!   the digest, could tell (see `gc`).
//! - Every block is checked against its checksum when it is read. Bad bytes are a [`StoreError::Corruption`], never a
//!   panic and never a wrong answer.
//! - Control state has families of its own: no key of a user reaches it, whatever its bytes.
//!
//! Knows nothing of ownership, clocks, Raft, protobuf or the network; what it stores for the state machine is opaque
//! bytes. Expiry is stored here and judged by callers.

mod batch;
mod bounds;
mod checkpoint;
mod cursor;
mod digest;
mod engine;
mod env;
mod error;
mod export;
mod format;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod install;
mod lock;
mod meta;
mod record;
mod retention;
mod row;
mod scan;
mod snapshot;
mod stats;
mod store;
mod strays;
mod tracker;
mod value;
mod view;

pub use batch::Batch;
pub use checkpoint::{CheckpointInfo, inspect_checkpoint};
pub use digest::{Digest, DigestScope};
pub use env::{StoreEnv, StoreEnvOptions};
pub use error::StoreError;
pub use export::{ExportBudget, Portion, Summing, TrackedPortion};
pub use gc::{GcRule, GcRules};
pub use lock::LockVisit;
pub use meta::MetaKey;
pub use record::{RecordKind, RecordPlace, RecordRow};
pub use row::{BadRow, RawRow, RowKind, RowSum};
pub use snapshot::StoreSnapshot;
pub use stats::StoreStats;
pub use store::GroupStore;
pub use tracker::Tracking;
pub use value::Stored;
