//! The state machine of a group: deterministic apply, and the one door for reads.
//!
//! # Model
//!
//! *Apply* is a pure function: [`apply_batch`] takes the group's replicated [`GroupState`], the data in its store and
//! some log entries, and gives the next state, the effects as one RocksDB batch, and an answer for each entry. Every
//! write passes the gates of [`gate`] in the order that `apply/write.rs` shows.
//!
//! *Reads* go through [`FsmHandle`], whose functions judge gates, locks and rows from one view: a RocksDB snapshot and
//! the state that governs it ([`StateCell`]), and look at the safe point once more after reading. Proof of leadership
//! and waiting for pending writes come before, and are not this crate's business.
//!
//! *The driver*, [`FsmStateMachine`], is openraft's state machine: it cuts the stream of committed entries into batches,
//! writes and publishes each, answers the proposers, and flushes, checkpoints and replaces the store.
//!
//! ```text
//! openraft ──entries──▶ FsmStateMachine ──▶ apply_batch ──▶ gates ──▶ Batch ──commit──▶ GroupStore
//!                              │                                                          │
//!                              └────────────▶ StateCell ◀──────view───── FsmHandle ◀──────┘ reads
//! ```
//!
//! # Formats
//!
//! One file each in [`codec`]: log commands, group state, applied state, idempotency records, and a folder for commands
//! and rows of the catalog. Fingerprints of operations are persisted inside records (`fingerprint.rs`). The folder of a replica is described in `home.rs`.
//!
//! # Invariants
//!
//! - Apply reads the entry, the group's state and its data, and nothing else: no clock, randomness, configuration or other
//!   group (clippy bans them for the whole crate). How the log is cut into batches makes no difference.
//! - What garbage collection may drop changes no decision: a tombstone, an expired version and nothing count alike, and a
//!   version that may be gone lies below a safe point that refuses first.
//! - Effects, state and applied log id are one atomic batch; the log may be purged only behind the last flush.
//! - An entry of an unknown format or type stops the replica. So does everything that cannot be read.
//! - Ownership and safe points never change between the state that a reader judges by and the data that it sees.
//! - A snapshot never takes a replica back, and is what its description says.
//!
//! Knows nothing of leadership, pending writes, the oracle, the network or the Raft log.

mod apply;
mod cell;
pub mod codec;
mod crash;
mod digest;
mod error;
mod fingerprint;
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
mod handle;
mod home;
mod machine;
pub mod moving;
mod ownership;
mod read;
mod state;

pub use drover_mvcc::RecordPlace;

pub use apply::{Body, Committed, DecodedEntry, Prepared, advance_safe_point, apply_batch};
pub use cell::{Current, StateCell, View};
pub use codec::applied::Applied;
pub use codec::catalog::{
    catalog_rows, decode_catalog_command, decode_catalog_reply, decode_catalog_row, encode_catalog_command,
    encode_catalog_reply,
};
pub use codec::command::{Command, Grant, MoveCommand, RecordName, TimedWrite, TxnRecordName};
pub use codec::export::{
    decode_export, decode_exported, decode_import_answer, decode_import_request, decode_move_facts, encode_export,
    encode_exported, encode_import_answer, encode_import_request, encode_move_facts,
};
pub use codec::moving::{decode_move_command, encode_move_command};
pub use crash::{MoveCrash, TxnCrash};
pub use error::{ApplyError, ReadError};
pub use fingerprint::txn_fingerprint;
pub use handle::{FsmHandle, Kept, gc_rules};
pub use home::StoreHome;
pub use machine::{FlushReporter, FsmStateMachine};
pub use ownership::OwnershipChange;
pub use read::{
    At, Bounded, ExpiredRecords, ExpiredTxnRecords, MoveView, PAGE_BYTES, RangeLocks, ReadOutcome, SCAN_BUDGET_BYTES,
    SCAN_BUDGET_ROWS, UnsettledTxn, VERSION_BYTES, ValidationLimits, admit, may_become_visible,
};
pub use state::{GroupState, InvalidState, OracleCeiling, OwnedInterval};
