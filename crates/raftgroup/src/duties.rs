//! What a replica does without being asked: flush the state machine so that the log can be purged behind the flush, and,
//! while it leads, give a new group its first intervals, move the safe point, and remove records that are past their
//! time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_fsm::{Command, Grant, RecordPlace};
use drover_hlc::Timestamp;
use drover_kv::{Error, Reason};
use drover_rafttypes::{ControlReply, LogId};
use drover_seams::blocking;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::group::Group;
use crate::leadership::Leadership;

/// Asks who is in charge what a new group owns from the start. `None`: nothing is known of the group, and nothing may be
/// granted to it.
pub type GrantSource = Arc<dyn Fn() -> BoxFuture<'static, Result<Option<Vec<Grant>>, Error>> + Send + Sync>;

/// A source that always answers with these.
pub fn granted(grants: Vec<Grant>) -> GrantSource {
    Arc::new(move || {
        let grants = grants.clone();
        async move { Ok(Some(grants)) }.boxed()
    })
}

/// How long a duty may take before it is given up until the next round.
const DUTY_TIMEOUT: Duration = Duration::from_secs(10);
/// Records looked at, and so removed, by one entry.
const RECORDS_PER_ENTRY: u64 = 2_000;
/// Entries that one round spends on removing records. What is left is left to the next round.
const RECORD_ENTRIES_PER_ROUND: usize = 200;

/// Where the removal of records goes on.
#[derive(Default)]
struct Sweeps {
    idempotency: Option<RecordPlace>,
    transactions: Option<RecordPlace>,
}

impl Group {
    /// Runs until `stop` is cancelled. `grants` tells what the group owns from the start; it is proposed once in the life
    /// of the group.
    pub async fn run_duties(self: Arc<Self>, grants: GrantSource, stop: CancellationToken) {
        let housekeeping = self.housekeeping(&grants);
        let flushing = self.flushing();
        tokio::select! {
            () = stop.cancelled() => {}
            () = housekeeping => {}
            () = flushing => {}
        }
    }

    async fn flushing(&self) {
        let mut applied = self.fsm.applied_log_id();
        let flushed = self.fsm.flushed_log_id();
        let mut timer = tokio::time::interval(self.options.flush_interval);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let durable = index(*flushed.borrow());
            let due = durable + self.options.flush_entries;
            tokio::select! {
                _ = timer.tick() => {}
                many = applied.wait_for(|applied| index(*applied) >= due) => {
                    if many.is_err() {
                        return;
                    }
                }
            }
            if index(*applied.borrow()) <= durable {
                continue;
            }
            match self.fsm.flush().await {
                // Tells Raft what is durable; it purges the log behind it.
                Ok(_) => {
                    if self.raft.trigger().snapshot().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(group = %self.id, %error, "the state machine could not be flushed; the log is kept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn housekeeping(&self, grants: &GrantSource) {
        let mut sweeps = Sweeps::default();
        loop {
            let leadership = self.led().await;
            let deadline = Instant::now() + DUTY_TIMEOUT;
            if let Err(error) = self.lead(&leadership, grants, &mut sweeps, deadline).await {
                tracing::debug!(group = %self.id, %error, "a duty of the leader is put off");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.housekeeping_interval) => {}
                () = leadership.over.cancelled() => {}
            }
        }
    }

    /// One round of a leader's duties.
    async fn lead(
        &self,
        leadership: &Leadership,
        grants: &GrantSource,
        sweeps: &mut Sweeps,
        deadline: Instant,
    ) -> Result<(), Error> {
        self.prove_leadership(leadership, deadline).await?;
        if !self.fsm.state().bootstrapped {
            let Some(grants) = grants().await? else {
                return Err(Error::definite(
                    Reason::FailedPrecondition,
                    "the catalog does not know this group; it owns nothing until it does",
                ));
            };
            let grant = Command::GrantRange(grants);
            if let ControlReply::Refused(why) = self.command(leadership, &grant, deadline).await? {
                tracing::error!(group = %self.id, %why, "the intervals of the bootstrap configuration were refused");
            }
            return Ok(());
        }
        let now = self.timestamps.timestamps(1, deadline).await?;
        let retention_ms = u64::try_from(self.options.retention.as_millis()).unwrap_or(u64::MAX);
        let safe_point = Timestamp::new(now.physical().saturating_sub_ms(retention_ms), 0);
        if self.fsm.state().owned.iter().any(|owned| owned.safe_point < safe_point) {
            self.command(leadership, &Command::AdvanceSafePoint(safe_point), deadline).await?;
        }
        self.forget_records(leadership, now, &mut sweeps.idempotency, deadline).await?;
        self.forget_transactions(leadership, now, &mut sweeps.transactions, deadline).await
    }

    /// Refuses transactions that are too old from now on, and removes what is recorded of them, going on at `sweep`, where the last
    /// round stopped. The horizon goes first, and rises whether there is anything to remove or not: the limit holds in a group
    /// without transactions as well. Those whose locks elsewhere may not be resolved stay until that is settled.
    async fn forget_transactions(
        &self,
        leadership: &Leadership,
        now: Timestamp,
        sweep: &mut Option<RecordPlace>,
        deadline: Instant,
    ) -> Result<(), Error> {
        let max_age_ms = u64::try_from(self.options.txn_max_age.as_millis()).unwrap_or(u64::MAX);
        let horizon = Timestamp::new(now.physical().saturating_sub_ms(max_age_ms), 0);
        if self.fsm.state().owned.iter().any(|owned| owned.txn_horizon < horizon) {
            self.command(leadership, &Command::AdvanceTxnHorizon(horizon), deadline).await?;
        }
        for _ in 0..RECORD_ENTRIES_PER_ROUND {
            let look = || self.fsm.expired_txn_records(sweep.as_ref(), horizon, RECORDS_PER_ENTRY);
            let found = blocking::here(look).map_err(|error| self.judge(error))?;
            if !found.names.is_empty() {
                self.command(leadership, &Command::RemoveTxnRecords(found.names), deadline).await?;
            }
            *sweep = found.resume;
            if sweep.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Removes idempotency records whose time is over, going on at `sweep`, where the last round stopped. The horizon
    /// goes first: from then on the operations they belong to are refused.
    async fn forget_records(
        &self,
        leadership: &Leadership,
        now: Timestamp,
        sweep: &mut Option<RecordPlace>,
        deadline: Instant,
    ) -> Result<(), Error> {
        for _ in 0..RECORD_ENTRIES_PER_ROUND {
            let look = || self.fsm.expired_records(sweep.as_ref(), now, RECORDS_PER_ENTRY);
            let found = blocking::here(look).map_err(|error| self.judge(error))?;
            if !found.names.is_empty() {
                if self.fsm.state().record_horizon < now {
                    self.command(leadership, &Command::AdvanceRecordHorizon(now), deadline).await?;
                }
                self.command(leadership, &Command::RemoveRecords(found.names), deadline).await?;
            }
            *sweep = found.resume;
            if sweep.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn command(
        &self,
        leadership: &Leadership,
        command: &Command,
        deadline: Instant,
    ) -> Result<ControlReply, Error> {
        self.propose(leadership, command.encode(leadership.term)?, deadline).await
    }
}

fn index(log_id: Option<LogId>) -> u64 {
    log_id.map_or(0, |log_id| log_id.index)
}
