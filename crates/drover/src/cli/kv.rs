//! `drover kv`: single keys and ranges.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use drover_client::{
    Client, CompareAndSet, Entry, Expectation, Idempotency, ScanQuery, Settled, Timestamp, Update, Versioned,
    WriteAnswer, WriteKind, WriteOptions,
};
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use super::exit::{End, UsageError};
use super::interrupt::change;
use super::notation::{Notation, RangeArgs, format_hex, parse_duration, parse_hex};
use super::output::Output;
use super::settle::Settle;
use super::{Global, notice};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the value of a key; exit code 1 if it has none
    Get {
        key: String,
        /// As of this timestamp
        #[arg(long, value_name = "TIMESTAMP")]
        at: Option<Timestamp>,
    },
    /// Writes a key
    Put {
        key: String,
        #[command(flatten)]
        value: ValueArgs,
        /// Let the value expire: 500ms, 10s, 2m, 1h
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        ttl: Option<Duration>,
    },
    /// Deletes a key; deleting an absent one succeeds
    Delete { key: String },
    /// Writes or deletes a key if its value is as expected; exit code 1 if it is not
    Cas(CasArgs),
    /// Prints the keys and values of a range, one row on a line
    Scan(ScanArgs),
    /// Counts the keys of a range
    Count {
        #[command(flatten)]
        range: RangeArgs,
        /// As of this timestamp
        #[arg(long, value_name = "TIMESTAMP")]
        at: Option<Timestamp>,
    },
    /// Deletes the keys of a range, in batches; each batch is atomic, the whole is not
    DeleteRange {
        #[command(flatten)]
        range: RangeArgs,
        /// Needed to delete everything
        #[arg(long)]
        all: bool,
    },
    /// Tells what became of a write with an unknown outcome, or makes sure that it never happens
    Settle(SettleArgs),
}

#[derive(Debug, Args)]
pub struct SettleArgs {
    pub key: String,
    /// As printed with the unknown outcome
    #[arg(long, value_name = "HEX", value_parser = parse_hex)]
    idempotency_key: Bytes,
    /// As printed with the unknown outcome
    #[arg(long, value_name = "TIMESTAMP")]
    not_after: Timestamp,
}

impl SettleArgs {
    /// The name of the write.
    pub fn name(&self) -> Idempotency {
        Idempotency { key: self.idempotency_key.clone(), not_after: self.not_after }
    }
}

/// A value: an argument, a file, or else standard input.
#[derive(Debug, Args)]
pub struct ValueArgs {
    /// The value; without it, it is read from standard input as it is
    value: Option<String>,
    /// Read the value from a file, as it is
    #[arg(long, conflicts_with = "value", value_name = "PATH")]
    file: Option<PathBuf>,
}

impl ValueArgs {
    fn read(&self, notation: Notation) -> anyhow::Result<Bytes> {
        match (&self.value, &self.file) {
            (Some(value), _) => Ok(notation.parse(value)?),
            (None, Some(path)) => {
                let raw = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok(raw.into())
            }
            (None, None) => {
                let mut raw = Vec::new();
                std::io::stdin().read_to_end(&mut raw).context("cannot read standard input")?;
                Ok(raw.into())
            }
        }
    }
}

#[derive(Debug, Args)]
pub struct CasArgs {
    key: String,
    #[command(flatten)]
    value: ValueArgs,
    /// Delete the key instead of writing it
    #[arg(long, conflicts_with_all = ["value", "file", "ttl"])]
    delete: bool,
    /// Let the value expire: 500ms, 10s, 2m, 1h
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    ttl: Option<Duration>,
    #[command(flatten)]
    expect: ExpectArgs,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct ExpectArgs {
    /// The key must have no value
    #[arg(long)]
    expect_absent: bool,
    /// The key must have a value, whatever it is
    #[arg(long)]
    expect_present: bool,
    /// The key must have exactly this value
    #[arg(long, value_name = "VALUE")]
    expect_value: Option<String>,
    /// The key's value must have been committed at this timestamp
    #[arg(long, value_name = "TIMESTAMP")]
    expect_version: Option<Timestamp>,
}

impl ExpectArgs {
    fn expectation(&self, notation: Notation) -> Result<Expectation, UsageError> {
        match (&self.expect_value, self.expect_version) {
            (Some(value), _) => Ok(Expectation::Value(notation.parse(value)?)),
            (None, Some(version)) => Ok(Expectation::Version(version)),
            (None, None) if self.expect_absent => Ok(Expectation::Absent),
            (None, None) => Ok(Expectation::Present),
        }
    }
}

#[derive(Debug, Args)]
pub struct ScanArgs {
    #[command(flatten)]
    range: RangeArgs,
    /// From the highest key down
    #[arg(long)]
    reverse: bool,
    /// At most so many rows; 0: no limit
    #[arg(long, default_value_t = 0, value_name = "ROWS")]
    limit: u64,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// As of this timestamp
    #[arg(long, value_name = "TIMESTAMP")]
    at: Option<Timestamp>,
}

/// As it is sent.
pub fn ttl_ms(ttl: Option<Duration>) -> Option<u64> {
    ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    let notation = global.notation();
    match command {
        Command::Get { key, at } => {
            let key = notation.parse_key(&key)?;
            let client = global.connect().await?;
            let found = match at {
                Some(at) => client.get_at(key.clone(), at).await?,
                None => client.get(key.clone()).await?,
            };
            print_found(global, output, &key, found)
        }
        Command::Put { key, value, ttl } => {
            let kind =
                WriteKind::Put { key: notation.parse_key(&key)?, value: value.read(notation)?, ttl_ms: ttl_ms(ttl) };
            write(global, kind, output).await
        }
        Command::Delete { key } => write(global, WriteKind::Delete { key: notation.parse_key(&key)? }, output).await,
        Command::Cas(args) => {
            let expect = args.expect.expectation(notation)?;
            let update = match args.delete {
                true => Update::Delete,
                false => Update::Put { value: args.value.read(notation)?, ttl_ms: ttl_ms(args.ttl) },
            };
            write(global, WriteKind::CompareAndSet { key: notation.parse_key(&args.key)?, expect, update }, output)
                .await
        }
        Command::Scan(args) => scan(global, &args, output).await,
        Command::Count { range, at } => {
            let interval = range.interval(notation)?;
            let spinner = ProgressBar::new_spinner().with_message("counting");
            spinner.enable_steady_tick(Duration::from_millis(200));
            let rows = global.connect().await?.count(interval, at).await?;
            spinner.finish_and_clear();
            print_count(global, output, rows)
        }
        Command::DeleteRange { range, all } => delete_range(global, &range, all, output).await,
        Command::Settle(args) => {
            let key = notation.parse_key(&args.key)?;
            let (client, name) = (global.connect().await?, args.name());
            let settled = change(Settle::Again, client.settle(key, &name)).await?;
            print_settled(global, output, settled)
        }
    }
}

/// One row as text.
pub fn row_line(notation: Notation, key: &[u8], value: &[u8]) -> String {
    format!("{}\t{}", notation.format(key), notation.format(value))
}

/// One row as JSON.
pub fn row_json(notation: Notation, key: &[u8], version: &Versioned, keys_only: bool) -> Value {
    let mut object = Map::new();
    notation.add_json(&mut object, "key", key);
    if !keys_only {
        notation.add_json(&mut object, "value", &version.value);
    }
    object.insert("commit_ts".to_owned(), version.commit_ts.to_string().into());
    if let Some(expire_at) = version.expire_at {
        object.insert("expire_at".to_owned(), expire_at.to_string().into());
    }
    Value::Object(object)
}

/// That a key has no value, as JSON.
pub fn no_value_json(notation: Notation, key: &[u8]) -> Value {
    let mut object = Map::new();
    notation.add_json(&mut object, "key", key);
    object.insert("value".to_owned(), Value::Null);
    Value::Object(object)
}

fn print_found(global: &Global, output: &mut Output, key: &[u8], found: Option<Versioned>) -> anyhow::Result<End> {
    let notation = global.notation();
    let Some(version) = found else {
        if global.json {
            output.json(&no_value_json(notation, key))?;
        }
        notice(&format!("{} has no value", notation.format(key)));
        return Ok(End::No);
    };
    match (global.json, global.hex) {
        (true, _) => output.json(&row_json(notation, key, &version, false))?,
        (false, true) => output.line(&format_hex(&version.value))?,
        (false, false) => output.value(&version.value)?,
    }
    Ok(End::Done)
}

/// Sends one write under a name of its own, so that an unknown outcome can be settled by a later command.
async fn write(global: &Global, kind: WriteKind, output: &mut Output) -> anyhow::Result<End> {
    let client = global.connect().await?;
    let name = client.new_idempotency();
    let key = kind.record_key().clone();
    let options = WriteOptions { idempotency: Some(name.clone()), ..WriteOptions::default() };
    let answer = change(Settle::Write { key: key.clone(), name }, client.write(kind, options)).await?;
    print_written(global, output, &key, answer)
}

/// What a count came to.
pub fn print_count(global: &Global, output: &mut Output, rows: u64) -> anyhow::Result<End> {
    match global.json {
        true => output.json(&json!({ "count": rows }))?,
        false => output.line(&rows.to_string())?,
    }
    Ok(End::Done)
}

/// What a write to one key came to.
pub fn print_written(global: &Global, output: &mut Output, key: &[u8], answer: WriteAnswer) -> anyhow::Result<End> {
    let written = |output: &mut Output, commit_ts: Timestamp| {
        match global.json {
            true => output.json(&json!({ "commit_ts": commit_ts.to_string() })),
            false => output.line(&format!("done at {commit_ts}")),
        }?;
        anyhow::Ok(End::Done)
    };
    match answer {
        WriteAnswer::Written { commit_ts } | WriteAnswer::Compared(CompareAndSet::Written { commit_ts }) => {
            written(output, commit_ts)
        }
        WriteAnswer::Compared(CompareAndSet::Failed { current }) => {
            let notation = global.notation();
            match (global.json, current) {
                (true, current) => {
                    let current = current.map(|version| row_json(notation, key, &version, false));
                    output.json(&json!({ "succeeded": false, "current": current }))?;
                }
                (false, Some(version)) => notice(&format!(
                    "not as expected: the value is {}, committed at {}",
                    notation.format(&version.value),
                    version.commit_ts
                )),
                (false, None) => notice("not as expected: the key has no value"),
            }
            Ok(End::No)
        }
        WriteAnswer::RangeDeleted { .. } | WriteAnswer::Settled(_) => {
            anyhow::bail!("the client answered a write to one key with {answer:?}")
        }
    }
}

async fn scan(global: &Global, args: &ScanArgs, output: &mut Output) -> anyhow::Result<End> {
    let notation = global.notation();
    let query = ScanQuery {
        at: args.at,
        reverse: args.reverse,
        keys_only: args.keys_only,
        limit: args.limit,
        ..ScanQuery::new(args.range.interval(notation)?)
    };
    let mut scan = global.connect().await?.scan(query);
    // Where rows scroll by, they are the progress.
    let (spinner, mut rows) =
        (if std::io::stdout().is_terminal() { ProgressBar::hidden() } else { ProgressBar::new_spinner() }, 0);
    while let Some(page) = scan.next_page().await? {
        rows += page.entries.len();
        spinner.set_message(format!("{rows} rows"));
        spinner.tick();
        for Entry { key, version } in &page.entries {
            match (global.json, args.keys_only) {
                (true, keys_only) => output.json(&row_json(notation, key, version, keys_only))?,
                (false, true) => output.line(&notation.format(key))?,
                (false, false) => output.line(&row_line(notation, key, &version.value))?,
            }
        }
        output.flush()?;
    }
    spinner.finish_and_clear();
    Ok(End::Done)
}

async fn delete_range(global: &Global, range: &RangeArgs, all: bool, output: &mut Output) -> anyhow::Result<End> {
    if range.is_unbounded() && !all {
        return Err(UsageError("give --start, --end or --prefix, or --all to delete everything".to_owned()).into());
    }
    if all && !range.is_unbounded() {
        return Err(
            UsageError("--all deletes everything and goes with no range; nothing was deleted".to_owned()).into()
        );
    }
    let interval = range.interval(global.notation())?;
    let client: Client = global.connect().await?;
    let spinner = ProgressBar::new_spinner();
    let deleted =
        client.delete_range(interval, |progress| spinner.set_message(format!("{} keys deleted", progress.deleted)));
    let done = change(Settle::Again, deleted).await?;
    spinner.finish_and_clear();
    match global.json {
        true => output.json(&json!({ "deleted": done.deleted, "batches": done.batches }))?,
        false => output.line(&format!("{} keys deleted in {} batches", done.deleted, done.batches))?,
    }
    Ok(End::Done)
}

/// What became of a write.
pub fn print_settled(global: &Global, output: &mut Output, settled: Settled) -> anyhow::Result<End> {
    let (verdict, commit_ts) = match settled {
        Settled::Applied { commit_ts } => ("applied", Some(commit_ts.to_string())),
        Settled::CompareFailed => ("comparison failed", None),
        Settled::Never => ("never", None),
    };
    match (global.json, &commit_ts) {
        (true, _) => output.json(&json!({ "verdict": verdict, "commit_ts": commit_ts }))?,
        (false, Some(commit_ts)) => output.line(&format!("it happened, at {commit_ts}"))?,
        (false, None) if settled == Settled::CompareFailed => {
            output.line("its comparison failed; nothing was written")?;
        }
        (false, None) => output.line("it did not happen and never will")?,
    }
    Ok(if commit_ts.is_some() { End::Done } else { End::No })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(value: &'static [u8]) -> Versioned {
        Versioned { value: value.into(), commit_ts: Timestamp::from_raw(65_537), expire_at: None }
    }

    #[test]
    fn rows_are_lossless_in_json() {
        let text = row_json(Notation::Escaped, b"k\\1", &version("grüße".as_bytes()), false);
        assert_eq!(text, json!({ "key": "k\\1", "value": "grüße", "commit_ts": "1.1" }));
        let binary = row_json(Notation::Escaped, b"k", &version(b"\xff\x00"), false);
        assert_eq!(binary, json!({ "key": "k", "value_hex": "ff00", "commit_ts": "1.1" }));
        let hex = row_json(Notation::Hex, b"k", &version(b"v"), true);
        assert_eq!(hex, json!({ "key_hex": "6b", "commit_ts": "1.1" }));
    }

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settle: SettleArgs,
    }

    #[test]
    fn a_name_ends_at_any_timestamp_that_there_is_and_at_no_other() {
        use clap::Parser;
        let name = |not_after: &str| {
            let line = ["settle", "k", "--idempotency-key", "0102", "--not-after", not_after];
            Line::try_parse_from(line).map(|line| line.settle.name())
        };
        let table = [
            ("0", 0),
            ("9223372036854775807", (1 << 63) - 1),
            ("9223372036854775808", 1 << 63),
            ("140737488355328.0", 1 << 63),
            ("18446744073709551615", u64::MAX),
            ("281474976710655.65535", u64::MAX),
        ];
        for (text, raw) in table {
            let name = name(text).unwrap();
            assert_eq!((name.not_after.raw(), &name.key[..]), (raw, &[1, 2][..]), "{text}");
            assert_eq!(name.not_after.to_string().parse(), Ok(name.not_after), "{text}");
        }
        for (text, why) in [
            ("18446744073709551616", "write MILLISECONDS.LOGICAL or one 64-bit number"),
            ("281474976710656.0", "281474976710656 ms does not fit into 48 bits"),
            ("1.65536", "write MILLISECONDS.LOGICAL"),
            ("-1", "--not-after"),
        ] {
            let refused = name(text).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{text}");
            assert!(refused.to_string().contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn no_is_the_answer_of_a_settle_unless_the_operation_happened() {
        use super::super::output::tests::Captured;
        let global =
            Global { endpoints: Vec::new(), json: false, hex: false, timeout: Duration::from_secs(1), actor: None };
        let table = [
            (Settled::Applied { commit_ts: Timestamp::from_raw(65_537) }, End::Done, "it happened, at 1.1\n"),
            (Settled::CompareFailed, End::No, "its comparison failed; nothing was written\n"),
            (Settled::Never, End::No, "it did not happen and never will\n"),
        ];
        for (settled, end, text) in table {
            let captured = Captured::default();
            let mut output = Output::to(captured.clone());
            assert_eq!(print_settled(&global, &mut output, settled).unwrap(), end);
            output.flush().unwrap();
            assert_eq!(captured.text(), text);
        }
    }
}
