//! `docs/errors.md` against the code.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use drover_client::Reason;

/// The columns of the table rows whose first column is a reason.
fn rows() -> Vec<(String, Vec<String>)> {
    let page = include_str!("../../../docs/errors.md");
    let rows = page.lines().filter_map(|line| {
        let columns: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let name = columns.first()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name.to_owned(), columns[1..].iter().map(|column| (*column).to_owned()).collect()))
    });
    rows.collect()
}

#[test]
fn the_page_lists_every_reason_once_and_no_other() {
    let mut listed: Vec<String> = rows().into_iter().map(|(name, _)| name).collect();
    let mut reasons: Vec<String> = Reason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect();
    listed.sort();
    reasons.sort();
    assert_eq!(listed, reasons);
}

#[test]
fn the_page_says_of_each_reason_what_it_means_what_was_changed_and_what_to_do() {
    for (name, columns) in rows() {
        assert_eq!(columns.len(), 3, "{name}");
        assert!(columns.iter().all(|column| column.len() > 5 && column.ends_with('.')), "{name}: {columns:?}");
    }
}

#[test]
fn exactly_the_transient_reasons_stand_under_passing_states() {
    let page = include_str!("../../../docs/errors.md");
    let section = page.split("\n## ").find(|section| section.starts_with("Passing states")).unwrap();
    for reason in Reason::ALL {
        let transient = drover_client::Error::definite(*reason, "").is_transient();
        assert_eq!(section.contains(&format!("| `{reason}` |")), transient, "{reason}");
    }
}
