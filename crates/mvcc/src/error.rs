//! Why the store failed, in the few kinds that a caller treats differently.

use std::path::{Path, PathBuf};

use drover_keys::escape;

/// Why an operation on a store failed. Unless the kind says otherwise nothing was changed on disk. For a state machine
/// all of these are fatal: the replica stops and tells its operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Bytes on disk are not what was written. Discard this replica's store and let it be rebuilt from its peers.
    #[error(
        "store is corrupt: {message}; nothing was changed; replace this replica: drover group remove-replica, then add-replica"
    )]
    Corruption {
        /// What is wrong; names the file and offset, or the row.
        message: String,
    },
    /// The disk is full. What the failed call wrote is not durable; free space and restart the replica.
    #[error("no space left on the device: {message}; the write is not durable; free space and restart")]
    NoSpace {
        /// RocksDB's or the system's words, with the file.
        message: String,
    },
    /// The disk or file system failed. What the failed call wrote may not be durable; restart the replica.
    #[error("I/O error: {message}; the write, if it was one, may not be durable; check the disk and restart")]
    Io {
        /// RocksDB's or the system's words, with the file.
        message: String,
    },
    /// The store was written by a newer build. Nothing was changed; run that build.
    #[error(
        "{path:?} has store format {found}, this build knows formats up to {known}; run a newer build; nothing was changed"
    )]
    NewerFormat {
        /// The store's directory.
        path: PathBuf,
        /// Format of the store.
        found: u32,
        /// Newest format of this build.
        known: u32,
    },
    /// The directory is not a store, or only a part of one. Nothing was changed.
    #[error("{path:?} is not a store: {message}; nothing was changed")]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// What is missing or foreign.
        message: String,
    },
    /// The store in this directory is still open. Nothing was changed; drop every handle and snapshot of it first.
    #[error("the store in {path:?} is open; nothing was changed; close it and its snapshots first")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// RocksDB refused for another reason: a defect of this build or its options. Nothing was changed.
    #[error("storage engine: {message}; this is a defect, please report it")]
    Engine {
        /// RocksDB's words.
        message: String,
    },
}

impl StoreError {
    /// Whether the bytes on disk are wrong, so that only a new copy helps.
    pub fn is_corruption(&self) -> bool {
        matches!(self, StoreError::Corruption { .. })
    }

    /// Whether the disk is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, StoreError::NoSpace { .. })
    }

    /// A stored row that cannot be read.
    pub(crate) fn bad_row(family: &str, key: &[u8], reason: impl std::fmt::Display) -> Self {
        StoreError::Corruption { message: format!("row {} of {family}: {reason}", escape(key)) }
    }

    /// A failed system call on `path`.
    pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Self {
        let message = format!("{what} {}: {error}", path.display());
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => StoreError::NoSpace { message },
            _ => StoreError::Io { message },
        }
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        classify(error.kind(), error.into_string())
    }
}

/// RocksDB appends strerror(3) to what its file layer reports; its C interface passes on no code.
const DISK_FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "Space limit reached"];

fn classify(kind: rocksdb::ErrorKind, message: String) -> StoreError {
    match kind {
        rocksdb::ErrorKind::Corruption => match cut_off(&message) {
            Some(place) => StoreError::Corruption { message: format!("{place}: {message}") },
            None => StoreError::Corruption { message },
        },
        _ if DISK_FULL.iter().any(|words| message.contains(words)) => StoreError::NoSpace { message },
        rocksdb::ErrorKind::IOError => StoreError::Io { message },
        _ => StoreError::Engine { message },
    }
}

/// File and place of a table file that has another length than it was written with. RocksDB tells both lengths, and then suspects its
/// manifest, which has a checksum.
fn cut_off(message: &str) -> Option<String> {
    let (_, lengths) = message.split_once("Sst file size mismatch between expected ")?;
    let (expected, rest) = lengths.split_once(" and file system ")?;
    let (found, rest) = rest.split_once(" sstable: ")?;
    let file = &rest[..rest.find(".sst")? + ".sst".len()];
    let (expected, found): (u64, u64) = (expected.parse().ok()?, found.parse().ok()?);
    Some(match found < expected {
        true => format!("{file} was cut off at offset {found} of {expected}"),
        false => format!("{file} goes on behind offset {expected}, where it had ended, up to {found}"),
    })
}

#[cfg(test)]
mod tests {
    use rocksdb::ErrorKind;

    use super::*;

    #[test]
    fn a_table_file_that_was_cut_off_is_told_by_its_place() {
        let says = |expected, found| {
            let lengths = format!("between expected {expected} and file system {found}");
            let message = format!(
                "Corruption: Sst file size mismatch {lengths} sstable: /d e/000027.sst The file /d e/MANIFEST-1 may be corrupted."
            );
            classify(ErrorKind::Corruption, message.clone()).to_string().replace(&message, "…")
        };
        assert!(says(90, 40).starts_with("store is corrupt: /d e/000027.sst was cut off at offset 40 of 90: …;"));
        assert!(says(90, 95).starts_with(
            "store is corrupt: /d e/000027.sst goes on behind offset 90, where it had ended, up to 95: …;"
        ));
        for other in [
            "",
            "Sst file size mismatch",
            "Sst file size mismatch between expected x and file system 4 sstable: /1.sst",
        ] {
            assert_eq!(cut_off(other), None);
        }
    }

    #[test]
    fn each_failure_of_the_engine_has_its_kind_and_keeps_its_words() {
        let table = [
            (
                ErrorKind::Corruption,
                "Corruption: block checksum mismatch: stored = 1 in /d/000009.sst offset 0 size 9",
                "corrupt",
            ),
            (
                ErrorKind::IOError,
                "IO error: No space left on device: While appending to file: /d/000009.sst",
                "no space",
            ),
            (ErrorKind::IOError, "IO error: Disk quota exceeded: While fsync: /d/MANIFEST-1", "no space"),
            (ErrorKind::Unknown, "No space: No space left on device: While open", "no space"),
            (
                ErrorKind::IOError,
                "IO error: Input/output error: While pread offset 0 len 9: /d/000009.sst",
                "I/O error",
            ),
            (ErrorKind::InvalidArgument, "Invalid argument: Column families not opened: later", "storage engine"),
        ];
        for (kind, message, words) in table {
            let error = classify(kind, message.to_owned());
            assert!(error.to_string().contains(words) && error.to_string().contains(message), "{error}");
            assert_eq!(error.is_corruption(), words == "corrupt", "{error}");
            assert_eq!(error.is_no_space(), words == "no space", "{error}");
        }
    }
}
