//! What the entries say of ownership, put together.

use std::collections::BTreeMap;

use super::{Change, MOST, overlap};

/// A range that a group owned without interruption, by the indices of its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub group: u64,
    pub start: String,
    pub end: String,
    /// The version of the catalog since which.
    pub version: u64,
    /// The entry that gave it to the group.
    pub from: u64,
    /// The entry by which the group gave it up.
    pub until: Option<u64>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Entries {
    /// Each entry once, by group and index.
    pub changes: Vec<Change>,
    pub spans: Vec<Span>,
    pub moves_compared: u64,
    pub problems: Vec<String>,
}

/// Puts together what the nodes tell of entries, and checks that.
pub fn check_entries(told: &[(u64, Change)], clocks_agree: bool) -> Entries {
    let mut found = Entries::default();
    found.changes = each_once(told, &mut found.problems);
    found.spans = spans(&found.changes, &mut found.problems);
    two_since_one_version(&found.spans, &mut found.problems);
    for active in found.changes.iter().filter(|change| change.step == "activate-range") {
        match handed_over(active, &found.changes, clocks_agree) {
            Ok(()) => found.moves_compared += 1,
            Err(why) => found.problems.push(why),
        }
    }
    found.problems.truncate(MOST);
    found
}

fn range(change: &Change) -> String {
    format!("[{}, {})", change.start, change.end)
}

/// Each entry once, as it was told first, if all tell the same of it.
fn each_once(told: &[(u64, Change)], problems: &mut Vec<String>) -> Vec<Change> {
    let mut entries: BTreeMap<(u64, u64, &str), (u64, Change)> = BTreeMap::new();
    for (node, change) in told {
        let key = (change.group, change.index, change.start.as_str());
        let (first, known) = entries.entry(key).or_insert_with(|| (*node, change.clone()));
        let same_time = Change { at: known.at.clone(), ..change.clone() };
        if same_time != *known {
            problems.push(format!("node {node} tells {change:?}, and node {first} {known:?}"));
        }
        if change.at < known.at {
            known.at.clone_from(&change.at);
        }
    }
    entries.into_values().map(|(_, change)| change).collect()
}

/// What was owned from when until when. The changes are in the order of their groups and indices.
fn spans(changes: &[Change], problems: &mut Vec<String>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for change in changes {
        let Change { group, index, start, end, version, .. } = change;
        let is_met = |span: &Span| {
            span.group == *group && span.until.is_none() && overlap((&span.start, &span.end), (start, end))
        };
        match change.step.as_str() {
            "grant-range" | "activate-range" => {
                if let Some(owned) = spans.iter().find(|span| is_met(span)) {
                    problems.push(format!("group {group} gets {} at {index} and has {owned:?}", range(change)));
                }
                let (start, end) = (start.clone(), end.clone());
                spans.push(Span { group: *group, start, end, version: *version, from: *index, until: None });
            }
            "release-range" => match spans.iter().position(is_met) {
                Some(at) if spans[at].version == *version => {
                    let whole = spans.remove(at);
                    let piece = |start: &str, end: &str| Span { start: start.into(), end: end.into(), ..whole.clone() };
                    if whole.start < *start {
                        spans.push(piece(&whole.start, start));
                    }
                    if !end.is_empty() && (whole.end.is_empty() || *end < whole.end) {
                        spans.push(piece(end, &whole.end));
                    }
                    spans.push(Span { until: Some(*index), ..piece(start, end) });
                }
                other => {
                    let owned = other.map(|at| &spans[at]);
                    problems.push(format!("group {group} gives {} up at {index} and has {owned:?}", range(change)));
                }
            },
            _ => {}
        }
    }
    spans
}

fn two_since_one_version(spans: &[Span], problems: &mut Vec<String>) {
    for (n, one) in spans.iter().enumerate() {
        let same =
            |other: &&Span| other.version == one.version && overlap((&one.start, &one.end), (&other.start, &other.end));
        let others = spans[n + 1..].iter().filter(same);
        problems.extend(others.map(|other| format!("two own a key since one version: {one:?} and {other:?}")));
    }
}

/// Whether the range that a group gets by a move was given up for that by another one, with all its rows.
fn handed_over(active: &Change, changes: &[Change], clocks_agree: bool) -> Result<(), String> {
    let what = format!("group {} got {} by job {} at {}", active.group, range(active), active.job, active.index);
    let of_job = |change: &&Change| change.job == active.job && change.group != active.group;
    let closing = |change: &&Change| change.step == "arm-read-fence" && change.epoch == active.epoch;
    let Some(closed) = changes.iter().filter(of_job).find(closing) else {
        return Err(format!("{what}, and nobody has closed it by that course"));
    };
    if (&closed.start, &closed.end) != (&active.start, &active.end) {
        return Err(format!("{what}, and group {} has closed {}", closed.group, range(closed)));
    }
    if closed.version >= active.version {
        return Err(format!("{what} since version {}, and it was owned since {}", active.version, closed.version));
    }
    let later = |change: &&Change| change.group == closed.group && change.index > closed.index;
    if let Some(opened) = changes.iter().filter(of_job).filter(later).find(|change| change.step != "release-range") {
        return Err(format!("{what}, and group {} has gone on with {} at {}", closed.group, opened.step, opened.index));
    }
    if clocks_agree && active.at < closed.at {
        return Err(format!("{what} by {}, and group {} has closed it by {}", active.at, closed.group, closed.at));
    }
    let scanned = |change: &&Change| change.step == "scanned" && change.armed_at == active.armed_at;
    // The sum may be taken again for the same arming: it is the same then.
    let Some(base) = changes.iter().filter(|change| change.job == active.job).find(scanned) else {
        return Err(format!("{what}, and the sum of the source is nowhere"));
    };
    let (rows, sum) = (base.rows.wrapping_add(closed.rows), base.sum.wrapping_add(closed.sum));
    if closed.armed_at != active.armed_at || (rows, sum) != (active.rows, active.sum) {
        return Err(format!(
            "{what} with {} rows, sum {:032x}; the source had {rows}, {sum:032x}",
            active.rows, active.sum
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn change(group: u64, index: u64, step: &str, (start, end): (&str, &str), version: u64) -> Change {
        Change {
            group,
            index,
            job: if step == "grant-range" { 0 } else { 4 },
            epoch: 1,
            step: step.to_owned(),
            fence: match step {
                "apply-write-fence" => "write-fenced",
                "seal" => "sealed",
                "arm-read-fence" => "read-fenced",
                "arm-migration" | "clear" => "open",
                _ => "",
            }
            .to_owned(),
            start: start.to_owned(),
            end: end.to_owned(),
            version,
            armed_at: 5,
            rows: 1,
            sum: 100,
            at: format!("2026-01-01T00:00:{:02}.000000Z", index),
        }
    }

    /// Group 2 begins with everything; c..f goes to group 3.
    pub fn moved() -> Vec<Change> {
        let range = ("c", "f");
        vec![
            change(1, 3, "scanned", range, 0),
            change(2, 1, "grant-range", ("", ""), 1),
            change(2, 5, "arm-migration", range, 1),
            change(2, 20, "apply-write-fence", range, 1),
            change(2, 21, "seal", range, 1),
            change(2, 22, "arm-read-fence", range, 1),
            change(2, 30, "release-range", range, 1),
            Change { rows: 2, sum: 200, ..change(3, 23, "activate-range", range, 9) },
        ]
    }

    fn problems(changes: Vec<Change>) -> Vec<String> {
        let told: Vec<(u64, Change)> = changes.into_iter().map(|change| (1, change)).collect();
        check_entries(&told, true).problems
    }

    #[test]
    fn a_range_that_changes_hands_in_order_is_right_and_cuts_what_was_owned() {
        let told: Vec<(u64, Change)> = moved().into_iter().map(|change| (1, change)).collect();
        let found = check_entries(&told, true);
        assert_eq!((found.problems, found.moves_compared), (Vec::new(), 1));
        let of = |span: &Span| (span.group, span.start.clone(), span.end.clone(), span.until);
        let spans: Vec<_> = found.spans.iter().map(of).collect();
        let text = str::to_owned;
        let expect = [
            (2, text(""), text("c"), None),
            (2, text("f"), text(""), None),
            (2, text("c"), text("f"), Some(30)),
            (3, text("c"), text("f"), None),
        ];
        assert_eq!(spans, expect);
    }

    #[test]
    fn what_is_out_of_order_is_told() {
        type Damage = fn(&mut Vec<Change>);
        let table: [(Damage, &str); 10] = [
            (|all| drop(all.remove(5)), "nobody has closed it"),
            (|all| all[5].epoch = 0, "nobody has closed it"),
            (|all| all.push(change(2, 25, "clear", ("c", "f"), 1)), "has gone on with clear"),
            (|all| all[7].at = "2026-01-01T00:00:21.999999Z".to_owned(), "has closed it by"),
            (|all| all[7].sum += 1, "the source had"),
            (|all| drop(all.remove(0)), "the sum of the source is nowhere"),
            (|all| all[7].version = 1, "two own a key since one version"),
            (|all| all[6].version = 2, "gives [c, f) up"),
            (|all| all.push(change(2, 40, "grant-range", ("x", ""), 12)), "gets [x, )"),
            (|all| all[5].end = "e".to_owned(), "has closed [c, e)"),
        ];
        for (damage, expect) in table {
            let mut all = moved();
            damage(&mut all);
            let found = problems(all);
            assert!(found.iter().any(|problem| problem.contains(expect)), "{expect}: {found:?}");
        }
    }

    #[test]
    fn replicas_that_tell_different_things_of_one_entry_are_told_and_times_may_differ() {
        let later = |change: Change| Change { at: "2027".to_owned(), ..change };
        let mut told: Vec<(u64, Change)> = moved().into_iter().map(|change| (1, change)).collect();
        told.extend(moved().into_iter().map(|change| (2, later(change))));
        assert_eq!(check_entries(&told, true).problems, Vec::<String>::new());
        told.push((3, Change { sum: 7, ..moved().remove(7) }));
        assert!(check_entries(&told, true).problems[0].starts_with("node 3 tells"));
    }
}
