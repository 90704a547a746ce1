//! One replica of a Raft group: lifecycle, write pipeline, read door.
//!
//! # Model
//!
//! A [`Group`] joins openraft, the group's part of the node's log and its state machine. While the replica leads it
//! holds a [`Leadership`]: the term and the registry of pending writes. Writes go through the proposer (register, ask
//! the oracle, propose in timestamp order, answer when applied); reads go through one door (proof of leadership, wait
//! for pending writes, judge gates and data from one snapshot).
//!
//! # Invariants
//!
//! - A key is registered before the timestamp of its write is asked for, and stays registered until this replica has
//!   applied the entry or it is certain that nothing was or will be proposed.
//! - Entries whose timestamps this leader asked for stand in the log in timestamp order.
//! - Nothing in memory outlives the leadership it was made in; a proof that names another term does not count.
//! - A replica with a history takes no part in its group for a lease and a margin after it starts, and a leader does not
//!   resume its term.
//! - The members of the group change only towards what the catalog says at that moment, and one voter at a time.
//! - A request for a range that is about to be activated here waits for that before it proves anything: what it is told
//!   then is judged from the start.
//! - Writers are slowed down before they are admitted, never in apply, and only for as long as somebody says so again.
//! - No lease is trusted that openraft's linearizer did not confirm after the request arrived.
//!
//! Knows nothing of the wire, routes, other groups, or how a request reached it.

mod arrival;
mod catalog;
mod duties;
mod group;
mod leadership;
mod membership;
mod moving;
mod options;
mod pending;
mod proposer;
mod read;
mod stats;
mod suspend;
mod throttle;
mod timestamps;

pub use duties::{GrantSource, granted};
pub use group::{Group, GroupParts, GroupRaft, OpenError};
pub use leadership::Leadership;
pub use membership::ReplicaPlan;
pub use options::GroupOptions;
pub use pending::{Footprint, PendingRegistry, PendingWrite, Ticket};
pub use stats::{GroupStats, GroupStatsSnapshot};
pub use suspend::{ClockLead, clock_lead};
pub use timestamps::{SharedTimestamps, TimestampSource};
