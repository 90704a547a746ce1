//! A range that is copied here: nobody owns it yet, and nobody sees it.

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{GroupId, Interval, JobEpoch, JobId, ShardId};
use drover_mvcc::{BadRow, RawRow, RowKind, RowSum};

use super::step::{Chunk, ChunkRows};
use super::{MoveRefusal, enter};

/// How far one kind of row was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Stream {
    /// The last row of the source that a chunk has gone past; empty before the first one.
    pub cursor: Bytes,
    /// There was nothing behind it.
    pub done: bool,
}

/// How far one kind of row has come here, while it comes in the order of its keys: nothing of it is behind there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frontier {
    kind: RowKind,
    key: Bytes,
}

impl Frontier {
    /// Whether a row lies behind it, so that it is not here yet. It moves on to that row then.
    pub(crate) fn advance(&mut self, row: &RawRow) -> bool {
        let is_new = row.kind == self.kind && row.key > self.key;
        if is_new {
            self.key = row.key.clone();
        }
        is_new
    }
}

/// Where an import stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImportPhase {
    /// It takes chunks.
    Open,
    /// It holds all that the source held, and takes nothing any more.
    Closed,
    /// It was to be closed and differed from the source: good for nothing.
    Differs,
}

impl ImportPhase {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            ImportPhase::Open => "open",
            ImportPhase::Closed => "closed",
            ImportPhase::Differs => "different from its source",
        }
    }
}

/// A range that is copied here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImportJob {
    /// Whose it is.
    pub job: JobId,
    /// The course that it follows.
    pub epoch: JobEpoch,
    /// Route keys.
    pub interval: Interval,
    /// Physical keyspace for its rows.
    pub shard: ShardId,
    /// Where it comes from.
    pub source: GroupId,
    /// Which arming of the source's tracker the copy belongs to; zero until the first chunk.
    pub armed_at: u64,
    /// Versions.
    pub versions: Stream,
    /// Records.
    pub records: Stream,
    /// The number of the first entry of the source's tracker that was not copied.
    pub tracked: u64,
    /// Sum of the rows that are here.
    pub sum: RowSum,
    /// Bytes of the rows that came, also if they replaced others.
    pub bytes: u64,
    /// The highest commit timestamp among them.
    pub highest: Timestamp,
    /// Where it stands.
    pub phase: ImportPhase,
    /// The course that closed it.
    pub closed_in: JobEpoch,
}

/// Why a chunk is refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkRefusal {
    /// The import was closed.
    #[error("the import of job {job} is {phase}")]
    NotOpen { job: JobId, phase: &'static str },
    /// It belongs to another arming of the source's tracker.
    #[error("the copy of job {job} belongs to log index {have} of the source, and the chunk to {chunk}")]
    OtherArming { job: JobId, have: u64, chunk: u64 },
    /// It does not begin where the one before it ended.
    #[error("a chunk of job {job} does not continue what was copied")]
    Gap { job: JobId },
    /// What was written meanwhile comes behind what was there: an older record must not come after a younger one.
    #[error("what was written meanwhile came to job {job} before all that was there")]
    TooEarly { job: JobId },
    /// It is the last one, and something is still to come.
    #[error("the import of job {job} cannot be closed: versions or records are still to come")]
    Unfinished { job: JobId },
    /// A row that does not belong here.
    #[error("a chunk of job {job} holds {why}")]
    BadRow { job: JobId, why: BadRow },
}

impl ImportJob {
    /// An import that holds nothing yet.
    pub fn begun(job: JobId, epoch: JobEpoch, interval: Interval, shard: ShardId, source: GroupId) -> Self {
        Self {
            job,
            epoch,
            interval,
            shard,
            source,
            armed_at: 0,
            versions: Stream::default(),
            records: Stream::default(),
            tracked: 0,
            sum: RowSum::default(),
            bytes: 0,
            highest: Timestamp::ZERO,
            phase: ImportPhase::Open,
            closed_in: JobEpoch(0),
        }
    }

    /// Accepts a step of `epoch`, unless it belongs to an older course.
    ///
    /// # Errors
    /// [`MoveRefusal::OldEpoch`].
    pub(crate) fn enter(&mut self, epoch: JobEpoch) -> Result<(), MoveRefusal> {
        enter(self.job, &mut self.epoch, epoch)
    }

    /// How far that kind of row has come of which a chunk brings more; `None` for rows that were written meanwhile, which come in
    /// the order in which they were written and may be here. An import begins in an empty shard, and those come last.
    pub(crate) fn frontier(&self, rows: &ChunkRows) -> Option<Frontier> {
        match rows {
            ChunkRows::Copied { kind: kind @ RowKind::Version, .. } => {
                Some(Frontier { kind: *kind, key: self.versions.cursor.clone() })
            }
            ChunkRows::Copied { kind: kind @ RowKind::Record, .. } => {
                Some(Frontier { kind: *kind, key: self.records.cursor.clone() })
            }
            ChunkRows::Tracked { .. } => None,
        }
    }

    /// Judges a chunk, and moves the cursors past it. What it holds is imported then; `highest` is the highest commit
    /// timestamp in it.
    ///
    /// # Errors
    /// Why it does not continue what is here. An empty chunk that closes the import continues whatever is here.
    pub(crate) fn take(&mut self, chunk: &Chunk) -> Result<(), ChunkRefusal> {
        let job = self.job;
        if self.phase != ImportPhase::Open && guards::on(Guard::ImportClosed) {
            return Err(ChunkRefusal::NotOpen { job, phase: self.phase.name() });
        }
        if self.armed_at != 0 && self.armed_at != chunk.armed_at && guards::on(Guard::ChunkContinues) {
            return Err(ChunkRefusal::OtherArming { job, have: self.armed_at, chunk: chunk.armed_at });
        }
        match &chunk.rows {
            ChunkRows::Copied { kind, from, to, done, .. } => {
                let stream = match kind {
                    RowKind::Version => &mut self.versions,
                    RowKind::Record => &mut self.records,
                };
                if (stream.done || stream.cursor != *from) && guards::on(Guard::ChunkContinues) {
                    return Err(ChunkRefusal::Gap { job });
                }
                *stream = Stream { cursor: to.clone(), done: *done };
            }
            ChunkRows::Tracked { .. } if !(self.versions.done && self.records.done) => {
                return Err(ChunkRefusal::TooEarly { job });
            }
            ChunkRows::Tracked { from, to, .. } => {
                if (self.tracked != *from || to < from) && guards::on(Guard::ChunkContinues) {
                    return Err(ChunkRefusal::Gap { job });
                }
                self.tracked = *to;
            }
        }
        if chunk.close.is_some() && !(self.versions.done && self.records.done) {
            return Err(ChunkRefusal::Unfinished { job });
        }
        self.armed_at = chunk.armed_at;
        Ok(())
    }

    /// Ends the import, if it holds what the source says. Whether it does.
    pub(crate) fn close(&mut self, expected: RowSum) -> bool {
        let equal = self.sum == expected || !guards::on(Guard::CopyIsEqual);
        (self.phase, self.closed_in) = (if equal { ImportPhase::Closed } else { ImportPhase::Differs }, self.epoch);
        equal
    }

    /// Opens again what an older course has closed. Whether that changes anything.
    pub(crate) fn clear(&mut self) -> bool {
        let reopens =
            self.phase == ImportPhase::Closed && (self.closed_in < self.epoch || !guards::on(Guard::MoveEpochs));
        if reopens {
            self.phase = ImportPhase::Open;
        }
        reopens
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::state::tests::interval;

    pub(crate) fn import(job: u64) -> ImportJob {
        ImportJob::begun(JobId(job), JobEpoch(1), interval("c", "f"), ShardId(9), GroupId(3))
    }

    fn copied(kind: RowKind, from: &'static str, to: &'static str, done: bool) -> Chunk {
        let rows = ChunkRows::Copied { kind, from: from.into(), to: to.into(), done, rows: Vec::new() };
        Chunk { armed_at: 10, rows, close: None }
    }

    fn tracked(from: u64, to: u64) -> Chunk {
        Chunk { armed_at: 10, rows: ChunkRows::Tracked { from, to, rows: Vec::new() }, close: None }
    }

    #[test]
    fn h14_a_chunk_is_taken_exactly_if_it_continues_its_stream() {
        use RowKind::{Record, Version};
        let closing = |chunk: Chunk| Chunk { close: Some(RowSum::default()), ..chunk };
        let other = |chunk: Chunk| Chunk { armed_at: 11, ..chunk };
        let all = || vec![copied(Version, "", "", true), copied(Record, "", "", true)];
        let table = [
            ("from the start", vec![copied(Version, "", "d", false)], true),
            ("on from there", vec![copied(Version, "", "d", false), copied(Version, "d", "e", true)], true),
            ("twice", vec![copied(Version, "", "d", false), copied(Version, "", "d", false)], false),
            ("a gap", vec![copied(Version, "", "d", false), copied(Version, "e", "f", false)], false),
            ("behind the end", vec![copied(Version, "", "d", true), copied(Version, "d", "e", false)], false),
            ("streams are apart", vec![copied(Version, "", "d", false), copied(Record, "", "c", false)], true),
            ("the tracker", [all(), vec![tracked(0, 5), tracked(5, 5), tracked(5, 9)]].concat(), true),
            ("the tracker twice", [all(), vec![tracked(0, 5), tracked(0, 5)]].concat(), false),
            ("the tracker backwards", [all(), vec![tracked(0, 5), tracked(5, 4)]].concat(), false),
            ("the tracker before the records", vec![copied(Version, "", "", true), tracked(0, 5)], false),
            ("another arming", [all(), vec![tracked(0, 5), other(tracked(5, 6))]].concat(), false),
            ("the end", [all(), vec![closing(tracked(0, 5))]].concat(), true),
            (
                "the end with the records",
                vec![copied(Version, "", "", true), closing(copied(Record, "", "", true))],
                true,
            ),
            ("the end before the records", vec![closing(copied(Version, "", "", true))], false),
        ];
        for (case, chunks, accepted) in table {
            let mut job = import(1);
            let last = chunks.iter().map(|chunk| job.take(chunk)).last().unwrap();
            assert_eq!(last.is_ok(), accepted, "{case}: {last:?}");
        }
    }

    #[test]
    fn a_row_is_new_exactly_if_it_lies_behind_all_that_came_of_its_kind_in_order() {
        use RowKind::{Record, Version};
        let row = |kind, key: &'static str| RawRow { kind, key: key.into(), value: Some("v".into()) };
        let stream = |cursor: &'static str| Stream { cursor: cursor.into(), done: false };
        let job = ImportJob { versions: stream("d"), records: stream("k"), ..import(1) };
        // The rows of a portion, and which of them are new.
        let table = [
            (Version, vec![row(Version, "e"), row(Version, "f")], vec![true, true]),
            (Version, vec![row(Version, "d"), row(Version, "da")], vec![false, true]),
            (Version, vec![row(Version, "e"), row(Version, "e"), row(Version, "f")], vec![true, false, true]),
            (Version, vec![row(Version, "g"), row(Version, "f"), row(Version, "h")], vec![true, false, true]),
            (Version, vec![row(Record, "z"), row(Version, "e")], vec![false, true]),
            (Record, vec![row(Record, "e"), row(Record, "l")], vec![false, true]),
        ];
        for (kind, rows, expect) in table {
            let chunk =
                ChunkRows::Copied { kind, from: Bytes::new(), to: Bytes::new(), done: false, rows: rows.clone() };
            let mut frontier = job.frontier(&chunk).unwrap();
            let new: Vec<bool> = rows.iter().map(|row| frontier.advance(row)).collect();
            assert_eq!(new, expect, "{rows:?}");
        }
        assert_eq!(job.frontier(&ChunkRows::Tracked { from: 0, to: 1, rows: Vec::new() }), None);
    }

    #[test]
    fn a_closed_import_takes_nothing_until_a_later_course_opens_it_and_a_different_one_never_again() {
        let sum = |rows| RowSum { hash: 7, rows };
        let whole = Stream { cursor: Bytes::new(), done: true };
        let mut job = ImportJob { versions: whole.clone(), records: whole, sum: sum(3), ..import(1) };
        assert!(job.close(sum(3)));
        assert!(matches!(job.take(&tracked(0, 1)), Err(ChunkRefusal::NotOpen { .. })));
        assert!(!job.clear(), "the course that closed it relies on it");
        job.enter(JobEpoch(2)).unwrap();
        assert!(job.clear() && !job.clear());
        job.take(&tracked(0, 1)).unwrap();
        assert!(!job.close(sum(4)));
        assert_eq!(job.phase, ImportPhase::Differs);
        job.enter(JobEpoch(3)).unwrap();
        assert!(!job.clear());
        assert!(job.take(&tracked(1, 2)).is_err());
    }
}
