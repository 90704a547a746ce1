//! What goes over the wire and onto disk: the generated code of `proto/` and its conversions to and from the domain
//! types of `drover-kv`. No logic.
//!
//! # Model
//!
//! - [`proto`] is the generated code.
//! - [`Request`] is what a client asks for, whatever call or session message it came in; the functions of `answer` turn
//!   domain answers into the messages of `drover.v1`.
//! - [`encode_operation`] and [`decode_operation`] are the form of a write in the log of a group.
//! - [`GroupCall`] and [`GroupAnswer`] are what nodes exchange about one group.
//! - [`error_to_status`] and its three siblings are the one mapping between [`drover_kv::Error`] and gRPC;
//!   [`refusal_to_error`] is the one table from a gate's refusal to an error.
//!
//! # Invariants
//!
//! - Zero stands for "absent" on the wire wherever a message says so, and never leaks into the domain as a number.
//! - An absent `end` is an unbounded interval. An empty `end` is refused, never read as either bound.
//! - Foreign bytes never panic; what no encoder writes is an error that names the field.
//! - A status that this mapping did not make decodes as an error of unknown certainty.
//!
//! Knows nothing of sockets, Raft, storage, clocks or configured limits.

mod answer;
mod base_sum;
mod catalog_refusal;
mod error;
mod group;
mod jobs;
mod operation;
mod range;
mod refusal;
mod request;
mod routes;
#[cfg(test)]
mod strategies;
mod topology;
mod txn;
mod version;

pub use answer::{
    batch_get_response, compare_and_set_response, delete_range_response, delete_response, get_response,
    latest_commit_ts_response, put_response, scan_response, settle_response,
};
pub use base_sum::{decode_base_sum, encode_base_sum};
pub use catalog_refusal::catalog_refusal_to_error;
pub use error::{
    ERROR_DOMAIN, code_of, error_to_status, error_to_status_bytes, status_bytes_to_error, status_to_error,
};
pub use group::{
    CatalogPart, GroupAnswer, GroupCall, GroupDigest, GroupOp, OwnershipFacts, RangeFacts, decode_group_request,
    decode_group_response, encode_group_request, encode_group_response, take_newer_routes,
};
pub use jobs::{decode_job_progress, decode_phase, encode_job, encode_job_progress, encode_phase};
pub use operation::{decode_operation, encode_operation};
pub use range::{WireError, decode_key_range, decode_range, encode_key_range, encode_range};
pub use refusal::refusal_to_error;
pub use request::{CommitRequest, IdempotencyKey, ReadOptions, Request, ScanPageRequest, WriteOptions};
pub use routes::{decode_route, decode_route_delta, encode_route, encode_route_delta};
pub use topology::{decode_topology, encode_replicas, encode_topology};
pub use txn::{decode_attempt, decode_txn_id, decode_update, encode_attempt, encode_txn_id, encode_update};
pub use version::{decode_version, encode_version};

/// Largest message that a client sends and reads, and that a server reads whatever its limits on requests are. They lie far below;
/// what breaks them is refused with the limit in the message, and what breaks this does not leave the client.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;
/// Keys and values of one request, or of one answer, to which a limit may be raised. What stands around them in a message
/// takes less than as much again.
pub const MAX_PAYLOAD_BYTES: usize = MAX_MESSAGE_BYTES / 2;

/// The generated code.
pub mod proto {
    /// Package `drover.v1`: the services.
    #[allow(clippy::all, clippy::pedantic, missing_docs)]
    pub mod v1 {
        tonic::include_proto!("drover.v1");
    }
    /// Packages of what is stored.
    pub mod storage {
        /// Package `drover.storage.v1`: the log and the state machine.
        #[allow(clippy::all, clippy::pedantic, missing_docs)]
        pub mod v1 {
            tonic::include_proto!("drover.storage.v1");
        }
    }
    /// The encoded `FileDescriptorSet` of all of it, for the reflection service.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
