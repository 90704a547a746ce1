//! The binary as scripts see it: arguments in, bytes and exit codes out, against a server that keeps a map.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod memory;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use memory::{Memory, SILENT};
use rustix::process::{Pid, Signal, kill_process};

/// How long a server may take to be asked.
const PATIENCE: Duration = Duration::from_secs(30);

fn drover(server: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover"));
    command.args(args).env("DROVER_ENDPOINTS", server.to_string()).stdin(Stdio::null());
    command
}

fn run(server: SocketAddr, args: &[&str]) -> Output {
    drover(server, args).output().unwrap()
}

fn fed(server: SocketAddr, args: &[&str], input: &[u8]) -> Output {
    let mut child =
        drover(server, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_value_comes_back_byte_for_byte_and_its_absence_is_a_no() {
    let server = Memory::start();
    assert_eq!(code(&run(server, &["kv", "get", "k"])), 1);
    let binary = b"\0\xff\r\nend";
    assert_eq!(code(&fed(server, &["kv", "put", "k"], binary)), 0);
    let got = run(server, &["kv", "get", "k"]);
    assert_eq!((code(&got), got.stdout.as_slice()), (0, &binary[..]));
    assert_eq!(out(&run(server, &["--hex", "kv", "get", "6b"])), "00ff0d0a656e64\n");
    assert!(out(&run(server, &["kv", "get", "k", "--json"])).contains(r#""value_hex":"00ff0d0a656e64""#));
    assert_eq!(code(&run(server, &["kv", "delete", "k"])), 0);
    assert_eq!(code(&run(server, &["kv", "get", "k"])), 1);
}

#[test]
fn what_the_command_line_refuses_itself_is_wrong_usage_and_what_the_server_refuses_is_not() {
    let server = Memory::start();
    let usage: [&[&str]; 11] = [
        &["kv", "get", ""],
        &["kv", "put", "", "v"],
        &["kv", "delete", ""],
        &["kv", "cas", "", "v", "--expect-absent"],
        &["--hex", "kv", "get", ""],
        &["kv", "get", "\\q"],
        &["route", "show", "\\q", "--endpoints", "127.0.0.1:1"],
        &["txn", "status", "00000000000000000000000000000001", ""],
        &["kv", "get", "k", "--endpoints", "nonsense"],
        &["kv", "put", "k", "v", "--endpoints", "https://127.0.0.1:1"],
        &["bench", "--endpoints", "nonsense"],
    ];
    for args in usage {
        let refused = run(server, args);
        assert_eq!((code(&refused), out(&refused)), (2, ""), "{args:?}: {}", err(&refused));
    }
    assert_eq!(code(&fed(server, &["shell"], b"get \"\"\n")), 2);
    assert_eq!(out(&run(server, &["kv", "count"])), "0\n");
    let key = "k".repeat(5_000);
    let refused = run(server, &["kv", "get", &key]);
    assert_eq!(code(&refused), 4);
    assert!(err(&refused).starts_with("error: KEY_TOO_LARGE: "), "{}", err(&refused));
}

#[test]
fn a_compare_and_set_says_no_with_the_present_value() {
    let server = Memory::start();
    assert_eq!(code(&run(server, &["kv", "cas", "k", "1", "--expect-absent"])), 0);
    let no = run(server, &["kv", "cas", "k", "2", "--expect-absent"]);
    assert_eq!(code(&no), 1);
    assert!(err(&no).contains("the value is 1"), "{}", err(&no));
    assert_eq!(code(&run(server, &["kv", "cas", "k", "2", "--expect-value", "1"])), 0);
    assert_eq!(code(&run(server, &["kv", "cas", "k", "--delete", "--expect-present"])), 0);
    assert_eq!(code(&run(server, &["kv", "cas", "k", "3"])), 2);
}

#[test]
fn a_dump_loads_into_another_cluster_and_verifies_there() {
    let (from, to) = (Memory::start(), Memory::start());
    let folder = tempfile::tempdir().unwrap();
    let all: [(&str, &[&str]); 5] =
        [("tsv", &[]), ("csv", &[]), ("jsonl", &[]), ("tab", &["--hex"]), ("csv", &["--hex"])];
    for (round, (extension, flags)) in all.into_iter().enumerate() {
        let prefix = format!("{round}");
        let prefix_hex = format!("3{round}");
        let path = folder.path().join(format!("rows{round}.{extension}"));
        let path = path.to_str().unwrap();
        for i in 0..30 {
            let (key, value) = (format!("{prefix}\\x00{i:02}"), format!("tab\\t{i}\\xff"));
            assert_eq!(code(&run(from, &["kv", "put", &key, &value])), 0);
        }
        let range = if flags.is_empty() { &prefix } else { &prefix_hex };
        assert_eq!(code(&run(from, &[&["dump", "--prefix", range, "-o", path], flags].concat())), 0);
        let load = [&["load", path], flags].concat();
        let verify = [&load[..], &["--verify"]].concat();
        let missing = run(to, &verify);
        assert_eq!(code(&missing), 1, "{}", err(&missing));
        let loaded = run(to, &load);
        assert_eq!((code(&loaded), out(&loaded)), (0, "30 of 30 rows written, 0 malformed\n"), "{}", err(&loaded));
        let verified = run(to, &verify);
        assert_eq!(code(&verified), 0, "{}", out(&verified));
        run(to, &["kv", "put", &format!("{prefix}\\x0003"), "changed"]);
        let different = run(to, &verify);
        assert_eq!(code(&different), 1);
        assert!(out(&different).contains("0 missing, 1 different"), "{}", out(&different));
    }
    assert_eq!(out(&run(to, &["kv", "count"])), "150\n");
}

#[test]
fn rows_of_any_size_are_verified_whatever_stands_in_their_place() {
    let server = Memory::start();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.tsv");
    let write = |value: &str| {
        let rows: String = (0..20).map(|i| format!("k{i:02}\t{value}\n")).collect();
        std::fs::write(&path, rows).unwrap();
    };
    let path = path.to_str().unwrap();
    // All of them together are more than one answer holds.
    write(&"v".repeat(1 << 20));
    assert_eq!(code(&run(server, &["load", path])), 0);
    let verified = run(server, &["load", path, "--verify"]);
    assert_eq!(code(&verified), 0, "{}", err(&verified));
    assert_eq!(out(&verified), "20 keys compared: 0 missing, 0 different; 0 malformed lines\n");
    write("small");
    let different = run(server, &["load", path, "--verify"]);
    assert_eq!(
        (code(&different), out(&different)),
        (1, "20 keys compared: 0 missing, 20 different; 0 malformed lines\n")
    );
}

#[test]
fn malformed_lines_are_named_and_the_others_written() {
    let server = Memory::start();
    let loaded = fed(server, &["load", "-", "--format", "csv"], b"a,1\nbroken\nb,2\n");
    assert_eq!(code(&loaded), 5);
    assert!(err(&loaded).contains("line 2:"), "{}", err(&loaded));
    assert_eq!(out(&loaded), "2 of 3 rows written, 1 malformed\n");
}

#[test]
fn scans_go_both_ways_over_all_pages_and_stop_at_the_limit() {
    let server = Memory::start();
    let rows: String = (0..20).map(|i| format!("k{i:02}\tv{i}\n")).collect();
    assert_eq!(code(&fed(server, &["load", "-", "--format", "tsv"], rows.as_bytes())), 0);
    assert_eq!(out(&run(server, &["kv", "scan"])), rows);
    let last = run(server, &["kv", "scan", "--reverse", "--limit", "9", "--keys-only"]);
    let expect: String = (11..20).rev().map(|i| format!("k{i}\n")).collect();
    assert_eq!(out(&last), expect);
    assert_eq!(out(&run(server, &["kv", "count", "--start", "k05", "--end", "k10"])), "5\n");
    let everything_and_a_range: [&[&str]; 4] =
        [&["--all", "--prefix", "k"], &["--all", "--start", "k"], &["--all", "--end", "l"], &[]];
    for range in everything_and_a_range {
        let refused = run(server, &[&["kv", "delete-range"], range].concat());
        assert_eq!(code(&refused), 2, "{range:?}: {}", err(&refused));
        assert!(err(&refused).contains("--all"), "{range:?}: {}", err(&refused));
        assert_eq!(out(&run(server, &["kv", "count"])), "20\n", "{range:?}");
    }
    let deleted = run(server, &["kv", "delete-range", "--prefix", "k0"]);
    assert_eq!(out(&deleted), "10 keys deleted in 3 batches\n");
    assert_eq!(out(&run(server, &["kv", "count"])), "10\n");
}

#[test]
fn an_unknown_outcome_has_its_own_code_and_says_how_to_settle_it() {
    let server = Memory::start_losing("cursed");
    let lost = run(server, &["kv", "put", "cursed", "v", "--timeout", "300ms"]);
    assert_eq!(code(&lost), 3, "{}", err(&lost));
    let line = err(&lost).lines().find_map(|line| line.split_once("drover kv settle ")).unwrap().1.to_owned();
    let arguments: Vec<&str> = ["kv", "settle"].into_iter().chain(line.split(' ')).collect();
    let settled = run(server, &arguments);
    assert_eq!((code(&settled), out(&settled)), (1, "it did not happen and never will\n"), "{}", err(&settled));
}

/// Runs a command until the server has what it asks for, then sends it a signal.
fn signalled(args: &[&str], input: &[u8], signal: Signal) -> (SocketAddr, Output) {
    let (server, asked) = Memory::start_silent();
    let mut child =
        drover(server, args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A load that is to be interrupted has not seen the end of its input.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    let open = args.contains(&"load").then_some(stdin);
    asked.recv_timeout(PATIENCE).unwrap();
    kill_process(Pid::from_child(&child), signal).unwrap();
    let ended = child.wait_with_output().unwrap();
    drop(open);
    (server, ended)
}

/// The command that a complaint says to run, without the name of the program.
fn advised(output: &Output) -> Vec<String> {
    let command = err(output).lines().find_map(|line| line.strip_prefix("to find out what became of it: drover "));
    command.unwrap_or_else(|| panic!("no advice: {}", err(output))).split(' ').map(str::to_owned).collect()
}

#[test]
fn a_write_that_a_signal_ends_is_unknown_and_says_how_to_settle_it() {
    let lines: [&[&str]; 4] = [
        &["kv", "put", SILENT, "v"],
        &["kv", "delete", SILENT],
        &["kv", "cas", SILENT, "v", "--expect-absent"],
        &["shell"],
    ];
    for signal in [Signal::INT, Signal::TERM] {
        for line in lines {
            let (server, lost) = signalled(line, b"put silent v\n", signal);
            assert_eq!((code(&lost), out(&lost)), (3, ""), "{line:?}: {}", err(&lost));
            assert!(err(&lost).contains("interrupted before the answer came"), "{}", err(&lost));
            let settled = match line {
                ["shell"] => {
                    let settle = err(&lost).lines().last().unwrap().strip_prefix("to find out what became of it: ");
                    fed(server, &["shell"], settle.unwrap().as_bytes())
                }
                _ => run(server, &advised(&lost).iter().map(String::as_str).collect::<Vec<_>>()),
            };
            assert_eq!((code(&settled), out(&settled)), (1, "it did not happen and never will\n"), "{}", err(&settled));
        }
    }
}

#[test]
fn whatever_else_changes_something_says_what_to_do_when_a_signal_ends_it() {
    let script = b"expect-absent other\nput silent v\n";
    let rows = b"a\t1\nsilent\t2\n";
    let again = "to make sure of it: do the same again, which does no harm";
    let table: [(&[&str], &[u8], &str); 4] = [
        (&["txn", "run"], script, "to find out what became of it: drover txn status --hex "),
        (&["node", "remove", "4"], b"", "to find out what became of it: drover node list --endpoints "),
        (&["kv", "delete-range", "--start", SILENT], b"", again),
        (&["load", "-", "--format", "tsv", "--parallel", "1"], rows, again),
    ];
    for (line, input, advice) in table {
        let (_, lost) = signalled(line, input, Signal::INT);
        assert_eq!((code(&lost), out(&lost)), (3, ""), "{line:?}: {}", err(&lost));
        assert!(err(&lost).contains("interrupted before the answer came"), "{line:?}: {}", err(&lost));
        assert!(err(&lost).lines().last().unwrap().starts_with(advice), "{line:?}: {}", err(&lost));
        if line[0] == "load" {
            assert!(err(&lost).contains("1 rows were written before the load stopped; run it again"), "{}", err(&lost));
        }
    }
}

#[test]
fn what_changes_nothing_ends_with_the_signal() {
    for line in [&["kv", "get", SILENT][..], &["txn", "run"]] {
        let (_, ended) = signalled(line, b"get silent\nput silent v\n", Signal::TERM);
        assert_eq!(ended.status.signal(), Some(Signal::TERM.as_raw()), "{line:?}: {}", err(&ended));
        assert_eq!((out(&ended), err(&ended)), ("", ""), "{line:?}");
    }
}

#[test]
fn with_json_a_failure_is_one_object_whatever_the_command() {
    let object = |ended: &Output| -> serde_json::Value {
        assert_eq!(out(ended).lines().count(), 1, "{} {}", out(ended), err(ended));
        let object: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(object["exit_code"], code(ended), "{object}");
        let message = object["error"]["message"].as_str().unwrap();
        assert!(err(ended).starts_with("error: ") && err(ended).contains(message), "{object}: {}", err(ended));
        object
    };
    let lost = object(&signalled(&["kv", "put", SILENT, "v", "--json"], b"", Signal::INT).1);
    let error = &lost["error"];
    assert_eq!((&error["reason"], &error["certainty"]), (&"TIMEOUT_INDEFINITE".into(), &"unknown".into()));
    assert_eq!((&error["retry"], &error["settle"]["key_hex"]), (&"settle".into(), &"73696c656e74".into()), "{lost}");

    let server = Memory::start();
    let refused = object(&run(server, &["kv", "get", &"k".repeat(5_000), "--json"]));
    let error = &refused["error"];
    assert_eq!((&error["reason"], &error["certainty"]), (&"KEY_TOO_LARGE".into(), &"definite".into()), "{refused}");
    assert_eq!((&error["retry"], error.get("settle")), (&"no".into(), None), "{refused}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for line in [&["kv", "put", "k", "v"][..], &["kv", "scan"], &["dump"], &["txn", "list"], &["bench"]] {
        let refused = object(&run(nobody, &[line, &["--timeout", "300ms", "--json"]].concat()));
        let error = &refused["error"];
        assert_eq!((&error["reason"], &error["certainty"]), (&"UNAVAILABLE".into(), &"definite".into()), "{refused}");
        assert_eq!((&error["retry"], error.get("settle")), (&"later".into(), None), "{refused}");
    }
    let others: [(&[&str], i32); 6] = [
        (&["status"], 4),
        (&["node", "list"], 4),
        (&["route", "list"], 4),
        (&["kv", "get", ""], 2),
        (&["load", "/nowhere.tsv"], 5),
        (&["kv", "put", "k", "v", "--frobnicate"], 2),
    ];
    for (line, expect) in others {
        let refused = run(server, &[line, &["--json"]].concat());
        object(&refused);
        assert_eq!(code(&refused), expect, "{line:?}: {}", err(&refused));
    }
    // A no is an answer.
    let absent = run(server, &["kv", "get", "k", "--json"]);
    assert_eq!((code(&absent), out(&absent)), (1, "{\"key\":\"k\",\"value\":null}\n"));
}

#[test]
fn a_script_for_the_shell_stops_at_an_unknown_outcome_and_says_how_to_settle_it() {
    let server = Memory::start_losing("cursed");
    let shell = |input: &str| fed(server, &["shell", "--timeout", "300ms"], input.as_bytes());
    let lost = shell("put k 1\nput cursed v\nput k 2\n");
    assert_eq!(code(&lost), 3, "{}", err(&lost));
    assert!(err(&lost).starts_with("error: line 2: "), "{}", err(&lost));
    assert_eq!(out(&run(server, &["kv", "get", "k"])), "1");
    let settle = err(&lost).lines().last().unwrap().strip_prefix("to find out what became of it: ").unwrap();
    let settled = shell(&format!("{settle}\nput k 3\n"));
    assert_eq!((code(&settled), out(&settled)), (1, "it did not happen and never will\n"), "{}", err(&settled));
    assert_eq!(out(&run(server, &["kv", "get", "k"])), "1");
}

#[test]
fn a_shell_whose_answers_nobody_reads_any_more_is_no_failure() {
    let server = Memory::start();
    let mut child =
        drover(server, &["shell"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"put k 1\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((code(&ended), err(&ended)), (0, ""));
}

#[test]
fn a_cluster_that_is_not_there_is_a_definite_failure() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = run(port, &["kv", "put", "k", "v", "--timeout", "500ms"]);
    assert_eq!(code(&refused), 4, "{}", err(&refused));
    assert!(err(&refused).contains("nothing was sent"), "{}", err(&refused));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let server = Memory::start();
    let rows: String = (0..3_000).map(|i| format!("k{i:05}\t{}\n", "x".repeat(100))).collect();
    assert_eq!(code(&fed(server, &["load", "-", "--format", "tsv"], rows.as_bytes())), 0);
    let mut child = drover(server, &["dump"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert!(first.starts_with("k00000\t"));
    assert_eq!((code(&ended), err(&ended)), (0, ""));
}

#[test]
fn a_bench_reports_what_it_measured() {
    let server = Memory::start();
    let args = ["bench", "--clients", "4", "--keys", "50", "--seconds", "1", "--warm-up", "1ms", "--json"];
    for mix in ["put", "get", "50-50", "cas"] {
        let bench = run(server, &[&args[..], &["--mix", mix]].concat());
        assert_eq!(code(&bench), 0, "{}", err(&bench));
        let report: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
        assert_eq!(report["failed"], 0);
        assert!(report["requests"].as_u64().unwrap() > 0, "{report}");
    }
}

#[test]
fn the_help_lists_the_exit_codes() {
    let help = Command::new(env!("CARGO_BIN_EXE_drover")).arg("--help").output().unwrap();
    assert!(out(&help).contains("3  the outcome is unknown"), "{}", out(&help));
}
