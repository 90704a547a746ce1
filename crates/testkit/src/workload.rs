//! Closed-loop clients: each sends its next operation when the last has ended.

mod additions;
mod bank;
mod loader;
mod mixed;
mod pairs;
mod registers;
mod sessions;
mod txns;
mod wide;

pub use additions::{AdditionReport, Additions, Door, Tried};
pub use bank::{Bank, BankReport};
pub use loader::{Load, LoadReport, OnRow};
pub use mixed::{CameTo, Mixed};
pub use pairs::{PairCount, PairReport, Pairs};
pub use registers::{Mix, Registers};
pub use sessions::Sessions;
pub use txns::{Kind, Transactions, TxnRecorder};
pub use wide::Wide;

use drover_kv::Error;
use tokio::task::JoinSet;

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

/// What all tasks came to, in the order in which they ended.
///
/// # Panics
/// If one does.
async fn join<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(came_to) => all.push(came_to),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    all
}
