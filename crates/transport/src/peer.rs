use std::sync::Arc;
use std::time::Duration;

use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::CallError;
use crate::backoff::Backoff;
use crate::connection::Connection;
use crate::identities::PeerIdentities;
use crate::options::PeerOptions;
use crate::stats::PeerStats;

/// How things stand with the connection.
#[derive(Clone)]
enum State {
    /// An attempt is under way and no verdict is there: callers wait.
    Connecting,
    Up(Arc<Connection>),
    /// The last attempt failed: callers fail at once, while attempts go on.
    Down(Error),
}

/// One peer: its address, its connection, and the task that keeps it up.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) stats: Arc<PeerStats>,
    /// Bytes of append requests without answer.
    pub(crate) append_room: Arc<Semaphore>,
    shared: Arc<Shared>,
    _keeper: AbortOnDropHandle<()>,
}

struct Shared {
    address: watch::Sender<String>,
    state: watch::Sender<State>,
    nudge: Notify,
    stop: CancellationToken,
}

impl Peer {
    /// Starts to connect. Must be called inside a tokio runtime.
    pub(crate) fn start(
        node: NodeId,
        address: String,
        me: Arc<PeerOptions>,
        identities: Arc<PeerIdentities>,
        stats: Arc<PeerStats>,
    ) -> Self {
        let append_room = Arc::new(Semaphore::new(me.tuning.append_window_bytes.clamp(1, Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared {
            address: watch::Sender::new(address),
            state: watch::Sender::new(State::Connecting),
            nudge: Notify::new(),
            stop: CancellationToken::new(),
        });
        let keeper = Keeper { node, me, identities, stats: Arc::clone(&stats), shared: Arc::clone(&shared) };
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        Self { node, stats, append_room, shared, _keeper: keeper }
    }

    pub(crate) fn set_address(&self, address: String) {
        self.shared.address.send_if_modified(|present| {
            let changed = *present != address;
            *present = address;
            changed
        });
    }

    pub(crate) fn address(&self) -> String {
        self.shared.address.borrow().clone()
    }

    /// The peer has shown that it is alive: do not wait for the next attempt.
    pub(crate) fn nudge(&self) {
        self.shared.nudge.notify_one();
    }

    /// Ends the connection, for good.
    pub(crate) fn stop(&self) {
        self.shared.stop.cancel();
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Up(_))
    }

    /// Completes when there is no connection.
    pub(crate) async fn down(&self) {
        // A keeper that has ended has left no connection behind.
        let _ = self.shared.state.subscribe().wait_for(|state| !matches!(state, State::Up(_))).await;
    }

    /// The connection, waiting for an attempt that is under way.
    ///
    /// # Errors
    /// If the last attempt failed, or the deadline passes. Nothing was sent.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, CallError> {
        let mut state = self.shared.state.subscribe();
        loop {
            match &*state.borrow_and_update() {
                State::Up(connection) => return Ok(Arc::clone(connection)),
                State::Down(error) => return Err(self.not_sent(error.reason, error.message.clone())),
                State::Connecting => {}
            }
            match timeout_at(deadline, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(self.not_sent(Reason::ShuttingDown, "this node is stopping".to_owned())),
                Err(_) => {
                    return Err(self.not_sent(Reason::Timeout, "the deadline passed while connecting".to_owned()));
                }
            }
        }
    }

    fn not_sent(&self, reason: Reason, message: String) -> CallError {
        PeerStats::inc(&self.stats.calls_not_sent);
        CallError::not_sent(self.node, reason, message)
    }
}

/// Keeps the connection up.
struct Keeper {
    node: NodeId,
    me: Arc<PeerOptions>,
    identities: Arc<PeerIdentities>,
    stats: Arc<PeerStats>,
    shared: Arc<Shared>,
}

impl Keeper {
    async fn run(self) {
        tokio::select! {
            () = self.keep_up() => {}
            () = self.shared.stop.cancelled() => {}
        }
        let removed = Error::definite(Reason::UnknownNode, "the peer was removed; nothing was changed");
        if let State::Up(connection) = self.shared.state.send_replace(State::Down(removed)) {
            connection.close();
        }
    }

    async fn keep_up(&self) {
        let tuning = &self.me.tuning;
        let mut backoff = Backoff::new(tuning.reconnect_min_ms, tuning.reconnect_max_ms);
        let mut address = self.shared.address.subscribe();
        let mut told = None;
        loop {
            let present = address.borrow_and_update().clone();
            let started = Instant::now();
            match self.attempt(&present).await {
                Ok(connection) => {
                    told = None;
                    let cause = self.hold(Arc::new(connection), &present, &mut address).await;
                    // A peer that takes connections and drops them at once is not asked in a tight loop.
                    let lasted = started.elapsed() > Duration::from_millis(tuning.reconnect_max_ms);
                    if lasted || *address.borrow() != present {
                        backoff.reset();
                        continue;
                    }
                    let error = format!("the connection to {present} was lost at once: {cause}; nothing was changed");
                    self.shared.state.send_replace(State::Down(Error::definite(Reason::Unavailable, error)));
                }
                Err(error) => {
                    PeerStats::inc(&self.stats.connect_failures);
                    self.report(&present, &error, &mut told);
                    self.shared.state.send_replace(State::Down(error));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next(rand::random())) => {}
                () = self.shared.nudge.notified() => {
                    tokio::time::sleep(Duration::from_millis(tuning.reconnect_min_ms)).await;
                }
                _ = address.changed() => {
                    backoff.reset();
                    self.shared.state.send_replace(State::Connecting);
                }
            }
        }
    }

    async fn attempt(&self, address: &str) -> Result<Connection, Error> {
        let limit = Duration::from_millis(self.me.tuning.connect_timeout_ms);
        let attempt = Connection::open(address, self.node, &self.me, &self.identities, &self.stats);
        timeout(limit, attempt).await.unwrap_or_else(|_| {
            Err(Error::definite(
                Reason::Unavailable,
                format!("no connection to {address} within {} ms; nothing was changed", limit.as_millis()),
            ))
        })
    }

    /// Offers the connection to callers until it is lost or the address changes. Returns why it ended.
    async fn hold(&self, connection: Arc<Connection>, present: &str, address: &mut watch::Receiver<String>) -> String {
        PeerStats::inc(&self.stats.connects);
        tracing::info!(node = %self.node, address = present, "connected to peer");
        self.shared.state.send_replace(State::Up(Arc::clone(&connection)));
        let cause = tokio::select! {
            cause = connection.lost() => cause,
            _ = address.changed() => "its address changed".to_owned(),
        };
        self.shared.state.send_replace(State::Connecting);
        connection.close();
        PeerStats::inc(&self.stats.disconnects);
        tracing::info!(node = %self.node, address = present, cause, "connection to peer ended");
        cause
    }

    /// Logs an attempt that failed: loudly if it will not mend itself, and once for as long as it fails alike.
    fn report(&self, address: &str, error: &Error, told: &mut Option<String>) {
        let lasting = matches!(
            error.reason,
            Reason::WrongCluster
                | Reason::WrongNode
                | Reason::FailedPrecondition
                | Reason::InvalidArgument
                | Reason::Internal
        );
        if lasting && told.as_ref() != Some(&error.message) {
            tracing::warn!(node = %self.node, address, error = %error.message, "peer cannot be used");
            *told = Some(error.message.clone());
        } else {
            tracing::debug!(node = %self.node, address, error = %error.message, "peer cannot be reached");
        }
    }
}
