//! What the fuzz targets run of this crate's private decoders. No part of the API.

use std::collections::BTreeMap;
use std::path::Path;

use drover_keys::{GroupId, ReplicaId};

use crate::config::{Config, Sources};
use crate::datadir::replicas::{decode, encode};
use crate::datadir::{RecordState, ReplicaRecord};

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
