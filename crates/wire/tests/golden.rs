//! The bytes of every message that clients and nodes of different versions exchange.
//!
//! `golden.txt` holds one line for each case: the message, a slash and what is special about it, a colon, and the bytes.
//! A line is never changed, and never removed before the oldest version that is still talked to stopped sending it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod cases;
mod coverage;

use std::collections::BTreeMap;

use cases::{Case, all};

/// Names and bytes of `golden.txt`, in its order.
fn golden() -> Vec<(String, Vec<u8>)> {
    let lines = include_str!("golden.txt").lines();
    lines
        .map(|line| {
            let (name, digits) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
            let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            (name.to_owned(), pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect())
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let golden: BTreeMap<String, Vec<u8>> = golden().into_iter().collect();
    let mut wrong = String::new();
    for Case { name, bytes, .. } in all() {
        if golden.get(name) != Some(&bytes) {
            wrong += &format!("{name}: {}\n", hex(&bytes));
        }
    }
    assert!(wrong.is_empty(), "these are not the bytes of golden.txt:\n{wrong}");
}

#[test]
fn the_bytes_of_every_message_are_read_as_what_was_written() {
    let cases: BTreeMap<&str, Case> = all().into_iter().map(|case| (case.name, case)).collect();
    for (name, bytes) in golden() {
        let case = cases.get(name.as_str()).unwrap_or_else(|| panic!("{name} is in golden.txt and has no case"));
        (case.read)(&bytes);
    }
}

#[test]
fn every_field_and_every_value_of_an_enum_occurs_in_the_golden_bytes() {
    let mut seen = coverage::Seen::default();
    for (name, bytes) in golden() {
        seen.walk(name.split('/').next().unwrap(), &bytes);
    }
    let missing = seen.missing();
    assert!(missing.is_empty(), "no golden bytes hold {missing:#?}");
}
