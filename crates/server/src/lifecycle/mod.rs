//! How the process begins and ends: log output, panics, open files, signals, drain.

mod drain;
mod logging;
mod panic;
mod rlimit;
mod shutdown;

pub use drain::{Event, Phase, step};
pub use logging::{LoggingError, init_logging};
pub use panic::abort_on_panic;
pub use rlimit::raise_open_files;
pub use shutdown::{Drain, Ended, Shutdown, ShutdownTrigger};

/// Exit status of a process that a second signal ended at once, without drain.
pub const FORCED_EXIT_STATUS: i32 = 130;
