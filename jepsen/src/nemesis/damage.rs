//! A node whose disk gives back other bytes than were written. It has to find out; then another one takes its place.
//!
//! Not every byte is looked at: of the Raft log's older files, only what says which entries there are is read when a node starts; the
//! entries themselves are read, and found damaged, when a follower lags that far, and never if they are purged before that. Such
//! bytes are harmed as well, and nobody has to say so.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;

use super::{Broken, Mend, Nemesis, Outcome};
use crate::cluster::{Cluster, State};

/// How long a node may take to find out that its files were changed.
const NOTICES: Duration = Duration::from_secs(20);
/// How long it may if it need not.
const MAY_NOTICE: Duration = Duration::from_secs(4);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Where the batches of a file of the Raft log begin, and how long the head of each is (docs/design/0002-log-store.md).
const LOG_HEAD: usize = 69;
const BATCH_HEAD: usize = 16;

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// Bits of some bytes turn over.
    Flip,
    /// The second half is gone.
    Cut,
    /// Bits turn over of what says which entries there are, in a log file.
    FlipIndex,
    /// Bits turn over of entries in a log file that nobody may look at any more.
    FlipEntries,
}

/// Which of a node's files is harmed, and how: `tables` and `logs` with how much was written to them, oldest first. `None`: there
/// is none that is worth it.
fn choose(tables: &[(PathBuf, u64)], logs: &[(PathBuf, u64)], rng: &mut StdRng) -> Option<(PathBuf, Harm)> {
    let largest = tables.iter().max_by_key(|(_, bytes)| bytes).map(|(path, _)| path.clone());
    let mut all: Vec<(PathBuf, Harm)> = Vec::new();
    all.extend(largest.into_iter().flat_map(|path| [(path.clone(), Harm::Flip), (path, Harm::Cut)]));
    if let Some(((newest, bytes), older)) = logs.split_last() {
        // All of it is read when the node starts. What is missing at its end may have been cut off by a crash.
        all.extend((*bytes > 4096).then(|| (newest.clone(), Harm::Flip)));
        let harms = [Harm::Cut, Harm::FlipIndex, Harm::FlipEntries];
        all.extend(older.iter().flat_map(|(path, _)| harms.map(|harm| (path.clone(), harm))));
    }
    all.choose(rng).cloned()
}

/// How much of a file was written: a log has room at its end that was set aside, and nothing that lies there is looked at.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// All files below a folder that end so, with how much was written to each, oldest first.
fn files(folder: &Path, suffix: &str) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            let bytes = std::fs::read(&path).map_or(0, |bytes| written(&bytes) as u64);
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

/// The batches of a log file: where the entries of each lie, and what says which entries there are.
fn batches(bytes: &[u8]) -> Vec<(Range<usize>, Range<usize>)> {
    let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (mut found, mut at) = (Vec::new(), LOG_HEAD);
    while let (Some(length), Some(index)) = (number(at).map(|head| head >> 8), number(at + 8)) {
        let (Ok(length), Ok(index)) = (usize::try_from(length), usize::try_from(index)) else { break };
        if index < BATCH_HEAD || index >= length || at + length > bytes.len() {
            break;
        }
        found.push((at + BATCH_HEAD..at + index, at + index..at + length));
        at += length;
    }
    found
}

/// Where bits turn over.
fn flipped(bytes: &[u8], how: Harm) -> Vec<usize> {
    // Not the very end, which a crash may cut.
    let apart = |count: usize| [count / 4, count / 3, count / 2];
    let middle = |range: &Range<usize>| range.start + range.len() / 2;
    match how {
        Harm::Cut => Vec::new(),
        Harm::Flip => apart(written(bytes)).to_vec(),
        Harm::FlipIndex | Harm::FlipEntries => {
            let pick = |(entries, index)| if how == Harm::FlipIndex { index } else { entries };
            let ranges: Vec<Range<usize>> =
                batches(bytes).into_iter().map(pick).filter(|range: &Range<usize>| !range.is_empty()).collect();
            apart(ranges.len()).iter().filter_map(|at| ranges.get(*at)).map(middle).collect()
        }
    }
}

/// Harms a file; at which bytes.
fn harm(path: &Path, how: Harm) -> Result<Vec<usize>> {
    let mut bytes = std::fs::read(path)?;
    let at = flipped(&bytes, how);
    at.iter().for_each(|at| bytes[*at] ^= 0xff);
    if how == Harm::Cut {
        bytes.truncate(written(&bytes) / 2);
    }
    std::fs::write(path, bytes).with_context(|| path.display().to_string())?;
    Ok(at)
}

impl Nemesis {
    /// Files of a node change while it is down. It has to notice that; then another node takes its place.
    pub(super) async fn damage(&self, rng: &mut StdRng) -> Result<Broken> {
        let nodes = self.cluster.nodes();
        let node = nodes[rng.random_range(0..nodes.len())];
        if !self.cluster.hold(node)? {
            return Ok(Broken::skipped("it is being replaced already"));
        }
        let folder = self.cluster.data_dir(node);
        let harmed = choose(&files(&folder, ".sst"), &files(&folder, ".raftlog"), rng);
        let done = harmed.as_ref().map_or(Ok(Vec::new()), |(path, how)| harm(path, *how));
        let since = self.cluster.has_said(node);
        self.cluster.release(node);
        self.cluster.start_node(node)?;
        let at = done?;
        let Some((path, how)) = harmed else { return Ok(Broken::skipped("it has written no file yet")) };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_needed = how != Harm::FlipEntries;
        let until = Instant::now() + if is_needed { NOTICES } else { MAY_NOTICE };
        let noticed = loop {
            let said = self.cluster.said_since(node, since);
            let line = said.lines().find(|line| line.contains(&name)).map(str::to_owned);
            if line.is_some() || Instant::now() > until {
                break line;
            }
            // A table is read when somebody wants what is in it: digests want all.
            for group in Cluster::groups() {
                let _ = self.client.compare_digests(group).await;
            }
            tokio::time::sleep(LOOK).await;
        };
        let ended = self.cluster.state(node) == State::Down;
        // What is gone without a look at it was not needed any more.
        let is_needed = is_needed && path.exists();
        if !self.cluster.hold(node)? {
            return Ok(Broken::unclear("another one replaces it"));
        }
        let replaced = self.take_its_place(node).await?;
        let outcome = if noticed.is_some() || !is_needed { Outcome::Installed } else { Outcome::Unclear };
        let what = json!({
            "node": node, "file": name, "how": format!("{how:?}"), "bytes": at, "needed": is_needed,
            "noticed": noticed, "node_ended": ended, "replaced": replaced,
        });
        Ok(Broken { outcome, what, mend: Mend::Nothing })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_newest_log_file_is_not_cut_and_older_ones_are_harmed_in_each_of_their_parts() {
        let mut rng = StdRng::seed_from_u64(1);
        let file = |name: &str, bytes| (PathBuf::from(name), bytes);
        assert_eq!(choose(&[], &[], &mut rng), None);
        assert_eq!(choose(&[], &[file("1.raftlog", 100)], &mut rng), None, "the newest log holds next to nothing");
        let (tables, logs) = ([file("1.sst", 5), file("2.sst", 9)], [file("1.raftlog", 9000), file("2.raftlog", 9000)]);
        let seen: BTreeSet<_> = (0..300)
            .filter_map(|_| choose(&tables, &logs, &mut rng))
            .map(|(path, how)| format!("{how:?} {}", path.display()))
            .collect();
        let expect = [
            "Cut 1.raftlog",
            "Cut 2.sst",
            "Flip 2.raftlog",
            "Flip 2.sst",
            "FlipEntries 1.raftlog",
            "FlipIndex 1.raftlog",
        ];
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expect);
    }

    #[test]
    fn harm_changes_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.sst");
        // Half of it was only set aside.
        std::fs::write(&path, [[7; 100], [0; 100]].concat()).unwrap();
        assert_eq!(harm(&path, Harm::Flip).unwrap(), [25, 33, 50]);
        assert_eq!(std::fs::read(&path).unwrap()[..100].iter().filter(|byte| **byte != 7).count(), 3);
        harm(&path, Harm::Cut).unwrap();
        assert_eq!(files(dir.path(), ".sst"), [(path, 50)]);
    }

    #[test]
    fn in_a_log_file_entries_are_told_from_what_says_which_there_are() {
        let batch = |entries: usize, index: usize| {
            let length = (BATCH_HEAD + entries + index) as u64;
            let head = [(length << 8).to_be_bytes(), ((BATCH_HEAD + entries) as u64).to_be_bytes()].concat();
            [head, vec![1; entries], vec![2; index]].concat()
        };
        let file = [vec![9; LOG_HEAD], batch(30, 10), batch(0, 8), batch(40, 6), vec![0; 50]].concat();
        let lengths: Vec<_> = batches(&file).into_iter().map(|(entries, index)| (entries.len(), index.len())).collect();
        assert_eq!(lengths, [(30, 10), (0, 8), (40, 6)]);
        let hit = |how| flipped(&file, how).into_iter().map(|at| file[at]).collect::<Vec<_>>();
        assert_eq!((hit(Harm::FlipEntries), hit(Harm::FlipIndex)), (vec![1, 1, 1], vec![2, 2, 2]));
    }
}
