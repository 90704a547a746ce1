//! Holds `docs/hazards.md` against the code: every hazard has a row there with a test that is named after it, every test that is
//! named there exists, and every guard stands there with its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use drover_guards::{Guard, Witness};

/// Hazards are numbered from one up to this.
const HAZARDS: u32 = 52;

/// A row of a table whose last column holds tests.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// Those that the row is about, or the one above it whose first column is not empty.
    hazards: BTreeSet<u32>,
    /// In the second column, alone.
    guard: Option<String>,
    /// Without their modules.
    tests: BTreeSet<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The numbers in `H1, H2: what goes wrong`.
fn labels(cell: &str) -> BTreeSet<u32> {
    let labels = cell.split_once(':').map_or("", |(labels, _)| labels).split(", ");
    labels.filter_map(|label| label.trim().strip_prefix('H')?.parse().ok()).collect()
}

fn rows(document: &str) -> Vec<Row> {
    let (mut rows, mut has_tests, mut hazards) = (Vec::new(), false, BTreeSet::new());
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(cells) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else { continue };
        let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
        let last = cells[cells.len() - 1];
        if lines.next_if(|below| below.starts_with("|---")).is_some() {
            (has_tests, hazards) = (last.starts_with("tests"), BTreeSet::new());
        } else if has_tests {
            if !cells[0].is_empty() {
                hazards = labels(cells[0]);
            }
            let guard = cells[1].strip_prefix('`').and_then(|guard| guard.strip_suffix('`')).map(str::to_owned);
            let names = quoted(last).map(|test| test.rsplit("::").next().unwrap_or(test));
            let tests = names.filter(|test| test.contains('_')).map(str::to_owned).collect();
            rows.push(Row { hazards: hazards.clone(), guard, tests });
        }
    }
    rows
}

/// The names of all functions in the sources.
fn functions() -> BTreeSet<String> {
    let (mut folders, mut found) = (vec![root().join("crates")], BTreeSet::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let names = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
                found.extend(names.map(|(name, _)| name.to_owned()));
            }
        }
    }
    found
}

/// The hazard that a test is named after.
fn named_after(test: &str) -> Option<u32> {
    test.strip_prefix('h')?.split_once('_')?.0.parse().ok()
}

fn document() -> Vec<Row> {
    rows(&std::fs::read_to_string(root().join("docs/hazards.md")).unwrap())
}

/// The tests in the rows of each hazard.
fn by_hazard(rows: &[Row]) -> BTreeMap<u32, BTreeSet<&str>> {
    let mut tests: BTreeMap<u32, BTreeSet<&str>> = BTreeMap::new();
    for row in rows {
        for hazard in &row.hazards {
            tests.entry(*hazard).or_default().extend(row.tests.iter().map(String::as_str));
        }
    }
    tests
}

#[test]
fn every_hazard_has_a_row_with_a_test_that_is_named_after_it() {
    let rows = document();
    let tests = by_hazard(&rows);
    assert_eq!(tests.keys().copied().collect::<Vec<_>>(), (1..=HAZARDS).collect::<Vec<_>>());
    let nameless = |(hazard, tests): &(&u32, &BTreeSet<&str>)| {
        !tests.iter().any(|test| named_after(test).as_ref() == Some(hazard))
    };
    let nameless: Vec<_> = tests.iter().filter(nameless).collect();
    assert!(nameless.is_empty(), "hazards without a test that is named after them: {nameless:?}");
}

#[test]
fn every_test_that_is_named_exists_and_every_test_that_is_named_after_a_hazard_stands_in_its_row() {
    let (rows, functions) = (document(), functions());
    let tests = by_hazard(&rows);
    let missing: Vec<_> = rows.iter().flat_map(|row| &row.tests).filter(|test| !functions.contains(*test)).collect();
    assert!(missing.is_empty(), "there are no such tests: {missing:?}");
    let stands = |test: &str, hazard| tests.get(&hazard).is_some_and(|tests| tests.contains(test));
    let left_out = |test: &&String| named_after(test).is_some_and(|hazard| !stands(test, hazard));
    let left_out: Vec<_> = functions.iter().filter(left_out).collect();
    assert!(left_out.is_empty(), "they stand in no row of their hazard: {left_out:?}");
}

#[test]
fn every_guard_stands_there_with_its_tests_and_nothing_else_does() {
    let rows = document();
    let mut guards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in &rows {
        if let Some(guard) = &row.guard {
            guards.entry(guard).or_default().extend(row.tests.iter().map(String::as_str));
        }
    }
    for guard in Guard::ALL {
        let tests = guards.remove(guard.name()).unwrap_or_else(|| panic!("{} is missing", guard.name()));
        let witnesses = guard.witnesses().iter().map(|Witness { test, .. }| test.rsplit("::").next().unwrap_or(test));
        assert_eq!(tests, witnesses.collect(), "{}", guard.name());
    }
    assert!(guards.is_empty(), "there are no such guards: {guards:?}");
}

#[test]
fn a_guard_stands_in_a_row_of_the_hazard_that_it_is_labelled_with() {
    let source = std::fs::read_to_string(root().join("crates/guards/src/guard.rs")).unwrap();
    let rows = document();
    for guard in Guard::ALL {
        let (above, _) = source.split_once(&format!("    {}:\n", guard.name())).unwrap();
        let labelled = above.lines().rev().take_while(|line| line.trim_start().starts_with("///"));
        let label = labelled.last().and_then(|line| line.trim_start().strip_prefix("/// ")).unwrap();
        let hazards = labels(label);
        assert_eq!(hazards.len(), 1, "{}: {label}", guard.name());
        let stands = |row: &&Row| row.guard.as_deref() == Some(guard.name()) && !row.hazards.is_disjoint(&hazards);
        assert!(rows.iter().any(|row| stands(&row)), "{} does not stand in a row of {hazards:?}", guard.name());
    }
}

#[test]
fn rows_are_read_with_their_hazards_guard_and_tests() {
    let document = "\
# Title
| hazard | guard | tests |
|---|---|---|
| H1: a | `A` | `m::tests::h1_x` (crate), `y_z` (crate) |
|  | `B` | `h1_v` (crate) |

| hazard | why |
|---|---|
| H9: not looked at | `no_test` |

| hazard | tests (e2e) |
|---|---|
| H2, H12: c | the steps `w_w` in all of crashes |
";
    let row = |hazards: &[u32], guard: Option<&str>, tests: &[&str]| Row {
        hazards: hazards.iter().copied().collect(),
        guard: guard.map(str::to_owned),
        tests: tests.iter().map(|test| (*test).to_owned()).collect(),
    };
    let expect =
        [row(&[1], Some("A"), &["h1_x", "y_z"]), row(&[1], Some("B"), &["h1_v"]), row(&[2, 12], None, &["w_w"])];
    assert_eq!(rows(document), expect);
    assert_eq!(["h12_x", "h_x", "hx", "x_h1"].map(named_after), [Some(12), None, None, None]);
}
