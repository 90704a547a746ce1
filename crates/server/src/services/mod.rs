//! The gRPC services that clients use, over the coordinator.

mod cluster;
mod distribution;
mod front;
mod kv;
mod session;

pub use cluster::ClusterService;
pub use distribution::DistributionService;
pub use front::{Front, FrontParts, disk_full};
pub use kv::KvService;
