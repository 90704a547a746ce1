//! Relations between settings. Each rule is noted under the setting that should be changed, with the figures, if all the settings
//! that it compares could be read.

use std::time::Duration;

use super::read::Reader;
use super::table::Config;

/// Notes every relation that does not hold.
pub(super) fn check(config: &Config, reader: &mut Reader<'_>) {
    addresses(config, reader);
    elections(config, reader);
    sizes(config, reader);
    times(config, reader);
    migration(config, reader);
}

fn migration(config: &Config, reader: &mut Reader<'_>) {
    if let Err(why) = config.job_options().check() {
        reader.refuse_relation("migration.bytes_per_second", &[], why);
    }
}

fn addresses(config: &Config, reader: &mut Reader<'_>) {
    let (grpc, admin) = (config.node.grpc_listen, config.node.admin_listen);
    if grpc.port() != 0 && grpc.port() == admin.port() && (grpc.ip() == admin.ip() || grpc.ip().is_unspecified()) {
        let message = format!("{admin} is taken by node.grpc_listen ({grpc}); use another port");
        reader.refuse_relation("node.admin_listen", &["node.grpc_listen"], message);
    }
}

fn elections(config: &Config, reader: &mut Reader<'_>) {
    let raft = &config.raft;
    at_least(
        reader,
        ("raft.election_min_ms", raft.election_min),
        ("twice raft.heartbeat_ms", &["raft.heartbeat_ms"], raft.heartbeat * 2),
        "a single late heartbeat must not start an election",
    );
    below(
        reader,
        ("raft.election_min_ms", raft.election_min),
        ("raft.election_max_ms", &["raft.election_max_ms"], raft.election_max),
        "the random time between them keeps followers from running against each other",
    );
    below(
        reader,
        ("raft.lease_margin_ms", raft.lease_margin),
        (
            "raft.election_max_ms less raft.heartbeat_ms",
            &["raft.election_max_ms", "raft.heartbeat_ms"],
            raft.election_max.saturating_sub(raft.heartbeat),
        ),
        "a leader must get a heartbeat answered before it stops to trust its lease",
    );
}

fn sizes(config: &Config, reader: &mut Reader<'_>) {
    let (limits, raft, storage, txn) = (&config.limits, &config.raft, &config.storage, &config.txn);
    let (key, value, batch) = (limits.key_bytes.0, limits.value_bytes.0, limits.batch_bytes.0);
    let table: [(_, &[_], _, _); 9] = [
        (
            "limits.batch_bytes",
            &["limits.key_bytes", "limits.value_bytes"],
            batch >= key + value,
            format!(
                "{} is below limits.key_bytes plus limits.value_bytes ({} + {}): the largest value could not be written",
                limits.batch_bytes, limits.key_bytes, limits.value_bytes
            ),
        ),
        (
            "raft.max_inflight_bytes",
            &["limits.batch_bytes"],
            raft.max_inflight_bytes.0 >= batch,
            format!(
                "{} is below limits.batch_bytes ({}): the largest request could never be accepted",
                raft.max_inflight_bytes, limits.batch_bytes
            ),
        ),
        (
            "limits.parked_bytes",
            &["limits.batch_bytes"],
            limits.parked_bytes.0 >= batch,
            format!(
                "{} is below limits.batch_bytes ({}): the largest request could never wait for its range",
                limits.parked_bytes, limits.batch_bytes
            ),
        ),
        (
            "storage.raftlog_queue_bytes",
            &["limits.batch_bytes"],
            storage.raftlog_queue_bytes.0 >= batch,
            format!(
                "{} is below limits.batch_bytes ({}): the largest request could never reach the log",
                storage.raftlog_queue_bytes, limits.batch_bytes
            ),
        ),
        (
            "storage.raftlog_max_bytes",
            &["storage.raftlog_file_bytes"],
            storage.raftlog_max_bytes.0 / 2 >= storage.raftlog_file_bytes.0,
            format!(
                "{} is below two files of storage.raftlog_file_bytes ({}): there would be nothing to free",
                storage.raftlog_max_bytes, storage.raftlog_file_bytes
            ),
        ),
        (
            "raft.purge_batch_entries",
            &["raft.snapshot_entries"],
            raft.purge_batch_entries <= raft.snapshot_entries,
            format!(
                "{} is above raft.snapshot_entries ({}): the log would never be cut",
                raft.purge_batch_entries, raft.snapshot_entries
            ),
        ),
        (
            "txn.max_validated_rows",
            &["txn.max_reads"],
            txn.max_validated_rows >= txn.max_reads,
            format!(
                "{} is below txn.max_reads ({}): as many ranges of one row each could be read, and not committed",
                txn.max_validated_rows, txn.max_reads
            ),
        ),
        (
            "txn.max_validated_keys",
            &["txn.max_validated_rows"],
            txn.max_validated_keys >= txn.max_validated_rows,
            format!(
                "{} is below txn.max_validated_rows ({}): each row has a key",
                txn.max_validated_keys, txn.max_validated_rows
            ),
        ),
        (
            "server.http2_connection_window_bytes",
            &["server.http2_stream_window_bytes"],
            config.server.http2_connection_window_bytes >= config.server.http2_stream_window_bytes,
            format!(
                "{} is below server.http2_stream_window_bytes ({}): one request would hold up all others",
                config.server.http2_connection_window_bytes, config.server.http2_stream_window_bytes
            ),
        ),
    ];
    for (field, others, holds, message) in table {
        if !holds {
            reader.refuse_relation(field, others, message);
        }
    }
}

fn times(config: &Config, reader: &mut Reader<'_>) {
    let oracle = &config.oracle;
    at_least(
        reader,
        ("oracle.ceiling_ahead_ms", oracle.ceiling_ahead),
        ("twice oracle.ceiling_renew_ms", &["oracle.ceiling_renew_ms"], oracle.ceiling_renew * 2),
        "a single late renewal must not stop the timestamps",
    );
    at_least(
        reader,
        ("oracle.max_clock_step_ms", oracle.max_clock_step),
        ("oracle.ceiling_ahead_ms", &["oracle.ceiling_ahead_ms"], oracle.ceiling_ahead),
        "a clock that is as far ahead as a failed leader's ceiling is no error",
    );
    at_least(
        reader,
        ("storage.gc_retention_ms", config.storage.gc_retention),
        ("limits.default_deadline_ms", &["limits.default_deadline_ms"], config.limits.default_deadline),
        "a request must find its snapshot until its deadline",
    );
}

/// A bound in words, the settings that it is made of, and its value.
type Bound<'a> = (&'a str, &'a [&'static str], Duration);

fn at_least(reader: &mut Reader<'_>, it: (&'static str, Duration), bound: Bound<'_>, why: &str) {
    if it.1 < bound.2 {
        refuse(reader, it, "below", bound, why);
    }
}

fn below(reader: &mut Reader<'_>, it: (&'static str, Duration), bound: Bound<'_>, why: &str) {
    if it.1 >= bound.2 {
        refuse(reader, it, "not below", bound, why);
    }
}

fn refuse(reader: &mut Reader<'_>, it: (&'static str, Duration), how: &str, bound: Bound<'_>, why: &str) {
    let (text, (words, settings, value)) = (humantime::format_duration, bound);
    reader.refuse_relation(it.0, settings, format!("{} is {how} {words} ({}): {why}", text(it.1), text(value)));
}
