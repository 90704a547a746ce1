//! What a replica does for a range that moves: the leader takes the steps and says how far it is; any replica gives rows.

use std::sync::Arc;
use std::time::Instant;

use drover_catalog::job::BaseSum;
use drover_fsm::moving::{ChunkRows, ExportRequest, ExportRows, Exported, ImportJob, MoveFacts};
use drover_fsm::{Command, MoveCommand, MoveCrash, MoveView, ReadError};
use drover_guards::Moment;
use drover_keys::JobId;
use drover_kv::{Error, Reason};
use drover_mvcc::ExportBudget;
use drover_rafttypes::ControlReply;
use drover_seams::blocking;
use futures::Stream;
use futures::stream;

use crate::group::Group;
use crate::leadership::Leadership;

/// Bytes of rows in one portion, whatever is asked for: a portion becomes one entry of the log.
const MAX_PORTION_BYTES: usize = 4 << 20;
/// Bytes of rows that are looked at for one portion, whatever is asked for.
const MAX_SCANNED_BYTES: usize = 64 << 20;
/// Bytes of rows that are added up at a time.
const SUMMED_BYTES: usize = 4 << 20;

impl Group {
    /// Proposes a step of a move and waits until it is applied. Whether it changed anything.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`], definite, if apply refused it: whoever drives the job looks again then. Otherwise as for
    /// [`Group::propose`].
    pub async fn move_step(&self, command: MoveCommand, deadline: Instant) -> Result<bool, Error> {
        let leadership = self.leadership()?;
        let crash = MoveCrash::of(&command.step);
        crash.at(Moment::Unproposed);
        let changed = self.move_command(&leadership, &Command::Move(Box::new(command)), deadline).await?;
        crash.at(Moment::Applied);
        Ok(changed)
    }

    /// Lets the group forget that jobs below `below` were part of it: all of them are over everywhere. Whether that changed
    /// anything.
    ///
    /// # Errors
    /// As for [`Group::propose`].
    pub async fn forget_jobs(&self, below: JobId, deadline: Instant) -> Result<bool, Error> {
        let leadership = self.leadership()?;
        self.move_command(&leadership, &Command::AdvanceJobHorizon(below), deadline).await
    }

    async fn move_command(&self, leadership: &Leadership, command: &Command, deadline: Instant) -> Result<bool, Error> {
        match self.propose(leadership, command.encode(leadership.term)?, deadline).await? {
            ControlReply::Done => Ok(true),
            ControlReply::AlreadyDone => Ok(false),
            ControlReply::Refused(why) => Err(Error::definite(Reason::FailedPrecondition, why)),
            other => Err(Error::unknown(Reason::Internal, format!("a step of a move was answered with {other:?}"))),
        }
    }

    /// Proposes a step that brings rows, and says how far the copy is then.
    ///
    /// # Errors
    /// As for [`Group::move_step`].
    pub async fn import(&self, command: MoveCommand, deadline: Instant) -> Result<ImportJob, Error> {
        let job = command.job;
        self.move_step(command, deadline).await?;
        // This replica has applied the step, since it has answered it.
        self.fsm.state().moves.import(job).cloned().ok_or_else(|| {
            let message = format!("rows of job {job} were imported, and the copy was dropped since");
            Error::unknown(Reason::FailedPrecondition, message)
        })
    }

    /// What the group's log says of a job, as of now.
    ///
    /// # Errors
    /// As for [`Group::prove_leadership`].
    pub async fn observe_move(&self, job: JobId, deadline: Instant) -> Result<MoveFacts, Error> {
        let leadership = self.leadership()?;
        self.prove_leadership(&leadership, deadline).await?;
        self.moving(move |view| view.facts(job)).await
    }

    /// The sum of a range that moves away, as of the entry at `armed_at`, on whatever replica has applied that. Reads all of the
    /// range, as of one moment, and ends when it is dropped.
    ///
    /// # Errors
    /// [`Reason::FailedPrecondition`] if the range is not armed here, or otherwise.
    pub async fn sum_range(&self, job: JobId, armed_at: u64) -> Result<BaseSum, Error> {
        let begin = move |view: MoveView| Ok((view.summing(job, armed_at)?, view));
        let (mut summing, mut view) = self.moving(begin).await?;
        loop {
            let began = Instant::now();
            let look = move || {
                let base = view.base_sum(job, armed_at, &mut summing, SUMMED_BYTES);
                base.map(|base| (base, summing, view))
            };
            let base;
            (base, summing, view) = self.aside(look).await?;
            if let Some(base) = base {
                return Ok(base);
            }
            // Half of the time is left to clients; and who asked may have gone.
            tokio::time::sleep(began.elapsed()).await;
        }
    }

    /// What a range that moves away holds, portion by portion, on whatever replica has applied what is asked for. Ends with
    /// the portion behind which nothing is, or with an error.
    pub fn export(self: Arc<Self>, request: ExportRequest) -> impl Stream<Item = Result<Exported, Error>> + Send {
        let budget = ExportBudget {
            bytes: request.budget.bytes.clamp(1, MAX_PORTION_BYTES),
            scanned_bytes: request.budget.scanned_bytes.clamp(1, MAX_SCANNED_BYTES),
        };
        let first = Some((self, ExportRequest { budget, ..request }));
        stream::unfold(first, |state| async {
            let (group, request) = state?;
            let asked = request.clone();
            let portion = group.moving(move |view| view.exported(&asked)).await;
            let rest = portion.as_ref().ok().filter(|portion| !portion.done).map(|portion| behind(&request, portion));
            Some((portion, rest.map(|rest| (group, rest))))
        })
    }

    async fn moving<T: Send + 'static>(
        &self,
        look: impl FnOnce(drover_fsm::MoveView) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Error> {
        let fsm = self.fsm.clone();
        self.aside(move || fsm.move_view().and_then(look)).await
    }

    async fn aside<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Error> {
        match blocking::aside(look).await {
            Ok(found) => found.map_err(|error| self.judge(error)),
            Err(error) => Err(Error::definite(Reason::Internal, format!("a look at a moving range ended: {error}"))),
        }
    }
}

/// What is asked for behind a portion.
fn behind(request: &ExportRequest, portion: &Exported) -> ExportRequest {
    let sealed_at = match request.rows {
        ExportRows::Tracked { sealed_at, .. } => sealed_at,
        ExportRows::Copied { .. } => None,
    };
    let rows = match &portion.chunk.rows {
        ChunkRows::Copied { kind, to, .. } => ExportRows::Copied { kind: *kind, after: to.clone() },
        ChunkRows::Tracked { to, .. } => ExportRows::Tracked { from: *to, sealed_at },
    };
    ExportRequest { rows, ..request.clone() }
}
