//! Random histories against a model that fits on a screen, with restarts and simulated kills.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::*;
use drover_keys::GroupId;
use drover_raftlog::{EngineKind, NodeLog};
use drover_rafttypes::{Entry, LogId, Vote};
use openraft::storage::RaftLogStorage;
use proptest::prelude::*;
use tempfile::TempDir;

#[derive(Debug, Clone)]
enum Op {
    Append {
        group: u64,
        count: u64,
        bytes: usize,
        wait: bool,
    },
    /// Cuts off this share of the log, then a new term begins.
    Truncate {
        group: u64,
        keep_percent: u64,
    },
    Purge {
        group: u64,
        percent: u64,
    },
    /// As a snapshot does that is installed over a shorter log.
    PurgeBehindEnd {
        group: u64,
        by: u64,
    },
    Vote {
        group: u64,
    },
    Commit {
        group: u64,
    },
    Remove {
        group: u64,
    },
    Restart,
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    let group = 1..4_u64;
    prop_oneof![
        8 => (group.clone(), 1..30_u64, 1..400_usize, any::<bool>())
            .prop_map(|(group, count, bytes, wait)| Op::Append { group, count, bytes, wait }),
        3 => (group.clone(), 0..=100_u64).prop_map(|(group, keep_percent)| Op::Truncate { group, keep_percent }),
        3 => (group.clone(), 0..=100_u64).prop_map(|(group, percent)| Op::Purge { group, percent }),
        1 => (group.clone(), 1..50_u64).prop_map(|(group, by)| Op::PurgeBehindEnd { group, by }),
        2 => group.clone().prop_map(|group| Op::Vote { group }),
        2 => group.clone().prop_map(|group| Op::Commit { group }),
        1 => group.prop_map(|group| Op::Remove { group }),
        2 => Just(Op::Restart),
        2 => Just(Op::Kill),
    ]
}

#[derive(Debug, Clone, Default)]
struct Model {
    term: u64,
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<Entry>,
    committed: Option<LogId>,
}

impl Model {
    fn start(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.last().map(|entry| entry.log_id).or(self.purged)
    }

    /// The log id that `percent` of the entries reach.
    fn at(&self, percent: u64) -> Option<LogId> {
        let count = self.entries.len() * percent as usize / 100;
        self.entries[..count].last().map(|entry| entry.log_id).or(self.purged)
    }
}

struct World {
    dir: TempDir,
    engine: EngineKind,
    node: Option<NodeLog>,
    models: BTreeMap<u64, Model>,
}

impl World {
    fn new(engine: EngineKind) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = open(dir.path(), &small(engine)).unwrap();
        Self { dir, engine, node: Some(node), models: BTreeMap::new() }
    }

    fn node(&self) -> &NodeLog {
        self.node.as_ref().unwrap()
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Append { group, count, bytes, wait } => {
                let mut log = self.node().group(GroupId(group));
                let model = self.models.entry(group).or_default();
                let next = model.last().map_or(0, |id| id.index + 1);
                let new: Vec<Entry> = (next..next + count).map(|index| entry(model.term, index, bytes)).collect();
                model.entries.extend(new.clone());
                if wait {
                    append(&mut log, new).await;
                } else {
                    log.append(new, openraft::storage::IOFlushed::noop()).await.unwrap();
                }
            }
            Op::Truncate { group, keep_percent } => {
                let mut log = self.node().group(GroupId(group));
                let model = self.models.entry(group).or_default();
                let floor = model.committed.max(model.purged);
                let last = model.at(keep_percent).max(floor);
                log.truncate_after(last).await.unwrap();
                model.entries.retain(|entry| Some(entry.log_id) <= last);
                model.term += 1;
            }
            Op::Purge { group, percent } => {
                let mut log = self.node().group(GroupId(group));
                let model = self.models.entry(group).or_default();
                let Some(upto) = model.at(percent) else { return };
                log.purge(upto).await.unwrap();
                model.purged = Some(upto);
                model.entries.retain(|entry| entry.log_id > upto);
            }
            Op::PurgeBehindEnd { group, by } => {
                let mut log = self.node().group(GroupId(group));
                let model = self.models.entry(group).or_default();
                model.term += 1;
                let upto = log_id(model.term, model.last().map_or(0, |id| id.index) + by);
                log.purge(upto).await.unwrap();
                model.purged = Some(upto);
                model.entries.clear();
            }
            Op::Vote { group } => {
                let mut log = self.node().group(GroupId(group));
                let model = self.models.entry(group).or_default();
                model.term += 1;
                model.vote = Some(vote(model.term, group));
                log.save_vote(&vote(model.term, group)).await.unwrap();
            }
            Op::Commit { group } => {
                let mut log = self.node().group(GroupId(group));
                let model = self.models.entry(group).or_default();
                model.committed = model.last();
                log.save_committed(model.committed).await.unwrap();
            }
            Op::Remove { group } => {
                self.node().remove_group(GroupId(group)).await.unwrap();
                self.models.remove(&group);
            }
            Op::Restart => {
                self.node.take().unwrap().close().unwrap();
                self.reopen(true).await;
            }
            Op::Kill => {
                settle(self.node()).await;
                let left_behind = tempfile::tempdir().unwrap();
                copy_dir(self.dir.path(), left_behind.path());
                self.node = None;
                self.dir = left_behind;
                self.reopen(false).await;
            }
        }
        self.compare().await;
    }

    async fn reopen(&mut self, orderly: bool) {
        self.node = Some(open(self.dir.path(), &small(self.engine)).unwrap());
        for (group, model) in &mut self.models {
            let committed = self.node.as_ref().unwrap().group(GroupId(*group)).read_committed().await.unwrap();
            if orderly {
                assert_eq!(committed, model.committed, "an orderly end saves what is committed");
            }
            assert!(committed <= model.committed.max(model.last()), "{committed:?} is past {:?}", model.committed);
            model.committed = committed;
        }
    }

    async fn compare(&self) {
        for (group, model) in &self.models {
            let mut log = self.node().group(GroupId(*group));
            assert_eq!(ends(&mut log).await, (model.purged, model.last()), "group {group}");
            assert_eq!(read_all(&mut log).await, model.entries, "group {group}");
            assert_eq!(saved_vote(&mut log).await, model.vote, "group {group}");
            let middle = model.start() + model.entries.len() as u64 / 2;
            let tail: Vec<Entry> = model.entries.iter().filter(|e| e.log_id.index >= middle).cloned().collect();
            assert_eq!(read(&mut log, middle..u64::MAX).await, tail, "group {group}");
        }
    }
}

fn run(engine: EngineKind, ops: Vec<Op>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(engine);
        for op in ops {
            world.step(op).await;
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn raft_engine_agrees_with_the_model(ops in prop::collection::vec(op(), 1..60)) {
        run(EngineKind::RaftEngine, ops);
    }

    #[test]
    fn rocksdb_agrees_with_the_model(ops in prop::collection::vec(op(), 1..60)) {
        run(EngineKind::RocksDb, ops);
    }
}
