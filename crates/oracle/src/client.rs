use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::NodeId;
use drover_kv::{Error, Reason};
use drover_raftgroup::TimestampSource;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use rand::Rng;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::Oracle;
use crate::core::OracleCore;

/// Remote requests under way from one node. More than one, so that a lost answer does not hold up the node.
const REQUESTS_IN_FLIGHT: usize = 4;

/// How to reach the oracle on other nodes.
pub trait OracleNetwork: Send + Sync + 'static {
    /// The nodes that may hold the oracle, the likely one first, without this node.
    fn candidates(&self) -> Vec<NodeId>;

    /// Asks one node. An error of the oracle there may name the node that holds it.
    fn ask(&self, node: NodeId, count: u32, deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>>;
}

struct Waiting {
    count: u32,
    deadline: Instant,
    reply: oneshot::Sender<Result<Timestamp, Error>>,
}

/// The oracle on this node, if it has a replica of the default group.
/// Weak: the oracle's group asks the client for timestamps itself, and would never be let go of.
type Local = RwLock<Weak<Oracle>>;

fn leading(local: &Local) -> Option<Arc<Oracle>> {
    local.read().upgrade().filter(|oracle| oracle.is_leader())
}

/// Timestamps that were issued together with those of a caller, for callers that come later. They would get what is older than
/// reads and commits that others have finished since: so there are none, unless the guard is out.
#[derive(Default)]
struct Kept(Mutex<Option<(Timestamp, u32)>>);

impl Kept {
    /// How many are asked for in addition.
    const MORE: u32 = 1_000;

    fn more() -> u32 {
        if guards::on(Guard::TimestampsNotKept) { 0 } else { Self::MORE }
    }

    /// Puts `left` timestamps away, of which `first` is the first.
    fn put(&self, first: Option<Timestamp>, left: u32) {
        *self.0.lock() = first.filter(|_| left > 0).map(|first| (first, left));
    }

    fn take(&self, count: u32) -> Option<Timestamp> {
        let mut kept = self.0.lock();
        let (first, left) = (*kept)?;
        let rest = first.checked_add(u64::from(count)).zip(left.checked_sub(count));
        *kept = rest;
        rest.map(|_| first)
    }
}

/// How everything on a node asks for timestamps: from the oracle here if this node leads the default group, otherwise
/// over the network, many callers in one request.
///
/// Callers are gathered before a request is sent, never after, so each gets timestamps that were issued after it asked.
pub struct OracleClient {
    local: Arc<Local>,
    queue: mpsc::UnboundedSender<Waiting>,
    kept: Arc<Kept>,
}

impl OracleClient {
    /// A client that asks `network` until an oracle on this node is attached. Needs a tokio runtime.
    pub fn start(network: Arc<dyn OracleNetwork>) -> Arc<Self> {
        let (queue, incoming) = mpsc::unbounded_channel();
        let (local, kept) = (Arc::<Local>::default(), Arc::<Kept>::default());
        tokio::spawn(gather(incoming, network, Arc::clone(&local), Arc::clone(&kept)));
        Arc::new(Self { local, queue, kept })
    }

    /// Makes the oracle of this node known.
    pub fn attach(&self, oracle: &Arc<Oracle>) {
        *self.local.write() = Arc::downgrade(oracle);
    }

    /// There is no oracle on this node any more: its replica of the default group is going away.
    pub fn detach(&self) {
        *self.local.write() = Weak::new();
    }
}

impl TimestampSource for OracleClient {
    fn timestamps(&self, count: u32, deadline: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
        let local = leading(&self.local);
        let (queue, kept) = (self.queue.clone(), Arc::clone(&self.kept));
        async move {
            if !guards::on(Guard::TimestampsNotKept)
                && let Some(first) = kept.take(count)
            {
                return Ok(first);
            }
            if let Some(oracle) = local {
                match oracle.timestamps(count, deadline).await {
                    Err(error) if error.reason == Reason::NotLeader => {}
                    answer => return answer,
                }
            }
            let (reply, answer) = oneshot::channel();
            let gone = || Error::definite(Reason::ShuttingDown, "this node is stopping; nothing happened");
            queue.send(Waiting { count, deadline, reply }).map_err(|_| gone())?;
            match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(gone()),
                Err(_) => Err(no_oracle("the deadline passed")),
            }
        }
        .boxed()
    }
}

fn no_oracle(why: &str) -> Error {
    let message = format!("no timestamp could be had from the leader of the default group: {why}; nothing happened");
    Error::definite(Reason::Unavailable, message)
}

async fn gather(
    mut incoming: mpsc::UnboundedReceiver<Waiting>,
    network: Arc<dyn OracleNetwork>,
    local: Arc<Local>,
    kept: Arc<Kept>,
) {
    let in_flight = Arc::new(Semaphore::new(REQUESTS_IN_FLIGHT));
    // The node that answered last, for nodes that cannot know who leads the default group.
    let answered = Arc::new(Mutex::new(None));
    while let Some(first) = incoming.recv().await {
        let Ok(room) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let mut count = first.count;
        let mut callers = vec![first];
        while count < OracleCore::MAX_COUNT / 2 {
            let Ok(next) = incoming.try_recv() else { break };
            count += next.count;
            callers.push(next);
        }
        let (network, local, answered) = (Arc::clone(&network), Arc::clone(&local), Arc::clone(&answered));
        let kept = Arc::clone(&kept);
        tokio::spawn(async move {
            let deadline = callers.iter().map(|caller| caller.deadline).max().expect("there is a caller");
            let answer = ask_until(&*network, &local, &answered, count + Kept::more(), deadline).await;
            drop(room);
            if let Ok(first) = &answer {
                kept.put(first.checked_add(u64::from(count)), Kept::more());
            }
            hand_out(callers, &answer);
        });
    }
}

/// Gives each caller its share of consecutive timestamps, in the order in which they asked.
fn hand_out(callers: Vec<Waiting>, answer: &Result<Timestamp, Error>) {
    let mut offset = 0;
    for caller in callers {
        let share = answer
            .clone()
            .map(|first| first.checked_add(offset).expect("the oracle issued all of them, so they exist"));
        offset += u64::from(caller.count);
        // A caller that gave up loses its timestamps; nobody else gets them.
        let _ = caller.reply.send(share);
    }
}

/// Asks whoever may hold the oracle until one answers or the deadline passes.
async fn ask_until(
    network: &dyn OracleNetwork,
    local: &Local,
    answered: &Mutex<Option<NodeId>>,
    count: u32,
    deadline: Instant,
) -> Result<Timestamp, Error> {
    let mut hint: Option<NodeId> = *answered.lock();
    let mut round = 0u32;
    let mut last = String::from("no node is known that could hold it");
    loop {
        if let Some(oracle) = leading(local) {
            match oracle.timestamps(count, deadline).await {
                Ok(first) => return Ok(first),
                Err(error) => last = error.message,
            }
        }
        let mut nodes = network.candidates();
        if let Some(hint) = hint.take() {
            nodes.retain(|node| *node != hint);
            nodes.insert(0, hint);
        }
        // The likely one first; when it fails, the others in turn.
        let node = nodes.get(round as usize % nodes.len().max(1)).copied();
        if let Some(node) = node {
            let attempt = deadline.min(Instant::now() + Duration::from_secs(1));
            match network.ask(node, count, attempt).await {
                Ok(first) => {
                    *answered.lock() = Some(node);
                    return Ok(first);
                }
                Err(error) => {
                    *answered.lock() = None;
                    last = format!("node {node}: {}", error.message);
                    if let Some(leader) = error.leader_hint.filter(|leader| *leader != node) {
                        hint = Some(leader);
                        round = 0;
                        continue_after(deadline, 1).await.map_err(|_| no_oracle(&last))?;
                        continue;
                    }
                }
            }
        }
        round += 1;
        if Instant::now() >= deadline {
            return Err(no_oracle(&last));
        }
        continue_after(deadline, 10).await.map_err(|_| no_oracle(&last))?;
    }
}

/// Sleeps for about `ms`, so that callers do not come back in step.
async fn continue_after(deadline: Instant, ms: u64) -> Result<(), Error> {
    let jitter = Duration::from_micros(rand::rng().random_range(ms * 500..=ms * 1_500));
    let wake = Instant::now() + jitter;
    if wake >= deadline {
        return Err(no_oracle("the deadline passed"));
    }
    tokio::time::sleep_until(wake.into()).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// The oracle on another node, whom others ask as well.
    struct Elsewhere(AtomicU64);

    impl Elsewhere {
        fn issue(&self, count: u32) -> Timestamp {
            Timestamp::from_raw(self.0.fetch_add(u64::from(count), Ordering::SeqCst))
        }
    }

    impl OracleNetwork for Elsewhere {
        fn candidates(&self) -> Vec<NodeId> {
            vec![NodeId(1)]
        }

        fn ask(&self, _: NodeId, count: u32, _: Instant) -> BoxFuture<'static, Result<Timestamp, Error>> {
            std::future::ready(Ok(self.issue(count))).boxed()
        }
    }

    #[tokio::test]
    async fn a_timestamp_is_above_all_that_were_issued_before_it_was_asked_for() {
        let oracle = Arc::new(Elsewhere(AtomicU64::new(1)));
        let client = OracleClient::start(Arc::clone(&oracle) as Arc<dyn OracleNetwork>);
        for count in [1, 3, 1] {
            let elsewhere = oracle.issue(1);
            let here = client.timestamps(count, Instant::now() + Duration::from_secs(30)).await.unwrap();
            assert!(
                here > elsewhere,
                "{here} was issued before it was asked for: {elsewhere} is older than the question"
            );
        }
    }
}
