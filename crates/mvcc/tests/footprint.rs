//! What idle groups cost. A binary of its own: it measures the process.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use support::*;

const GROUPS: usize = 8;
/// Far above what is measured (see the design record), far below what would hurt the node's 150 MiB.
const LIMIT_BYTES: u64 = 64 << 20;

/// Resident memory of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn eight_idle_groups_fit_beside_everything_else_of_a_node() {
    let root = tempfile::tempdir().unwrap();
    let env = env();
    let before = resident_bytes();
    let stores: Vec<_> = (0..GROUPS).map(|n| env.open(&root.path().join(format!("group-{n}"))).unwrap()).collect();
    for store in &stores {
        apply(store, 1, 0);
        store.flush().unwrap();
        apply(store, 2, 0);
    }
    let cost = resident_bytes().saturating_sub(before);
    println!("{GROUPS} idle groups: {} KiB", cost >> 10);
    assert!(cost < LIMIT_BYTES, "{GROUPS} idle groups take {cost} bytes");
}
