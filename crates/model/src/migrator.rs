//! Whoever drives a job: looks at the job, at the source and at the target, decides by the product's `next_step`, and sends what
//! that says. It remembers nothing, so crashes are nothing to it, and any number of them may be at work.

use drover_catalog::job::{BaseSum, Handover, HandoverTerms, JobEvent, JobStep, Observed, SplitJob, next_step};
use drover_fsm::MoveCommand;
use drover_fsm::moving::{Activation, Chunk, ChunkRows, MoveStep, SourceJob};
use drover_hlc::Timestamp;
use drover_keys::GroupId;
use drover_mvcc::{RowKind, RowSum};

use crate::group::Group;
use crate::network::Message;

/// What a migrator sees of time and load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Feels {
    /// A fence now would cost no more than it may.
    pub pause_fits: bool,
    /// The fence has stood for too long.
    pub overrun: bool,
    /// The job has been failed for too long.
    pub failed_for_long: bool,
}

/// Nothing is in the way.
pub const FAIR: Feels = Feels { pause_fits: true, overrun: false, failed_for_long: true };

/// What a migrator looks at.
pub struct View<'a> {
    /// As it was when it looked, which may be a while ago.
    pub job: &'a SplitJob,
    /// The leader of the source.
    pub source: &'a Group,
    /// The replica of the source that the copy is read from.
    pub replica: &'a Group,
    /// The leader of the target.
    pub target: &'a Group,
    /// The oracle would issue this next.
    pub fresh: Timestamp,
    /// Rows in a portion of the copy.
    pub chunk: usize,
}

/// What comes of a look.
#[derive(Debug, Default)]
pub struct Decision {
    /// These are sent.
    pub messages: Vec<Message>,
    /// The next step.
    pub step: Option<JobStep>,
    /// A timestamp was asked for.
    pub timestamped: bool,
}

impl View<'_> {
    /// What a migrator that sees this does.
    pub fn decide(&self, feels: Feels) -> Decision {
        let (job, id) = (self.job, self.job.id);
        // Looked up where rows are read, which need not be the leader.
        let (moves, rows) = (&self.replica.state.moves, &self.replica.rows);
        let locked = moves.source(id).is_some_and(|source| rows.oldest_lock(source.shard, &source.interval).is_some());
        let seen = Observed {
            source: self.source.state.moves.source_view(id),
            target: self.target.state.moves.import_view(id),
            pause_fits: feels.pause_fits,
            old_lock: false,
            locked,
            overrun: feels.overrun,
            failed_for_long: feels.failed_for_long,
            incapable: false,
        };
        let step = next_step(job, &seen);
        let mut decision = Decision { timestamped: step == JobStep::HandOver, ..Decision::default() };
        decision.messages = self.messages(&step);
        decision.step = Some(step);
        decision
    }

    fn event(&self, event: JobEvent) -> Vec<Message> {
        vec![Message::Catalog { job: self.job.id, epoch: Some(self.job.epoch), event }]
    }

    fn send(&self, to: GroupId, step: MoveStep) -> Vec<Message> {
        vec![Message::Group { to, command: MoveCommand { job: self.job.id, epoch: self.job.epoch, step } }]
    }

    fn messages(&self, step: &JobStep) -> Vec<Message> {
        let job = self.job;
        let SplitJob { source, target, interval, .. } = job;
        match step {
            JobStep::Event(event) => self.event(event.clone()),
            JobStep::PrepareImport => {
                let (interval, shard) = (interval.clone(), job.shard);
                self.send(*target, MoveStep::PrepareImport { interval, shard, source: *source })
            }
            JobStep::Arm => self.send(*source, MoveStep::ArmMigration { interval: interval.clone(), target: *target }),
            JobStep::CopyVersions => self.copy(RowKind::Version),
            JobStep::CopyRecords => self.copy(RowKind::Record),
            JobStep::CopyTracked { close } => self.copy_tracked(*close),
            JobStep::Scan => self.scan(),
            JobStep::Fence => [self.send(*source, MoveStep::ApplyWriteFence), self.event(JobEvent::Fence)].concat(),
            JobStep::FenceSource => self.send(*source, MoveStep::ApplyWriteFence),
            JobStep::Seal => self.send(*source, MoveStep::Seal),
            JobStep::FenceReads => self.send(*source, MoveStep::ArmReadFence),
            JobStep::HandOver => self.hand_over(),
            JobStep::ClearSource => self.send(*source, MoveStep::Clear),
            JobStep::ClearTarget => self.send(*target, MoveStep::Clear),
            JobStep::Activate => match &job.handover {
                Some(Handover { version, terms }) => self.send(
                    *target,
                    MoveStep::Activate(Activation {
                        route: job.own_route.unwrap_or_default(),
                        acquired_version: *version,
                        floor_ts: terms.floor_ts,
                        history_start: terms.history_start,
                        txn_horizon: terms.txn_horizon,
                        record_horizon: terms.record_horizon,
                    }),
                ),
                None => Vec::new(),
            },
            JobStep::Release => match &job.handover {
                Some(Handover { version, .. }) => self.send(*source, MoveStep::Release { version: *version }),
                None => Vec::new(),
            },
            JobStep::RetireSource => self.send(*source, MoveStep::Retire),
            JobStep::RetireTarget => self.send(*target, MoveStep::Retire),
            JobStep::ResolveLocks | JobStep::Wait(_) => Vec::new(),
        }
    }

    /// The range, as the replica that is copied from knows it, if it has applied the arming which the source speaks of.
    fn armed(&self) -> Option<(&SourceJob, &SourceJob)> {
        let leader = self.source.state.moves.source(self.job.id)?;
        let replica = self.replica.state.moves.source(self.job.id)?;
        (leader.armed_at == replica.armed_at).then_some((leader, replica))
    }

    fn chunk(&self, armed_at: u64, rows: ChunkRows, close: Option<RowSum>) -> Vec<Message> {
        self.send(self.job.target, MoveStep::ImportChunk(Chunk { armed_at, rows, close }))
    }

    fn copy(&self, kind: RowKind) -> Vec<Message> {
        let (Some((_, source)), Some(import)) = (self.armed(), self.target.state.moves.import(self.job.id)) else {
            return Vec::new();
        };
        let from = match kind {
            RowKind::Version => import.versions.cursor.clone(),
            RowKind::Record => import.records.cursor.clone(),
        };
        let rows = &self.replica.rows;
        let portion = rows.export(kind, source.shard, &source.interval, source.safe_point, &from, self.chunk);
        let (to, done, rows) = (portion.cursor, portion.done, portion.rows);
        self.chunk(source.armed_at, ChunkRows::Copied { kind, from, to, done, rows }, None)
    }

    fn copy_tracked(&self, close: bool) -> Vec<Message> {
        let (Some((leader, source)), Some(import)) = (self.armed(), self.target.state.moves.import(self.job.id)) else {
            return Vec::new();
        };
        // The replica has to know the seal that the source was seen with.
        if close && !source.is_sealed_at(leader.sealed_at) {
            return Vec::new();
        }
        let from = import.tracked;
        let (rows, to, done) = self.replica.rows.export_tracked(source.shard, self.job.id, from, self.chunk);
        let base = self.job.base.map(|base| RowSum { hash: base.hash, rows: base.rows });
        let close = base.filter(|_| close && done).map(|base| base.plus(source.change));
        self.chunk(source.armed_at, ChunkRows::Tracked { from, to, rows }, close)
    }

    fn scan(&self) -> Vec<Message> {
        let Some((_, source)) = self.armed() else { return Vec::new() };
        let sum = self.replica.rows.sum(source.shard, &source.interval, source.safe_point);
        let RowSum { hash, rows } = sum.minus(source.change);
        self.event(JobEvent::Scanned(BaseSum { armed_at: source.armed_at, hash, rows }))
    }

    fn hand_over(&self) -> Vec<Message> {
        let state = &self.source.state;
        let Some(owned) = state.owned.iter().find(|owned| owned.interval == self.job.interval) else {
            return Vec::new();
        };
        self.event(JobEvent::HandOver(HandoverTerms {
            floor_ts: self.fresh,
            history_start: owned.history_start.max(owned.safe_point),
            txn_horizon: owned.txn_horizon,
            record_horizon: state.record_horizon,
        }))
    }
}
