//! Rows on their way from source to target.

use std::time::{Duration, Instant};

use drover_catalog::job::SplitJob;
use drover_fsm::MoveCommand;
use drover_fsm::moving::{Chunk, ChunkRows, ExportRequest, ExportRows, ImportJob, MoveStep};
use drover_kv::{Error, Reason};
use drover_mvcc::{ExportBudget, RowSum};
use drover_transport::RateLimit;
use futures::StreamExt;

use crate::cluster::{Cluster, Prefer};
use crate::measure::Measures;
use crate::options::MigratorOptions;

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
    fn is_reached(self, import: &ImportJob, now: Instant) -> bool {
        self.tracked.is_some_and(|end| import.tracked >= end) || self.at.is_some_and(|end| now >= end)
    }
}

impl Round<'_> {
    /// Copies until nothing is left, until the round ends, or until `off` is over: the job takes another course. `note` is told how
    /// far the copy is.
    ///
    /// # Errors
    /// If a side cannot be reached, or refuses a portion: whoever drives the job looks again.
    pub(crate) async fn run(
        self,
        measures: &mut Measures,
        off: impl Future<Output = ()>,
        note: impl Fn(&Measures, &ImportJob),
    ) -> Result<(), Error> {
        let request = ExportRequest {
            group: self.job.source,
            job: self.job.id,
            armed_at: self.armed_at,
            rows: self.rows,
            budget: ExportBudget { bytes: self.options.chunk_bytes, scanned_bytes: self.options.scanned_bytes },
        };
        // Where nothing may change any more, the leader knows first.
        let prefer = if self.close.is_some() { Prefer::Leader } else { Prefer::Followers };
        tokio::pin!(off);
        let (mut began, mut rest) = (Instant::now(), Duration::ZERO);
        let mut portions = self.cluster.export(&request, prefer).await?;
        loop {
            let next = tokio::time::timeout(STALL, portions.next()).await;
            let portion = match next {
                Ok(Some(portion)) => portion?,
                Ok(None) => return Ok(()),
                Err(_) => return Err(Error::definite(Reason::Timeout, "a replica of the source gives no rows")),
            };
            let bytes = portion.chunk.rows.rows().iter().map(|row| row.bytes()).sum::<usize>();
            let got = began.elapsed();
            if !follows(&portion.chunk.rows) && portion.done && self.close.is_none() {
                return Ok(());
            }
            let may_go = async {
                // Writers wait for the last portions.
                if self.close.is_none() {
                    tokio::time::sleep(rest).await;
                    self.rate.pass(bytes).await;
                }
            };
            tokio::select! {
                biased;
                () = &mut off => return Ok(()),
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
            if portion.done || self.end.is_reached(&import, began) {
                return Ok(());
            }
            rest = self.options.rest(worked);
        }
    }
}

/// Whether a portion takes the copy any further: an empty one of a list does not.
fn follows(rows: &ChunkRows) -> bool {
    match rows {
        ChunkRows::Copied { .. } => true,
        ChunkRows::Tracked { from, to, .. } => from != to,
    }
}
