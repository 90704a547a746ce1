use drover_catalog::{CatalogRefusal, CatalogReply};
use std::fmt;

use bytes::Bytes;
use drover_kv::OpResult;

/// An encoded `drover.storage.v1.Command`: what a normal log entry holds. It is decoded once, in apply.
#[derive(Clone, PartialEq, Eq)]
pub struct CommandBytes(pub Bytes);

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandBytes({} bytes)", self.0.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What apply answers to the proposer of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyReply {
    /// To a blank or membership entry.
    None,
    /// To a batch of writes: one result for each operation, in their order.
    Writes(Vec<OpResult>),
    /// To every other command.
    Control(ControlReply),
}

/// What apply answers to a command that is not a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlReply {
    /// Applied.
    Done,
    /// There was nothing to change: it had been done before.
    AlreadyDone,
    /// Not applied; the sentence says why. Nothing was changed.
    Refused(String),
    /// The catalog's answer, or why it changed nothing.
    Catalog(Box<Result<CatalogReply, CatalogRefusal>>),
}
