//! The table of all settings. Everything else that knows of settings is made from it: the fields of [`Config`], the
//! arguments of `drover server`, the names of variables, the example file and the reference page.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use drover_keys::{ClusterId, NodeId};

use super::bootstrap::{BootstrapGroup, BootstrapNode, RouteSpec};
use super::read::Reader;
use super::value::{Address, Addresses, Kind, LogFilter, LogFormat, SettingValue};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// `section.field`, as in the file.
    pub path: &'static str,
    /// How a value is written.
    pub kind: Kind,
    /// The value that holds if none is given, as text; `None`: there is none.
    pub default: Option<&'static str>,
    /// A value that makes sense, as it stands in a file; for lists, whole `[[section.field]]` tables.
    pub example: Option<&'static str>,
    /// Whether a value must be given.
    pub required: bool,
    /// Allowed values, in milliseconds, bytes or as plain numbers.
    pub range: Option<RangeInclusive<u64>>,
    /// What it means, one item for each line.
    pub doc: &'static [&'static str],
}

impl Setting {
    /// The section, and the name of the field in it.
    pub fn section_and_field(&self) -> (&'static str, &'static str) {
        self.path.split_once('.').expect("the macro below joins section and field with a dot")
    }

    /// The environment variable that gives a value.
    pub fn variable(&self) -> String {
        format!("DROVER_{}", self.path.replace('.', "_").to_uppercase())
    }

    /// The command line flag that gives a value, without the leading dashes.
    pub fn flag(&self) -> String {
        self.path.replace(['.', '_'], "-")
    }

    /// The meaning as one paragraph.
    pub fn description(&self) -> String {
        self.doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
    }
}

/// A group of settings: one `[section]` of the file.
#[derive(Debug)]
pub struct Section {
    /// Name in the file.
    pub name: &'static str,
    /// What it is about, one item for each line.
    pub doc: &'static [&'static str],
    /// Its settings in the order of the documentation.
    pub settings: &'static [Setting],
}

/// Every setting in the order of the documentation.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The setting called `path`.
pub fn find(path: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.path == path)
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])+
                $name:literal => $field:ident: $ty:ty
                    $(, default $default:literal)? $(, example $example:literal)? $(, range $range:expr)?;
            )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $field: $ty, )+
            }

            impl $Section {
                fn read(reader: &mut Reader<'_>) -> Self {
                    Self { $( $field: reader.take::<$ty>(concat!(stringify!($section), ".", $name)), )+ }
                }
            }
        )+

        /// What a node is told when it starts. A setting `section.name_ms` is the [`Duration`] `section.name`.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        impl Config {
            /// With something else in place of each value that is wrong: the reader knows which.
            pub(super) fn read(reader: &mut Reader<'_>) -> Self {
                Self { $( $section: $Section::read(reader), )+ }
            }
        }

        /// Every section in the order of the documentation.
        pub static SECTIONS: &[Section] = &[$(
            Section {
                name: stringify!($section),
                doc: &[$($section_doc),+],
                settings: &[$(
                    Setting {
                        path: concat!(stringify!($section), ".", $name),
                        kind: <$ty as SettingValue>::KIND,
                        default: optional!($($default)?),
                        example: optional!($($example)?),
                        required: !<$ty as SettingValue>::MAY_BE_ABSENT && {
                            let default: Option<&str> = optional!($($default)?);
                            default.is_none()
                        },
                        range: optional!($($range)?),
                        doc: &[$($doc),+],
                    },
                )+],
            },
        )+];
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What clients can send and read.
const MAX_PAYLOAD: u64 = drover_wire::MAX_PAYLOAD_BYTES as u64;
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const DAY: u64 = 24 * 60 * MINUTE;

settings! {
    /// This process.
    node: Node {
        /// Number of this node, unique in the cluster, never given to another node. The data directory remembers it.
        "id" => id: NodeId, example "1", range 1..=u64::MAX;
        /// Directory for everything that this node stores. Created if it does not exist; one process at a time uses it.
        "data_dir" => data_dir: PathBuf, example "\"/var/lib/drover\"";
        /// Address on which clients and other nodes are served (gRPC).
        "grpc_listen" => grpc_listen: SocketAddr, default "127.0.0.1:7400";
        /// Address by which clients and other nodes reach `grpc_listen`. Without it: the one that `bootstrap.nodes`
        /// gives for this node.
        "grpc_advertise" => grpc_advertise: Option<Address>;
        /// Address on which health and metrics are served (HTTP).
        "admin_listen" => admin_listen: SocketAddr, default "127.0.0.1:7401";
        /// Address by which others reach `admin_listen`. Without it: the one that `bootstrap.nodes` gives for this node.
        "admin_advertise" => admin_advertise: Option<Address>;
    }

    /// The cluster that this node belongs to.
    cluster: Cluster {
        /// Identity of the cluster: 32 hexadecimal digits, chosen at random when it is created, the same on all nodes.
        /// Nodes of different clusters refuse each other.
        "id" => id: ClusterId, example "\"6e1f0a5c3b7d4d0f9a2c8e4b71d35f60\"";
        /// For a node that joins a cluster that exists, instead of `[bootstrap]`: gRPC addresses of some of its nodes,
        /// of which one has to answer when the node starts. `drover node join` writes the file of such a node.
        "join" => join: Addresses;
    }

    /// What the cluster consists of when it starts for the first time; the same on all nodes that it is created with. Its
    /// replicas and routes are taken from here once, and never again.
    bootstrap: Bootstrap {
        /// The nodes: `id`, `grpc` and `admin` (the addresses by which others reach the node).
        "nodes" => nodes: Vec<BootstrapNode>, example "\
[[bootstrap.nodes]]
id = 1
grpc = \"10.0.0.1:7400\"
admin = \"10.0.0.1:7401\"

[[bootstrap.nodes]]
id = 2
grpc = \"10.0.0.2:7400\"
admin = \"10.0.0.2:7401\"

[[bootstrap.nodes]]
id = 3
grpc = \"10.0.0.3:7400\"
admin = \"10.0.0.3:7401\"
";
        /// The Raft groups: `id`, and `replicas`, the nodes that hold one. Group 1 must be there: it holds the catalog
        /// and the timestamp oracle.
        "groups" => groups: Vec<BootstrapGroup>, example "\
[[bootstrap.groups]]
id = 1
replicas = [1, 2, 3]

[[bootstrap.groups]]
id = 2
replicas = [1, 2, 3]

[[bootstrap.groups]]
id = 3
replicas = [1, 2, 3]
";
        /// Which group owns which keys: `start`, `end` (exclusive; absent: no upper bound) and `group`. Together the
        /// routes cover every key once. A bound is text with the escapes `\xNN` and `\\` (write it in single quotes), or
        /// hexadecimal digits under the names `start_hex` and `end_hex`. In the order of their keys, the routes get the route ids
        /// and shard ids 1, 2, 3 and so on.
        "routes" => routes: Vec<RouteSpec>, example "\
[[bootstrap.routes]]
start = ''
end = 'm'
group = 2

[[bootstrap.routes]]
start = 'm'
group = 3
";
    }

    /// Replication.
    raft: Raft {
        /// How often a leader tells its followers that it is alive.
        "heartbeat_ms" => heartbeat: Duration, default "100ms", range 10..=MINUTE;
        /// A follower that hears nothing for a random time between this and `raft.election_max_ms` starts an election.
        /// At least two heartbeats.
        "election_min_ms" => election_min: Duration, default "300ms", range 20..=10 * MINUTE;
        /// Upper bound of the time above. Followers vote for no one else for this long after they heard from a leader.
        "election_max_ms" => election_max: Duration, default "600ms", range 30..=10 * MINUTE;
        /// What may pass between the moment at which a leader stops to trust its lease and the moment at which followers may
        /// vote for another, to allow for clocks that run at different speeds. Also added to the time for which a node
        /// that restarts does not vote.
        "lease_margin_ms" => lease_margin: Duration, default "100ms", range 5..=10 * MINUTE;
        /// Bytes of writes that a group accepts before the earlier ones are applied. Above it, writes wait.
        "max_inflight_bytes" => max_inflight_bytes: ByteSize, default "64MiB", range MIB..=16 * GIB;
        /// After this many applied entries a replica's state is flushed before its time (`storage.flush_interval_ms`),
        /// so that the log behind it can be purged.
        "snapshot_entries" => snapshot_entries: u64, default "200000", range 100..=u64::MAX;
        /// Entries that stay in the log behind the last flush, so that a replica that was away for a while catches up
        /// from the log. One that asks for older ones gets a snapshot.
        "log_retention_entries" => log_retention_entries: u64, default "50000", range 0..=u64::MAX;
        /// Entries that are removed from the log at a time.
        "purge_batch_entries" => purge_batch_entries: u64, default "256", range 1..=1_000_000;
        /// A new replica may vote when it is at most this many entries behind.
        "learner_max_lag_entries" => learner_max_lag_entries: u64, default "1000", range 0..=1_000_000;
        /// Bytes of snapshots that this node sends per second to replicas that are new or too far behind, over all of
        /// them. Sending as fast as possible would take the disk and the network away from clients.
        "snapshot_bytes_per_second" => snapshot_bytes_per_second: ByteSize, default "32MiB", range 64 * KIB..=u64::MAX;
    }

    /// Memory, files and retention of the stores of this node.
    storage: Storage {
        /// Cache of uncompressed blocks, shared by all replicas of the node.
        "block_cache_bytes" => block_cache_bytes: ByteSize, default "256MiB", range MIB..=u64::MAX;
        /// Memory for writes that are not in files yet, shared by all replicas of the node.
        "write_buffer_bytes" => write_buffer_bytes: ByteSize, default "128MiB", range MIB..=u64::MAX;
        /// Threads that flush and compact, shared by all replicas of the node.
        "background_threads" => background_threads: u64, default "2", range 1..=1024;
        /// Files that one replica keeps open.
        "max_open_files" => max_open_files: u64, default "1024", range 64..=1_000_000;
        /// Size of one file of the Raft log.
        "raftlog_file_bytes" => raftlog_file_bytes: ByteSize, default "64MiB", range MIB..=4 * GIB;
        /// Size of the Raft log of the node above which its oldest entries are moved so that files become free.
        "raftlog_max_bytes" => raftlog_max_bytes: ByteSize, default "1GiB", range 2 * MIB..=u64::MAX;
        /// Bytes that wait for the writer of the Raft log. Above it, replication waits.
        "raftlog_queue_bytes" => raftlog_queue_bytes: ByteSize, default "64MiB", range MIB..=4 * GIB;
        /// For how long old versions can be read. Snapshots below are refused, and their versions may be removed.
        "gc_retention_ms" => gc_retention: Duration, default "10m", range SECOND..=3650 * DAY;
        /// How often the replicas write to files what they hold in memory. A restart replays the log since then.
        "flush_interval_ms" => flush_interval: Duration, default "30s", range 100..=DAY;
    }

    /// What a request may ask for. Requests above a limit are refused before anything happened, by the node that they come to and
    /// with the limit in the message: clients know none. So they should be the same on all nodes.
    limits: Limits {
        /// Longest key.
        "key_bytes" => key_bytes: ByteSize, default "4KiB", range 1..=64 * KIB;
        /// Longest value.
        "value_bytes" => value_bytes: ByteSize, default "8MiB", range 1..=MAX_PAYLOAD;
        /// Largest request as a whole: its keys and values together.
        "batch_bytes" => batch_bytes: ByteSize, default "16MiB", range 1..=MAX_PAYLOAD;
        /// Longest idempotency key.
        "idempotency_key_bytes" => idempotency_key_bytes: ByteSize, default "64", range 16..=KIB;
        /// Most rows in a page of a scan.
        "scan_rows" => scan_rows: u64, default "10000", range 1..=10_000_000;
        /// Requests that the node works on at once. Above it, requests are refused as `OVERLOADED`.
        "max_requests" => max_requests: u64, default "4096", range 1..=1_000_000;
        /// Writes that the node holds at once while their ranges change hands. They count as requests, too. Above it, writes to
        /// such a range are refused as `UNAVAILABLE`.
        "max_parked_requests" => max_parked_requests: u64, default "2048", range 0..=1_000_000;
        /// Their keys and values together.
        "parked_bytes" => parked_bytes: ByteSize, default "64MiB", range 1..=u64::MAX / 2;
        /// How long a request may take if its caller does not say.
        "default_deadline_ms" => default_deadline: Duration, default "10s", range 1..=DAY;
    }

    /// Transactions.
    txn: Txn {
        /// How long the locks of a transaction live when nobody keeps them alive. Then anybody whom they stand in the way of may
        /// roll it back.
        "lock_ttl_ms" => lock_ttl: Duration, default "10s", range 100..=10 * MINUTE;
        /// The oldest snapshot, counted from now, that a transaction which is committed may have read. For so long its outcome
        /// is remembered.
        "max_age_ms" => max_age: Duration, default "5m", range SECOND..=DAY;
        /// How long a commit may take, whatever its caller allows: for so long it may hold locks. A caller that allows more is
        /// answered when this time is over.
        "max_deadline_ms" => max_deadline: Duration, default "1m", range 100..=DAY;
        /// Most keys that a transaction may write.
        "max_mutations" => max_mutations: u64, default "100000", range 1..=10_000_000;
        /// Most keys and ranges that a transaction may have read.
        "max_reads" => max_reads: u64, default "100000", range 1..=10_000_000;
        /// Most rows that the ranges which a transaction has read may hold in one group: those that it can have seen. All of them
        /// are looked at again when it commits.
        "max_validated_rows" => max_validated_rows: u64, default "100000", range 1..=10_000_000;
        /// Most keys that are looked at for that in one group. Keys that were deleted or have expired are no rows, but stand in these
        /// ranges until they are collected (`storage.gc_retention_ms`). While it looks, a group applies nothing else.
        "max_validated_keys" => max_validated_keys: u64, default "1000000", range 1..=1_000_000_000;
    }

    /// Ranges that move between groups. What a job does is decided by the node that leads group 1, so these are the same on all
    /// nodes.
    migration: Migration {
        /// Most bytes of rows that are copied at a time: one entry of the target's log. Who commits or reads behind it waits for it,
        /// so less is copied at a time, down to 256KiB, while an entry takes long.
        "chunk_bytes" => chunk_bytes: ByteSize, default "1MiB", range 16 * KIB..=4 * MIB;
        /// Bytes of a range that are copied per second if whoever begins to move it does not say. Zero: as fast as it goes.
        "bytes_per_second" => bytes_per_second: ByteSize, default "50MiB", range 0..=u64::MAX;
        /// How much of its time a copy may be at work, in percent. For the rest it leaves the machines to clients. Once writes are
        /// held back it does not rest, nor does one that may be as fast as it goes.
        "share_percent" => share_percent: u64, default "50", range 1..=100;
        /// Ranges that are copied at once. Further jobs wait for their turn, in the order in which they were started.
        "jobs_at_once" => jobs_at_once: u64, default "4", range 1..=64;
        /// If the copy of a range does not catch up with what is written into it, the writers of that range are slowed down, to no
        /// less than this many bytes per second. Zero: they are not slowed down.
        "slowest_writers_bytes_per_second" => slowest_writers_bytes_per_second: ByteSize, default "64KiB", range 0..=u64::MAX;
        /// How long a copy may try to catch up before the job fails.
        "catch_up_ms" => catch_up: Duration, default "10m", range SECOND..=7 * DAY;
        /// How long a job that has failed keeps its copy for another attempt. Then it is called off.
        "failed_copy_kept_ms" => failed_copy_kept: Duration, default "1h", range 0..=30 * DAY;
    }

    /// The source of timestamps, on the leader of group 1.
    oracle: Oracle {
        /// How far ahead of the clock the ceiling of timestamps is agreed. After a failure of the leader, timestamps may run
        /// ahead of the clock by this much.
        "ceiling_ahead_ms" => ceiling_ahead: Duration, default "3s", range 100..=10 * MINUTE;
        /// How often the ceiling is raised.
        "ceiling_renew_ms" => ceiling_renew: Duration, default "1s", range 10..=MINUTE;
        /// The largest jump of the clock that the oracle follows at once. A larger one is reported, and followed in
        /// steps of this size.
        "max_clock_step_ms" => max_clock_step: Duration, default "1m", range 100..=DAY;
    }

    /// Free space.
    disk: Disk {
        /// Writes are refused as `DISK_FULL` while less than this is free, and taken again when a quarter more than this is
        /// free. Zero: never refused.
        "reserve_bytes" => reserve_bytes: ByteSize, default "1GiB", range 0..=u64::MAX / 2;
        /// How often free space is looked at.
        "check_interval_ms" => check_interval: Duration, default "1s", range 10..=10 * MINUTE;
    }

    /// Connections and shutdown.
    server: Server {
        /// How long a node that was told to stop may take to hand over leadership and finish its requests.
        "drain_timeout_ms" => drain_timeout: Duration, default "15s", range 0..=60 * MINUTE;
        /// How often an idle connection is probed.
        "http2_keepalive_interval_ms" => http2_keepalive_interval: Duration, default "1s", range 100..=60 * MINUTE;
        /// How long the answer to a probe may take before the connection is given up.
        "http2_keepalive_timeout_ms" => http2_keepalive_timeout: Duration, default "2s", range 100..=60 * MINUTE;
        /// Requests at once on one connection.
        "http2_max_streams" => http2_max_streams: u64, default "1024", range 1..=1_000_000;
        /// Bytes on the way to one request or stream before its sender waits.
        "http2_stream_window_bytes" => http2_stream_window_bytes: ByteSize, default "2MiB", range 64 * KIB..=2 * GIB - MIB;
        /// Bytes on the way over one connection before its sender waits.
        "http2_connection_window_bytes" => http2_connection_window_bytes: ByteSize,
            default "8MiB", range 64 * KIB..=2 * GIB - MIB;
    }

    /// What the node writes to standard error.
    log: Log {
        /// Which events: a level (`error`, `warn`, `info`, `debug`, `trace`), or levels for parts as in
        /// `info,drover_raftgroup=debug`.
        "filter" => filter: LogFilter, default "info,openraft=error";
        /// `text` for people, `json` for programs (one object for each line).
        "format" => format: LogFormat, default "text";
    }
}
