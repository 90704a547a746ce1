//! The node: everything composed.

use crate::config::Config;
use crate::datadir::DataDir;
use crate::lifecycle::Shutdown;

/// Why a node ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// This build has no node.
    #[error("node composition not built")]
    NotBuilt,
}

/// How a node that was asked to stop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Everything that was begun was finished.
    Drained,
    /// The time for the drain was over, or it was asked a second time.
    CutOff,
}

/// Runs a node until it is asked to stop. `data` stays locked for as long.
///
/// # Errors
/// If it cannot start, or cannot go on.
pub async fn run(config: Config, data: DataDir, shutdown: Shutdown) -> Result<Stopped, NodeError> {
    tracing::error!(node = %config.node.id, data_dir = %data.root().display(), ?shutdown, "no node in this build");
    Err(NodeError::NotBuilt)
}
