//! The gRPC services that clients use, over the coordinator.

mod cluster;
mod front;
mod kv;
mod session;

pub use cluster::ClusterService;
pub use front::{Front, FrontParts, disk_full};
pub use kv::KvService;
