//! Transactions: what a coordinator does with a commit, with locks that stand in the way, and with what it is asked about.

mod commit;
mod held;
mod inspect;
mod plan;
mod resolve;

pub use held::Held;
pub use inspect::{LockSweep, PreparedTxn};
pub use resolve::{LockStep, Resolution};
