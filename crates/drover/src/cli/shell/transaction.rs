//! The transaction that is open in a session.

use std::time::{Duration, Instant};

use drover_client::{End, Interval, Transaction, TransactionContents, TxnId, Update};
use serde_json::{Map, Value, json};

use super::super::notation::Notation;
use super::super::output::Output;
use super::state::State;
use super::words::word;

/// An open transaction. Until its commit it exists in this process alone: no server knows of it, so nothing has to be kept
/// alive, and dropping it is all that an abort takes.
#[derive(Debug)]
pub struct Open {
    /// What reads and writes.
    pub txn: Transaction,
    /// Whether it cannot write.
    pub read_only: bool,
    since: Instant,
}

impl Open {
    /// A transaction that begins now.
    pub fn now(txn: Transaction, read_only: bool) -> Self {
        Self { txn, read_only, since: Instant::now() }
    }

    /// The state of a session in which it is open.
    pub fn state(&self) -> State {
        if self.read_only { State::Reading } else { State::Writing }
    }

    /// Writes down what it has done so far.
    pub fn show(&self, as_json: bool, notation: Notation, output: &mut Output) -> std::io::Result<()> {
        let (id, contents, age) = (self.txn.id(), self.txn.contents(), self.since.elapsed());
        if as_json {
            return output.json(&contents_json(notation, id, self.read_only, &contents, age));
        }
        contents_lines(notation, id, self.read_only, &contents, age).iter().try_for_each(|line| output.line(line))
    }
}

/// `n` things.
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// Writes and reads stand as the commands that make them.
fn contents_lines(
    notation: Notation,
    id: TxnId,
    read_only: bool,
    contents: &TransactionContents,
    age: Duration,
) -> Vec<String> {
    let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
    let snapshot = match contents.start_ts {
        Some(start_ts) => format!("reads the snapshot at {start_ts}"),
        None => "takes its snapshot with its first read".to_owned(),
    };
    let mut lines =
        vec![format!("transaction {id}{}, open for {age}, {snapshot}", if read_only { ", read only" } else { "" })];
    let writes = contents.writes.len();
    if !read_only {
        lines.push(format!("{}, seen by nobody else before the commit", count(writes, "write", "writes")));
    }
    for (key, update) in &contents.writes {
        let key = word(notation, key);
        lines.push(match update {
            Update::Put { value, ttl_ms: None } => format!("  put {key} {}", word(notation, value)),
            Update::Put { value, ttl_ms: Some(ms) } => format!("  put {key} {} --ttl {ms}ms", word(notation, value)),
            Update::Delete => format!("  delete {key}"),
        });
    }
    let (keys, ranges) = (contents.read_keys.len(), contents.read_intervals.len());
    lines.push(format!("{} and {} read", count(keys, "key", "keys"), count(ranges, "range", "ranges")));
    lines.extend(contents.read_keys.iter().map(|key| format!("  get {}", word(notation, key))));
    lines.extend(contents.read_intervals.iter().map(|range| format!("  {}", scan_of(notation, range))));
    lines
}

fn scan_of(notation: Notation, range: &Interval) -> String {
    let start = if range.start().is_empty() { "-".to_owned() } else { word(notation, range.start()) };
    match range.end() {
        End::Unbounded => format!("scan {start} -"),
        End::Key(end) => format!("scan {start} {}", word(notation, end)),
    }
}

fn contents_json(
    notation: Notation,
    id: TxnId,
    read_only: bool,
    contents: &TransactionContents,
    age: Duration,
) -> Value {
    let write = |(key, update): &(bytes::Bytes, Update)| {
        let mut row = Map::new();
        notation.add_json(&mut row, "key", key);
        match update {
            Update::Put { value, ttl_ms } => {
                notation.add_json(&mut row, "value", value);
                row.extend(ttl_ms.map(|ms| ("ttl_ms".to_owned(), ms.into())));
            }
            Update::Delete => drop(row.insert("deleted".to_owned(), true.into())),
        }
        Value::from(row)
    };
    let named = |name: &str, raw: &[u8]| {
        let mut row = Map::new();
        notation.add_json(&mut row, name, raw);
        row
    };
    let range = |range: &Interval| {
        let mut row = named("start", range.start());
        row.extend(range.end().as_key().map(|end| named("end", end)).unwrap_or_default());
        Value::from(row)
    };
    json!({
        "transaction": id.to_string(),
        "read_only": read_only,
        "age_ms": u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        "snapshot": contents.start_ts.map(|start_ts| start_ts.to_string()),
        "writes": contents.writes.iter().map(write).collect::<Vec<_>>(),
        "read_keys": contents.read_keys.iter().map(|key| named("key", key)).collect::<Vec<_>>(),
        "read_ranges": contents.read_intervals.iter().map(range).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use drover_client::Timestamp;

    use super::*;

    fn contents() -> TransactionContents {
        TransactionContents {
            start_ts: Some(Timestamp::from_raw(65_537)),
            writes: vec![
                ("a b".into(), Update::Put { value: "1".into(), ttl_ms: None }),
                ("c".into(), Update::Put { value: "\0".into(), ttl_ms: Some(500) }),
                ("d".into(), Update::Delete),
            ],
            read_keys: vec!["e".into()],
            read_intervals: vec![Interval::all(), Interval::new("f", End::Key("g".into())).unwrap()],
        }
    }

    #[test]
    fn what_a_transaction_has_done_is_shown_as_commands() {
        let lines =
            contents_lines(Notation::Escaped, TxnId([1; 16]), false, &contents(), Duration::from_millis(61_900));
        let expect = [
            "transaction 01010101010101010101010101010101, open for 1m 1s, reads the snapshot at 1.1",
            "3 writes, seen by nobody else before the commit",
            "  put \"a b\" 1",
            "  put c \\x00 --ttl 500ms",
            "  delete d",
            "1 key and 2 ranges read",
            "  get e",
            "  scan - -",
            "  scan f g",
        ];
        assert_eq!(lines, expect);
        let empty = TransactionContents::default();
        let lines = contents_lines(Notation::Escaped, TxnId([1; 16]), true, &empty, Duration::ZERO);
        assert!(lines[0].ends_with(", read only, open for 0s, takes its snapshot with its first read"), "{lines:?}");
        assert_eq!(lines[1..], ["0 keys and 0 ranges read"]);
    }

    #[test]
    fn what_a_transaction_has_done_is_lossless_in_json() {
        let shown = contents_json(Notation::Escaped, TxnId([1; 16]), false, &contents(), Duration::from_millis(7));
        let expect = json!({
            "transaction": "01".repeat(16),
            "read_only": false,
            "age_ms": 7,
            "snapshot": "1.1",
            "writes": [
                { "key": "a b", "value": "1" },
                { "key": "c", "value": "\0", "ttl_ms": 500 },
                { "key": "d", "deleted": true },
            ],
            "read_keys": [{ "key": "e" }],
            "read_ranges": [{ "start": "" }, { "start": "f", "end": "g" }],
        });
        assert_eq!(shown, expect);
    }
}
