use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drover_fsm::Command;
use drover_guards::{self as guards, Guard};
use drover_hlc::{PhysicalMs, Timestamp, WallClock};
use drover_kv::{Error, Reason};
use drover_raftgroup::{Group, Leadership};
use drover_rafttypes::ControlReply;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::core::{CoreError, OracleCore};

/// Settings of the oracle.
#[derive(Debug, Clone)]
pub struct OracleOptions {
    /// How far ahead of the clock the ceiling is committed, in milliseconds.
    pub ceiling_ahead_ms: u64,
    /// By how much one renewal may raise the ceiling when the clock has jumped ahead, in milliseconds.
    pub max_clock_step_ms: u64,
    /// How often the ceiling is looked after.
    pub renew_interval: Duration,
}

impl Default for OracleOptions {
    fn default() -> Self {
        Self { ceiling_ahead_ms: 3_000, max_clock_step_ms: 60_000, renew_interval: Duration::from_secs(1) }
    }
}

/// Counters of the oracle on one node.
#[derive(Debug, Default)]
pub struct OracleStats {
    /// Timestamps issued.
    pub issued: AtomicU64,
    /// Requests answered.
    pub requests: AtomicU64,
    /// Renewals in which the clock was ahead by more than the step.
    pub clock_jumps: AtomicU64,
}

/// What a leadership of the default group issues from.
struct Reign {
    leadership: Arc<Leadership>,
    core: OracleCore,
}

/// The oracle's part on one replica of the default group. It issues only while that replica leads.
pub struct Oracle {
    group: Arc<Group>,
    clock: Arc<dyn WallClock>,
    options: OracleOptions,
    reign: Mutex<Option<Reign>>,
    raised: Notify,
    wanted: Notify,
    stats: OracleStats,
}

impl Oracle {
    /// The oracle on this replica of the default group. [`Oracle::run`] has to run beside it.
    pub fn new(group: Arc<Group>, clock: Arc<dyn WallClock>, options: OracleOptions) -> Arc<Self> {
        Arc::new(Self {
            group,
            clock,
            options,
            reign: Mutex::new(None),
            raised: Notify::new(),
            wanted: Notify::new(),
            stats: OracleStats::default(),
        })
    }

    /// Counters.
    pub fn stats(&self) -> &OracleStats {
        &self.stats
    }

    /// Highest timestamp that this leadership has or may have issued; `None` if this replica does not lead.
    pub fn last_issued(&self) -> Option<Timestamp> {
        self.reign.lock().as_ref().map(|reign| reign.core.last())
    }

    /// Whether this replica leads and can issue.
    pub fn is_leader(&self) -> bool {
        self.group.is_leader()
    }

    /// Issues `count` consecutive timestamps, given by the lowest.
    ///
    /// # Errors
    /// [`Reason::NotLeader`] with a hint, [`Reason::Timeout`] if no ceiling can be committed in time,
    /// [`Reason::InvalidArgument`]; all definite, in the sense that no timestamp was used.
    pub async fn timestamps(&self, count: u32, deadline: Instant) -> Result<Timestamp, Error> {
        loop {
            let leadership = self.group.leadership()?;
            if guards::on(Guard::OracleProvesLeadership) {
                self.group.prove_leadership(&leadership, deadline).await?;
            }
            let raised = self.raised.notified();
            tokio::pin!(raised);
            raised.as_mut().enable();
            match self.issue(&leadership, count) {
                Some(Ok(first)) => {
                    self.stats.issued.fetch_add(u64::from(count), Ordering::Relaxed);
                    self.stats.requests.fetch_add(1, Ordering::Relaxed);
                    return Ok(first);
                }
                Some(Err(error @ CoreError::TooMany { .. })) => {
                    return Err(Error::definite(Reason::InvalidArgument, error.to_string()));
                }
                Some(Err(CoreError::CeilingReached)) | None => {}
            }
            self.wanted.notify_one();
            leadership.wait(deadline, raised).await?;
        }
    }

    /// `None` if no ceiling of this leadership is in force yet.
    fn issue(&self, leadership: &Leadership, count: u32) -> Option<Result<Timestamp, CoreError>> {
        let mut reign = self.reign.lock();
        let reign = reign.as_mut().filter(|reign| reign.leadership.term == leadership.term)?;
        Some(reign.core.issue(self.clock.now(), count))
    }

    /// Keeps the ceiling ahead of the clock while this replica leads. Runs until `stop` is cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.renew_forever() => {}
        }
    }

    async fn renew_forever(&self) {
        loop {
            let leadership = self.group.led().await;
            let deadline = Instant::now() + Duration::from_secs(5);
            if let Err(error) = self.renew(&leadership, deadline).await {
                tracing::debug!(%error, "the oracle's ceiling was not raised; trying again");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            tokio::select! {
                () = tokio::time::sleep(self.options.renew_interval) => {}
                () = self.wanted.notified() => {}
                () = leadership.over.cancelled() => *self.reign.lock() = None,
            }
        }
    }

    /// Commits a higher ceiling if one is due.
    async fn renew(&self, leadership: &Arc<Leadership>, deadline: Instant) -> Result<(), Error> {
        self.begin(leadership, deadline).await?;
        let now = self.clock.now();
        let (ceiling, cut) = {
            let reign = self.reign.lock();
            let Some(reign) = reign.as_ref().filter(|reign| reign.leadership.term == leadership.term) else {
                return Ok(());
            };
            if !reign.core.wants_ceiling(now, self.options.ceiling_ahead_ms) {
                return Ok(());
            }
            reign.core.next_ceiling(now, self.options.ceiling_ahead_ms, self.options.max_clock_step_ms)
        };
        if cut {
            self.stats.clock_jumps.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                now_ms = now.unix_ms(),
                ceiling_ms = ceiling.unix_ms(),
                "this node's clock is far ahead of the timestamps issued so far; they follow in steps"
            );
        }
        if !guards::on(Guard::CeilingCommitted) {
            self.raise(leadership, ceiling);
        }
        let command = Command::SetCeiling(ceiling).encode(leadership.term)?;
        match self.group.propose(leadership, command, deadline).await? {
            ControlReply::Done => {}
            // A ceiling that did not rise licenses nobody, unless this term raised it before.
            ControlReply::AlreadyDone if self.group.fsm().state().oracle_ceiling.term == leadership.term => {}
            reply @ (ControlReply::AlreadyDone | ControlReply::Refused(_) | ControlReply::Catalog(_)) => {
                let message = format!("the ceiling was not raised: {reply:?}; nothing was issued");
                return Err(Error::definite(Reason::Unavailable, message));
            }
        }
        self.raise(leadership, ceiling);
        Ok(())
    }

    /// Takes note of a ceiling that is applied in the term of `leadership`.
    fn raise(&self, leadership: &Leadership, ceiling: PhysicalMs) {
        if let Some(reign) = self.reign.lock().as_mut().filter(|reign| reign.leadership.term == leadership.term) {
            reign.core.raise_ceiling(ceiling);
        }
        self.raised.notify_waiters();
    }

    /// Starts from the replicated ceiling when a leadership begins: after the proof, everything that earlier leaders
    /// committed is applied here.
    async fn begin(&self, leadership: &Arc<Leadership>, deadline: Instant) -> Result<(), Error> {
        let known = self.reign.lock().as_ref().is_some_and(|reign| reign.leadership.term == leadership.term);
        if known {
            return Ok(());
        }
        self.group.prove_leadership(leadership, deadline).await?;
        let previous = self.group.fsm().state().oracle_ceiling.physical;
        let core = OracleCore::new(previous);
        *self.reign.lock() = Some(Reign { leadership: Arc::clone(leadership), core });
        Ok(())
    }
}
