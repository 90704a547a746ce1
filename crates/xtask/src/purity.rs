//! What the crates may depend on whose answers must be the same on every replica.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// No I/O, no clock, no randomness, no runtime: what these compute depends on their arguments alone.
const PURE: &[(&str, &[&str])] = &[
    ("drover-hlc", &["thiserror"]),
    ("drover-keys", &["bytes", "serde", "thiserror"]),
    ("drover-kv", &["bytes", "drover-hlc", "drover-keys", "thiserror"]),
    ("drover-catalog", &["bytes", "drover-guards", "drover-hlc", "drover-keys", "thiserror", "xxhash-rust"]),
];

/// Apply, and what drives it: the store, Raft's types, the traits and channels by which Raft calls it, and where work that blocks
/// is done.
const FSM: (&str, &[&str]) = (
    "drover-fsm",
    &[
        "bytes",
        "drover-catalog",
        "drover-guards",
        "drover-hlc",
        "drover-keys",
        "drover-kv",
        "drover-mvcc",
        "drover-rafttypes",
        "drover-seams",
        "drover-wire",
        "futures",
        "openraft",
        "parking_lot",
        "prost",
        "thiserror",
        "tokio",
        "tracing",
        "xxhash-rust",
    ],
);

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// What each package of the workspace is built with; what only its tests use does not count.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(cargo).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter().map(|package| {
        let all = package["dependencies"].as_array().unwrap().iter();
        let built_with =
            all.filter(|dependency| dependency["kind"] != "dev").map(|dependency| text(&dependency["name"]));
        (text(&package["name"]), built_with.collect())
    });
    packages.collect()
}

#[test]
fn pure_crates_and_the_state_machine_depend_on_what_is_listed_and_nothing_else() {
    let dependencies = dependencies();
    for (package, allowed) in PURE.iter().chain([&FSM]) {
        let allowed: BTreeSet<String> = allowed.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(dependencies[*package], allowed, "{package}");
    }
}

#[test]
fn pure_crates_are_banned_from_the_same() {
    let bans = |package: &str| {
        let name = package.trim_start_matches("drover-");
        std::fs::read_to_string(root().join(format!("crates/{name}/clippy.toml"))).unwrap()
    };
    for (package, _) in PURE {
        assert_eq!(bans(package), bans(PURE[0].0), "{package}");
    }
    // The same calls, for reasons of its own.
    let calls = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once("path = ")?.1.split_once(',')?.0.to_owned())).collect()
    };
    assert_eq!(calls(&bans(FSM.0)), calls(&bans(PURE[0].0)));
}
