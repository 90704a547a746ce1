//! Lines of the nodes' logs that are loud, and those that belong to what was broken.

use serde_json::{Map, Value};

use crate::nemesis::Fault;

/// Lines of the logs at WARN or above that are brought about by any fault, or by one of these. Everything else at these levels is a
/// problem.
const EXPECTED: [(&str, &[Fault]); 22] = [
    ("peer cannot be used", &[]),
    ("handshake refused", &[]),
    ("few files may be open", &[]),
    ("snapshot was not installed", &[]),
    ("the addresses of the nodes are not noted", &[]),
    // The newest file of the Raft log ends in the middle of a batch that nobody was told of.
    (
        "Truncating log file due to broken batch",
        &[
            Fault::Kill,
            Fault::Snapshot,
            Fault::CrashTxn,
            Fault::CrashMove,
            Fault::Power,
            Fault::Replace,
            Fault::Damage,
            Fault::WriteError,
            Fault::SyncError,
        ],
    ),
    ("the machine was suspended", &[Fault::Pause]),
    ("clock", &[Fault::Clock]),
    // The leader was itself removed, or is not it any more.
    ("has to forward request to", &[Fault::Membership]),
    ("Truncating log file due to broken header", &[Fault::Power, Fault::SyncError]),
    ("Input/output error", &[Fault::Power, Fault::WriteError, Fault::SyncError]),
    // Raft stops in every group of a node whose log cannot be written, and each of its parts says so.
    ("the replica has stopped", &[Fault::WriteError, Fault::SyncError]),
    ("write failed", &[Fault::WriteError, Fault::SyncError]),
    ("the log store has stopped after a failed write", &[Fault::WriteError, Fault::SyncError]),
    ("the replica's store failed", &[Fault::WriteError, Fault::SyncError]),
    ("channel closed", &[Fault::WriteError, Fault::SyncError]),
    ("error: raft stopped", &[Fault::WriteError, Fault::SyncError]),
    ("the disk is full", &[Fault::DiskFull]),
    ("half of the reserve is gone", &[Fault::DiskFull]),
    ("No space left", &[Fault::DiskFull]),
    // Found by the replica whose file it is, by reads of it, and by whatever else reads there.
    ("store is corrupt", &[Fault::Damage]),
    ("Corruption", &[Fault::Damage]),
];

/// Whether a line belongs to what was broken.
pub(super) fn is_expected(line: &str, faults: &[Fault]) -> bool {
    let by = |causes: &[Fault]| causes.is_empty() || causes.iter().any(|cause| faults.contains(cause));
    !line.contains("panicked at") && EXPECTED.iter().any(|(part, causes)| line.contains(part) && by(causes))
}

/// The lines of a log at WARN or above and panics, without their times and numbers.
pub fn loud(log: &str) -> Vec<String> {
    let is_loud = |line: &&str| {
        let mut words = line.split_whitespace().take(3);
        let json = line.contains("\"level\":\"WARN\"") || line.contains("\"level\":\"ERROR\"");
        words.any(|word| word == "WARN" || word == "ERROR") || json || line.contains("panicked at")
    };
    log.lines().filter(is_loud).map(|line| without_numbers(&plain(line))).collect()
}

/// A JSON object as a line for people; anything else as it is.
fn plain(line: &str) -> String {
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(line) else { return line.to_owned() };
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        other => other.map(|other| other.to_string()),
    };
    let (level, target, message) = (take("level"), take("target"), take("message"));
    let target = take("log.target").or(target);
    let mut text = [level, target, message].map(Option::unwrap_or_default).join(" ");
    let rest =
        fields.into_iter().filter(|(name, _)| name != "timestamp" && name != "backtrace" && !name.starts_with("log."));
    rest.for_each(|(name, value)| {
        text.push_str(&format!(" {name}={}", value.as_str().map_or(value.to_string(), str::to_owned)))
    });
    text
}

/// A line from its level on, with every run of digits as one sign.
fn without_numbers(line: &str) -> String {
    let from = ["WARN", "ERROR"].iter().filter_map(|level| line.find(level)).min().unwrap_or(0);
    let mut text = String::new();
    for c in line[from..].chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        if !(c == '#' && text.ends_with('#')) {
            text.push(c);
        }
    }
    text.truncate(text.char_indices().nth(400).map_or(text.len(), |(at, _)| at));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_logs_are_loud_by_their_level_and_counted_without_numbers() {
        let log = "2026-01-01T00:00:00Z  INFO a: said \"WARN\" once more\n2026-01-01T00:00:00Z  WARN a: peer 17 is gone\n\
                   thread 'x' panicked at src/a.rs:1\n";
        assert_eq!(loud(log), ["WARN a: peer # is gone", "thread 'x' panicked at src/a.rs:#"]);
    }

    #[test]
    fn lines_that_are_objects_are_put_into_words() {
        let log = r#"{"timestamp":"2026","level":"WARN","message":"broken (queue=Append, seq=7)","log.target":"raft_engine","log.line":9,"target":"log"}
{"timestamp":"2026","level":"ERROR","message":"the disk fails","error":"os error 5)","group":"2","target":"drover"}
{"timestamp":"2026","level":"ERROR","message":"panic","backtrace":"0: a\n1: b","panic":"fdatasync","target":"drover"}
{"timestamp":"2026","level":"INFO","message":"WARN","target":"drover"}"#;
        let expect = [
            "WARN raft_engine broken (queue=Append, seq=#)",
            "ERROR drover the disk fails error=os error #) group=#",
            "ERROR drover panic panic=fdatasync",
        ];
        assert_eq!(loud(log), expect);
    }
}
