//! The write pipeline of a leader: register, ask for timestamps, propose in timestamp order, answer when applied.
//!
//! One task per group. Writes that arrive while earlier ones are under way are gathered into one log entry. A further entry
//! is begun when it is at least as large as those under way together, so that few writes do not wait for each other's
//! fsync, and many share an entry. Several timestamp requests may be in flight, which overlaps them with the fsync of the
//! entries before; answers are taken in the order of the requests, and a batch whose timestamps came out below those of an
//! entry that is already in the log asks again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use drover_fsm::{Command, TimedWrite, TxnCrash};
use drover_guards::{self as guards, Guard, Moment};
use drover_hlc::Timestamp;
use drover_kv::{Error, OpResult, Outcome, Reason, TxnWrite, WriteKind, WriteOp};
use drover_rafttypes::{ApplyReply, CommandBytes, ControlReply, TypeConfig};
use futures::stream::{FuturesOrdered, FuturesUnordered};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use openraft::raft::WriteRequest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::group::{GroupRaft, LeadershipCell};
use crate::leadership::Leadership;
use crate::options::GroupOptions;
use crate::pending::{Footprint, Ticket};
use crate::stats::GroupStats;
use crate::timestamps::SharedTimestamps;

const QUEUED: u8 = 0;
const PROPOSED: u8 = 1;
const CANCELLED: u8 = 2;

/// How long the answer of an entry is waited for after the leadership it was proposed in ended.
const GRACE_AFTER_LEADERSHIP: Duration = Duration::from_secs(1);

/// A write on its way through the pipeline.
struct Queued {
    op: WriteOp,
    stage: Arc<AtomicU8>,
    reply: oneshot::Sender<Result<Outcome, Error>>,
    /// Room in the pipeline, given back when the write is answered.
    _room: OwnedSemaphorePermit,
}

/// Takes writes into the pipeline.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::UnboundedSender<Queued>,
    room: Arc<Semaphore>,
}

/// What the pipeline works with.
pub struct ProposerParts {
    pub raft: GroupRaft,
    pub leadership: LeadershipCell,
    pub timestamps: SharedTimestamps,
    pub options: Arc<GroupOptions>,
    pub stats: Arc<GroupStats>,
}

impl Proposer {
    /// Starts the pipeline's task. It ends when the last `Proposer` is dropped.
    pub fn start(parts: ProposerParts) -> Self {
        let (queue, incoming) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(parts.options.max_inflight_bytes as usize));
        tokio::spawn(Pipeline { parts, last_ts: Timestamp::ZERO, last_term: 0 }.run(incoming));
        Self { queue, room }
    }

    /// Proposes one write and waits until it is applied.
    ///
    /// # Errors
    /// Definite ones if nothing was or will be proposed, unknown ones otherwise.
    pub async fn write(&self, op: WriteOp, deadline: Instant) -> Result<Outcome, Error> {
        let size = u32::try_from(op.kind.payload_bytes() + 256).unwrap_or(u32::MAX);
        let room = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.room).acquire_many_owned(size))
            .await
            .map_err(|_| {
                let message = "too many writes are under way in the group; nothing happened, try again later";
                Error::definite(Reason::Overloaded, message).retry_after_ms(50)
            })?
            .map_err(|_| stopped())?;
        let stage = Arc::new(AtomicU8::new(QUEUED));
        let (reply, answer) = oneshot::channel();
        self.queue.send(Queued { op, stage: Arc::clone(&stage), reply, _room: room }).map_err(|_| stopped())?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(unknown("the replica stopped before the write was answered")),
            Err(_) if stage.compare_exchange(QUEUED, CANCELLED, Ordering::SeqCst, Ordering::SeqCst).is_ok() => Err(
                Error::definite(Reason::Timeout, "the deadline passed before the write was proposed; nothing happened"),
            ),
            Err(_) => Err(unknown("the deadline passed while the write was being replicated")),
        }
    }
}

fn stopped() -> Error {
    Error::definite(Reason::ReplicaStopped, "this replica has stopped; nothing happened, ask another node")
}

fn unknown(what: &str) -> Error {
    let message =
        format!("{what}; it may have happened or may still happen: settle it by its idempotency key, or read");
    Error::unknown(Reason::TimeoutIndefinite, message)
}

/// Writes that go into one log entry.
struct Batch {
    leadership: Arc<Leadership>,
    /// How many there were when they were gathered.
    operations: usize,
    writes: Vec<Queued>,
    ticket: Ticket,
}

impl Batch {
    /// Nothing of it was or will be proposed.
    fn fail(self, error: &Error) {
        unblock(&self.leadership, self.ticket);
        for write in self.writes {
            // Whoever gave up waiting has been told already.
            let _ = write.reply.send(Err(error.clone()));
        }
    }
}

/// Nothing of a batch was or will be proposed: no reader waits for it any more.
fn unblock(leadership: &Leadership, ticket: Ticket) {
    if guards::on(Guard::UnproposedIsRemoved) {
        leadership.pending.remove(ticket);
    }
}

/// Writes that are not part of an entry yet.
#[derive(Default)]
struct Queue {
    /// As they were received, still to be counted.
    arrived: Vec<Queued>,
    waiting: VecDeque<Queued>,
    /// Payload of `waiting`.
    bytes: usize,
    /// Operations of the entries under way.
    under_way: usize,
}

impl Queue {
    fn take_in(&mut self) {
        self.bytes += self.arrived.iter().map(|write| write.op.kind.payload_bytes()).sum::<usize>();
        self.waiting.extend(self.arrived.drain(..));
    }

    /// Whether less than an entry's worth is waiting. The channel holds the rest.
    fn has_room(&self, options: &GroupOptions) -> bool {
        !self.fills_entry(options)
    }

    fn fills_entry(&self, options: &GroupOptions) -> bool {
        self.waiting.len() >= options.max_entry_ops || self.bytes >= options.max_entry_bytes as usize
    }

    /// Whether an entry is to be begun now, while `asked` of the `entries` under way wait for their timestamps.
    fn may_begin(&self, asked: usize, entries: usize, options: &GroupOptions) -> bool {
        let free = asked < options.max_timestamp_requests && entries < options.max_entries_inflight;
        let large = self.waiting.len() >= self.under_way || self.fills_entry(options);
        free && large && !self.waiting.is_empty()
    }

    /// Takes one entry's worth, without those that gave up waiting.
    fn entry(&mut self, options: &GroupOptions) -> Vec<Queued> {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        while bytes < options.max_entry_bytes as usize
            && writes.len() < options.max_entry_ops
            && let Some(write) = self.waiting.pop_front()
        {
            let payload = write.op.kind.payload_bytes();
            self.bytes -= payload;
            if write.stage.load(Ordering::SeqCst) == QUEUED {
                bytes += payload;
                writes.push(write);
            }
        }
        writes
    }
}

/// What came back for a proposed entry.
enum Answer {
    /// Applied, at this log index.
    Applied(u64, ApplyReply),
    /// The entry was not and will not be appended.
    Refused(Error),
    /// The entry may be in some log.
    Unknown(Error),
}

struct Pipeline {
    parts: ProposerParts,
    /// Highest timestamp that was put into the log in `last_term`.
    last_ts: Timestamp,
    last_term: u64,
}

type Asked = BoxFuture<'static, (Batch, Result<Timestamp, Error>)>;
type Proposed = BoxFuture<'static, (Batch, Answer)>;

impl Pipeline {
    async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Queued>) {
        let mut asked: FuturesOrdered<Asked> = FuturesOrdered::new();
        let mut proposed: FuturesUnordered<Proposed> = FuturesUnordered::new();
        let mut queue = Queue::default();
        loop {
            while queue.may_begin(asked.len(), asked.len() + proposed.len(), &self.parts.options) {
                if let Some(batch) = self.gather(&mut queue) {
                    asked.push_back(self.ask(batch));
                }
            }
            let room = self.parts.options.max_entry_ops;
            tokio::select! {
                biased;
                Some((batch, answer)) = proposed.next() => {
                    queue.under_way -= batch.operations;
                    self.finish(batch, answer);
                }
                Some((batch, first)) = asked.next() => match first {
                    Err(error) => {
                        queue.under_way -= batch.operations;
                        batch.fail(&error);
                    }
                    Ok(first) if self.is_out_of_order(&batch, first) => asked.push_front(self.ask(batch)),
                    Ok(first) => {
                        let operations = batch.operations;
                        match self.propose(batch, first).await {
                            Some(answer) => proposed.push(answer),
                            None => queue.under_way -= operations,
                        }
                    }
                },
                received = incoming.recv_many(&mut queue.arrived, room), if queue.has_room(&self.parts.options) => {
                    if received == 0 {
                        // Nobody can send any more; finish what is under way.
                        while let Some((batch, answer)) = proposed.next().await {
                            self.finish(batch, answer);
                        }
                        return;
                    }
                    queue.take_in();
                }
            }
        }
    }

    /// Takes what is queued, up to one entry's worth, and registers it.
    fn gather(&self, queue: &mut Queue) -> Option<Batch> {
        let writes = queue.entry(&self.parts.options);
        let Some(leadership) = self.parts.leadership.load_full() else {
            let error = Error::definite(Reason::NotLeader, "this replica does not lead the group; nothing happened");
            for write in writes {
                let _ = write.reply.send(Err(error.clone()));
            }
            return None;
        };
        if writes.is_empty() {
            return None;
        }
        let early = if guards::on(Guard::RegisterFirst) { footprints(&writes) } else { Vec::new() };
        let ticket = leadership.pending.register(early);
        queue.under_way += writes.len();
        Some(Batch { leadership, operations: writes.len(), writes, ticket })
    }

    /// Asks for a batch's timestamps, after its keys were registered.
    fn ask(&self, batch: Batch) -> Asked {
        let deadline = Instant::now() + self.parts.options.timestamp_timeout;
        let count = u32::try_from(batch.writes.len()).expect("an entry has at most max_entry_ops operations");
        let timestamps = Arc::clone(&self.parts.timestamps);
        async move {
            let first = tokio::select! {
                first = timestamps.timestamps(count, deadline) => first,
                () = batch.leadership.over.cancelled() => Err(Error::definite(
                    Reason::NotLeader,
                    "the leadership of the group ended before the write was proposed; nothing happened",
                )),
            };
            (batch, first)
        }
        .boxed()
    }

    /// Whether `first` is not above everything that this leadership has put into the log.
    fn is_out_of_order(&self, batch: &Batch, first: Timestamp) -> bool {
        batch.leadership.term == self.last_term && first <= self.last_ts && guards::on(Guard::LogInTimestampOrder)
    }

    /// Hands a batch to Raft as one entry, bound to the leadership it was registered in.
    async fn propose(&mut self, mut batch: Batch, first: Timestamp) -> Option<Proposed> {
        if !guards::on(Guard::RegisterFirst) {
            batch.ticket = batch.leadership.pending.register(footprints(&batch.writes));
        }
        batch.leadership.pending.assign(&batch.ticket, first);
        batch.leadership.admission().await;
        let mut operations = Vec::with_capacity(batch.writes.len());
        let mut kept = Vec::with_capacity(batch.writes.len());
        for (offset, write) in (0..).zip(std::mem::take(&mut batch.writes)) {
            if write.stage.compare_exchange(QUEUED, PROPOSED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                let commit_ts = first.checked_add(offset).expect("the oracle keeps far from the end of time");
                self.last_ts = commit_ts;
                operations.push(TimedWrite { op: write.op.clone(), commit_ts });
                kept.push(write);
            }
        }
        if kept.is_empty() {
            unblock(&batch.leadership, batch.ticket);
            return None;
        }
        batch.writes = kept;
        self.last_term = batch.leadership.term;
        self.parts.stats.entry_proposed(operations.len());
        let command = match Command::Write(operations).encode(batch.leadership.term) {
            Ok(command) => command,
            Err(error) => {
                batch.fail(&error);
                return None;
            }
        };
        batch.writes.iter().for_each(|write| TxnCrash::in_write(&write.op.kind, Moment::Unproposed));
        let (responder, answer) = ProgressResponder::complete_only();
        let sent = bound(self.parts.raft.write(command), &batch.leadership).responder(responder).await;
        if sent.is_err() {
            // The core is gone: it cannot append what it did not receive.
            batch.fail(&stopped());
            return None;
        }
        Some(
            async move {
                let over = batch.leadership.over.clone();
                let late = async {
                    over.cancelled().await;
                    tokio::time::sleep(GRACE_AFTER_LEADERSHIP).await;
                };
                let answer = tokio::select! {
                    answer = answer => interpret(answer.ok()),
                    () = late => Answer::Unknown(unknown("the leadership of the group ended while the write was being replicated")),
                };
                (batch, answer)
            }
            .boxed(),
        )
    }

    /// Answers the writes of an entry. Its keys stay pending if it may still be applied in this leadership.
    fn finish(&self, batch: Batch, answer: Answer) {
        match answer {
            Answer::Refused(error) => batch.fail(&error),
            Answer::Unknown(error) => {
                if !guards::on(Guard::PendingWhileUnknown) {
                    batch.leadership.pending.remove(batch.ticket);
                }
                for write in batch.writes {
                    let _ = write.reply.send(Err(error.clone()));
                }
            }
            Answer::Applied(_, ApplyReply::Writes(results)) if results.len() == batch.writes.len() => {
                batch.writes.iter().for_each(|write| TxnCrash::in_write(&write.op.kind, Moment::Applied));
                batch.leadership.pending.remove(batch.ticket);
                for (write, result) in batch.writes.into_iter().zip(results) {
                    let _ = write.reply.send(to_answer(result));
                }
            }
            Answer::Applied(_, other) => {
                batch.leadership.pending.remove(batch.ticket);
                tracing::error!(reply = ?other, "apply answered a batch of writes with something else");
                for write in batch.writes {
                    let _ = write.reply.send(Err(unknown("the replica gave an answer that does not fit the request")));
                }
            }
        }
    }
}

fn to_answer(result: OpResult) -> Result<Outcome, Error> {
    result.map_err(|refusal| drover_wire::refusal_to_error(&refusal))
}

/// What the writes of an entry touch, in their order.
fn footprints(writes: &[Queued]) -> Vec<Footprint> {
    writes.iter().map(|write| footprint(&write.op.kind)).collect()
}

fn footprint(kind: &WriteKind) -> Footprint {
    match kind {
        WriteKind::Txn(step) => match step.as_ref() {
            TxnWrite::Commit(commit) => {
                Footprint::Keys(commit.mutations.iter().map(|mutation| mutation.key.clone()).collect())
            }
            // What these make visible is locked until they are applied.
            TxnWrite::Prepare(_)
            | TxnWrite::Decide(_)
            | TxnWrite::Resolve(_)
            | TxnWrite::Rollback(_)
            | TxnWrite::Heartbeat(_)
            | TxnWrite::Finish(_) => Footprint::Keys(Vec::new()),
        },
        WriteKind::DeleteRange { interval, .. } => Footprint::Range(interval.clone()),
        WriteKind::Put { key, .. }
        | WriteKind::Delete { key }
        | WriteKind::CompareAndSet { key, .. }
        | WriteKind::Settle { key } => Footprint::Key(key.clone()),
    }
}

/// A leader id in the form that log ids carry.
pub(crate) fn committed(
    leader: openraft::impls::leader_id_std::LeaderId<u64, u64>,
) -> openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig> {
    use openraft::vote::RaftLeaderId;
    leader.to_committed()
}

/// Lets a proposal into the log in this leadership only.
fn bound<'a>(proposal: WriteRequest<'a, TypeConfig>, leadership: &Leadership) -> WriteRequest<'a, TypeConfig> {
    match guards::on(Guard::BoundToLeadership) {
        true => proposal.with_leader(committed(leadership.leader_id)),
        false => proposal,
    }
}

/// What openraft's answer says about the entry. Only refusals from before the append are definite.
fn interpret(answer: Option<openraft::raft::ClientWriteResult<TypeConfig>>) -> Answer {
    match answer {
        Some(Ok(response)) => Answer::Applied(response.log_id.index, response.data),
        Some(Err(ClientWriteError::ForwardToLeader(forward))) => Answer::Refused(
            Error::definite(Reason::NotLeader, "this replica does not lead the group; nothing happened")
                .leader_hint(forward.leader_id.map(drover_keys::NodeId)),
        ),
        Some(Err(ClientWriteError::PreconditionFailed(_))) => Answer::Refused(Error::definite(
            Reason::NotLeader,
            "the leadership of the group changed before the write was appended; nothing happened",
        )),
        Some(Err(ClientWriteError::LogEntryDiscarded(_))) => {
            Answer::Unknown(unknown("the leadership of the group changed while the write was being replicated"))
        }
        Some(Err(ClientWriteError::ChangeMembershipError(error))) => Answer::Refused(Error::definite(
            Reason::FailedPrecondition,
            format!("the change of membership was refused and nothing happened: {error}"),
        )),
        None => Answer::Unknown(unknown("the replica stopped while the write was being replicated")),
    }
}

/// Proposes a command that needs no timestamp, and waits until it is applied; its log index and its answer.
///
/// # Errors
/// As for writes.
pub(crate) async fn propose_control(
    raft: &GroupRaft,
    leadership: &Leadership,
    command: CommandBytes,
    deadline: Instant,
) -> Result<(u64, ControlReply), Error> {
    let (responder, answer) = ProgressResponder::complete_only();
    leadership.admission().await;
    // What is not proposed needs no answer, and so cannot end unknown.
    if leadership.over.is_cancelled() {
        let message = "the leadership of the group ended before the command was proposed; nothing happened";
        return Err(Error::definite(Reason::NotLeader, message));
    }
    bound(raft.write(command), leadership).responder(responder).await.map_err(|_| stopped())?;
    let answer = tokio::select! {
        biased;
        answer = answer => interpret(answer.ok()),
        () = tokio::time::sleep_until(deadline.into()) => Answer::Unknown(unknown("the deadline passed while a command was being replicated")),
        () = leadership.over.cancelled() => Answer::Unknown(unknown("the leadership of the group ended while a command was being replicated")),
    };
    match answer {
        Answer::Applied(index, ApplyReply::Control(reply)) => Ok((index, reply)),
        Answer::Applied(_, other) => {
            Err(Error::definite(Reason::Internal, format!("apply answered a command with {other:?}")))
        }
        Answer::Refused(error) | Answer::Unknown(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::CatalogVersion;

    use super::*;

    fn queue(waiting: usize, under_way: usize) -> Queue {
        let room = Arc::new(Semaphore::new(waiting));
        let write = || {
            let kind = WriteKind::Put { key: "k".into(), value: "value".into(), ttl_ms: None };
            let op = WriteOp { kind, observed_version: Some(CatalogVersion(1)), idempotency: None };
            let stage = Arc::new(AtomicU8::new(QUEUED));
            let room = Arc::clone(&room).try_acquire_owned().unwrap();
            Queued { op, stage, reply: oneshot::channel().0, _room: room }
        };
        let mut queue = Queue { arrived: (0..waiting).map(|_| write()).collect(), under_way, ..Queue::default() };
        queue.take_in();
        queue
    }

    #[test]
    fn an_entry_is_begun_when_it_is_as_large_as_those_under_way_or_full() {
        let options = GroupOptions {
            max_entry_ops: 8,
            max_entries_inflight: 3,
            max_timestamp_requests: 2,
            ..GroupOptions::default()
        };
        let table = [
            // waiting, operations under way, entries that wait for timestamps, entries under way, begun
            (0, 0, 0, 0, false),
            (1, 0, 0, 0, true),
            (1, 1, 1, 1, true),
            (1, 2, 0, 2, false),
            (2, 2, 0, 2, true),
            (5, 6, 0, 2, false),
            (8, 16, 0, 2, true),
            (8, 16, 0, 3, false),
            (8, 16, 2, 2, false),
        ];
        for (waiting, under_way, asked, entries, begun) in table {
            let row = format!("{waiting} waiting, {under_way} in {entries} entries under way, {asked} asked");
            assert_eq!(queue(waiting, under_way).may_begin(asked, entries, &options), begun, "{row}");
        }
        let few_bytes = GroupOptions { max_entry_bytes: 12, ..options };
        assert!(queue(2, 9).may_begin(0, 1, &few_bytes), "two payloads of six bytes fill an entry");
        assert!(!queue(1, 9).may_begin(0, 1, &few_bytes));
    }

    #[test]
    fn an_entry_takes_what_fits_in_its_order_and_leaves_out_who_gave_up() {
        let options = GroupOptions { max_entry_ops: 3, ..GroupOptions::default() };
        let mut queue = queue(5, 0);
        queue.waiting[1].stage.store(CANCELLED, Ordering::SeqCst);
        assert!(!queue.has_room(&options));
        assert_eq!(queue.entry(&options).len(), 3);
        assert_eq!((queue.waiting.len(), queue.bytes), (1, 6));
        assert!(queue.has_room(&options));
        assert_eq!(queue.entry(&options).len(), 1);
        assert_eq!((queue.waiting.len(), queue.bytes), (0, 0));
    }
}
