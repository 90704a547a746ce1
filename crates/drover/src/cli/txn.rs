//! `drover txn`: several operations at once, and transactions that were left behind.

use std::cell::RefCell;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use bytes::Bytes;
use clap::Subcommand;
use drover_client::{
    Client, End as Bound, Error, Expectation, Interval, PreparedTransaction, Transaction, TransactionStatus, TxnId,
};
use serde_json::{Map, Value, json};

use super::exit::{End, UsageError};
use super::interrupt::{Signals, change, unanswered};
use super::notation::Notation;
use super::output::Output;
use super::settle::Settle;
use super::shell::words;
use super::{Global, notice};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the operations of a file or of standard input as one transaction
    ///
    /// One operation on each line, its words separated by blanks; quotes hold together what has some.
    /// Lines that begin with # are skipped:
    ///   get KEY                    prints key, tab, value
    ///   scan START [END] [LIMIT]   prints rows from START up to END (- for no bound)
    ///   put KEY VALUE              writes
    ///   delete KEY                 deletes
    ///   expect KEY VALUE           ends everything with exit code 1 unless this is the value
    ///   expect-absent KEY          ends everything with exit code 1 unless there is no value
    #[command(verbatim_doc_comment)]
    Run {
        /// The file; - or nothing for standard input
        file: Option<PathBuf>,
    },
    /// Lists transactions that hold locks, and what they wait for
    List,
    /// Tells what became of a transaction
    Status {
        /// 32 hexadecimal digits
        id: TxnId,
        /// The key of its first write: the outcome is recorded there
        primary: String,
    },
    /// Settles a transaction that holds locks: resolves them if it is decided, rolls it back if its time is over
    Resolve {
        /// 32 hexadecimal digits
        id: TxnId,
        /// Rolls it back although it may still be at work
        #[arg(long)]
        force: bool,
    },
}

/// One operation of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Operation {
    Get(Bytes),
    Scan(Interval, usize),
    Put(Bytes, Bytes),
    Delete(Bytes),
    Expect(Bytes, Expectation),
}

/// What a script came to.
enum Ran {
    Rows(Vec<(Bytes, Option<Bytes>)>),
    /// Something was not as expected.
    No(Bytes),
}

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    match command {
        Command::Run { file } => script(global, file, output).await,
        Command::List => list(global, output).await,
        Command::Status { id, primary } => {
            let primary = global.notation().parse_key(&primary)?;
            let status = global.connect().await?.transaction_status(id, primary).await?;
            show_status(global.json, output, id, status)?;
            Ok(if status == TransactionStatus::Nothing { End::No } else { End::Done })
        }
        Command::Resolve { id, force } => {
            let client = global.connect().await?;
            let status = change(Settle::Again, client.resolve_transaction(id, force)).await?;
            show_status(global.json, output, id, status)?;
            Ok(End::Done)
        }
    }
}

fn parse(text: &str, notation: Notation) -> Result<Vec<Operation>, UsageError> {
    let mut operations = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // Before it is divided: a quote in a comment need not be closed.
        if line.trim_start().starts_with('#') {
            continue;
        }
        let at_line = |error: UsageError| UsageError(format!("line {number}: {error}"));
        let words = words::split(line).map_err(at_line)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if !words.is_empty() {
            operations.push(parse_line(&words, notation).map_err(at_line)?);
        }
    }
    Ok(operations)
}

fn parse_line(words: &[&str], notation: Notation) -> Result<Operation, UsageError> {
    let bytes = |text: &str| notation.parse(text);
    Ok(match words {
        ["get", key] => Operation::Get(bytes(key)?),
        ["put", key, value] => Operation::Put(bytes(key)?, bytes(value)?),
        ["put", key] => Operation::Put(bytes(key)?, Bytes::new()),
        ["delete", key] => Operation::Delete(bytes(key)?),
        ["expect", key, value] => Operation::Expect(bytes(key)?, Expectation::Value(bytes(value)?)),
        ["expect-absent", key] => Operation::Expect(bytes(key)?, Expectation::Absent),
        ["scan", start, rest @ ..] if rest.len() <= 2 => {
            let start = if *start == "-" { Bytes::new() } else { bytes(start)? };
            let end = match rest.first() {
                None | Some(&"-") => Bound::Unbounded,
                Some(end) => Bound::Key(bytes(end)?),
            };
            let limit = match rest.get(1) {
                None => 0,
                Some(text) => text.parse().map_err(|_| UsageError(format!("{text:?} is not a number of rows")))?,
            };
            let interval = Interval::new(start, end).map_err(|error| UsageError(error.to_string()))?;
            Operation::Scan(interval, limit)
        }
        [] => return Err(UsageError("nothing to do".to_owned())),
        [name, ..] => {
            let known =
                "get KEY, scan START [END] [LIMIT], put KEY VALUE, delete KEY, expect KEY VALUE, expect-absent KEY";
            return Err(UsageError(format!("{name:?} with {} words after it; known are: {known}", words.len() - 1)));
        }
    })
}

async fn script(global: &Global, file: Option<PathBuf>, output: &mut Output) -> anyhow::Result<End> {
    let text = match file.filter(|path| path.as_os_str() != "-") {
        Some(path) => std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?,
        None => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("reading standard input")?;
            text
        }
    };
    let operations = parse(&text, global.notation())?;
    let client = global.connect().await?;
    match commit(&client, &operations).await? {
        Ran::Rows(rows) => {
            for (key, value) in rows {
                print(global, output, &key, value.as_ref())?;
            }
            Ok(End::Done)
        }
        Ran::No(key) => {
            if global.json {
                let mut object = Map::from_iter([("succeeded".to_owned(), false.into())]);
                global.notation().add_json(&mut object, "key", &key);
                output.json(&object)?;
            }
            notice(&format!("{} is not as expected; nothing was changed", global.notation().format(&key)));
            Ok(End::No)
        }
    }
}

/// Runs the operations until they are committed, or a signal comes while a commit is under way.
async fn commit(client: &Client, operations: &[Operation]) -> anyhow::Result<Ran> {
    let (flight, mut signals) = Signals::listen()?;
    let last: RefCell<Option<Transaction>> = RefCell::default();
    let run = |txn: Transaction| async {
        // The run before was refused for certain.
        flight.land();
        let ran = perform(&txn, operations).await?;
        last.replace(Some(txn));
        flight.take_off();
        Ok(ran)
    };
    let runs = client.transaction(run);
    let done = signals.unless(runs).await.unwrap_or_else(|| Err(unanswered()));
    flight.land();
    done.map_err(|error| {
        let written = last.take().and_then(|txn| Some((txn.id(), txn.contents().writes.first()?.0.clone())));
        match written {
            Some((id, primary)) => Settle::Txn { id, primary }.add_to(error),
            None => error.into(),
        }
    })
}

async fn perform(txn: &Transaction, operations: &[Operation]) -> Result<Ran, Error> {
    let mut rows = Vec::new();
    for operation in operations {
        match operation.clone() {
            Operation::Get(key) => rows.push((key.clone(), txn.get(key).await?)),
            Operation::Scan(interval, limit) => {
                let found = txn.scan(interval, false, limit).await?;
                rows.extend(found.into_iter().map(|(key, value)| (key, Some(value))));
            }
            Operation::Put(key, value) => txn.put(key, value),
            Operation::Delete(key) => txn.delete(key),
            Operation::Expect(key, expect) => {
                let now = txn.get(key.clone()).await?;
                let holds = match expect {
                    Expectation::Value(value) => now.as_ref() == Some(&value),
                    Expectation::Absent | Expectation::Present | Expectation::Version(_) => now.is_none(),
                };
                if !holds {
                    // What was written so far is dropped: a transaction without writes commits nothing.
                    txn.discard();
                    return Ok(Ran::No(key));
                }
            }
        }
    }
    Ok(Ran::Rows(rows))
}

fn print(global: &Global, output: &mut Output, key: &[u8], value: Option<&Bytes>) -> std::io::Result<()> {
    let notation = global.notation();
    match (global.json, value) {
        (true, value) => {
            let mut row = Map::new();
            notation.add_json(&mut row, "key", key);
            match value {
                Some(value) => notation.add_json(&mut row, "value", value),
                None => drop(row.insert("value".to_owned(), Value::Null)),
            }
            output.json(&row)
        }
        (false, Some(value)) => output.line(&format!("{}\t{}", notation.format(key), notation.format(value))),
        (false, None) => output.line(&notation.format(key)),
    }
}

async fn list(global: &Global, output: &mut Output) -> anyhow::Result<End> {
    let (found, notation) = (prepared(&global.connect().await?).await?, global.notation());
    if global.json {
        found.iter().try_for_each(|txn| output.json(&prepared_json(notation, txn)))?;
    } else {
        prepared_table(notation, output, &found)?;
    }
    Ok(End::Done)
}

/// All transactions that hold locks.
pub async fn prepared(client: &Client) -> Result<Vec<PreparedTransaction>, Error> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = client.prepared_transactions(cursor).await?;
        join_pages(&mut found, page);
        cursor = next;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

/// Locks come page by page, in key order: a transaction may have some on several of them.
fn join_pages(found: &mut Vec<PreparedTransaction>, page: Vec<PreparedTransaction>) {
    for txn in page {
        match found.iter_mut().find(|known| known.id == txn.id) {
            Some(known) => {
                known.keys.extend(txn.keys);
                known.status = txn.status;
            }
            None => found.push(txn),
        }
    }
}

/// A transaction that holds locks, as JSON.
pub fn prepared_json(notation: Notation, txn: &PreparedTransaction) -> Value {
    let mut row = Map::new();
    row.insert("id".to_owned(), txn.id.to_string().into());
    row.insert("start_ts".to_owned(), txn.start_ts.to_string().into());
    notation.add_json(&mut row, "primary", &txn.primary);
    let keys = txn.keys.iter().map(|key| notation.format(key));
    row.insert("keys".to_owned(), keys.collect::<Vec<_>>().into());
    row.insert("status".to_owned(), status_json(txn.status));
    row.insert("waits_for".to_owned(), waits_for(txn.status).into());
    row.into()
}

/// Transactions that hold locks, for people.
pub fn prepared_table(notation: Notation, output: &mut Output, found: &[PreparedTransaction]) -> std::io::Result<()> {
    let row = |txn: &PreparedTransaction| {
        vec![
            txn.id.to_string(),
            notation.format(&txn.primary),
            txn.keys.len().to_string(),
            txn.start_ts.to_string(),
            waits_for(txn.status),
        ]
    };
    output.table(&["transaction", "primary", "locks", "snapshot", "waits for"], found.iter().map(row).collect())
}

/// What the locks of a transaction in this state wait for.
fn waits_for(status: TransactionStatus) -> String {
    match status {
        TransactionStatus::Nothing => "its primary to be prepared, or its locks to expire".to_owned(),
        TransactionStatus::Prepared { expire_at } => {
            format!("its coordinator to decide; may be rolled back from {expire_at} on")
        }
        TransactionStatus::Committed { commit_ts } => format!("its locks to be resolved; committed at {commit_ts}"),
        TransactionStatus::RolledBack { .. } => "its locks to be removed; rolled back".to_owned(),
    }
}

fn status_json(status: TransactionStatus) -> Value {
    match status {
        TransactionStatus::Nothing => json!({ "state": "nothing" }),
        TransactionStatus::Prepared { expire_at } => {
            json!({ "state": "prepared", "expire_at": expire_at.to_string() })
        }
        TransactionStatus::Committed { commit_ts } => {
            json!({ "state": "committed", "commit_ts": commit_ts.to_string() })
        }
        TransactionStatus::RolledBack { settled } => json!({ "state": "rolled back", "settled": settled }),
    }
}

/// What became of a transaction.
pub fn show_status(as_json: bool, output: &mut Output, id: TxnId, status: TransactionStatus) -> std::io::Result<()> {
    if as_json {
        return output.json(&json!({ "id": id.to_string(), "status": status_json(status) }));
    }
    output.line(&match status {
        TransactionStatus::Nothing => {
            "nothing is known of it: it has not committed so far, or it is forgotten".to_owned()
        }
        TransactionStatus::Prepared { expire_at } => format!("prepared; its locks live until {expire_at} at least"),
        TransactionStatus::Committed { commit_ts } => format!("committed at {commit_ts}"),
        TransactionStatus::RolledBack { settled: true } => "rolled back for good".to_owned(),
        TransactionStatus::RolledBack { settled: false } => {
            "rolled back so far; a further attempt may still commit".to_owned()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_with_locks_on_several_pages_is_listed_once() {
        let txn = |id: u8, key: &'static str| PreparedTransaction {
            id: drover_client::TxnId([id; 16]),
            start_ts: drover_client::Timestamp::from_raw(9),
            primary: "p".into(),
            keys: vec![key.into()],
            status: TransactionStatus::Nothing,
        };
        let mut found = Vec::new();
        join_pages(&mut found, vec![txn(1, "a"), txn(2, "b")]);
        join_pages(&mut found, vec![txn(1, "c")]);
        assert_eq!(found.iter().map(|txn| txn.keys.len()).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_script_is_read_line_by_line() {
        let text =
            "# comment\n\n get a\nscan b\nscan - z 5\nput k\\x00 v\nput k\ndelete d\nexpect e 1\nexpect-absent f\n";
        let interval = |start: &'static str, end: Bound| Interval::new(start, end).unwrap();
        let expect = [
            Operation::Get("a".into()),
            Operation::Scan(interval("b", Bound::Unbounded), 0),
            Operation::Scan(interval("", Bound::Key("z".into())), 5),
            Operation::Put("k\0".into(), "v".into()),
            Operation::Put("k".into(), Bytes::new()),
            Operation::Delete("d".into()),
            Operation::Expect("e".into(), Expectation::Value("1".into())),
            Operation::Expect("f".into(), Expectation::Absent),
        ];
        assert_eq!(parse(text, Notation::Escaped).unwrap(), expect);
        assert_eq!(parse("get 61", Notation::Hex).unwrap(), [Operation::Get("a".into())]);
    }

    #[test]
    fn the_words_of_a_script_are_quoted_as_in_the_shell() {
        let put = |key: &'static str, value: &'static str| Operation::Put(key.into(), value.into());
        let table = [
            (r#"put k "hello world""#, put("k", "hello world")),
            (r#"put 'a key' 'it is "one"'"#, put("a key", "it is \"one\"")),
            (r#"put k "a\x00 b\n\\""#, put("k", "a\0 b\n\\")),
            (r#"put \"k\" it\'s\ one"#, put("\"k\"", "it's one")),
            (r#"put k '' "#, put("k", "")),
            (r##"put k "# no comment""##, put("k", "# no comment")),
            ("put k #", put("k", "#")),
        ];
        for (line, operation) in table {
            let script = format!("# it's a comment\n\n  # \" and another\n{line}\n");
            assert_eq!(parse(&script, Notation::Escaped).unwrap(), [operation], "{line}");
        }
        assert_eq!(parse(r#"put "61" '62'"#, Notation::Hex).unwrap(), [put("a", "b")]);
        let error = parse("get a\nput k don't", Notation::Escaped).unwrap_err().to_string();
        assert!(error.contains("line 2: a ' is not closed"), "{error}");
    }

    #[test]
    fn a_line_that_is_none_is_refused_with_its_number() {
        for (text, part) in [
            ("get a\nfrobnicate b", "line 2: \"frobnicate\""),
            ("put", "line 1: \"put\" with 0 words"),
            ("get a b", "line 1: \"get\" with 2 words"),
            ("scan z a", "line 1:"),
            ("scan a z many", "\"many\" is not a number of rows"),
            ("get \\xZZ", "line 1:"),
        ] {
            let error = parse(text, Notation::Escaped).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_scripts_never_panic(
            any: String,
            words in "((get|put|delete|scan|expect|expect-absent|#|-|\"|'|[a-z0-9]{0,3}|\\\\x[0-9a-f]{0,2})[ \n]){0,16}",
        ) {
            for notation in [Notation::Escaped, Notation::Hex] {
                let _ = parse(&any, notation);
                let _ = parse(&words, notation);
            }
        }
    }
}
