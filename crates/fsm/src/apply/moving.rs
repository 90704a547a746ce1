//! Steps of moves: where their rows are. What a step makes of them and of the state is decided in [`crate::moving`].

use std::ops::ControlFlow;

use drover_keys::{Interval, JobId, ShardId};
use drover_mvcc::{Batch, RawRow, RowSum, StoreError, Tracking};
use drover_rafttypes::ControlReply;

use super::Prepared;
use crate::ApplyError;
use crate::codec::command::MoveCommand;
use crate::moving::{MoveStep, MovedRows, Stop, apply_step, note_tracked, tracked_ranges};
use crate::ownership::OwnershipChange;

impl MovedRows for Batch<'_> {
    type Error = StoreError;

    fn empty(&mut self, shard: ShardId, interval: &Interval) {
        Batch::empty(self, shard, interval);
    }

    fn empty_tracker(&mut self, shard: ShardId, job: JobId) {
        Batch::empty_tracker(self, shard, job);
    }

    fn import(&mut self, shard: ShardId, row: &RawRow, is_new: bool) -> Result<RowSum, StoreError> {
        Batch::import(self, shard, row, is_new)
    }

    fn is_locked(&self, shard: ShardId, interval: &Interval) -> Result<bool, StoreError> {
        let mut locked = false;
        let mut visit = |_, _| {
            locked = true;
            ControlFlow::Break(())
        };
        self.scan_locks(shard, interval, &mut visit)?;
        Ok(locked)
    }

    fn set_tracking(&mut self, ranges: Vec<Tracking>) {
        Batch::set_tracking(self, ranges);
    }
}

impl Prepared<'_> {
    /// Applies a step that stands at `index` in the log.
    pub(super) fn move_step(&mut self, index: u64, command: &MoveCommand) -> Result<ControlReply, ApplyError> {
        // Portions of a copy change nothing of what is told, and are many.
        let before = (!matches!(command.step, MoveStep::ImportChunk(_))).then(|| self.state.clone());
        match apply_step(&mut self.state, &mut self.batch, index, command) {
            Ok(true) => {
                let change = before.and_then(|before| OwnershipChange::moved(index, command, &before, &self.state));
                self.changes.extend(change);
                Ok(ControlReply::Done)
            }
            Ok(false) => Ok(ControlReply::AlreadyDone),
            Err(Stop::Refused(refusal)) => Ok(ControlReply::Refused(format!("{refusal}; nothing was changed"))),
            Err(Stop::Fatal(error)) => Err(error.into()),
        }
    }

    /// Lets the batch list what is written into ranges that move away.
    pub(super) fn track(&mut self) {
        self.batch.set_tracking(tracked_ranges(&self.state));
    }

    /// Takes over what the batch has listed.
    pub(super) fn note_tracked(&mut self) {
        note_tracked(&mut self.state, self.batch.tracking());
    }
}
