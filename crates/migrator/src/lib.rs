//! Moves ranges between groups: drives the jobs of the catalog, on the leader of the default group.
//!
//! # Model
//!
//! While the replica here leads the default group, each job that has not ended has a [`driver`]. It reads the job, looks at
//! what source and target have durably done, and takes the step that the table of the catalog names
//! ([`drover_catalog::job::next_step`]); then it looks again. It remembers only what it measures: how fast the copy goes, how
//! long commits take, since when a fence stands. So it may die at any point, and whoever leads the default group next goes on.
//!
//! A fence is begun when what it is likely to cost fits the budget of the job ([`projection`]). Rows go from a replica of the
//! source, preferably one that does not lead, through this node to the leader of the target, no faster than the job allows.
//!
//! A copy that does not gain on the writers of its range has them slowed down ([`convergence`], [`brake`]), by a rate that is lent to
//! the leader of the source for a moment at a time. Jobs beyond a number wait for their turn ([`turn`]).
//!
//! # Invariants
//!
//! - No step is taken on what was known before: the job is read behind a proof of leadership, and so are source and target.
//! - Every step names the epoch of the job that was read; a deposed driver is refused by whoever knows a newer one.
//! - An unclear answer is not an answer: the driver looks again.
//!
//! Knows nothing of clients, of the wire's messages, or of how groups apply a step.

mod brake;
mod cluster;
mod convergence;
mod copy;
mod driver;
mod look;
mod measure;
mod migrator;
mod options;
mod portion;
mod projection;
mod report;
mod respawn;
#[cfg(test)]
mod test_job;
mod turn;

pub use cluster::{Cluster, ClusterParts};
pub use migrator::Migrator;
pub use options::MigratorOptions;
