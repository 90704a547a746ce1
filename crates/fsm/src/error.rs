//! What can go wrong below the answers: fatal errors of apply, and errors of the read door.

use std::io;

use drover_kv::{Error, Reason, Refusal};
use drover_mvcc::StoreError;

use crate::state::InvalidState;

/// Apply cannot go on. Nothing of the batch was written; the replica must stop, because to guess or skip would let it
/// differ from the others.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// RocksDB failed or its content is damaged.
    #[error("the replica's store failed: {0}")]
    Store(#[from] StoreError),
    /// The entry has a format that this build does not know.
    #[error("entry at log index {index} has format {format}, this build knows up to {known}; upgrade this node")]
    UnknownFormat { index: u64, format: u32, known: u32 },
    /// The entry is of a type that this build does not know.
    #[error("entry at log index {index} is of a type that this build does not know; upgrade this node")]
    UnknownEntry { index: u64 },
    /// The entry's bytes are not a command.
    #[error("entry at log index {index} cannot be read: {what}")]
    BadEntry { index: u64, what: String },
    /// Something stored is not what this crate writes.
    #[error("stored {what} cannot be read: {why}; the replica has to be rebuilt from another one")]
    Corrupt { what: &'static str, why: String },
    /// A state came out of apply that must not exist. A defect.
    #[error("apply would break an invariant of the group's state: {0}")]
    Invalid(#[from] InvalidState),
}

impl From<ApplyError> for io::Error {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Store(_) => io::Error::other(error),
            ApplyError::UnknownFormat { .. } | ApplyError::UnknownEntry { .. } => {
                io::Error::new(io::ErrorKind::Unsupported, error)
            }
            ApplyError::BadEntry { .. } | ApplyError::Corrupt { .. } | ApplyError::Invalid(_) => {
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
        }
    }
}

/// Why a read has no answer. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// A gate turned it away.
    Refused(Refusal),
    /// Everything else.
    Failed(Error),
}

impl From<Refusal> for ReadError {
    fn from(refusal: Refusal) -> Self {
        ReadError::Refused(refusal)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        ReadError::Failed(Error::definite(
            Reason::ReplicaStopped,
            format!("the replica's store failed: {error}; nothing was changed, ask another replica"),
        ))
    }
}

impl From<ApplyError> for ReadError {
    fn from(error: ApplyError) -> Self {
        ReadError::Failed(Error::definite(Reason::ReplicaStopped, format!("{error}; nothing was changed")))
    }
}
