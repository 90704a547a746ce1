//! `drover load`: writes the rows of a file, or checks that they are there.
//!
//! Rows are dealt out to lanes by a hash of their key; each lane writes one row after the other. So rows of different
//! keys go in parallel, and of several rows with one key the last one in the file wins.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use bytes::Bytes;
use drover_client::{Client, Error, Reason};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::exit::{End, UsageError};
use super::interrupt::{Signals, unanswered};
use super::notation::Notation;
use super::output::Output;
use super::records::{Column, Format, Layout, Malformed, Row, rows};
use super::settle::Settle;
use super::{Global, notice};

/// Malformed or differing rows that are shown one by one; the rest is only counted.
const SHOWN: u64 = 20;
/// Rows that wait in one lane.
const LANE_ROWS: usize = 16;
/// Keys that are read at once when verifying.
const VERIFY_KEYS: usize = 128;
/// Keys and values of the file that are compared at once, the last row not counted: what is read is about as much.
const VERIFY_BYTES: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file; `-` for standard input
    file: PathBuf,
    /// Form of the file, if its name does not tell
    #[arg(long)]
    format: Option<Format>,
    /// Column of the key, counted from 1, or its name with --header [default: 1]
    #[arg(long, value_name = "COLUMN", conflicts_with = "key_field")]
    key_column: Option<Column>,
    /// Column of the value, counted from 1, or its name with --header [default: 2]
    #[arg(long, value_name = "COLUMN", conflicts_with = "value_field")]
    value_column: Option<Column>,
    /// Field of the key in JSON lines [default: key]
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// Field of the value in JSON lines [default: value]
    #[arg(long, value_name = "FIELD")]
    value_field: Option<String>,
    /// The first line names the columns
    #[arg(long)]
    header: bool,
    /// Backslashes in TSV stand for themselves
    #[arg(long)]
    raw: bool,
    /// Rows under way at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// Write nothing: read all rows back and compare. Keeps the keys of the file in memory
    #[arg(long)]
    verify: bool,
}

impl Args {
    fn layout(&self, notation: Notation) -> Result<Layout, UsageError> {
        let format = match self.format {
            Some(format) => format,
            None => Format::of(&self.file)?,
        };
        let (fields, columns) = (
            self.key_field.is_some() || self.value_field.is_some(),
            self.key_column.is_some() || self.value_column.is_some() || self.header,
        );
        if format == Format::Jsonl && columns {
            return Err(UsageError("JSON lines have fields: use --key-field and --value-field".to_owned()));
        }
        if format != Format::Jsonl && fields {
            return Err(UsageError("TSV and CSV have columns: use --key-column and --value-column".to_owned()));
        }
        let hex = notation == Notation::Hex;
        if hex && self.raw {
            return Err(UsageError("--raw and --hex contradict each other; nothing was written".to_owned()));
        }
        let choose = |column: &Option<Column>, field: &Option<String>, default| match (column, field) {
            (Some(column), _) => column.clone(),
            (None, Some(field)) => Column::Named(field.clone()),
            (None, None) => Column::At(default),
        };
        Ok(Layout {
            format,
            key: choose(&self.key_column, &self.key_field, 1),
            value: choose(&self.value_column, &self.value_field, 2),
            header: self.header,
            raw: self.raw,
            hex,
        })
    }

    fn open(&self) -> anyhow::Result<(Box<dyn BufRead + Send>, ProgressBar)> {
        if self.file.as_os_str() == "-" {
            return Ok((Box::new(BufReader::new(std::io::stdin())), ProgressBar::new_spinner()));
        }
        let file = File::open(&self.file).with_context(|| format!("cannot open {}", self.file.display()))?;
        let bar = ProgressBar::new(file.metadata()?.len()).with_style(
            ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {msg} eta {eta}")
                .expect("the template is a constant"),
        );
        let source = bar.wrap_read(file);
        Ok((Box::new(BufReader::with_capacity(1 << 16, source)), bar))
    }
}

pub async fn run(global: &Global, args: Args, output: &mut Output) -> anyhow::Result<End> {
    let layout = args.layout(global.notation())?;
    if args.verify {
        return verify(global, &args, &layout, output).await;
    }
    let client = global.connect().await?;
    let (source, bar) = args.open()?;
    let read = rows(source, &layout)?;
    let done = write_all(&client, read, args.parallel, &bar).await;
    bar.finish_and_clear();
    let Written { read, written, malformed } = done?;
    anyhow::ensure!(
        read == written + malformed,
        "{read} rows were read, but {written} written and {malformed} malformed"
    );
    match global.json {
        true => output.json(&json!({ "rows": read, "written": written, "malformed": malformed }))?,
        false => output.line(&format!("{written} of {read} rows written, {malformed} malformed"))?,
    }
    Ok(if malformed == 0 { End::Done } else { End::Local })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    read: u64,
    written: u64,
    malformed: u64,
}

async fn write_all(
    client: &Client,
    rows: Box<dyn Iterator<Item = super::records::Item> + Send>,
    parallel: u16,
    bar: &ProgressBar,
) -> anyhow::Result<Written> {
    let (flight, mut signals) = Signals::listen()?;
    let written = Arc::new(AtomicU64::new(0));
    let mut writers = JoinSet::new();
    let mut lanes = Vec::with_capacity(parallel.into());
    for _ in 0..parallel {
        let (lane, waiting) = mpsc::channel(LANE_ROWS);
        lanes.push(lane);
        writers.spawn(write_lane(client.clone(), waiting, Arc::clone(&written)));
    }
    // Reading blocks: a file, or a person at a terminal.
    let bar = bar.clone();
    let reader = tokio::task::spawn_blocking(move || deal(rows, &lanes, &bar));
    let all = async {
        let mut failure = None;
        while let Some(lane) = writers.join_next().await {
            failure = failure.or(lane?);
        }
        // A lane that failed has closed: the reader has stopped there, if it was not through.
        let (read, malformed) = reader.await??;
        failure.map_or(Ok((read, malformed)), Err)
    };
    flight.take_off();
    let done = signals.unless(all).await.unwrap_or_else(|| Err(Settle::Again.add_to(unanswered())));
    flight.land();
    let written = written.load(Ordering::Relaxed);
    match done {
        Ok((read, malformed)) => Ok(Written { read, written, malformed }),
        Err(error) => Err(error.context(format!("{written} rows were written before the load stopped; run it again"))),
    }
}

/// Deals the rows out to the lanes; returns rows read and how many of them were malformed.
fn deal(
    rows: impl Iterator<Item = super::records::Item>,
    lanes: &[mpsc::Sender<Row>],
    bar: &ProgressBar,
) -> std::io::Result<(u64, u64)> {
    let (mut read, mut malformed) = (0, 0);
    let hasher = RandomState::new();
    for row in rows {
        read += 1;
        match row? {
            Ok(row) => {
                let lane = hasher.hash_one(&row.key) % lanes.len() as u64;
                if lanes[lane as usize].blocking_send(row).is_err() {
                    break;
                }
            }
            Err(bad) => {
                malformed += 1;
                bar.suspend(|| complain(malformed, &bad));
            }
        }
        if read % 1_000 == 0 {
            bar.set_message(format!("{read} rows"));
        }
    }
    Ok((read, malformed))
}

fn complain(so_far: u64, bad: &Malformed) {
    match so_far {
        0..=SHOWN => notice(&format!("line {}: {}", bad.line, bad.why)),
        _ if so_far == SHOWN + 1 => notice("further malformed lines are only counted"),
        _ => {}
    }
}

/// Writes one row after the other and counts them; what it has failed with.
async fn write_lane(client: Client, mut rows: mpsc::Receiver<Row>, written: Arc<AtomicU64>) -> Option<anyhow::Error> {
    while let Some(Row { line, key, value }) = rows.recv().await {
        match client.put(key, value).await {
            Ok(_) => drop(written.fetch_add(1, Ordering::Relaxed)),
            Err(error) => return Some(Settle::Again.add_to(error).context(format!("line {line}"))),
        }
    }
    None
}

async fn verify(global: &Global, args: &Args, layout: &Layout, output: &mut Output) -> anyhow::Result<End> {
    if args.file.as_os_str() == "-" {
        return Err(UsageError("--verify reads the file twice: standard input will not do".to_owned()).into());
    }
    let client = global.connect().await?;
    let (source, bar) = args.open()?;
    let (last, malformed) = last_lines(rows(source, layout)?)?;
    bar.finish_and_clear();
    let (source, bar) = args.open()?;
    let compared = compare_all(&client, global.notation(), rows(source, layout)?, &last, &bar).await;
    bar.finish_and_clear();
    let Compared { keys, missing, different } = compared?;
    anyhow::ensure!(keys == last.len() as u64, "{} keys are in the file, but {keys} were compared", last.len());
    match global.json {
        true => {
            output.json(&json!({ "keys": keys, "missing": missing, "different": different, "malformed": malformed }))?
        }
        false => output.line(&format!(
            "{keys} keys compared: {missing} missing, {different} different; {malformed} malformed lines"
        ))?,
    }
    Ok(match (missing + different, malformed) {
        (0, 0) => End::Done,
        (0, _) => End::Local,
        _ => End::No,
    })
}

/// The line of the last row of each key, and the number of malformed lines.
fn last_lines(rows: impl Iterator<Item = super::records::Item>) -> std::io::Result<(HashMap<Bytes, u64>, u64)> {
    let mut last = HashMap::new();
    let mut malformed = 0;
    for row in rows {
        match row? {
            Ok(row) => {
                last.insert(row.key, row.line);
            }
            Err(bad) => {
                malformed += 1;
                complain(malformed, &bad);
            }
        }
    }
    Ok((last, malformed))
}

#[derive(Debug, Default)]
struct Compared {
    keys: u64,
    missing: u64,
    different: u64,
}

impl Compared {
    fn count(&mut self, row: &Row, found: Option<&Bytes>, notation: Notation) {
        self.keys += 1;
        let what = match found {
            Some(value) if *value == row.value => return,
            Some(_) => {
                self.different += 1;
                "has another value"
            }
            None => {
                self.missing += 1;
                "has no value"
            }
        };
        if self.missing + self.different <= SHOWN {
            notice(&format!("line {}: {} {what}", row.line, notation.format(&row.key)));
        }
    }
}

async fn compare_all(
    client: &Client,
    notation: Notation,
    rows: Box<dyn Iterator<Item = super::records::Item> + Send>,
    last: &HashMap<Bytes, u64>,
    bar: &ProgressBar,
) -> anyhow::Result<Compared> {
    let mut compared = Compared::default();
    let mut batch: Vec<Row> = Vec::with_capacity(VERIFY_KEYS);
    let mut rows = rows.peekable();
    while rows.peek().is_some() {
        let mut bytes = 0;
        for row in rows.by_ref() {
            if let Ok(row) = row?
                && last.get(&row.key) == Some(&row.line)
            {
                bytes += row.key.len() + row.value.len();
                batch.push(row);
            }
            if batch.len() == VERIFY_KEYS || bytes >= VERIFY_BYTES {
                break;
            }
        }
        let keys: Vec<Bytes> = batch.iter().map(|row| row.key.clone()).collect();
        let found = values_of(client, &keys).await?;
        for (row, found) in batch.drain(..).zip(found) {
            compared.count(&row, found.as_ref(), notation);
        }
        bar.set_message(format!("{} keys", compared.keys));
    }
    Ok(compared)
}

/// The values of several keys, in as many requests as it takes: what stands in the cluster may be larger than what stands in the
/// file, and its limit on an answer lower than the batch.
async fn values_of(client: &Client, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, Error> {
    let (mut values, mut at_once) = (Vec::with_capacity(keys.len()), keys.len());
    while values.len() < keys.len() {
        let rest = &keys[values.len()..];
        let asked = &rest[..rest.len().min(at_once)];
        match client.batch_get(asked.to_vec(), None).await {
            Ok(got) => values.extend(got.versions.into_iter().map(|version| version.map(|version| version.value))),
            Err(error) if error.reason == Reason::BatchTooLarge && asked.len() > 1 => at_once = asked.len() / 2,
            Err(error) => return Err(error),
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn layout_of(line: &[&str]) -> Result<Layout, UsageError> {
        Line::parse_from([&["load"], line].concat()).args.layout(Notation::Escaped)
    }

    #[test]
    fn options_that_do_not_fit_the_format_are_refused() {
        assert_eq!(layout_of(&["a.csv"]).unwrap().value, Column::At(2));
        let named = layout_of(&["a.csv", "--header", "--key-column", "id"]).unwrap();
        assert_eq!(named.key, Column::Named("id".into()));
        let fields = layout_of(&["-", "--format", "jsonl", "--key-field", "id"]).unwrap();
        assert_eq!(fields.key, Column::Named("id".into()));
        assert!(layout_of(&["a.jsonl", "--key-column", "1"]).is_err());
        assert!(layout_of(&["a.tsv", "--value-field", "v"]).is_err());
        assert!(layout_of(&["-"]).is_err());
        let hex = |line: &[&str]| Line::parse_from([&["load"], line].concat()).args.layout(Notation::Hex);
        assert!(hex(&["a.tsv"]).unwrap().hex);
        assert!(hex(&["a.tsv", "--raw"]).is_err());
    }

    #[test]
    fn the_last_line_of_a_key_counts_and_malformed_lines_are_counted() {
        let layout = layout_of(&["a.tsv"]).unwrap();
        let rows = rows(Cursor::new(b"a\t1\nb\t1\nbroken\na\t2\n".to_vec()), &layout).unwrap();
        let (last, malformed) = last_lines(rows).unwrap();
        assert_eq!((last[&b"a"[..]], last[&b"b"[..]], malformed), (4, 2, 1));
    }

    #[test]
    fn rows_of_one_key_stay_in_one_lane_and_in_order() {
        let layout = layout_of(&["a.tsv"]).unwrap();
        let text: String = (0..200).map(|i| format!("key{}\t{i}\n", i % 10)).collect();
        let (lanes, mut waiting): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::channel(200)).unzip();
        let rows = rows(Cursor::new(text.into_bytes()), &layout).unwrap();
        assert_eq!(deal(rows, &lanes, &ProgressBar::hidden()).unwrap(), (200, 0));
        drop(lanes);
        let mut seen: HashMap<Bytes, (usize, u64)> = HashMap::new();
        let mut count = 0;
        for (lane, waiting) in waiting.iter_mut().enumerate() {
            while let Some(row) = waiting.blocking_recv() {
                let before = seen.insert(row.key.clone(), (lane, row.line));
                assert!(before.is_none_or(|(other, line)| other == lane && line < row.line), "{row:?} {before:?}");
                count += 1;
            }
        }
        assert_eq!(count, 200);
    }
}
