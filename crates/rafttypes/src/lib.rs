//! The openraft types of this project and their prost forms, shared by the log store, the state machine and the
//! network. Nothing else decides how a vote, log id, entry or membership looks as bytes.
//!
//! # Invariants
//!
//! - A log id is `(term, index)` (standard Raft leader ids): what an entry's term stamp is compared with.
//! - Decoders refuse what the encoders cannot produce; they never panic on foreign bytes.

mod codec;
mod command;
mod config;
mod snapshot;

pub use codec::{
    CodecError, decode_entry, decode_log_id, decode_membership, decode_snapshot_meta, decode_stored_membership,
    decode_vote, encode_entry, encode_log_id, encode_membership, encode_snapshot_meta, encode_stored_membership,
    encode_vote,
};
pub use command::{ApplyReply, CommandBytes, ControlReply};
pub use config::{
    Entry, LogId, Membership, Node, Payload, Responder, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};
pub use snapshot::SnapshotDir;
