//! A process that writes is killed, again and again; what it reported as durable is there, and families agree.
//!
//! Without the test harness: this binary is both the test and the process it kills.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use support::*;

const ROUNDS: usize = 6;
const FLUSHES_PER_ROUND: usize = 4;
const ENTRIES_PER_FLUSH: u64 = 37;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("write") => write_forever(Path::new(&args[2])),
        // The runner lists tests to show them.
        Some("--list") => println!("what_a_killed_process_flushed_is_there_and_families_agree: test"),
        _ => what_a_killed_process_flushed_is_there_and_families_agree(),
    }
}

/// Applies entries on top of what is there, and says after each flush what is durable.
fn write_forever(dir: &Path) {
    let store = env().open(dir).unwrap();
    let mut n = state(&store).unwrap_or(0);
    let mut out = std::io::stdout();
    loop {
        for _ in 0..ENTRIES_PER_FLUSH {
            n += 1;
            apply(&store, n, 1 << 14);
        }
        let durable = store.flush().unwrap().unwrap();
        writeln!(out, "{}", u64::from_be_bytes(durable.as_ref().try_into().unwrap())).unwrap();
        out.flush().unwrap();
    }
}

fn what_a_killed_process_flushed_is_there_and_families_agree() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("live");
    for round in 0..ROUNDS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .arg("write")
            .arg(&dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let reported: Vec<u64> =
            lines.by_ref().take(FLUSHES_PER_ROUND).map(|line| line.unwrap().parse().unwrap()).collect();
        // Still listening, and it still writes.
        writer.kill().unwrap();
        writer.wait().unwrap();
        let store = env().open(&dir).unwrap();
        let found = state(&store).unwrap();
        assert_eq!(reported.len(), FLUSHES_PER_ROUND);
        assert!(reported.iter().all(|n| *n <= found), "round {round}: reported {reported:?}, found {found}");
        assert_eq!(found % ENTRIES_PER_FLUSH, 0, "round {round}: only flushed states can be found");
        assert_eq!(versions(&store, "filler").len() as u64, found, "round {round}: no version is missing or left over");
        drop(Arc::into_inner(store).unwrap());
    }
    println!("{ROUNDS} kills survived");
}
