//! The Raft log and the votes of all groups of a node, in one store with one writer.
//!
//! # Model
//!
//! A [`NodeLog`] is opened once per node. [`NodeLog::group`] gives the [`GroupLog`] of a group: what openraft calls a
//! `RaftLogStorage`. Appends, votes, truncations and purges of all groups go, in the order in which they were issued,
//! through one queue to one thread, which writes all that has gathered there as **one batch with one fsync**. While an
//! fsync runs the next batch gathers: the busier the node, the more entries share one.
//!
//! - An entry is readable when `append` returns: it stands in the group's cache. It is durable when openraft's
//!   callback is called. The cache holds the newest entries, and always those that are not durable yet.
//! - The queue is bounded in bytes; a full queue makes `append` wait.
//! - Votes and log share the queue, so they are never reordered. `save_vote` returns when the vote is durable.
//! - `save_committed` stays in memory. It is written with the next append, and only if it then points into the
//!   written log: after a crash it never names an entry that the log does not have.
//! - Any failed write stops the store for good: nothing more is written, every later call is told the cause. What was
//!   reported durable stays so and is found when the node starts again.
//!
//! # Formats
//!
//! Everything stored starts with a format byte; `src/record.rs` describes the rest. Both engines protect each record
//! with a checksum of their own, so there is none here.
//!
//! What belongs to a log is decided by one record per group that is rewritten with every batch: first and last log id
//! and the committed one. Entries outside of this *window* do not exist, whatever the engine still holds. So
//! truncation and purge are one small record, and an engine may bring removed entries back after a crash without harm.
//!
//! # Engines
//!
//! [`EngineKind`] names two: TiKV's raft-engine and RocksDB. `docs/design/0002-log-store.md` tells which one the
//! product uses and why; both pass the same tests. Simulations use a third one, in memory, whose writer is a task:
//! [`NodeLog::in_memory`].
//!
//! # Invariants
//!
//! - Indexes of a group are consecutive. An append that would leave a hole is refused and changes nothing.
//! - A batch is on disk completely or not at all.
//! - Damaged files, and files that were cut off, are an error that names file and place, never a panic and never a shorter
//!   log. What a crash has left of a batch whose fsync never ended was never reported durable, and is dropped; a small file
//!   beside the log (`DURABLE`, `src/engine/mark.rs`) tells it from what was.
//!
//! # What it must never know
//!
//! What a command means, who leads, what has been applied.

mod cache;
mod engine;
mod error;
#[doc(hidden)]
pub mod fuzzing;
#[doc(hidden)]
pub mod gate;
mod group_log;
mod group_state;
mod node_log;
mod options;
mod queue;
mod reader;
mod record;
mod stats;
mod writer;

#[cfg(test)]
mod writer_tests;

pub use engine::MemoryDisk;
pub use error::{LogError, Place};
pub use group_log::GroupLog;
pub use node_log::{LogDir, NodeLog};
pub use options::{EngineKind, LogOptions};
pub use reader::GroupLogReader;
pub use stats::LogStats;
pub use writer::{Delay, Pace};
