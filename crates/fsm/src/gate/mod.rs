//! The gates: what turns an operation away, each a pure function in a file of its own with the table of its cases.
//!
//! | gate | judges | answer |
//! |---|---|---|
//! | [`owner`] | whether the group owns all of the footprint, and keeps it | `RouteMoved`, `CutoverPending` |
//! | [`idempotency`] | whether the operation has been answered, settled or forgotten | the first answer, `Idempotency…` |
//! | [`composed`] | by which map the operation was routed | `StaleRoute` |
//! | [`fence`] | whether the range is about to change hands | `RouteFenced` |
//! | [`floor`] | whether the commit timestamp is above all that has been served | `TimestampTooLow` |
//! | [`conditions`] | foreign locks, and what a compare-and-set expects | `Locked`, a failed compare |
//! | [`txn`] | steps of transactions: recorded outcomes, the age of the snapshot, locks, the read set | the outcome, `Txn…`, `Locked`, `Conflict` |
//!
//! Apply calls them in this order; nothing in here reads anything but its arguments.

pub mod composed;
pub mod conditions;
pub mod fence;
pub mod floor;
pub mod idempotency;
pub mod owner;
pub mod txn;
