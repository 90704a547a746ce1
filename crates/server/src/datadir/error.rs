use std::io;
use std::path::{Path, PathBuf};

use super::identity::IdentityError;

/// Why a data directory is not opened. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error(
        "the directory {} is in use{}; stop that process, or use another directory",
        root.display(),
        user.as_ref().map(|user| format!(" by process {user}")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        root: PathBuf,
        /// Process id of its user, as far as known.
        user: Option<String>,
    },
    /// It belongs to someone else, or cannot be understood.
    #[error("the data directory {} is refused: {source}; nothing was changed", root.display())]
    Identity {
        /// The directory.
        root: PathBuf,
        /// Why.
        source: IdentityError,
    },
    /// It is not empty and holds no identity.
    #[error(
        "the data directory {} holds {found:?} but no identity file: it was not made by drover, or is damaged; use an empty \
         directory (if a node lost its identity, replace the node by a new one); nothing was changed",
        root.display()
    )]
    NoIdentity {
        /// The directory.
        root: PathBuf,
        /// Something that is there.
        found: String,
    },
    /// It is a node's already.
    #[error(
        "the data directory {} belongs to a node already: start that node, or use an empty directory; nothing was changed",
        root.display()
    )]
    Taken {
        /// The directory.
        root: PathBuf,
    },
    /// Something stands where only stores of groups may.
    #[error("{} is not the store of a group; move it away; nothing was changed", path.display())]
    Foreign {
        /// What it is.
        path: PathBuf,
    },
    /// The file of replicas cannot be used.
    #[error(
        "{}: {what}; restore it from the same directory, or replace the node by a new one; nothing was changed",
        path.display()
    )]
    Replicas {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The Raft log is gone.
    #[error(
        "the Raft log of this node is missing: there is none in {} (or its file DURABLE is gone), and its replicas may have voted \
         and acknowledged writes; put the folder back as it was, or replace the node by a new one; nothing was changed",
        path.display()
    )]
    LogLost {
        /// Where it was.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

impl DataDirError {
    pub(super) fn identity(root: &Path, source: IdentityError) -> Self {
        Self::Identity { root: root.to_owned(), source }
    }
}
