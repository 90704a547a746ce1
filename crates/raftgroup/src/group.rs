use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use drover_fsm::{Command, FsmHandle, FsmStateMachine};
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{GroupId, NodeId};
use drover_kv::{Error, Outcome, Reason, TxnWrite, WriteKind, WriteOp};
use drover_raftlog::GroupLog;
use drover_rafttypes::{CommandBytes, ControlReply, Node, SnapshotDir, TypeConfig};
use drover_seams::blocking;
use openraft::async_runtime::WatchReceiver;
use openraft::network::{NetSnapshot, RaftNetworkFactory};
use openraft::raft::WatchChangeHandle;
use openraft::raft::linearizable_read::LinearizerOption;
use openraft::{Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::arrival;
use crate::leadership::Leadership;
use crate::options::GroupOptions;
use crate::proposer::{self, Proposer, ProposerParts};
use crate::read::look;
use crate::stats::GroupStats;
use crate::suspend::{ClockLead, SuspendWatch};
use crate::timestamps::SharedTimestamps;

/// The Raft node of one replica.
pub type GroupRaft = Raft<TypeConfig, FsmStateMachine>;
/// The leadership of this replica, while it leads.
pub type LeadershipCell = Arc<ArcSwapOption<Leadership>>;

/// What a replica is opened with.
pub struct GroupParts<N> {
    /// Which group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// The group's part of the node's log.
    pub log: GroupLog,
    /// The state machine, for Raft.
    pub state_machine: FsmStateMachine,
    /// The state machine, for readers.
    pub fsm: FsmHandle,
    /// How to reach the other replicas.
    pub network: N,
    /// Where timestamps come from.
    pub timestamps: SharedTimestamps,
    /// Tells whether the machine was suspended; [`crate::clock_lead`], except in tests.
    pub clock_lead: ClockLead,
    /// Settings.
    pub options: GroupOptions,
}

/// One replica of one group.
pub struct Group {
    pub(crate) id: GroupId,
    pub(crate) node: NodeId,
    pub(crate) raft: GroupRaft,
    pub(crate) fsm: FsmHandle,
    pub(crate) leadership: LeadershipCell,
    pub(crate) timestamps: SharedTimestamps,
    pub(crate) options: Arc<GroupOptions>,
    pub(crate) stats: Arc<GroupStats>,
    /// Room for requests that wait for a range to be activated here.
    pub(crate) holding: Semaphore,
    proposer: Proposer,
    suspend: SuspendWatch,
    /// The term of the last vote before this start; `None` if the replica had neither voted nor logged anything.
    history: Option<u64>,
    /// Term that this replica leads in, set after `leadership`.
    led: watch::Sender<Option<u64>>,
    /// Follows the leadership for as long as it is kept.
    watch: Mutex<Option<WatchChangeHandle<TypeConfig>>>,
    /// When the last message of the group's leader arrived.
    heard: Mutex<Option<Instant>>,
    /// Cancelled when the replica is stopped: whoever waits for it to apply something would wait for ever.
    closed: CancellationToken,
}

impl Group {
    /// Recovers a replica from its log and state machine. It takes no part in the group before [`Group::run`].
    ///
    /// # Errors
    /// If the log or the state machine cannot be read or contradict each other.
    pub async fn open<N>(mut parts: GroupParts<N>) -> Result<Arc<Self>, OpenError>
    where
        N: RaftNetworkFactory<TypeConfig>,
        N::Network: NetSnapshot<TypeConfig, SnapshotData = SnapshotDir>,
    {
        let config = Arc::new(raft_config(parts.group, &parts.options)?);
        let history = history(&mut parts.log).await.map_err(OpenError::Log)?;
        let applied = parts.fsm.applied_log_id().borrow().map_or(0, |log_id| log_id.index);
        if history.is_none() && applied > 0 && guards::on(Guard::VotesNotLost) {
            return Err(OpenError::LogMissing { applied });
        }
        let raft = Raft::build(parts.node.0, config, parts.network, parts.log, parts.state_machine)
            .await
            .map_err(|error| OpenError::Raft(error.to_string()))?;
        let options = Arc::new(parts.options);
        let leadership: LeadershipCell = Arc::default();
        let stats = Arc::new(GroupStats::default());
        let proposer = Proposer::start(ProposerParts {
            raft: raft.clone(),
            leadership: Arc::clone(&leadership),
            timestamps: Arc::clone(&parts.timestamps),
            options: Arc::clone(&options),
            stats: Arc::clone(&stats),
        });
        let holding = Semaphore::new(options.max_held_requests);
        let suspend = SuspendWatch::new(options.silence_after_restart(), parts.clock_lead);
        Ok(Arc::new(Self {
            id: parts.group,
            node: parts.node,
            raft,
            fsm: parts.fsm,
            leadership,
            timestamps: parts.timestamps,
            options,
            stats,
            holding,
            proposer,
            suspend,
            history,
            led: watch::Sender::new(None),
            watch: Mutex::new(None),
            heard: Mutex::new(None),
            closed: CancellationToken::new(),
        }))
    }

    /// Lets the replica take part in its group, and returns when it does.
    ///
    /// A voter that restarts has forgotten the lease it may have given, so a replica with a history keeps silent for a
    /// lease and a margin first. Its messages must not be delivered before this returns.
    pub async fn run(self: &Arc<Self>) {
        if self.has_history() && guards::on(Guard::SilentAfterRestart) {
            tokio::time::sleep(self.options.silence_after_restart()).await;
        }
        let (began, ended) = (Arc::clone(&self.leadership), Arc::clone(&self.leadership));
        let (led, left) = (self.led.clone(), self.led.clone());
        let group = self.id;
        // A leader that restarts finds its old vote, which says that it leads; it does not, until it wins a new term.
        let before_start = self.history;
        self.raft.run();
        let watch = self.raft.on_leader_change(
            move |leader| {
                if before_start.is_some_and(|term| leader.term <= term) && guards::on(Guard::StoredVoteLeadsNothing) {
                    return std::future::ready(());
                }
                tracing::info!(%group, term = leader.term, "this replica leads the group");
                // What was admitted before must find its leadership over before it can find another one.
                if let Some(before) = began.swap(None) {
                    before.over.cancel();
                }
                began.store(Some(Leadership::begin(leader)));
                led.send_replace(Some(leader.term));
                std::future::ready(())
            },
            move |leader| {
                tracing::info!(%group, term = leader.term, "this replica no longer leads the group");
                if let Some(before) = ended.swap(None) {
                    before.over.cancel();
                }
                left.send_replace(None);
                std::future::ready(())
            },
        );
        *self.watch.lock() = Some(watch);
    }

    /// Makes the group exist, with these voters. Safe to repeat: a group that exists is left as it is.
    ///
    /// # Errors
    /// If the replica has stopped.
    pub async fn initialize(&self, voters: BTreeMap<u64, Node>) -> Result<(), Error> {
        use openraft::errors::{InitializeError, RaftError};
        match self.raft.initialize(voters).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(Error::definite(Reason::FailedPrecondition, error.to_string())),
            Err(RaftError::Fatal(error)) => Err(Error::definite(Reason::ReplicaStopped, error.to_string())),
        }
    }

    /// Whether the replica had voted or logged anything before this start.
    pub fn has_history(&self) -> bool {
        self.history.is_some()
    }

    /// Which group.
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The Raft node, for the network and for status.
    pub fn raft(&self) -> &GroupRaft {
        &self.raft
    }

    /// The state machine, for status and digests.
    pub fn fsm(&self) -> &FsmHandle {
        &self.fsm
    }

    /// Counters.
    pub fn stats(&self) -> &GroupStats {
        &self.stats
    }

    /// Settings.
    pub fn options(&self) -> &GroupOptions {
        &self.options
    }

    /// Takes note of a message of the group's leader.
    pub fn heard_from_leader(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    /// How long ago this replica was last in touch with the group: as its leader with a quorum, otherwise with its leader.
    /// `None`: not since this start. A stored vote names a leader that may be long gone.
    pub fn last_contact(&self) -> Option<Duration> {
        use openraft::Instant as _;
        let quorum = self.raft.metrics().borrow_watched().last_quorum_acked.map(|acked| acked.into_inner().elapsed());
        let heard = self.heard.lock().map(|at| at.elapsed());
        quorum.into_iter().chain(heard).min()
    }

    /// The node that leads, as far as this replica knows.
    pub fn known_leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// Whether this replica believes that it leads. It may be wrong: see [`Group::prove_leadership`].
    pub fn is_leader(&self) -> bool {
        self.leadership.load().is_some()
    }

    /// The leadership of this replica.
    ///
    /// # Errors
    /// [`Reason::NotLeader`] with a hint, definite.
    pub fn leadership(&self) -> Result<Arc<Leadership>, Error> {
        self.leadership.load_full().ok_or_else(|| self.not_leader())
    }

    /// Waits until this replica leads.
    pub async fn led(&self) -> Arc<Leadership> {
        let mut led = self.led.subscribe();
        loop {
            if let Some(leadership) = self.leadership.load_full() {
                return leadership;
            }
            // The sender lives as long as `self`.
            let _ = led.wait_for(Option::is_some).await;
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn not_leader(&self) -> Error {
        let leader = self.known_leader().filter(|leader| *leader != self.node);
        let message = format!("node {} does not lead group {}; nothing happened", self.node, self.id);
        Error::definite(Reason::NotLeader, message).leader_hint(leader)
    }

    /// Proves that this replica leads in the term of `leadership` at some moment after the call, and waits until it has
    /// applied everything that was committed at that moment. By lease if it is fresh, otherwise by asking a quorum.
    ///
    /// # Errors
    /// [`Reason::NotLeader`] or [`Reason::Timeout`]; definite, a proof has no effect.
    pub async fn prove_leadership(&self, leadership: &Leadership, deadline: Instant) -> Result<(), Error> {
        self.stats.proof();
        let (trusts_lease, noticed) = self.suspend.check();
        if noticed {
            self.stats.suspended();
            tracing::warn!(group = %self.id, "the machine was suspended; reads ask a quorum until the lease is renewed");
        }
        let option = LinearizerOption::new(Some(self.options.lease(trusts_lease)), true);
        let proof = leadership
            .wait(deadline, async {
                let linearizer = self.raft.get_read_linearizer(option).await.map_err(|error| self.unproven(&error))?;
                let term = *linearizer.read_log_id().committed_leader_id();
                if term != proposer::committed(leadership.leader_id) && guards::on(Guard::ProofOfThisTerm) {
                    return Err(self.not_leader());
                }
                linearizer
                    .await_ready(&self.raft)
                    .await
                    .map_err(|error| Error::definite(Reason::ReplicaStopped, format!("the replica stopped: {error}")))
            })
            .await?;
        proof.map(|_| ())
    }

    fn unproven<E: std::fmt::Display + std::fmt::Debug>(&self, error: &E) -> Error {
        tracing::debug!(group = %self.id, %error, "leadership could not be proven");
        self.not_leader()
    }

    /// Proposes one write on this leader and waits until it is applied.
    ///
    /// # Errors
    /// Definite ones if nothing was or will be proposed, unknown ones otherwise.
    pub async fn write(&self, op: WriteOp, deadline: Instant) -> Result<Outcome, Error> {
        if !self.takes_in() {
            return self.write_now(op, deadline).await;
        }
        let touched = arrival::written(&op.kind);
        self.once_arrived(&touched, op.observed_version, deadline, || self.write_now(op.clone(), deadline)).await
    }

    async fn write_now(&self, mut op: WriteOp, deadline: Instant) -> Result<Outcome, Error> {
        let leadership = self.leadership()?;
        self.slowed_down(&leadership, &op.kind, deadline).await;
        if matches!(op.kind, WriteKind::DeleteRange { .. }) {
            // The bound is only as good as what has been applied here.
            self.prove_leadership(&leadership, deadline).await?;
        }
        self.fail_fast(&op)?;
        if let WriteKind::DeleteRange { interval, resume } = &op.kind {
            let bounded = blocking::here(|| {
                self.fsm.bound_delete_range(
                    interval,
                    Timestamp::ZERO,
                    self.options.delete_range_keys,
                    self.options.delete_range_scan_rows,
                    op.observed_version,
                )
            })
            .map_err(|error| self.judge(error))?;
            let part = WriteKind::DeleteRange { interval: bounded.interval.clone(), resume: None };
            self.fsm.unfenced(&part).map_err(|error| self.judge(error))?;
            let unlocked = || self.fsm.interval_unlocked(&bounded.interval, op.observed_version);
            blocking::here(unlocked).map_err(|error| self.judge(error))?;
            let resume = bounded.resume.or_else(|| resume.clone());
            op.kind = WriteKind::DeleteRange { interval: bounded.interval, resume };
        }
        let known = self.known_leader();
        self.proposer.write(op, deadline).await.map_err(|error| match error.leader_hint {
            None if error.reason == Reason::NotLeader => error.leader_hint(known.filter(|leader| *leader != self.node)),
            _ => error,
        })
    }

    /// Refuses what apply would surely refuse for now, a write to a fenced range or to a locked key, and what would keep
    /// apply busy for too long, a transaction that has read too many rows. So whoever waits for a lock has no timestamp, and
    /// is nothing that others wait for. Nothing else rests on this: apply judges again.
    fn fail_fast(&self, op: &WriteOp) -> Result<(), Error> {
        let state = self.fsm.state();
        if state.locks == 0 && state.moves.sources.is_empty() && !matches!(op.kind, WriteKind::Txn(_)) {
            return Ok(());
        }
        let observed = op.observed_version;
        if !matches!(op.kind, WriteKind::DeleteRange { .. }) {
            self.fsm.unfenced(&op.kind).map_err(|error| self.judge(error))?;
        }
        let judged = match &op.kind {
            WriteKind::Put { key, .. } | WriteKind::Delete { key } | WriteKind::CompareAndSet { key, .. } => {
                self.fsm.key_unlocked(key, observed)
            }
            WriteKind::Txn(step) => match step.as_ref() {
                TxnWrite::Commit(commit) if commit.reads.intervals.is_empty() && state.locks == 0 => Ok(()),
                TxnWrite::Commit(commit) => look(commit.mutations.len(), commit.reads.intervals.len(), || {
                    self.fsm.commit_unlocked(commit, observed)?;
                    self.fsm.bounded_reads(commit, self.options.validation, observed)
                }),
                _ => Ok(()),
            },
            WriteKind::DeleteRange { .. } | WriteKind::Settle { .. } => Ok(()),
        };
        judged.map_err(|error| self.judge(error))
    }

    /// Proposes a command that needs no timestamp, in the term of `leadership`, and waits until it is applied.
    ///
    /// # Errors
    /// Definite ones if nothing was or will be proposed, unknown ones otherwise.
    pub async fn propose(
        &self,
        leadership: &Leadership,
        command: CommandBytes,
        deadline: Instant,
    ) -> Result<ControlReply, Error> {
        proposer::propose_control(&self.raft, leadership, command, deadline).await.map(|(_, reply)| reply)
    }

    /// The digest of this replica at log index `index`, its rows included, waiting until it is taken. Index zero, on the
    /// leader: lets every replica take one now.
    ///
    /// # Errors
    /// [`Reason::Timeout`] if the index is not applied in time; otherwise as for writes.
    pub async fn digest(&self, index: u64, deadline: Instant) -> Result<(u64, u128, u64), Error> {
        let index = match index {
            0 => self.take_digest(deadline).await?,
            index => index,
        };
        let digest = self.closed.run_until_cancelled(self.fsm.digest(index));
        let taken = tokio::time::timeout_at(deadline.into(), digest).await;
        let taken = taken.map(|taken| {
            taken.unwrap_or_else(|| {
                let message = format!("the replica was stopped before it took its digest at index {index}");
                Err(Error::definite(Reason::ReplicaStopped, message))
            })
        });
        let digest = taken.map_err(|_| {
            let message = format!("the replica has not taken its digest at index {index} in time; nothing was changed");
            Error::definite(Reason::Timeout, message)
        })??;
        Ok((index, digest.hash, digest.rows))
    }

    async fn take_digest(&self, deadline: Instant) -> Result<u64, Error> {
        let leadership = self.leadership()?;
        let command = Command::TakeDigest { request_id: 0 }.encode(leadership.term)?;
        let (index, _) = proposer::propose_control(&self.raft, &leadership, command, deadline).await?;
        Ok(index)
    }

    /// Hands the leadership to `to`, and returns its term when it leads.
    ///
    /// # Errors
    /// If this replica does not lead, `to` is not a voter or lags, or the deadline passes; the group goes on either way.
    pub async fn transfer_leader(&self, to: NodeId, deadline: Instant) -> Result<u64, Error> {
        let leadership = self.leadership()?;
        if !self.raft.voter_ids().any(|voter| voter == to.0) {
            let message = format!("node {to} is not a voter of group {}; nothing was changed", self.id);
            return Err(Error::definite(Reason::UnknownNode, message));
        }
        if to == self.node {
            return Ok(leadership.term);
        }
        // The target ignores a transfer while it lacks an entry, and the group would then wait for an election: no new
        // entry is admitted until it has all of them.
        let _admission = leadership.hold_admission();
        self.wait_until_matched(to, deadline).await?;
        self.raft
            .trigger()
            .transfer_leader(to.0)
            .await
            .map_err(|error| Error::definite(Reason::ReplicaStopped, error.to_string()))?;
        let mut metrics = self.raft.server_metrics();
        let led = async {
            loop {
                let seen = metrics.borrow_and_update().clone();
                let term = seen.vote.leader_id.term;
                match seen.current_leader {
                    Some(leader) if term > leadership.term && leader == to.0 => return Ok(term),
                    Some(leader) if term > leadership.term => {
                        let message = format!("node {leader} took over group {} instead of node {to}", self.id);
                        return Err(Error::definite(Reason::FailedPrecondition, message));
                    }
                    Some(_) | None => {}
                }
                if metrics.changed().await.is_err() {
                    return Err(Error::unknown(Reason::ReplicaStopped, "the replica stopped during the transfer"));
                }
            }
        };
        tokio::time::timeout_at(deadline.into(), led).await.unwrap_or_else(|_| {
            let message = format!("node {to} did not take over group {} in time; it may still do", self.id);
            Err(Error::unknown(Reason::Timeout, message))
        })
    }

    /// Waits until `to` has every entry of this leader's log. Nothing is admitted meanwhile, so the wait is short or
    /// not worth it.
    async fn wait_until_matched(&self, to: NodeId, deadline: Instant) -> Result<(), Error> {
        // Asked of Raft's own task, behind everything that was sent to it: the metrics may not show the last entries.
        // Not with `with_raft_state`, which logs an error when who asks has gone before the answer, as callers may.
        let (answer, last) = tokio::sync::oneshot::channel();
        let look = move |state: &openraft::RaftState<TypeConfig>| {
            let _ = answer.send(state.log_ids.last().map_or(0, |id| id.index));
        };
        let stopped = || Error::definite(Reason::ReplicaStopped, "the replica stopped; nothing was changed");
        self.raft.external_request(look).await.map_err(|_| stopped())?;
        let last = last.await.map_err(|_| stopped())?;
        let mut metrics = self.raft.metrics();
        let until = deadline.min(Instant::now() + self.options.transfer_catch_up);
        let matched = async {
            loop {
                let seen =
                    metrics.borrow_and_update().replication.as_ref().and_then(|all| all.get(&to.0).copied().flatten());
                let matched = seen.map_or(0, |log_id| log_id.index);
                if matched >= last || metrics.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout_at(until.into(), matched).await.map_err(|_| {
            let message = format!(
                "node {to} does not have all entries of group {} yet; nothing was changed, try again or choose another node",
                self.id
            );
            Error::definite(Reason::FailedPrecondition, message)
        })
    }

    /// Stops the replica, or clears up behind one that has stopped by itself. Its log and state machine stay as they are.
    pub async fn shutdown(&self) {
        // A Raft task that has failed ends no leadership: whoever holds on to this replica would go on asking it.
        let watch = self.watch.lock().take();
        if let Some(mut watch) = watch {
            watch.close().await;
        }
        if let Some(leadership) = self.leadership.swap(None) {
            leadership.over.cancel();
        }
        self.led.send_replace(None);
        self.closed.cancel();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(group = %self.id, %error, "the Raft task did not end cleanly");
        }
    }
}

/// Why a replica cannot be opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Settings contradict each other.
    #[error("the Raft settings are not usable: {0}")]
    Config(String),
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(#[source] std::io::Error),
    /// The state machine has applied entries, and there is neither log nor vote: a replica that forgot its votes could
    /// vote twice.
    #[error(
        "the Raft log of this replica is missing, but its state has applied up to index {applied}; restore the log, or remove the whole data directory and replace the node"
    )]
    LogMissing { applied: u64 },
    /// Recovery failed.
    #[error("the replica cannot be recovered: {0}")]
    Raft(String),
}

/// The term of the last vote, or `None` if the log has neither vote nor entries.
async fn history(log: &mut GroupLog) -> std::io::Result<Option<u64>> {
    use openraft::storage::{RaftLogReader, RaftLogStorage};
    let state = log.get_log_state().await?;
    let vote = log.get_log_reader().await.read_vote().await?;
    Ok(vote.map(|vote| vote.leader_id.term).or_else(|| state.last_log_id.map(|log_id| *log_id.leader_id)))
}

fn raft_config(group: GroupId, options: &GroupOptions) -> Result<openraft::Config, OpenError> {
    if options.lease_margin_ms >= options.election_max_ms {
        return Err(OpenError::Config("the lease margin must be shorter than the longest election timeout".to_owned()));
    }
    openraft::Config {
        cluster_name: format!("group-{group}"),
        heartbeat_interval: options.heartbeat_ms,
        election_timeout_min: options.election_min_ms,
        election_timeout_max: options.election_max_ms,
        enable_pre_vote: Some(true),
        // A leader that restarts has lost what it knew of pending writes: it must win a new term.
        enable_leader_restore: Some(!guards::on(Guard::NoLeaderResume)),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.log_keep_entries,
        purge_batch_size: options.purge_batch_entries,
        // A leader without a quorum keeps its log; followers lag no further than this before they get a snapshot.
        replication_lag_threshold: options.log_keep_entries,
        install_snapshot_timeout: options.snapshot_timeout.as_millis() as u64,
        ..Default::default()
    }
    .validate()
    .map_err(|error| OpenError::Config(error.to_string()))
}
