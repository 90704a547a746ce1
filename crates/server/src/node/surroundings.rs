use std::path::Path;
use std::sync::Arc;

use drover_hlc::WallClock;
use drover_raftgroup::{ClockLead, clock_lead};
use drover_raftlog::{LogError, LogOptions, NodeLog};

use super::{NodeView, SystemClock};

/// Opens the Raft log in a directory.
pub type OpenLog = Box<dyn FnOnce(&Path, LogOptions) -> Result<NodeLog, LogError> + Send>;

/// What a node takes from the machine that it runs on, beside its data directory. What else a simulation replaces is in
/// [`drover_seams`].
pub struct Surroundings {
    /// The wall clock.
    pub wall: Arc<dyn WallClock>,
    /// Tells suspensions of the machine.
    pub clock_lead: ClockLead,
    /// Opens the Raft log.
    pub open_log: OpenLog,
    /// Whether the stores do nothing by themselves ([`drover_mvcc::StoreEnvOptions::in_step`]).
    pub stores_in_step: bool,
    /// Is shown the parts of the node before its replicas are opened.
    pub observe: Box<dyn FnOnce(&NodeView) + Send>,
}

impl Surroundings {
    /// The machine's own.
    pub fn machine() -> Self {
        Self {
            wall: Arc::new(SystemClock),
            clock_lead: clock_lead(),
            open_log: Box::new(NodeLog::open),
            stores_in_step: false,
            observe: Box::new(|_| {}),
        }
    }
}
