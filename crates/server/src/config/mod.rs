//! Configuration: a TOML file, environment variables and command line flags, for every setting.
//!
//! # Model
//!
//! [`SECTIONS`] is the one table of settings; its macro also declares the typed [`Config`]. A setting `raft.heartbeat_ms`
//! is `heartbeat_ms` in section `[raft]` of the file, the variable `DROVER_RAFT_HEARTBEAT_MS` and the flag
//! `--raft-heartbeat-ms`. A flag wins over a variable, a variable over the file, the file over the default.
//!
//! # Invariants
//!
//! - A name that is not in the table is refused, in the file, and in the environment if it starts like a section.
//! - Every problem found is reported at once, each with file, line and column, or with the variable or flag. What only follows from
//!   another problem is none: a relation is checked between settings that could be read, and a setting is missing if nothing that
//!   was given may have been meant for it. A file that is not TOML is read no further than to the place
//!   where it is not: what would follow from that cannot be told apart.
//! - A [`Config`] that exists holds together: ranges and relations between settings have been checked.

mod bootstrap;
mod error;
mod read;
pub mod render;
mod rules;
mod table;
mod tiling;
mod value;

use std::path::Path;

pub use bootstrap::{BootstrapGroup, BootstrapNode, BootstrapRoute, RouteSpec};
pub use bytesize::ByteSize;
pub use error::{ConfigError, Origin, Problem};
use read::Reader;
pub use read::Sources;
pub use table::{
    Bootstrap, Cluster, Config, Disk, Limits, Log, Node, Oracle, Raft, SECTIONS, Section, Server, Setting, Storage, all,
};
pub use tiling::TilingError;
pub use value::{Address, Addresses, Kind, LogFilter, LogFormat};

impl Config {
    /// Reads file, variables and flags.
    ///
    /// # Errors
    /// If the file cannot be read, and for everything that is wrong in what was given.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        match &sources.file {
            None => Self::from_text(None, sources),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::Unreadable { path: path.clone(), reason: error.to_string() })?;
                Self::from_text(Some((path, &text)), sources)
            }
        }
    }

    pub(crate) fn from_text(file: Option<(&Path, &str)>, sources: &Sources) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(file, sources);
        let config = Self::read(&mut reader);
        if reader.is_read() {
            config.bootstrap.check(config.node.id, !config.cluster.join.0.is_empty(), &mut reader);
            rules::check(&config, &mut reader);
        }
        let problems = reader.into_problems();
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Wrong(problems)) }
    }

    /// Where clients and other nodes reach this node.
    pub fn advertised_grpc(&self) -> Address {
        let listed = self.bootstrap.node(self.node.id).map(|node| node.grpc.clone());
        self.node.grpc_advertise.clone().or(listed).unwrap_or_else(|| self.node.grpc_listen.into())
    }

    /// Where health and metrics of this node are.
    pub fn advertised_admin(&self) -> Address {
        let listed = self.bootstrap.node(self.node.id).map(|node| node.admin.clone());
        self.node.admin_advertise.clone().or(listed).unwrap_or_else(|| self.node.admin_listen.into())
    }
}

impl Config {
    /// The limits on requests as the domain knows them.
    pub fn request_limits(&self) -> drover_kv::Limits {
        let bytes = |size: ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        drover_kv::Limits {
            key_bytes: bytes(self.limits.key_bytes),
            value_bytes: bytes(self.limits.value_bytes),
            batch_bytes: bytes(self.limits.batch_bytes),
            idempotency_key_bytes: bytes(self.limits.idempotency_key_bytes),
            txn_mutations: number(self.txn.max_mutations),
            txn_reads: number(self.txn.max_reads),
        }
    }
}

/// How much larger than its keys and values the message of a request may be: around a key of one byte stand a tag and a length.
const MESSAGE_TO_PAYLOAD: usize = 4;
/// What stands around one key of a transaction: tags and lengths, an expectation, a time to live.
const AROUND_A_KEY: usize = 64;
/// What stands around a request besides, and the small ones that a client puts into one message with it.
const AROUND_A_REQUEST: usize = 1 << 20;

impl Config {
    /// The largest message that is read from a client. One that keeps to the limits fits, and of one that breaks a limit by less than
    /// as much again it is told which one, and by how much.
    pub fn message_bytes(&self) -> usize {
        let limits = self.request_limits();
        let payload = limits.batch_bytes.saturating_mul(MESSAGE_TO_PAYLOAD);
        let around = limits.txn_mutations.saturating_add(limits.txn_reads).saturating_mul(AROUND_A_KEY);
        payload.saturating_add(around).saturating_add(AROUND_A_REQUEST).min(drover_wire::MAX_MESSAGE_BYTES)
    }

    /// What a move is allowed if whoever begins it does not say.
    pub fn job_options(&self) -> drover_catalog::job::JobOptions {
        let max_bytes_per_second = self.migration.bytes_per_second.0;
        drover_catalog::job::JobOptions { max_bytes_per_second, ..Default::default() }
    }

    /// How ranges are moved.
    pub fn migrator_options(&self) -> drover_migrator::MigratorOptions {
        let migration = &self.migration;
        drover_migrator::MigratorOptions {
            chunk_bytes: usize::try_from(migration.chunk_bytes.0).unwrap_or(usize::MAX),
            share_percent: u32::try_from(migration.share_percent).unwrap_or(u32::MAX),
            jobs_at_once: usize::try_from(migration.jobs_at_once).unwrap_or(usize::MAX),
            slowest_writers: migration.slowest_writers_bytes_per_second.0,
            failed_copy_kept: migration.failed_copy_kept,
            catch_up: migration.catch_up,
            ..drover_migrator::MigratorOptions::default()
        }
    }
}

#[cfg(test)]
mod tests;
