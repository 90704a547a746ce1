//! A range that moves away: its tracker, and how far it is closed.

use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{GroupId, Interval, JobEpoch, JobId, ShardId};
use drover_mvcc::{RowSum, Tracking};

use super::{MoveRefusal, enter};

/// How far a range is closed. Each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fence {
    /// Not at all.
    Open,
    /// No new writes and prepares. Transactions that have prepared come to their end.
    Written,
    /// No writes: nothing in it changes any more.
    Sealed,
    /// No reads either.
    Read,
}

impl Fence {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Fence::Open => "open",
            Fence::Written => "write-fenced",
            Fence::Sealed => "sealed",
            Fence::Read => "read-fenced",
        }
    }
}

/// A range that moves away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourceJob {
    /// Whose it is.
    pub job: JobId,
    /// The course that it follows.
    pub epoch: JobEpoch,
    /// Route keys; an owned interval by themselves.
    pub interval: Interval,
    /// Physical keyspace of its rows.
    pub shard: ShardId,
    /// Where it goes.
    pub target: GroupId,
    /// Index of the log entry from which on every row that is written is listed.
    pub armed_at: u64,
    /// Versions that nobody may read at or above it are not copied. The safe point of the interval when it was pinned.
    pub safe_point: Timestamp,
    /// Rows listed so far.
    pub tracked_rows: u64,
    /// Their bytes when they were written.
    pub tracked_bytes: u64,
    /// What was written since, less what it replaced.
    pub change: RowSum,
    /// How far it is closed.
    pub fence: Fence,
    /// The course that closed it so far.
    pub fenced_in: JobEpoch,
    /// Index of the log entry behind which no new write was accepted; zero while it is open.
    pub fenced_at: u64,
    /// Index of the log entry behind which nothing changes; zero until it is sealed.
    pub sealed_at: u64,
}

impl SourceJob {
    /// A range of which everything is listed from `armed_at` on. Its shard and safe point are those of the interval that it is
    /// cut out of, once there is one.
    pub fn armed(job: JobId, epoch: JobEpoch, interval: Interval, target: GroupId, armed_at: u64) -> Self {
        Self {
            job,
            epoch,
            interval,
            shard: ShardId(0),
            target,
            armed_at,
            safe_point: Timestamp::ZERO,
            tracked_rows: 0,
            tracked_bytes: 0,
            change: RowSum::default(),
            fence: Fence::Open,
            fenced_in: JobEpoch(0),
            fenced_at: 0,
            sealed_at: 0,
        }
    }

    /// What the store lists.
    pub(crate) fn tracking(&self) -> Tracking {
        Tracking {
            job: self.job,
            shard: self.shard,
            interval: self.interval.clone(),
            rows: self.tracked_rows,
            bytes: self.tracked_bytes,
            change: self.change,
        }
    }

    /// Takes over what the store has listed.
    pub(crate) fn tracked(&mut self, tracking: &Tracking) {
        (self.tracked_rows, self.tracked_bytes, self.change) = (tracking.rows, tracking.bytes, tracking.change);
    }

    /// Whether nothing has changed since the seal that stands at log index `at`, which may be that of an older course.
    pub fn is_sealed_at(&self, at: u64) -> bool {
        self.fence >= Fence::Sealed && (self.sealed_at == at || !guards::on(Guard::SealOfThisCourse))
    }

    /// Accepts a step of `epoch`, unless it belongs to an older course.
    ///
    /// # Errors
    /// [`MoveRefusal::OldEpoch`].
    pub(crate) fn enter(&mut self, epoch: JobEpoch) -> Result<(), MoveRefusal> {
        enter(self.job, &mut self.epoch, epoch)
    }

    /// Refuses new writes from log index `index` on, and if nothing is `locked`, all. Whether that changes anything.
    pub(crate) fn fence_writes(&mut self, index: u64, locked: bool) -> Result<bool, MoveRefusal> {
        if self.fence != Fence::Open {
            return self.closed_in_this_course("fenced");
        }
        (self.fence, self.fenced_in, self.fenced_at) = (Fence::Written, self.epoch, index);
        if !locked {
            (self.fence, self.sealed_at) = (Fence::Sealed, index);
        }
        Ok(true)
    }

    /// Refuses all writes, once nothing is `locked`. Whether that changes anything.
    pub(crate) fn seal(&mut self, index: u64, locked: bool) -> Result<bool, MoveRefusal> {
        match self.fence {
            Fence::Open => Err(self.out_of_order("sealed")),
            Fence::Sealed | Fence::Read => self.closed_in_this_course("sealed"),
            Fence::Written if locked && guards::on(Guard::SealAfterDrain) => {
                Err(MoveRefusal::LocksStand { job: self.job })
            }
            Fence::Written => {
                self.closed_in_this_course("sealed")?;
                (self.fence, self.sealed_at) = (Fence::Sealed, index);
                Ok(true)
            }
        }
    }

    /// Refuses reads. Whether that changes anything.
    pub(crate) fn fence_reads(&mut self) -> Result<bool, MoveRefusal> {
        match self.fence {
            Fence::Open | Fence::Written => Err(self.out_of_order("read-fenced")),
            Fence::Read => self.closed_in_this_course("read-fenced"),
            Fence::Sealed => {
                self.closed_in_this_course("read-fenced")?;
                self.fence = Fence::Read;
                Ok(true)
            }
        }
    }

    /// Opens what an older course has closed. Whether that changes anything.
    pub(crate) fn clear(&mut self) -> bool {
        if self.fence == Fence::Open || (self.fenced_in >= self.epoch && guards::on(Guard::MoveEpochs)) {
            return false;
        }
        (self.fence, self.fenced_at, self.sealed_at) = (Fence::Open, 0, 0);
        true
    }

    /// A fence of an older course is lifted before another one is set: somebody may be relying on its being lifted.
    fn closed_in_this_course(&self, wanted: &'static str) -> Result<bool, MoveRefusal> {
        if self.fenced_in == self.epoch { Ok(false) } else { Err(self.out_of_order(wanted)) }
    }

    fn out_of_order(&self, wanted: &'static str) -> MoveRefusal {
        MoveRefusal::OutOfOrder { job: self.job, phase: self.fence.name(), wanted }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::state::tests::interval;

    pub(crate) fn source(job: u64) -> SourceJob {
        let armed = SourceJob::armed(JobId(job), JobEpoch(1), interval("c", "f"), GroupId(4), 10);
        SourceJob { shard: ShardId(1), ..armed }
    }

    type Step = fn(&mut SourceJob) -> Result<bool, MoveRefusal>;

    const FENCE: Step = |job| job.fence_writes(20, true);
    const FENCE_FREE: Step = |job| job.fence_writes(20, false);
    const SEAL: Step = |job| job.seal(21, false);
    const SEAL_LOCKED: Step = |job| job.seal(21, true);
    const READ: Step = |job| job.fence_reads();
    const CLEAR: Step = |job| Ok(job.clear());
    const RAISE: Step = |job| job.enter(JobEpoch(2)).map(|()| true);

    #[test]
    fn a_range_is_closed_in_order_and_each_step_may_be_made_twice() {
        use Fence::{Open, Read, Sealed, Written};
        // Steps, then whether the last one is accepted, and how far it is closed.
        let table: [(&[Step], Option<bool>, Fence); 19] = [
            (&[FENCE], Some(true), Written),
            (&[FENCE, FENCE], Some(false), Written),
            (&[FENCE_FREE], Some(true), Sealed),
            (&[SEAL], None, Open),
            (&[READ], None, Open),
            (&[FENCE, READ], None, Written),
            (&[FENCE, SEAL_LOCKED], None, Written),
            (&[FENCE, SEAL], Some(true), Sealed),
            (&[FENCE, SEAL, SEAL_LOCKED], Some(false), Sealed),
            (&[FENCE, SEAL, READ], Some(true), Read),
            (&[FENCE, SEAL, READ, READ], Some(false), Read),
            (&[FENCE, SEAL, READ, FENCE], Some(false), Read),
            (&[FENCE, CLEAR], Some(false), Written),
            (&[FENCE, RAISE, CLEAR], Some(true), Open),
            (&[FENCE, SEAL, READ, RAISE, CLEAR], Some(true), Open),
            (&[FENCE, RAISE, FENCE], None, Written),
            (&[FENCE, RAISE, SEAL], None, Written),
            (&[FENCE_FREE, RAISE, READ], None, Sealed),
            (&[FENCE, RAISE, CLEAR, FENCE, CLEAR], Some(false), Written),
        ];
        for (n, (steps, accepted, fence)) in table.into_iter().enumerate() {
            let mut job = source(1);
            let last = steps.iter().map(|step| step(&mut job).ok()).last().unwrap();
            assert_eq!((last, job.fence), (accepted, fence), "case {n}");
            assert_eq!(job.sealed_at > 0, fence >= Sealed, "case {n}");
        }
    }

    #[test]
    fn a_step_of_an_older_course_is_refused() {
        let mut job = source(1);
        job.enter(JobEpoch(3)).unwrap();
        job.enter(JobEpoch(3)).unwrap();
        let refused = MoveRefusal::OldEpoch { job: JobId(1), epoch: JobEpoch(2), current: JobEpoch(3) };
        assert_eq!(job.enter(JobEpoch(2)), Err(refused));
    }
}
