//! Rows on their way from source to target.

use std::time::{Duration, Instant};

use drover_catalog::job::SplitJob;
use drover_fsm::MoveCommand;
use drover_fsm::moving::{Chunk, ChunkRows, ExportRequest, ExportRows, ImportJob, MoveStep};
use drover_kv::{Error, Reason};
use drover_mvcc::{ExportBudget, RowKind, RowSum};
use drover_transport::RateLimit;
use futures::StreamExt;

use crate::cluster::{Cluster, Prefer};
use crate::measure::Measures;
use crate::options::MigratorOptions;
use crate::portion::PortionSize;

/// How long the next portion may take.
const STALL: Duration = Duration::from_secs(10);

/// One round of a copy: rows of one kind, or of the source's list, from where the copy is until nothing is left.
pub(crate) struct Round<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) options: &'a MigratorOptions,
    pub(crate) job: &'a SplitJob,
    /// Index of the source's log entry that armed the tracker.
    pub(crate) armed_at: u64,
    /// Where it begins.
    pub(crate) rows: ExportRows,
    /// The sum of the range as of the arming: the last portion closes the import.
    pub(crate) close: Option<RowSum>,
    pub(crate) rate: &'a RateLimit,
    /// Where it ends, although more may be left.
    pub(crate) end: RoundEnd,
    /// Whom it reads.
    pub(crate) prefer: Prefer,
}

/// How a round of a copy has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// As far as it was to go, or the job takes another course.
    Through,
    /// The replica that was read had no more, although the leader has listed more.
    ToWhereTheReplicaIs,
}

/// Where a round of a copy ends before nothing is left.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RoundEnd {
    /// When so many rows of the source's list were copied.
    pub(crate) tracked: Option<u64>,
    /// At the first portion after this.
    pub(crate) at: Option<Instant>,
}

impl RoundEnd {
    /// How a round has ended whose replica had no more behind these rows of the list.
    fn came(self, tracked: u64) -> Came {
        match self.tracked.is_some_and(|end| tracked < end) {
            true => Came::ToWhereTheReplicaIs,
            false => Came::Through,
        }
    }

    fn is_reached(self, import: &ImportJob, now: Instant) -> bool {
        self.tracked.is_some_and(|end| import.tracked >= end) || self.at.is_some_and(|end| now >= end)
    }
}

/// What pacing owes from the last portion, whichever round that was in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rest(Option<Instant>);

impl Rest {
    /// A portion came to its end at `ended`, and a rest is owed for it.
    fn after(ended: Instant, rest: Duration) -> Self {
        Self(Some(ended + rest))
    }

    /// How much of it is left for a portion that begins at `began`: between two rounds the copy has rested already.
    fn left(self, began: Instant) -> Duration {
        self.0.map_or(Duration::ZERO, |end| end.saturating_duration_since(began))
    }
}

impl Round<'_> {
    /// Copies until nothing is left, until the round ends, or until `off` is over: the job takes another course. `note` is told how
    /// far the copy is. `rest` is what pacing owes from the portion before, and what it owes behind the last one; `size`, how large
    /// portions are, which what they take decides while nobody waits for the last one.
    ///
    /// # Errors
    /// If a side cannot be reached, or refuses a portion: whoever drives the job looks again.
    pub(crate) async fn run(
        self,
        measures: &mut Measures,
        rest: &mut Rest,
        size: &mut PortionSize,
        off: impl Future<Output = ()>,
        note: impl Fn(&Measures, &ImportJob),
    ) -> Result<Came, Error> {
        let bytes = if self.close.is_some() { self.options.chunk_bytes } else { size.bytes() };
        let mut request = ExportRequest {
            group: self.job.source,
            job: self.job.id,
            armed_at: self.armed_at,
            rows: self.rows,
            budget: ExportBudget { bytes, scanned_bytes: self.options.scanned_bytes },
        };
        tokio::pin!(off);
        let mut began = Instant::now();
        let mut portions = self.cluster.export(&request, self.prefer).await?;
        loop {
            let next = tokio::time::timeout(STALL, portions.next()).await;
            let portion = match next {
                Ok(Some(portion)) => portion?,
                Ok(None) => return Ok(Came::Through),
                Err(_) => return Err(Error::definite(Reason::Timeout, "a replica of the source gives no rows")),
            };
            let bytes = portion.chunk.rows.rows().iter().map(|row| row.bytes()).sum::<usize>();
            let got = began.elapsed();
            if let ChunkRows::Tracked { from, to, .. } = portion.chunk.rows
                && from == to
                && portion.done
                && self.close.is_none()
            {
                return Ok(self.end.came(to));
            }
            let may_go = async {
                // Writers wait for the last portions.
                if self.close.is_none() {
                    tokio::time::sleep(rest.left(began)).await;
                    self.rate.pass(bytes).await;
                }
            };
            tokio::select! {
                biased;
                () = &mut off => return Ok(Came::Through),
                () = may_go => {}
            }
            let close = self.close.filter(|_| portion.done).map(|base| base.plus(portion.change));
            let step = MoveStep::ImportChunk(Chunk { close, ..portion.chunk });
            let command = MoveCommand { job: self.job.id, epoch: self.job.epoch, step };
            let sent = Instant::now();
            let import = self.cluster.import(self.job.target, &command, sent + STALL).await?;
            let worked = got + sent.elapsed();
            measures.copied(bytes as u64, worked);
            note(measures, &import);
            began = Instant::now();
            *rest = Rest::after(began, self.options.rest(worked, self.job.options.max_bytes_per_second));
            if self.end.is_reached(&import, began) {
                return Ok(Came::Through);
            }
            if portion.done {
                return Ok(self.end.came(import.tracked));
            }
            if self.close.is_none() && size.took(bytes, worked) {
                request.budget.bytes = size.bytes();
                request.rows = match request.rows {
                    ExportRows::Copied { kind, .. } => rows_behind(&import, Some(kind), None),
                    ExportRows::Tracked { sealed_at, .. } => rows_behind(&import, None, sealed_at),
                };
                portions = self.cluster.export(&request, self.prefer).await?;
            }
        }
    }
}

/// What the target does not have yet of one kind of rows, or of the source's list.
pub(crate) fn rows_behind(import: &ImportJob, kind: Option<RowKind>, sealed_at: Option<u64>) -> ExportRows {
    match kind {
        Some(kind @ RowKind::Version) => ExportRows::Copied { kind, after: import.versions.cursor.clone() },
        Some(kind @ RowKind::Record) => ExportRows::Copied { kind, after: import.records.cursor.clone() },
        None => ExportRows::Tracked { from: import.tracked, sealed_at },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_rest_is_what_has_not_passed_when_the_next_portion_begins() {
        let ended = Instant::now();
        let ms = Duration::from_millis;
        let rest = Rest::after(ended, ms(40));
        // How long after the end of the last portion the next one begins, and how long it rests.
        for (passed, left) in [(0, 40), (15, 25), (40, 0), (9_000, 0)] {
            assert_eq!(rest.left(ended + ms(passed)), ms(left), "{passed} ms later");
        }
        assert_eq!(Rest::default().left(ended), Duration::ZERO);
    }

    #[test]
    fn a_replica_that_has_no_more_than_the_leader_has_listed_is_told_from_one_that_lags() {
        let to = |tracked| RoundEnd { tracked: Some(tracked), at: None };
        // Where the round was to end, how far it came.
        let table = [
            (RoundEnd::default(), 0, Came::Through),
            (to(5), 5, Came::Through),
            (to(5), 6, Came::Through),
            (to(5), 4, Came::ToWhereTheReplicaIs),
            (to(5), 0, Came::ToWhereTheReplicaIs),
        ];
        for (end, tracked, expect) in table {
            assert_eq!(end.came(tracked), expect, "{end:?}, {tracked}");
        }
    }
}
