//! Transactions: reads at one snapshot, writes kept here until the commit, which sends everything at once.
//!
//! ```text
//! Client::transaction (run) ── Transaction ── commit
//!                                 │    └ merge    rows of the snapshot with own writes on top
//!                                 └ buffer        what was read and is to be written
//! ```

mod buffer;
mod commit;
mod merge;
mod options;
mod run;
mod snapshot;
mod status;
mod transaction;

pub use options::TransactionOptions;
pub use snapshot::Snapshot;
pub use status::{PreparedTransaction, TransactionStatus};
pub use transaction::{Transaction, TransactionContents};
