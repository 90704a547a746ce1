//! A few seeds.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::process::{Command, Output};

fn run(seed: u64) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-sim"));
    command.args(["--quiet", "--seed", &seed.to_string()]).output().unwrap()
}

/// The line that a seed ends with, which holds the hash of its trace.
fn verdict(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn holds(seed: u64) {
    let line = verdict(&run(seed));
    assert!(line.contains("ok"), "{line}");
}

#[test]
fn every_property_holds_with_seed_1() {
    holds(1);
}

#[test]
fn every_property_holds_with_seed_3() {
    holds(3);
}

#[test]
fn every_property_holds_with_seed_4() {
    holds(4);
}
