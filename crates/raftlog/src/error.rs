use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover_keys::GroupId;

/// Where in the store something was found, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The group it belongs to.
    pub group: Option<GroupId>,
    /// The file.
    pub file: Option<PathBuf>,
    /// Bytes from the start of the file.
    pub offset: Option<u64>,
}

impl Place {
    pub(crate) fn group(group: GroupId) -> Self {
        Self { group: Some(group), ..Self::default() }
    }

    pub(crate) fn file(file: &Path) -> Self {
        Self { file: Some(file.to_owned()), ..Self::default() }
    }

    pub(crate) fn at(file: &Path, offset: u64) -> Self {
        Self { file: Some(file.to_owned()), offset: Some(offset), ..Self::default() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "log of group {group}")?,
            None => f.write_str("log store")?,
        }
        if let Some(file) = &self.file {
            write!(f, ", {}", file.display())?;
        }
        if let Some(offset) = self.offset {
            write!(f, " at byte {offset}")?;
        }
        Ok(())
    }
}

/// Why the log store could not do what it was asked.
///
/// Only [`LogError::Hole`], [`LogError::Purged`] and [`LogError::Removed`] leave the store usable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// Files are damaged or of a newer version. Nothing was changed. Replace this replica from its group.
    #[error("{place}: damaged: {detail}; nothing was changed, replace this replica's data from the other replicas")]
    Corrupt {
        /// Where.
        place: Place,
        /// What was found there.
        detail: String,
    },
    /// What was durable is missing at the end of the log. Nothing that can be read was changed. Replace this replica from its
    /// group.
    #[error(
        "{place}: cut off or damaged: the log ends here with batch {found}, and batch {durable} was durable; nothing that can be \
         read was changed, replace this replica's data from the other replicas"
    )]
    CutOff {
        /// Where it ends.
        place: Place,
        /// The last batch that is there; zero if there is none.
        found: u64,
        /// The last one that was durable.
        durable: u64,
    },
    /// The operating system refused a read or write. A write that fails is not in the log; earlier ones are.
    #[error("{place}: {doing} failed: {source}; what was reported durable still is")]
    Io {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The disk is full. What was being written is not in the log; earlier writes are. Free space and restart the node.
    #[error(
        "{place}: the disk is full: {detail}; the write was not made, earlier ones are safe, free space and restart the node"
    )]
    DiskFull {
        /// Where.
        place: Place,
        /// What the operating system said: the disk, a quota or a limit on files.
        detail: String,
    },
    /// The storage engine failed in another way.
    #[error("{place}: {doing} failed: {detail}; what was reported durable still is")]
    Engine {
        /// Where.
        place: Place,
        /// What was being done.
        doing: &'static str,
        /// What the engine said.
        detail: String,
    },
    /// An earlier write failed, so the store takes no more. Restart the node.
    #[error("the log store has stopped after a failed write, restart the node; the cause: {0}")]
    Stopped(Arc<LogError>),
    /// The store was closed. Nothing was changed.
    #[error("the log store is closed; nothing was changed")]
    Closed,
    /// The group's log was removed from this node through this or another handle. Nothing was changed.
    #[error("log of group {0}: it was removed; nothing was changed, ask the store for the group anew")]
    Removed(GroupId),
    /// The entries do not continue the log. Nothing was changed.
    #[error("log of group {group}: entry {got} does not follow, {expected} is next; nothing was changed")]
    Hole {
        /// The group.
        group: GroupId,
        /// The index that is next.
        expected: u64,
        /// The index that was given.
        got: u64,
    },
    /// The entries to be cut off have been purged. Nothing was changed.
    #[error("log of group {group}: entry {index} has been purged; nothing was changed")]
    Purged {
        /// The group.
        group: GroupId,
        /// The first index that is gone.
        index: u64,
    },
}

impl LogError {
    pub(crate) fn corrupt(place: Place, detail: impl fmt::Display) -> Self {
        Self::Corrupt { place, detail: detail.to_string() }
    }

    pub(crate) fn engine(place: Place, doing: &'static str, detail: impl fmt::Display) -> Self {
        Self::Engine { place, doing, detail: detail.to_string() }
    }

    pub(crate) fn io(place: Place, doing: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { place, detail: source.to_string() }
            }
            _ => Self::Io { place, doing, source: Arc::new(source) },
        }
    }

    /// The same error about a group, if it names none yet.
    pub(crate) fn of_group(mut self, group: GroupId) -> Self {
        match &mut self {
            Self::Corrupt { place, .. }
            | Self::CutOff { place, .. }
            | Self::Io { place, .. }
            | Self::DiskFull { place, .. }
            | Self::Engine { place, .. } => {
                place.group.get_or_insert(group);
            }
            _ => {}
        }
        self
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Corrupt { .. } | LogError::CutOff { .. } => io::ErrorKind::InvalidData,
            LogError::DiskFull { .. } => io::ErrorKind::StorageFull,
            LogError::Io { source, .. } => source.kind(),
            LogError::Hole { .. } | LogError::Purged { .. } => io::ErrorKind::InvalidInput,
            LogError::Removed(_) => io::ErrorKind::NotFound,
            LogError::Engine { .. } | LogError::Stopped(_) | LogError::Closed => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
