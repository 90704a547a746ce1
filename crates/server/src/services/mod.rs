//! The gRPC services that clients use, over the coordinator.

mod cluster;
mod compat;
mod distribution;
mod front;
pub(crate) mod fuzzing;
mod kv;
mod membership;
mod session;
mod txn;

pub use cluster::ClusterService;
pub use compat::CompatService;
pub use distribution::DistributionService;
pub use front::{Front, FrontParts, disk_full};
pub use kv::KvService;
pub use txn::TxnService;
