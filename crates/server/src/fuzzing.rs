//! What the fuzz targets run of this crate's private decoders. No part of the API.

use std::collections::BTreeMap;
use std::path::Path;

use drover_keys::{GroupId, ReplicaId};

use crate::config::{Config, Sources};
use crate::datadir::replicas::{decode, encode};
use crate::datadir::{RecordState, ReplicaRecord, parse_nodes, render_nodes};
use crate::services::fuzzing as services;

/// Whether the bytes are a configuration file.
///
/// # Panics
/// If what is wrong cannot be told.
pub fn configuration(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match Config::from_text(Some((Path::new("drover.toml"), text)), &Sources::default()) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

/// Configuration files.
pub fn configurations() -> Vec<Vec<u8>> {
    let small = r#"
[node]
id = 1
data_dir = "d"
[cluster]
id = "0123456789abcdef0123456789abcdef"
[raft]
heartbeat_ms = 50
[bootstrap]
nodes = [{ id = 1, grpc = "127.0.0.1:7400", admin = "127.0.0.1:7401" }]
groups = [{ id = 1, replicas = [1] }]
routes = [{ start = "", end = "m", group = 1 }, { start = "m", group = 1 }]
"#;
    vec![small.into()]
}

/// Whether the bytes are a file of replicas.
///
/// # Panics
/// If what was read is written in another way.
pub fn replica_records(bytes: &[u8]) -> bool {
    let Ok(records) = decode(bytes) else { return false };
    assert_eq!(encode(&records), bytes);
    true
}

/// Files of replicas.
pub fn replica_files() -> Vec<Vec<u8>> {
    use RecordState::{Founding, Gone, Held, Removing};
    let records = [Founding, Held, Removing, Gone].into_iter().zip(1u64..);
    let records = records.map(|(state, n)| (GroupId(n * 300), ReplicaRecord { id: ReplicaId(n), state }));
    vec![encode(&BTreeMap::new()), encode(&records.collect())]
}

/// Whether the bytes are a `nodes` file with an address in it.
///
/// # Panics
/// If what was read does not survive being written and read again.
pub fn nodes(bytes: &[u8]) -> bool {
    let addresses = parse_nodes(bytes);
    assert_eq!(parse_nodes(render_nodes(&addresses).as_bytes()), addresses);
    !addresses.is_empty()
}

/// `nodes` files.
pub fn nodes_files() -> Vec<Vec<u8>> {
    let addresses = ["127.0.0.1:7400".to_owned(), "b.example:2".to_owned()];
    vec![render_nodes(&addresses).into_bytes(), render_nodes(&addresses[1..]).into_bytes()]
}

/// Whether the bytes are a `grpc-timeout` header.
///
/// # Panics
/// If a deadline after that time cannot be told.
pub fn timeout_header(bytes: &[u8]) -> bool {
    services::timeout_header(bytes)
}

/// `grpc-timeout` headers.
pub fn timeout_headers() -> Vec<Vec<u8>> {
    services::timeout_headers()
}

/// Whether the bytes are a request of a call, told apart by the first byte.
///
/// # Panics
/// If a command for the catalog reaches its group as another one.
pub fn unary_request(bytes: &[u8]) -> bool {
    services::unary_request(bytes)
}

/// One request of each call.
pub fn unary_requests() -> Vec<Vec<u8>> {
    services::unary_requests()
}
