//! What was written where, against who owned it.

use std::collections::BTreeMap;

use super::entries::Span;
use super::{Change, MOST, Write, contains};
use crate::routes::Row;

/// What was found.
#[derive(Debug, Default)]
pub struct Writes {
    pub judged: u64,
    /// Of these, by a version whose map was seen.
    pub by_known_maps: u64,
    pub problems: Vec<String>,
}

/// Checks every write. `changes` are in the order of their groups and indices.
pub fn check_writes(writes: &[Write], changes: &[Change], spans: &[Span], maps: &BTreeMap<u64, Vec<Row>>) -> Writes {
    let fences = fences(changes);
    let mut found = Writes { judged: writes.len() as u64, ..Writes::default() };
    for write in writes {
        if let Err(why) = owned(write, spans) {
            found.problems.push(format!("{write:?}: {why}"));
        }
        if !write.is_new() {
            continue;
        }
        let shut = |fence: &&Fence| {
            fence.group == write.group
                && fence.from < write.index
                && fence.until.is_none_or(|until| write.index < until)
                && contains(&fence.start, &fence.end, &write.key)
        };
        if let Some(fence) = fences.iter().find(shut) {
            found.problems.push(format!("{write:?} was written behind {fence:?}"));
        }
        let named = maps.get(&write.observed).and_then(|map| map.iter().find(|row| row.holds(&write.key)));
        if let Some(row) = named {
            found.by_known_maps += 1;
            if row.group != write.group {
                found.problems.push(format!("{write:?}: the map of that version names group {}", row.group));
            }
        }
    }
    found.problems.truncate(MOST);
    found
}

fn owned(write: &Write, spans: &[Span]) -> Result<(), String> {
    let owns = |span: &&Span| {
        span.group == write.group
            && span.from < write.index
            && span.until.is_none_or(|until| write.index < until)
            && contains(&span.start, &span.end, &write.key)
    };
    match spans.iter().find(owns) {
        None => Err("the group does not own it".to_owned()),
        Some(span) if write.is_new() && write.observed < span.version => {
            Err(format!("its writer was routed by an older map than that since which the group owns it: {span:?}"))
        }
        Some(_) => Ok(()),
    }
}

/// When a range took no new writes, by the indices of the log of its group.
#[derive(Debug)]
struct Fence {
    group: u64,
    start: String,
    end: String,
    from: u64,
    until: Option<u64>,
}

fn fences(changes: &[Change]) -> Vec<Fence> {
    let mut fences: Vec<(u64, Fence)> = Vec::new();
    for change in changes.iter().filter(|change| change.job > 0) {
        let Change { group, index, job, start, end, .. } = change;
        let open = |(of, fence): &&mut (u64, Fence)| of == job && fence.group == *group && fence.until.is_none();
        match change.step.as_str() {
            "apply-write-fence" => {
                let (start, end) = (start.clone(), end.clone());
                fences.push((*job, Fence { group: *group, start, end, from: *index, until: None }));
            }
            "clear" | "release-range" | "retire" => {
                if let Some((_, fence)) = fences.iter_mut().find(open) {
                    fence.until = Some(*index);
                }
            }
            _ => {}
        }
    }
    fences.into_iter().map(|(_, fence)| fence).collect()
}

#[cfg(test)]
mod tests {
    use super::super::entries::check_entries;
    use super::super::entries::tests::{change, moved};
    use super::*;

    fn write(group: u64, index: u64, step: &str, key: &str, observed: u64) -> Write {
        Write { group, index, step: step.to_owned(), key: key.to_owned(), observed, ts: index }
    }

    fn judged(write: Write, changes: Vec<Change>) -> Vec<String> {
        let told: Vec<(u64, Change)> = changes.into_iter().map(|change| (1, change)).collect();
        let entries = check_entries(&told, true);
        let row = |start: &str, end: &str, group| Row { start: start.into(), end: end.into(), group };
        let before = vec![row("", "", 2)];
        let after = vec![row("", "c", 2), row("c", "f", 3), row("f", "", 2)];
        let maps = BTreeMap::from([(8, before), (9, after.clone()), (12, after)]);
        check_writes(&[write], &entries.changes, &entries.spans, &maps).problems
    }

    #[test]
    fn a_write_must_be_owned_routed_by_no_older_map_and_not_behind_a_fence() {
        let table = [
            (write(2, 4, "put", "d", 1), None),
            (write(2, 19, "put", "d", 8), None),
            (write(2, 25, "put", "d", 8), Some("behind")),
            (write(2, 25, "resolve", "d", 0), None),
            (write(2, 31, "resolve", "d", 0), Some("does not own it")),
            (write(2, 31, "put", "x", 1), None),
            (write(3, 22, "put", "d", 9), Some("does not own it")),
            (write(3, 24, "put", "d", 9), None),
            (write(3, 24, "prepare", "d", 8), Some("older map")),
            (write(3, 24, "put", "f", 9), Some("does not own it")),
            // The owner by the logs, and not by the map.
            (write(2, 10, "commit", "d", 12), Some("names group 3")),
        ];
        for (write, expect) in table {
            let found = judged(write.clone(), moved());
            match expect {
                None => assert_eq!(found, Vec::<String>::new(), "{write:?}"),
                Some(part) => assert!(found.iter().any(|problem| problem.contains(part)), "{write:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn behind_a_fence_that_was_lifted_writes_go_on() {
        let range = ("c", "f");
        let lifted = vec![
            change(2, 1, "grant-range", ("", ""), 1),
            change(2, 20, "apply-write-fence", range, 1),
            change(2, 22, "clear", range, 1),
        ];
        assert_eq!(judged(write(2, 23, "put", "d", 8), lifted.clone()), Vec::<String>::new());
        assert_eq!(judged(write(2, 21, "put", "d", 8), lifted).len(), 1);
    }
}
