//! A job, the source and the target of its range, and somebody who drives it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use drover_catalog::job::{
    BaseSum, Handover, HandoverTerms, JobEvent, JobOptions, JobRefusal, JobStep, NewJob, Observed, SplitJob,
    Surroundings, next_step,
};
use drover_fsm::moving::{Activation, Chunk, ChunkRows, MoveStep};
use drover_fsm::{Command, GroupState, MoveCommand};
use drover_hlc::PhysicalMs;
use drover_keys::{CatalogVersion, GroupId, Interval, JobEpoch, JobId, RouteId, ShardId};
use drover_mvcc::{ExportBudget, RowKind, RowSum};
use drover_rafttypes::ControlReply;

use crate::support::*;

pub const JOB: JobId = JobId(5);
const BUDGET: ExportBudget = ExportBudget { bytes: 150, scanned_bytes: 500 };

/// Who got a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Target,
}

pub struct Drive {
    pub source: Replica,
    pub target: Replica,
    pub job: SplitJob,
    /// The shard of the next copy.
    next_shard: u64,
    /// The catalog's version.
    pub version: u64,
    /// Highest timestamp that was given out.
    pub now: u64,
    /// Every command that was sent, in case it comes again.
    pub sent: Vec<(Side, Command)>,
    pub pause_fits: bool,
    pub overrun: bool,
    _dirs: [tempfile::TempDir; 2],
}

pub fn moving() -> Interval {
    interval("c", "f")
}

impl Drive {
    pub fn new() -> Self {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let source = Replica::bootstrapped(dirs[0].path());
        let mut target = Replica::open_group(&env(), &dirs[1].path().join("store"), GroupId(4));
        assert_eq!(target.control(Command::GrantRange(Vec::new())), ControlReply::Done);
        let job = SplitJob::begun(NewJob {
            id: JOB,
            interval: moving(),
            from_route: RouteId(1),
            source: GROUP,
            target: GroupId(4),
            shard: ShardId(90),
            options: JobOptions::default(),
            actor: "a".to_owned(),
            now: PhysicalMs::new(1).unwrap(),
        });
        Self {
            source,
            target,
            job,
            next_shard: 91,
            version: 1,
            now: 10,
            sent: Vec::new(),
            pause_fits: true,
            overrun: false,
            _dirs: dirs,
        }
    }

    pub fn observe(&self) -> Observed {
        let (source, target) = (&self.source.state.moves, &self.target.state.moves);
        let (source, target) = (source.source_view(JOB), target.import_view(JOB));
        let locked = moves_locked(&self.source);
        Observed {
            source,
            target,
            pause_fits: self.pause_fits,
            old_lock: false,
            locked,
            overrun: self.overrun,
            failed_for_long: false,
            incapable: false,
        }
    }

    /// Looks and takes the next step; what it was.
    pub fn drive(&mut self) -> JobStep {
        let step = next_step(&self.job, &self.observe());
        self.take(&step);
        step
    }

    /// Asks the catalog; whether it agreed.
    pub fn event(&mut self, epoch: Option<JobEpoch>, event: JobEvent) -> Result<(), JobRefusal> {
        let around = Surroundings {
            now: PhysicalMs::new(self.now).unwrap(),
            next_version: CatalogVersion(self.version + 1),
            own_route: RouteId(8),
            next_shard: ShardId(self.next_shard),
        };
        if let Some(next) = self.job.after(epoch, &event, &around)? {
            next.validate().unwrap();
            self.next_shard += u64::from(next.shard == ShardId(self.next_shard));
            self.job = next;
        }
        Ok(())
    }

    pub fn send(&mut self, side: Side, command: Command) -> ControlReply {
        self.sent.push((side, command.clone()));
        self.deliver(side, command)
    }

    pub fn deliver(&mut self, side: Side, command: Command) -> ControlReply {
        match side {
            Side::Source => self.source.control(command),
            Side::Target => self.target.control(command),
        }
    }

    fn step(&mut self, side: Side, step: MoveStep) -> ControlReply {
        let command = Command::Move(Box::new(MoveCommand { job: JOB, epoch: self.job.epoch, step }));
        self.send(side, command)
    }

    pub fn take(&mut self, step: &JobStep) {
        use Side::{Source, Target};
        let epoch = Some(self.job.epoch);
        match step {
            JobStep::Event(event) => self.event(epoch, event.clone()).unwrap(),
            JobStep::PrepareImport => {
                let step = MoveStep::PrepareImport { interval: moving(), shard: self.job.shard, source: GROUP };
                self.step(Target, step);
            }
            JobStep::Arm => {
                self.step(Source, MoveStep::ArmMigration { interval: moving(), target: GroupId(4) });
            }
            JobStep::CopyVersions => self.copy(RowKind::Version),
            JobStep::CopyRecords => self.copy(RowKind::Record),
            JobStep::CopyTracked { close } => self.copy_tracked(*close),
            JobStep::Scan => {
                let source = self.source.state.moves.source(JOB).unwrap();
                let sum = self.source.store.snapshot().sum(source.shard, &moving(), source.safe_point).unwrap();
                let RowSum { hash, rows } = sum.minus(source.change);
                let base = BaseSum { armed_at: source.armed_at, hash, rows };
                self.event(epoch, JobEvent::Scanned(base)).unwrap();
            }
            JobStep::ResolveLocks => {}
            JobStep::Fence => {
                self.step(Source, MoveStep::ApplyWriteFence);
                self.event(epoch, JobEvent::Fence).unwrap();
            }
            JobStep::FenceSource => drop(self.step(Source, MoveStep::ApplyWriteFence)),
            JobStep::Seal => drop(self.step(Source, MoveStep::Seal)),
            JobStep::FenceReads => drop(self.step(Source, MoveStep::ArmReadFence)),
            JobStep::HandOver => {
                let owned = self.source.state.owner_of(&moving()).unwrap()[0].clone();
                self.now += 1;
                let terms = HandoverTerms {
                    floor_ts: ts(self.now),
                    history_start: owned.history_start.max(owned.safe_point),
                    txn_horizon: owned.txn_horizon,
                    record_horizon: self.source.state.record_horizon,
                };
                self.event(epoch, JobEvent::HandOver(terms)).unwrap();
                self.version += 1;
            }
            JobStep::ClearSource => drop(self.step(Source, MoveStep::Clear)),
            JobStep::ClearTarget => drop(self.step(Target, MoveStep::Clear)),
            JobStep::Activate => {
                let Handover { version, terms } = self.job.handover.unwrap();
                let activation = Activation {
                    route: self.job.own_route.unwrap(),
                    acquired_version: version,
                    floor_ts: terms.floor_ts,
                    history_start: terms.history_start,
                    txn_horizon: terms.txn_horizon,
                    record_horizon: terms.record_horizon,
                };
                self.step(Target, MoveStep::Activate(activation));
            }
            JobStep::Release => {
                let version = self.job.handover.unwrap().version;
                self.step(Source, MoveStep::Release { version });
            }
            JobStep::RetireSource => drop(self.step(Source, MoveStep::Retire)),
            JobStep::RetireTarget => drop(self.step(Target, MoveStep::Retire)),
            JobStep::Wait(_) => {}
        }
    }

    fn copy(&mut self, kind: RowKind) {
        let import = self.target.state.moves.import(JOB).unwrap();
        let from = match kind {
            RowKind::Version => import.versions.cursor.clone(),
            RowKind::Record => import.records.cursor.clone(),
        };
        let source = self.source.state.moves.source(JOB).unwrap();
        let (armed_at, snapshot) = (source.armed_at, self.source.store.snapshot());
        let portion = snapshot.export(kind, source.shard, &moving(), source.safe_point, &from, BUDGET).unwrap();
        let rows = ChunkRows::Copied { kind, from, to: portion.cursor, done: portion.done, rows: portion.rows };
        self.step(Side::Target, MoveStep::ImportChunk(Chunk { armed_at, rows, close: None }));
    }

    fn copy_tracked(&mut self, close: bool) {
        let from = self.target.state.moves.import(JOB).unwrap().tracked;
        let source = self.source.state.moves.source(JOB).unwrap();
        let (armed_at, change) = (source.armed_at, source.change);
        let portion = self.source.store.snapshot().export_tracked(source.shard, JOB, from, BUDGET).unwrap();
        let rows = ChunkRows::Tracked { from, to: portion.next, rows: portion.rows };
        let base = self.job.base.map(|base| RowSum { hash: base.hash, rows: base.rows });
        let close = base.filter(|_| close && portion.done).map(|base| base.plus(change));
        self.step(Side::Target, MoveStep::ImportChunk(Chunk { armed_at, rows, close }));
    }

    /// Whether a group would serve the range.
    pub fn serves(state: &GroupState) -> bool {
        drover_fsm::gate::owner::judge(state, &moving()).is_ok()
    }
}

fn moves_locked(source: &Replica) -> bool {
    let mut locked = false;
    if let Some(job) = source.state.moves.source(JOB) {
        let mut visit = |_, _| {
            locked = true;
            std::ops::ControlFlow::Break(())
        };
        source.store.snapshot().scan_locks(job.shard, &job.interval, &mut visit).unwrap();
    }
    locked
}
