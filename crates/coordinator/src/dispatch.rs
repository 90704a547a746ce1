use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_keys::{GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_transport::{PeerPool, Sent};
use drover_wire::{
    GroupAnswer, GroupCall, GroupDigest, GroupOp, decode_group_response, encode_group_request, take_newer_routes,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::Rng;

use crate::retry::{Failure, Next, Repeat, at_deadline, decide, turned_away};
use crate::{GroupDirectory, RouteCache};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt may take, if the operation may be sent again: a node that hangs must not use up the deadline.
const ATTEMPT: Duration = Duration::from_secs(1);

/// What is known of an operation over all its attempts, whichever groups they went to.
#[derive(Debug, Default)]
pub struct Attempts {
    /// An attempt may have been logged.
    unknown: bool,
    /// What the last one failed with.
    last: Option<Failure>,
}

impl Attempts {
    /// Nothing was attempted here; `unknown` tells whether somebody else may have had it logged.
    pub fn after(unknown: bool) -> Self {
        Self { unknown, last: None }
    }

    /// Whether an attempt may have been logged.
    pub fn is_unknown(&self) -> bool {
        self.unknown
    }

    /// What the caller is told when the deadline has passed.
    pub fn at_deadline(&self) -> Error {
        at_deadline(self.unknown, self.last.as_ref())
    }

    /// What the caller is told when this node does not let the operation wait any longer.
    pub(crate) fn turned_away(&self, error: Error) -> Error {
        turned_away(self.unknown, error)
    }

    /// The operation waits before it is sent.
    pub(crate) fn held(&mut self) {
        let why = || Failure::NotSent("writes to the range are held back while it changes hands".to_owned());
        self.last.get_or_insert_with(why);
    }
}

/// Why an operation has no answer.
#[derive(Debug)]
pub enum CallError {
    /// It is over.
    Failed(Error),
    /// The group refused it because of who owns what; it may be routed anew.
    Misrouted(Error),
    /// The group refused it because of a lock, which the error names.
    Blocked(Error),
    /// The group refused it because writes to its range are held back.
    Fenced(Error),
}

/// Takes an operation to the leader of its group, wherever that is, until it is answered or the deadline passes.
pub struct Dispatcher {
    node: NodeId,
    directory: Arc<GroupDirectory>,
    peers: Arc<PeerPool>,
    routes: Arc<RouteCache>,
    /// The node that last answered as leader, for groups without a replica here.
    leaders: Mutex<HashMap<GroupId, NodeId>>,
}

impl Dispatcher {
    /// A dispatcher for the node `node`.
    pub fn new(node: NodeId, directory: Arc<GroupDirectory>, peers: Arc<PeerPool>, routes: Arc<RouteCache>) -> Self {
        Self { node, directory, peers, routes, leaders: Mutex::default() }
    }

    /// The replicas here.
    pub fn directory(&self) -> &Arc<GroupDirectory> {
        &self.directory
    }

    /// The node that is believed to lead `group`.
    pub fn believed_leader(&self, group: GroupId) -> Option<NodeId> {
        match self.directory.running(group) {
            Some(replica) => replica.known_leader(),
            None => self.leaders.lock().get(&group).copied(),
        }
    }

    /// Remembers who leads `group`, for the next one who asks.
    pub fn answered_as_leader(&self, group: GroupId, node: NodeId) {
        self.leaders.lock().insert(group, node);
    }

    /// Runs an operation that has no route on the leader of `group`.
    ///
    /// # Errors
    /// What the group answered, or that the deadline passed; definite or unknown as it is known here.
    pub async fn call(
        &self,
        group: GroupId,
        op: GroupOp,
        repeat: Repeat,
        deadline: Instant,
    ) -> Result<GroupAnswer, Error> {
        match self.call_routed(group, op, repeat, &mut Attempts::default(), deadline).await {
            Ok(answer) => Ok(answer),
            Err(
                CallError::Failed(error)
                | CallError::Misrouted(error)
                | CallError::Blocked(error)
                | CallError::Fenced(error),
            ) => Err(error),
        }
    }

    /// What is known of the catalog.
    pub fn routes(&self) -> &Arc<RouteCache> {
        &self.routes
    }

    /// Runs `op` on the leader of `group`, to which a route map led.
    ///
    /// # Errors
    /// What the group answered, or that the deadline passed; definite or unknown as `attempts` knows it.
    pub async fn call_routed(
        &self,
        group: GroupId,
        op: GroupOp,
        repeat: Repeat,
        attempts: &mut Attempts,
        deadline: Instant,
    ) -> Result<GroupAnswer, CallError> {
        let mut members = self.directory.members(group);
        if members.is_empty() && !self.routes.is_known() {
            let message = "this node does not know the catalog yet; nothing happened, try again or ask another node";
            return Err(CallError::Misrouted(Error::definite(Reason::Unavailable, message)));
        }
        if members.is_empty() {
            let error = Error::definite(Reason::UnknownGroup, format!("there is no group {group}; nothing happened"));
            return Err(CallError::Misrouted(error));
        }
        let mut hint: Option<NodeId> = None;
        let mut followed = 0;
        let mut round = 0usize;
        let mut pause = FIRST_PAUSE;
        loop {
            if Instant::now() >= deadline {
                return Err(CallError::Failed(attempts.at_deadline()));
            }
            let believed = hint.or_else(|| self.believed_leader(group)).filter(|_| round < 2 || hint.is_some());
            let target = believed.unwrap_or_else(|| members[round % members.len()]);
            let until = match repeat {
                Repeat::Read | Repeat::Recognised | Repeat::Holder => deadline.min(Instant::now() + ATTEMPT),
                Repeat::Never => deadline,
            };
            let failure = match self.call_one(target, group, op.clone(), until).await {
                Ok(answer) => {
                    // What was believed before is known already; a hint is not.
                    if hint.is_some() || believed != Some(target) {
                        self.answered_as_leader(group, target);
                    }
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let next = decide(repeat, attempts.unknown, failure.clone());
            tracing::trace!(%group, %target, ?failure, ?next, "attempt failed");
            attempts.last = Some(failure);
            match next {
                Next::GiveUp(error) => return Err(CallError::Failed(error)),
                Next::Unblock(error) => return Err(CallError::Blocked(error)),
                Next::Park { error, unknown } => {
                    attempts.unknown = unknown;
                    return Err(CallError::Fenced(error));
                }
                Next::Reroute { error, unknown } => {
                    attempts.unknown = unknown;
                    return Err(CallError::Misrouted(error));
                }
                Next::Again { leader, unknown } => {
                    attempts.unknown = unknown;
                    hint = leader.filter(|leader| *leader != target);
                    round += 1;
                    // They may change while the request is under way.
                    let present = self.directory.members(group);
                    members = if present.is_empty() { members } else { present };
                    // A fresh hint is worth following at once, but two replicas may point at each other.
                    if hint.is_some() && followed < 2 {
                        followed += 1;
                        continue;
                    }
                    followed = 0;
                    let jitter = rand::rng().random_range(0.5..1.5);
                    let wake = Instant::now() + pause.mul_f64(jitter);
                    tokio::time::sleep_until(wake.min(deadline).into()).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Runs one operation on one node, once, whether it leads or not.
    ///
    /// # Errors
    /// What became of the attempt.
    pub async fn call_one(
        &self,
        target: NodeId,
        group: GroupId,
        op: GroupOp,
        deadline: Instant,
    ) -> Result<GroupAnswer, Failure> {
        if target == self.node {
            let call = GroupCall { group, timeout_ms: 0, op };
            // Boxed: the futures of a whole replica are deep, and they would be part of every caller's type.
            let served: BoxFuture<'_, _> = Box::pin(self.directory.serve(call, deadline));
            return served.await.map_err(Failure::Answered);
        }
        self.call_node(target, group, op, deadline).await
    }

    /// Lets every replica of a group take a digest, and returns the leader's.
    ///
    /// # Errors
    /// As [`Dispatcher::call`].
    pub async fn digest(&self, group: GroupId, deadline: Instant) -> Result<GroupDigest, Error> {
        match self.call(group, GroupOp::Digest { index: 0 }, Repeat::Read, deadline).await? {
            GroupAnswer::Digest(digest) => Ok(digest),
            other => Err(Error::definite(Reason::Internal, format!("a digest was answered with {other:?}"))),
        }
    }

    async fn call_node(
        &self,
        target: NodeId,
        group: GroupId,
        op: GroupOp,
        deadline: Instant,
    ) -> Result<GroupAnswer, Failure> {
        // The pool says how much time is left when the request goes out.
        let request = encode_group_request(&GroupCall { group, timeout_ms: 0, op });
        match self.peers.group_call(target, request, deadline.into()).await {
            Ok(mut response) => {
                for delta in take_newer_routes(&mut response) {
                    // What does not follow comes another way.
                    if self.routes.advance(&Arc::new(delta)).is_err() {
                        break;
                    }
                }
                decode_group_response(response).map_err(Failure::Answered)
            }
            Err(error) if error.sent == Sent::NotSent => Err(Failure::NotSent(error.to_string())),
            Err(error) => Err(Failure::Lost(error.to_string())),
        }
    }
}
