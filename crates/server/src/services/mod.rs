//! The gRPC services that clients use, over the coordinator.

mod cluster;
mod compat;
mod distribution;
mod front;
pub(crate) mod fuzzing;
mod job_list;
mod jobs;
mod kv;
mod membership;
mod nodes;
mod room;
mod session;
mod txn;
pub mod unread;

pub use cluster::ClusterService;
pub use compat::CompatService;
pub use distribution::DistributionService;
pub use front::{Front, FrontParts, disk_full};
pub use kv::KvService;
pub use nodes::Nodes;
pub use txn::TxnService;
