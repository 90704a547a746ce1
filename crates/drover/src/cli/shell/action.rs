//! What a line asks for, free of notation.

use std::time::Duration;

use bytes::Bytes;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use drover_client::{Expectation, Idempotency, Interval, Timestamp, TxnId, Update};

use super::super::exit::{UsageError, misread};
use super::super::kv::ttl_ms;
use super::super::notation::{self, Notation};
use super::grammar::{CasArgs, Command, Line, RangeArgs, ScanArgs, Txn, Watch};
use super::state::Verb;
use super::words;

/// What a scan is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    pub interval: Interval,
    pub reverse: bool,
    /// Zero: none.
    pub limit: u64,
    pub keys_only: bool,
    pub at: Option<Timestamp>,
}

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Get {
        key: Bytes,
        at: Option<Timestamp>,
    },
    /// A put or a delete.
    Update {
        key: Bytes,
        update: Update,
    },
    Cas {
        key: Bytes,
        expect: Expectation,
        update: Update,
    },
    Scan(Scan),
    Count {
        interval: Interval,
        at: Option<Timestamp>,
    },
    Settle {
        key: Bytes,
        name: Idempotency,
    },
    Begin {
        read_only: bool,
        at: Option<Timestamp>,
    },
    Show,
    Commit,
    Abort,
    Status,
    WatchStatus {
        every: Duration,
        times: Option<u64>,
    },
    TxnList,
    TxnStatus {
        id: TxnId,
        primary: Option<Bytes>,
    },
    TxnResolve {
        id: TxnId,
        force: bool,
    },
    /// A text to print.
    Explain(String),
    Quit,
}

impl Action {
    /// What a line asks for; nothing if it is empty or a comment.
    ///
    /// # Errors
    /// If it is no command.
    pub fn parse(line: &str, notation: Notation) -> Result<Option<Action>, UsageError> {
        if line.trim_start().starts_with('#') {
            return Ok(None);
        }
        let words = words::split(line)?;
        match words.first() {
            None => return Ok(None),
            // clap takes the first word for the path of a program, and would find the command in `any/get.thing`.
            Some(name) if name.contains(['/', '.']) => return Err(UsageError(format!("there is no command {name:?}"))),
            Some(_) => {}
        }
        match Line::try_parse_from(&words) {
            Ok(line) => Action::of(line.command, notation).map(Some),
            Err(help) if help.kind() == ErrorKind::DisplayHelp => Ok(Some(Action::Explain(help.to_string()))),
            Err(error) => Err(misread(&error)),
        }
    }

    fn of(command: Command, notation: Notation) -> Result<Action, UsageError> {
        let bytes = |text: &str| notation.parse(text);
        Ok(match command {
            Command::Get { key, at } => Action::Get { key: notation.parse_key(&key)?, at },
            Command::Put { key, value, ttl } => {
                let update = Update::Put { value: bytes(&value)?, ttl_ms: ttl_ms(ttl) };
                Action::Update { key: notation.parse_key(&key)?, update }
            }
            Command::Delete { key } => Action::Update { key: notation.parse_key(&key)?, update: Update::Delete },
            Command::Cas(args) => cas(args, notation)?,
            Command::Scan(ScanArgs { range, reverse, limit, keys_only, at }) => {
                Action::Scan(Scan { interval: interval(range, notation)?, reverse, limit, keys_only, at })
            }
            Command::Count { range, at } => Action::Count { interval: interval(range, notation)?, at },
            Command::Settle(args) => Action::Settle { key: notation.parse_key(&args.key)?, name: args.name() },
            Command::Begin { read_only, at } => Action::Begin { read_only, at },
            Command::Show => Action::Show,
            Command::Commit => Action::Commit,
            Command::Abort => Action::Abort,
            Command::Status => Action::Status,
            Command::Watch(Watch::Status { every, times }) => Action::WatchStatus { every, times },
            Command::Txn(Txn::List) => Action::TxnList,
            Command::Txn(Txn::Status { id, primary }) => {
                Action::TxnStatus { id, primary: primary.as_deref().map(|key| notation.parse_key(key)).transpose()? }
            }
            Command::Txn(Txn::Resolve { id, force }) => Action::TxnResolve { id, force },
            Command::Help { command } => Action::Explain(explain(&command)?),
            Command::Quit => Action::Quit,
        })
    }

    /// Which command this is.
    pub fn verb(&self) -> Verb {
        match self {
            Action::Get { .. } => Verb::Get,
            Action::Update { update: Update::Put { .. }, .. } => Verb::Put,
            Action::Update { update: Update::Delete, .. } => Verb::Delete,
            Action::Cas { .. } => Verb::Cas,
            Action::Scan(_) => Verb::Scan,
            Action::Count { .. } => Verb::Count,
            Action::Settle { .. } => Verb::Settle,
            Action::Begin { .. } => Verb::Begin,
            Action::Show => Verb::Show,
            Action::Commit => Verb::Commit,
            Action::Abort => Verb::Abort,
            Action::Status => Verb::Status,
            Action::WatchStatus { .. } => Verb::Watch,
            Action::TxnList | Action::TxnStatus { .. } | Action::TxnResolve { .. } => Verb::Txn,
            Action::Explain(_) => Verb::Help,
            Action::Quit => Verb::Quit,
        }
    }

    /// The timestamp that a read asks for.
    pub fn reads_at(&self) -> Option<Timestamp> {
        match self {
            Action::Get { at, .. } | Action::Count { at, .. } | Action::Scan(Scan { at, .. }) => *at,
            _ => None,
        }
    }
}

fn cas(args: CasArgs, notation: Notation) -> Result<Action, UsageError> {
    let flag = match (args.expect_version, args.expect_absent, args.expect_present) {
        (Some(version), _, _) => Some(Expectation::Version(version)),
        (None, true, _) => Some(Expectation::Absent),
        (None, false, true) => Some(Expectation::Present),
        (None, false, false) => None,
    };
    let bytes = |text: &str| notation.parse(text);
    let ttl_ms = ttl_ms(args.ttl);
    let (expect, update) = match (flag, args.delete, args.first.as_deref(), args.second.as_deref()) {
        (None, false, Some(expected), Some(new)) => {
            (Expectation::Value(bytes(expected)?), Update::Put { value: bytes(new)?, ttl_ms })
        }
        (None, true, Some(expected), None) => (Expectation::Value(bytes(expected)?), Update::Delete),
        (Some(expect), false, Some(new), None) => (expect, Update::Put { value: bytes(new)?, ttl_ms }),
        (Some(expect), true, None, None) => (expect, Update::Delete),
        _ => {
            let forms = "cas KEY EXPECTED NEW, cas KEY EXPECTED --delete, cas KEY NEW --expect-absent (or another \
                         --expect-...), cas KEY --delete --expect-present";
            return Err(UsageError(format!("the forms are: {forms}")));
        }
    };
    Ok(Action::Cas { key: notation.parse_key(&args.key)?, expect, update })
}

fn interval(range: RangeArgs, notation: Notation) -> Result<Interval, UsageError> {
    let bound = |text: Option<String>| text.filter(|text| text != "-");
    let RangeArgs { from, to, prefix } = range;
    notation::RangeArgs { start: bound(from), end: bound(to), prefix }.interval(notation)
}

fn explain(names: &[String]) -> Result<String, UsageError> {
    if names.is_empty() {
        return Ok(Line::command().render_help().to_string());
    }
    let asked = names.iter().map(String::as_str).chain(["--help"]);
    match Line::try_parse_from(asked) {
        Err(help) if help.kind() == ErrorKind::DisplayHelp => Ok(help.to_string()),
        Ok(_) | Err(_) => Err(UsageError(format!("there is no command {:?}", names.join(" ")))),
    }
}

#[cfg(test)]
mod tests {
    use drover_client::End;

    use super::*;

    fn parsed(line: &str) -> Result<Option<Action>, String> {
        Action::parse(line, Notation::Escaped).map_err(|error| error.to_string())
    }

    fn put(value: &'static str) -> Update {
        Update::Put { value: value.into(), ttl_ms: None }
    }

    fn scan(start: &'static str, end: End) -> Scan {
        let interval = Interval::new(start, end).unwrap();
        Scan { interval, reverse: false, limit: 0, keys_only: false, at: None }
    }

    #[test]
    fn a_line_is_an_action() {
        let ts = Timestamp::from_raw(65_537);
        let id = TxnId([0x1a; 16]);
        let hex = "1a".repeat(16);
        let cas = |expect, update| Action::Cas { key: "k".into(), expect, update };
        let key = |key: &'static str| End::Key(key.into());
        let name = Idempotency { key: Bytes::from_static(&[1, 2]), not_after: ts };
        let table: Vec<(String, Action)> = vec![
            ("get a".into(), Action::Get { key: "a".into(), at: None }),
            (r#"get "a b\x00" --at 1.1"#.into(), Action::Get { key: "a b\0".into(), at: Some(ts) }),
            ("put k v".into(), Action::Update { key: "k".into(), update: put("v") }),
            ("put k ''".into(), Action::Update { key: "k".into(), update: put("") }),
            ("put k -- -5".into(), Action::Update { key: "k".into(), update: put("-5") }),
            (
                "put k v --ttl 2s".into(),
                Action::Update { key: "k".into(), update: Update::Put { value: "v".into(), ttl_ms: Some(2_000) } },
            ),
            ("delete k".into(), Action::Update { key: "k".into(), update: Update::Delete }),
            ("cas k 1 2".into(), cas(Expectation::Value("1".into()), put("2"))),
            ("cas k 1 --delete".into(), cas(Expectation::Value("1".into()), Update::Delete)),
            ("cas k 2 --expect-absent".into(), cas(Expectation::Absent, put("2"))),
            ("cas k --delete --expect-present".into(), cas(Expectation::Present, Update::Delete)),
            ("cas k 2 --expect-version 1.1".into(), cas(Expectation::Version(ts), put("2"))),
            ("scan".into(), Action::Scan(scan("", End::Unbounded))),
            ("scan a".into(), Action::Scan(scan("a", End::Unbounded))),
            ("scan - z".into(), Action::Scan(scan("", key("z")))),
            ("scan \\x2d -".into(), Action::Scan(scan("-", End::Unbounded))),
            (
                "scan a b --reverse --limit 3".into(),
                Action::Scan(Scan { reverse: true, limit: 3, ..scan("a", key("b")) }),
            ),
            ("scan --prefix a --keys-only".into(), Action::Scan(Scan { keys_only: true, ..scan("a", key("b")) })),
            ("count a b".into(), Action::Count { interval: Interval::new("a", key("b")).unwrap(), at: None }),
            ("settle k --idempotency-key 0102 --not-after 1.1".into(), Action::Settle { key: "k".into(), name }),
            ("begin".into(), Action::Begin { read_only: false, at: None }),
            ("begin --read-only --at 1.1".into(), Action::Begin { read_only: true, at: Some(ts) }),
            ("show".into(), Action::Show),
            ("commit".into(), Action::Commit),
            ("abort".into(), Action::Abort),
            ("status".into(), Action::Status),
            ("watch status".into(), Action::WatchStatus { every: Duration::from_secs(2), times: None }),
            (
                "watch status --every 500ms --times 3".into(),
                Action::WatchStatus { every: Duration::from_millis(500), times: Some(3) },
            ),
            ("txn list".into(), Action::TxnList),
            (format!("txn status {hex}"), Action::TxnStatus { id, primary: None }),
            (format!("txn status {hex} k"), Action::TxnStatus { id, primary: Some("k".into()) }),
            (format!("txn resolve {hex} --force"), Action::TxnResolve { id, force: true }),
            ("quit".into(), Action::Quit),
            ("exit".into(), Action::Quit),
        ];
        for (line, action) in table {
            assert_eq!(parsed(&line), Ok(Some(action)), "{line}");
        }
        for nothing in ["", "   ", "# get a", "  #"] {
            assert_eq!(parsed(nothing), Ok(None), "{nothing:?}");
        }
        let hex = Action::parse("get 6100", Notation::Hex).unwrap();
        assert_eq!(hex, Some(Action::Get { key: "a\0".into(), at: None }));
    }

    #[test]
    fn what_is_no_command_is_refused_with_the_reason_and_the_right_form() {
        let table = [
            ("frobnicate", "unrecognized subcommand 'frobnicate'"),
            ("gett a", "'get'"),
            ("bin/get a", "no command \"bin/get\""),
            ("get.exe a", "no command"),
            ("get", "<KEY>"),
            ("get a b", "unexpected argument 'b'"),
            ("put k", "Usage: put <KEY> <VALUE>"),
            ("put k v --ttl soon", "soon"),
            ("put k \\q", "unknown escape"),
            ("put k \"v", "is not closed"),
            ("cas k", "the forms are"),
            ("cas k 1", "the forms are"),
            ("cas k 1 2 --delete", "the forms are"),
            ("cas k 1 2 --expect-absent", "the forms are"),
            ("cas k 1 --expect-absent --expect-present", "cannot be used with"),
            ("scan b a", "start"),
            ("scan a --prefix b", "cannot be used with"),
            ("watch status --times 0", "0"),
            ("watch", "status"),
            ("txn status short", "32 hexadecimal digits"),
            ("txn", "list"),
            ("help nonsense", "no command \"nonsense\""),
        ];
        for (line, part) in table {
            let why = parsed(line).unwrap_err();
            assert!(why.contains(part), "{line}: {why}");
            assert!(!why.starts_with("error:") && !why.contains("--help'"), "{line}: {why}");
        }
    }

    #[test]
    fn every_command_explains_itself() {
        let text = |line: &str| match parsed(line) {
            Ok(Some(Action::Explain(text))) => text,
            other => panic!("{line}: {other:?}"),
        };
        let all = text("help");
        for command in super::super::grammar::tree().get_subcommands() {
            let name = command.get_name();
            assert!(all.contains(&format!("\n  {name}")), "{name}: {all}");
            assert!(text(&format!("help {name}")).contains(&format!("Usage: {name}")), "{name}");
            assert_eq!(text(&format!("{name} --help")), text(&format!("help {name}")));
        }
        assert!(text("help txn status").contains("Usage: txn status <ID> [PRIMARY]"));
        assert!(all.contains("hold together what has blanks"), "{all}");
    }
}
