//! What the catalog answers.

use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, NodeId};

use crate::job::SplitJob;
use crate::{GroupDescriptor, Route, Version};

/// The answer to a command that was carried out, or had been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogReply {
    /// The cluster exists.
    Bootstrapped {
        /// The first version.
        version: CatalogVersion,
    },
    /// A route was cut in two.
    Split(Box<Split>),
    /// A node is registered.
    Registered {
        /// Its number.
        node: NodeId,
        /// See [`CompatState`].
        cluster_version: Option<Version>,
        /// See [`CompatState`].
        high_water: Version,
    },
    /// A node was heard.
    Heard {
        /// See [`CompatState`].
        cluster_version: Option<Version>,
        /// See [`CompatState`].
        high_water: Version,
    },
    /// A node drains, or no longer does.
    Drain {
        /// Which.
        node: NodeId,
        /// Whether it drains.
        on: bool,
        /// Whether it did otherwise before.
        changed: bool,
    },
    /// A node was removed.
    Removed {
        /// Which.
        node: NodeId,
    },
    /// The replicas of a group, after the command.
    Group(GroupDescriptor),
    /// A job, after the command.
    Job(Box<SplitJob>),
    /// The compatibility state, after the command.
    Compat {
        /// What the command came to.
        outcome: CompatOutcome,
        /// The state.
        state: CompatState,
    },
}

/// The halves of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The version that this made.
    pub version: CatalogVersion,
    /// The half that kept the id.
    pub left: Route,
    /// The half with a new id.
    pub right: Route,
}

/// What a command about compatibility came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompatOutcome {
    /// The version is frozen now.
    Frozen,
    /// It was frozen before, and still is, as the state says.
    AlreadyFrozen,
    /// It is no longer frozen.
    Unfrozen,
    /// Nothing was frozen.
    NothingFrozen,
    /// The state was read.
    Read,
}

/// Which versions of the software the cluster consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompatState {
    /// What every node understands: new entries and formats up to it may be used. `None` until the first nodes have
    /// settled. Never falls, because nodes below [`CompatState::high_water`] are refused.
    pub cluster_version: Option<Version>,
    /// Nodes below it are refused.
    pub high_water: Version,
    /// Why the cluster version does not rise, if somebody said so.
    pub freeze: Option<Freeze>,
    /// By number.
    pub nodes: Vec<CompatNode>,
}

/// A pinned cluster version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// Where it is pinned.
    pub version: Version,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: PhysicalMs,
}

/// What counts of one node for compatibility.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompatNode {
    /// Which.
    pub node: NodeId,
    /// Of the build that was last heard of. `None` if the node never registered.
    pub version: Option<Version>,
    /// Whether it was heard of within the time to live.
    pub live: bool,
    /// Since when it has served without interruption in this version.
    pub serving_since: Option<PhysicalMs>,
}
