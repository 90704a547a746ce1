//! A job is driven from its beginning to its end against the logs of two groups, whatever happens in between: writes,
//! drivers that die after a step, messages that come again at any time, fences that take too long, people who change their
//! minds.

#![allow(clippy::unwrap_used)]

#[path = "support/job.rs"]
mod job;
mod support;

use std::collections::BTreeMap;

use drover_catalog::job::{JobEvent, JobPhase, JobStep, WaitingFor};
use drover_keys::{CatalogVersion, LogicalKey, ShardId};
use drover_kv::Outcome;
use drover_mvcc::Stored;
use job::{Drive, JOB, Side, moving};
use proptest::prelude::*;
use support::*;

const NAMES: [&str; 6] = ["b", "c", "d", "e", "ez", "f"];

#[derive(Debug, Clone)]
enum Happens {
    /// Somebody looks and takes the next step.
    Drive,
    /// A client writes; where the catalog says.
    Write(u8),
    /// A client writes who has not heard of a newer map; to the other group.
    StaleWrite(u8),
    /// A transaction prepares at the source, and another one is resolved.
    Prepare(u8),
    Resolve,
    /// A command that was sent comes again.
    Late(u16),
    /// Writes outrun the copy, or no longer.
    PauseFits(bool),
    /// A fence takes too long, or no longer.
    Overrun(bool),
    Pause,
    Resume,
    Fail,
    Retry,
    Abandon,
    /// A replica makes durable what it has.
    Flush(bool),
    /// A replica is killed, and goes on from what was durable and from its log.
    Restart(bool),
}

fn anything() -> impl Strategy<Value = Happens> {
    let key = 0u8..6;
    prop_oneof![
        24 => Just(Happens::Drive),
        8 => key.clone().prop_map(Happens::Write),
        2 => key.clone().prop_map(Happens::StaleWrite),
        3 => key.prop_map(Happens::Prepare),
        3 => Just(Happens::Resolve),
        8 => any::<u16>().prop_map(Happens::Late),
        2 => any::<bool>().prop_map(Happens::PauseFits),
        2 => any::<bool>().prop_map(Happens::Overrun),
        1 => Just(Happens::Pause),
        1 => Just(Happens::Resume),
        1 => Just(Happens::Fail),
        1 => Just(Happens::Retry),
        1 => Just(Happens::Abandon),
        1 => any::<bool>().prop_map(Happens::Flush),
        1 => any::<bool>().prop_map(Happens::Restart),
    ]
}

struct World {
    drive: Drive,
    /// What was answered as written: the latest version of each key.
    acknowledged: BTreeMap<&'static str, u64>,
    /// Prepared at the source: id, start, key.
    prepared: Vec<(u8, u64, &'static str)>,
    ids: u8,
}

impl World {
    fn new() -> Self {
        Self { drive: Drive::new(), acknowledged: BTreeMap::new(), prepared: Vec::new(), ids: 0 }
    }

    fn tick(&mut self) -> u64 {
        self.drive.now += 10;
        self.drive.now
    }

    fn replica(&mut self, source: bool) -> &mut Replica {
        if source { &mut self.drive.source } else { &mut self.drive.target }
    }

    /// The replica that the catalog names for a key, and the version of the catalog.
    fn owner(&mut self, name: &str) -> (&mut Replica, u64) {
        let version = self.drive.version;
        let moved = self.drive.job.is_handed_over() && moving().contains(name.as_bytes());
        (if moved { &mut self.drive.target } else { &mut self.drive.source }, version)
    }

    fn write(&mut self, name: &'static str, stale: bool) {
        let now = self.tick();
        let (_, version) = self.owner(name);
        let mut write = at(now, put(name, &now.to_string()));
        write.op.observed_version = Some(CatalogVersion(if stale { 1 } else { version }));
        let replica = match stale {
            true if self.drive.job.is_handed_over() => &mut self.drive.source,
            true => &mut self.drive.target,
            false => self.owner(name).0,
        };
        if let Ok(Outcome::Written { commit_ts }) = replica.write(write) {
            assert!(!stale || !moving().contains(name.as_bytes()), "a write by an old map was accepted");
            self.acknowledged.insert(name, commit_ts.raw());
        }
    }

    fn prepare(&mut self, name: &'static str) {
        let now = self.tick();
        self.ids = self.ids.wrapping_add(1);
        let id = self.ids;
        let mut write = step(now, prepare(txn(id, 1), now - 1, name, puts(&[(name, &now.to_string())])));
        write.op.observed_version = Some(CatalogVersion(self.drive.version));
        if self.drive.source.write(write).is_ok() {
            self.prepared.push((id, now - 1, name));
        }
    }

    /// Commits what was prepared first, at a timestamp from before whatever came since; or rolls it back.
    fn resolve(&mut self) {
        let now = self.tick();
        if self.prepared.is_empty() {
            return;
        }
        let (id, start, name) = self.prepared.remove(0);
        let commits = id.is_multiple_of(3);
        let end = match commits {
            true => decide(txn(id, 1), start, start + 2, &[name], &[]),
            false => rollback(txn(id, 1), start, name, None),
        };
        let mut write = step(now, end);
        write.op.observed_version = Some(CatalogVersion(self.drive.version));
        match self.drive.source.write(write) {
            Ok(_) if commits => drop(self.acknowledged.insert(name, start + 2)),
            Ok(_) => {}
            Err(refusal) => panic!("the end of a prepared transaction was refused: {refusal:?}"),
        }
    }

    fn happen(&mut self, happens: &Happens) {
        let name = |n: &u8| NAMES[*n as usize];
        match happens {
            Happens::Drive => drop(self.drive.drive()),
            Happens::Write(n) => self.write(name(n), false),
            Happens::StaleWrite(n) => self.write(name(n), true),
            Happens::Prepare(n) => self.prepare(name(n)),
            Happens::Resolve => self.resolve(),
            Happens::Late(n) if !self.drive.sent.is_empty() => {
                let (side, command) = self.drive.sent[*n as usize % self.drive.sent.len()].clone();
                self.drive.deliver(side, command);
            }
            Happens::Late(_) => {}
            Happens::PauseFits(fits) => self.drive.pause_fits = *fits,
            Happens::Overrun(overrun) => self.drive.overrun = *overrun,
            // Whether they may is the catalog's business.
            Happens::Pause => drop(self.drive.event(None, JobEvent::Pause)),
            Happens::Resume => drop(self.drive.event(None, JobEvent::Resume)),
            Happens::Fail => {
                let epoch = Some(self.drive.job.epoch);
                drop(self.drive.event(epoch, JobEvent::Fail { why: "x".to_owned() }));
            }
            Happens::Retry => drop(self.drive.event(None, JobEvent::Retry)),
            Happens::Abandon => drop(self.drive.event(None, JobEvent::Abandon)),
            Happens::Flush(source) => drop(self.replica(*source).store.flush().unwrap()),
            Happens::Restart(source) => self.replica(*source).restart(),
        }
        assert!(
            !(Drive::serves(&self.drive.source.state) && Drive::serves(&self.drive.target.state)),
            "both groups serve the range, after {happens:?} in {:?}",
            self.drive.job.phase
        );
    }

    /// Drives the job to its end, however often it was stopped.
    fn finish(&mut self) {
        (self.drive.pause_fits, self.drive.overrun) = (true, false);
        for _ in 0..2_000 {
            if self.drive.job.phase.has_ended() {
                return;
            }
            match self.drive.drive() {
                JobStep::Wait(WaitingFor::Resume) => self.drive.event(None, JobEvent::Resume).unwrap(),
                JobStep::Wait(WaitingFor::Retry) => self.drive.event(None, JobEvent::Retry).unwrap(),
                JobStep::ResolveLocks => self.resolve(),
                _ => {}
            }
        }
        panic!("the job does not end: {:?}, {:?}", self.drive.job, self.drive.observe());
    }

    fn check(&mut self) {
        while !self.prepared.is_empty() {
            self.resolve();
        }
        let moved = self.drive.job.phase == JobPhase::Done;
        assert_eq!((Drive::serves(&self.drive.source.state), Drive::serves(&self.drive.target.state)), (!moved, moved));
        for (name, commit_ts) in self.acknowledged.clone() {
            let (replica, _) = self.owner(name);
            let shard = replica.state.owner_of(&drover_keys::Interval::point(name)).unwrap()[0].shard;
            let newest = replica.store.snapshot().newest(shard, &LogicalKey::plain(name)).unwrap();
            assert_eq!(newest.map(|(at, _)| at.raw()), Some(commit_ts), "{name} after {:?}", self.drive.job.phase);
        }
        for replica in [&self.drive.source, &self.drive.target] {
            let moves = &replica.state.moves;
            assert!(moves.sources.is_empty() && moves.imports.is_empty() && moves.is_retired(JOB), "{moves:?}");
        }
        // What was copied and not taken over, and what was given up, is gone.
        let left = |replica: &Replica, shard: ShardId| {
            let all = drover_mvcc::ExportBudget { bytes: usize::MAX, scanned_bytes: usize::MAX };
            let kind = drover_mvcc::RowKind::Version;
            replica.store.snapshot().export(kind, shard, &moving(), ts(0), b"", all).unwrap().rows.len()
        };
        if moved {
            assert_eq!(left(&self.drive.source, ShardId(1)), 0);
        }
        let kept = if moved { self.drive.job.shard } else { ShardId(0) };
        for shard in (90..130).map(ShardId).filter(|shard| *shard != kept) {
            assert_eq!(left(&self.drive.target, shard), 0, "shard {shard}");
        }
        // The range is open for writes, by the present map, and for whatever comes next.
        for name in ["c", "ez"] {
            let before = self.acknowledged.get(name).copied();
            self.write(name, false);
            assert_ne!(self.acknowledged.get(name).copied(), before, "{name} cannot be written");
        }
        for (side, command) in self.drive.sent.clone() {
            self.drive.deliver(side, command);
        }
        let serves = (Drive::serves(&self.drive.source.state), Drive::serves(&self.drive.target.state));
        assert_eq!(serves, (!moved, moved), "late messages changed who serves");
    }
}

#[test]
fn a_job_that_nothing_disturbs_moves_its_range() {
    let mut world = World::new();
    for name in NAMES {
        world.write(name, false);
    }
    world.finish();
    assert_eq!((world.drive.job.phase, world.drive.job.epoch.0, world.drive.job.fences), (JobPhase::Done, 1, 1));
    world.check();
    let stored = world.drive.target.store.snapshot().newest(world.drive.job.shard, &LogicalKey::plain("d")).unwrap();
    assert!(matches!(stored, Some((_, Stored::Put { .. }))));
}

#[test]
fn h17_a_job_that_is_called_off_leaves_all_as_it_was_in_every_phase() {
    for steps in 0..40 {
        let mut world = World::new();
        world.write("d", false);
        for _ in 0..steps {
            world.happen(&Happens::Drive);
        }
        let refused = world.drive.event(None, JobEvent::Abandon).is_err();
        assert_eq!(refused, world.drive.job.is_handed_over(), "after {steps} steps");
        world.finish();
        let phase = if refused { JobPhase::Done } else { JobPhase::Abandoned };
        assert_eq!(world.drive.job.phase, phase, "after {steps} steps");
        world.check();
    }
}

#[test]
fn h26_a_step_of_a_deposed_driver_does_nothing_behind_a_change_of_course() {
    let mut world = World::new();
    world.write("d", false);
    while world.drive.job.phase != JobPhase::DeltaCopy {
        world.happen(&Happens::Drive);
    }
    world.happen(&Happens::Overrun(true));
    while world.drive.job.phase != JobPhase::Backfill {
        world.happen(&Happens::Drive);
    }
    world.happen(&Happens::Overrun(false));
    world.happen(&Happens::Drive);
    world.write("d", false);
    assert_eq!(world.acknowledged["d"], world.drive.now, "the fence was lifted");
    for (side, command) in world.drive.sent.clone() {
        world.drive.deliver(side, command);
    }
    world.write("d", false);
    assert_eq!(world.acknowledged["d"], world.drive.now, "no late message sets it again");
    assert!(world.drive.sent.iter().any(|(side, _)| *side == Side::Source));
    world.finish();
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Whatever happens, no group serves what another one serves, the job ends, what was acknowledged is there, and nothing is
    /// left of what was tried.
    #[test]
    fn whatever_happens_a_job_ends_and_nothing_is_lost(history in proptest::collection::vec(anything(), 0..120)) {
        let mut world = World::new();
        for name in NAMES {
            world.write(name, false);
        }
        for happens in &history {
            world.happen(happens);
        }
        world.finish();
        world.check();
    }
}
