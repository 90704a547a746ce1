//! The retry loop around one call: pick a node, try, learn, decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use drover_hlc::{PhysicalMs, Timestamp};
use drover_keys::NodeId;
use drover_kv::{Certainty, Error, Idempotency, Reason};
use drover_wire::proto::v1::SessionAnswer;
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::status_bytes_to_error;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use crate::node::Node;
use crate::request::{set_attempt, set_timeout};
use crate::session::NoAnswer;
use crate::topology::Topology;
use crate::{Class, ClientBuilder, Decision, History, IdempotencyKeys, decide};

/// The server is told to give up this much before the caller does, so that its answer (a definite timeout perhaps)
/// still arrives: a sixteenth of what is left, and not more than this.
const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// The largest call that is sent, as it is encoded. The calls that stand in front of it in one message fit besides.
const LARGEST_CALL: usize = drover_wire::MAX_MESSAGE_BYTES - (1 << 20);

/// What all handles of a client share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) settings: ClientBuilder,
    pub(crate) topology: ArcSwap<Topology>,
    /// Wakes the task that learns the topology.
    pub(crate) refresh: Arc<Notify>,
    in_flight: Semaphore,
    /// Latest timestamp that any answer carried.
    seen: AtomicU64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The task that learns the topology finds nobody to learn for, and ends.
        self.refresh.notify_one();
    }
}

/// One call, ready to be tried.
pub(crate) struct Attempted {
    pub(crate) call: Call,
    /// The key that decides which node is asked.
    pub(crate) key: Bytes,
    pub(crate) class: Class,
    /// Whether the idempotency key came from the caller.
    pub(crate) foreign_key: bool,
}

impl Attempted {
    pub(crate) fn read(call: Call, key: Bytes) -> Self {
        Self { call, key, class: Class::Read, foreign_key: false }
    }
}

impl Inner {
    pub(crate) fn new(settings: ClientBuilder, topology: Topology) -> Self {
        let in_flight = Semaphore::new(settings.max_in_flight);
        let (topology, refresh) = (ArcSwap::from_pointee(topology), Arc::new(Notify::new()));
        Self { settings, topology, refresh, in_flight, seen: AtomicU64::new(0) }
    }

    /// Whether a write of this client carries an idempotency key of its own accord.
    pub(crate) fn names_writes(&self) -> bool {
        self.settings.retry.retries() && self.settings.idempotency == IdempotencyKeys::On
    }

    /// A new name for one intention that is to be carried out within `deadline`.
    pub(crate) fn new_idempotency(&self, deadline: Duration) -> Idempotency {
        let key: [u8; 16] = rand::random();
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let seen_ms = Timestamp::from_raw(self.seen.load(Ordering::Relaxed)).physical().unix_ms();
        let window = deadline.saturating_add(self.settings.settle_window);
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let not_after = PhysicalMs::default().saturating_add_ms(wall_ms.max(seen_ms)).saturating_add_ms(window_ms);
        Idempotency { key: Bytes::copy_from_slice(&key), not_after: Timestamp::new(not_after, 0) }
    }

    /// Takes note of a timestamp from an answer: the cluster's time is at least this.
    pub(crate) fn saw(&self, timestamp: Timestamp) {
        // Whole seconds only: exactness is not needed, and a write per answer would be felt.
        if timestamp.physical().unix_ms()
            > Timestamp::from_raw(self.seen.load(Ordering::Relaxed)).physical().unix_ms() + 1_000
        {
            self.seen.fetch_max(timestamp.raw(), Ordering::Relaxed);
        }
    }

    /// Makes the call, again if need be, until it has an answer or `deadline` has passed.
    pub(crate) async fn drive(&self, attempted: Attempted, deadline: Instant) -> Result<Answer, Error> {
        let Attempted { mut call, key, class, foreign_key } = attempted;
        let bytes = call.encoded_len();
        if bytes > LARGEST_CALL {
            let message =
                format!("the call has {bytes} bytes, a message holds {LARGEST_CALL}; nothing was sent or changed");
            return Err(Error::definite(Reason::BatchTooLarge, message));
        }
        let _permit = self.admit(deadline).await?;
        let mut history = History { foreign_key, ..History::default() };
        let mut failed: Option<Arc<Node>> = None;
        loop {
            let node = self.topology.load().pick(&key, failed.as_ref()).ok_or_else(no_nodes)?;
            set_timeout(&mut call, server_timeout_ms(deadline.saturating_duration_since(Instant::now())));
            set_attempt(&mut call, history.attempts + 1);
            let error = match self.attempt(&node, call.clone(), &key, class, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            history.attempts += 1;
            history.fresh_target = self.is_fresh(&error, &node, history.attempts);
            let remaining = deadline.saturating_duration_since(Instant::now());
            let was_unknown = error.is_unknown();
            let hinted = error.leader_hint.is_some_and(|leader| Some(leader) != node.id());
            match decide(&self.settings.retry, class, history, error, remaining, rand::random()) {
                Decision::Retry { after } => {
                    if !after.is_zero() {
                        tokio::time::sleep(after).await;
                    }
                }
                Decision::Fail(error) => return Err(error),
            }
            history.unknown |= was_unknown;
            // A node that names another one works: it is avoided only by following its hint.
            failed = (!hinted).then_some(node);
        }
    }

    async fn admit(&self, deadline: Instant) -> Result<tokio::sync::SemaphorePermit<'_>, Error> {
        if let Ok(permit) = self.in_flight.try_acquire() {
            return Ok(permit);
        }
        match tokio::time::timeout_at(deadline, self.in_flight.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Error::definite(
                Reason::Timeout,
                format!(
                    "the deadline passed while {} other calls were under way; nothing was sent or changed; send fewer at \
                     once or raise max_in_flight",
                    self.settings.max_in_flight
                ),
            )),
        }
    }

    async fn attempt(
        &self,
        node: &Arc<Node>,
        call: Call,
        key: &Bytes,
        class: Class,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        let answer = match node.call(call, deadline).await {
            Ok(answer) => answer,
            Err(none) => {
                self.refresh.notify_one();
                if let NoAnswer::TimedOutSent = none {
                    self.doubt(node, key);
                }
                return Err(without_answer(node.address(), class, none));
            }
        };
        let SessionAnswer { leader_hint, answer, .. } = answer;
        match answer {
            Some(Answer::Error(bytes)) => {
                let error = status_bytes_to_error(&bytes);
                self.learn_from_error(&error, node, key);
                Err(error)
            }
            Some(answer) => {
                if leader_hint != 0 && node.id() != Some(NodeId(leader_hint)) {
                    self.learn_leader(key, NodeId(leader_hint));
                }
                Ok(answer)
            }
            // Another attempt may be answered better.
            None => Err(Error { certainty: Certainty::Unknown, ..malformed(class, "an empty answer") }),
        }
    }

    fn learn_leader(&self, key: &[u8], leader: NodeId) {
        let known = self.topology.load().learn_leader(key, leader);
        if !known && !self.settings.only_endpoints {
            self.refresh.notify_one();
        }
    }

    /// A node that leads as far as it knows, and cannot reach the others, says nothing but that time has run out.
    fn doubt(&self, node: &Node, key: &[u8]) {
        if let Some(id) = node.id() {
            self.topology.load().doubt_leader(key, id);
        }
    }

    fn learn_from_error(&self, error: &Error, node: &Node, key: &[u8]) {
        match (error.leader_hint, error.reason) {
            (Some(leader), _) => self.learn_leader(key, leader),
            (None, Reason::NotLeader | Reason::RouteMoved | Reason::CutoverPending | Reason::StaleRoute) => {
                self.refresh.notify_one();
            }
            (None, Reason::Timeout | Reason::TimeoutIndefinite) => self.doubt(node, key),
            (None, _) => {}
        }
    }

    /// Whether the next attempt goes somewhere that has not been tried: to the hinted leader, or, after the loss of a
    /// node, to one of the others, each once.
    fn is_fresh(&self, error: &Error, tried: &Arc<Node>, attempts: u32) -> bool {
        let topology = self.topology.load();
        let others_left = (attempts as usize) < topology.nodes().len();
        let reachable = |leader| !self.settings.only_endpoints || topology.knows(leader);
        match error.leader_hint {
            Some(leader) => Some(leader) != tried.id() && attempts <= 2 && reachable(leader),
            None => error.reason == Reason::Unavailable && tried.is_resting() && others_left,
        }
    }
}

/// What is told to the server as its timeout.
fn server_timeout_ms(remaining: Duration) -> u32 {
    let budget = remaining - ANSWER_MARGIN.min(remaining / 16);
    u32::try_from(budget.as_millis()).unwrap_or(u32::MAX).max(1)
}

fn without_answer(at: &str, class: Class, none: NoAnswer) -> Error {
    let effect = effect(class);
    match none {
        NoAnswer::NotSent(why) => {
            Error::definite(Reason::Unavailable, format!("{at} cannot be reached ({why}); nothing was sent or changed"))
        }
        NoAnswer::Refused(error) => *error,
        NoAnswer::Lost(why) => Error::unknown(
            Reason::Unavailable,
            format!("the connection to {at} was lost before the answer ({why}); {effect}"),
        ),
        NoAnswer::TimedOutUnsent => Error::definite(
            Reason::Unavailable,
            format!("there was no connection to {at} before the deadline; nothing was sent or changed"),
        ),
        NoAnswer::TimedOutSent => {
            Error::unknown(Reason::Unavailable, format!("{at} did not answer before the deadline; {effect}"))
        }
    }
}

fn no_nodes() -> Error {
    Error::definite(Reason::Unavailable, "no node is known; nothing was sent or changed")
}

/// What a call has done of which nothing more is known than that it was sent.
fn effect(class: Class) -> &'static str {
    match class {
        Class::Read => "nothing was changed",
        Class::NamedWrite | Class::BlindWrite => "the request may have been carried out",
    }
}

/// The server has answered with something that is no answer.
pub(crate) fn malformed(class: Class, what: &str) -> Error {
    let message = format!("the server sent {what}; {}", effect(class));
    match class {
        Class::Read => Error::definite(Reason::Internal, message),
        Class::NamedWrite | Class::BlindWrite => Error::unknown(Reason::Internal, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_and_not_answered_may_have_been_carried_out_unless_it_is_a_read() {
        for none in [NoAnswer::Lost("reset".into()), NoAnswer::TimedOutSent] {
            let told = |class| without_answer("n:1", class, none.clone()).message;
            assert!(told(Class::Read).ends_with("; nothing was changed"), "{none:?}");
            for class in [Class::NamedWrite, Class::BlindWrite] {
                assert!(told(class).ends_with("; the request may have been carried out"), "{none:?}");
            }
        }
        let (read, write) = (malformed(Class::Read, "noise"), malformed(Class::NamedWrite, "noise"));
        assert_eq!((read.is_unknown(), read.message.as_str()), (false, "the server sent noise; nothing was changed"));
        assert!(write.is_unknown() && write.message.ends_with("may have been carried out"), "{write}");
    }

    #[test]
    fn the_server_gives_up_a_little_before_the_caller() {
        let table = [(10_000, 9_950), (160, 150), (16, 15), (1, 1), (0, 1)];
        for (remaining_ms, expect) in table {
            assert_eq!(server_timeout_ms(Duration::from_millis(remaining_ms)), expect, "{remaining_ms}");
        }
        assert_eq!(server_timeout_ms(Duration::MAX), u32::MAX);
    }

    #[test]
    fn the_name_of_an_intention_outlives_its_deadline_by_the_margin_on_the_later_clock() {
        let settings = ClientBuilder { settle_window: Duration::from_secs(60), ..ClientBuilder::default() };
        let inner = Inner::new(settings, Topology::default());
        let own_ms = inner.new_idempotency(Duration::from_secs(5)).not_after.physical().unix_ms();
        let year_ms = 365 * 24 * 3_600_000;
        let cluster = Timestamp::new(PhysicalMs::new(own_ms + year_ms).unwrap(), 9);
        inner.saw(cluster);
        let named = inner.new_idempotency(Duration::from_secs(5));
        assert_eq!(named.not_after, Timestamp::new(PhysicalMs::new(own_ms + year_ms + 65_000).unwrap(), 0));
        assert_eq!(named.key.len(), 16);
        assert_ne!(named.key, inner.new_idempotency(Duration::ZERO).key);
    }
}
