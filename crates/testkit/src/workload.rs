//! Closed-loop clients: each sends its next operation when the last has ended.

mod loader;
mod registers;
mod txns;

pub use loader::{Load, LoadReport, OnRow};
pub use registers::{Mix, Registers};
pub use txns::{Kind, Transactions, TxnRecorder};

use drover_kv::Error;

use crate::history::Ending;
use crate::ledger::Fate;

/// What an error means for a history.
pub fn ending_of(error: &Error) -> Ending {
    if error.is_unknown() { Ending::Unknown } else { Ending::Refused }
}

/// What an error means for a ledger.
pub fn fate_of(error: &Error) -> Fate {
    if error.is_unknown() { Fate::Unknown } else { Fate::Refused }
}
