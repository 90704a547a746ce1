//! Counters to which transactions add, whose commits are sent again and again, through other coordinators, under one id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use drover_client::{Client, TransactionStatus};
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Error, Reason, TxnId};
use drover_wire::proto::v1 as pb;
use drover_wire::proto::v1::txn_client::TxnClient;
use drover_wire::{encode_txn_id, status_to_error};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::check::Addition;
use crate::ledger::Fate;

/// In three groups.
const COUNTERS: [&str; 3] = ["d/counter", "m/counter", "w/counter"];
const MARKS: &str = "e/mark/";
/// How long a client waits for an answer, unless it gives up on purpose.
const PATIENCE: Duration = Duration::from_secs(2);

/// A node: a client that reads through it, and its bare service for commits.
#[derive(Debug, Clone)]
pub struct Door {
    /// Sends everything to this node.
    pub client: Client,
    /// The service.
    pub txn: TxnClient<Channel>,
}

/// What was done so far.
#[derive(Debug, Default)]
pub struct AdditionReport {
    acknowledged: AtomicUsize,
    repeated: AtomicUsize,
    open: AtomicUsize,
}

impl AdditionReport {
    /// How many additions were acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// How many commits were answered that had been sent before.
    pub fn repeated(&self) -> usize {
        self.repeated.load(Ordering::SeqCst)
    }

    /// How many additions were left without an answer.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Tasks that add, each one addition after the other.
#[derive(Debug, Clone)]
pub struct Additions {
    /// How many tasks.
    pub tasks: usize,
    /// Seed of all choices.
    pub seed: u64,
}

/// An addition, and what is needed to ask for it.
#[derive(Debug, Clone)]
pub struct Tried {
    addition: Addition,
    id: TxnId,
    primary: String,
    start_ts: Timestamp,
}

impl Additions {
    /// Runs until `stop`, through all `doors`: what was tried.
    ///
    /// # Panics
    /// If the answers to one commit contradict each other.
    pub async fn run(&self, doors: Vec<Door>, report: &Arc<AdditionReport>, stop: &CancellationToken) -> Vec<Tried> {
        let mut tasks = JoinSet::new();
        for task in 0..self.tasks {
            let rng = StdRng::seed_from_u64(self.seed.wrapping_mul(1000).wrapping_add(task as u64));
            let adder = Adder { doors: doors.clone(), rng, report: Arc::clone(report) };
            tasks.spawn(adder.run(stop.clone()));
        }
        super::join(tasks).await.into_iter().flatten().collect()
    }

    /// Settles what is open: asks what became of it, and gives up what is not decided.
    ///
    /// # Errors
    /// If one cannot be settled.
    pub async fn settle(&self, client: &Client, tried: Vec<Tried>) -> Result<Vec<Addition>, Error> {
        let mut settled = Vec::with_capacity(tried.len());
        for Tried { mut addition, id, primary, start_ts } in tried {
            if addition.fate == Fate::Unknown {
                client.abort_transaction(id, primary.clone(), start_ts).await?;
            }
            // What the client was told is asked for as well.
            let status = client.transaction_status(id, primary).await?;
            addition.fate = match (addition.fate, status) {
                (Fate::Unknown | Fate::Acknowledged, TransactionStatus::Committed { .. }) => Fate::Acknowledged,
                (Fate::Unknown, TransactionStatus::RolledBack { settled: true }) => Fate::Refused,
                (Fate::Unknown | Fate::Acknowledged, _) | (Fate::Refused, TransactionStatus::Committed { .. }) => {
                    return Err(contradiction(&addition, status));
                }
                (Fate::Refused, _) => Fate::Refused,
            };
            settled.push(addition);
        }
        Ok(settled)
    }

    /// Reads all counters and marks at one moment.
    ///
    /// # Panics
    /// If a counter holds no number.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn final_read(&self, client: &Client) -> Result<(BTreeMap<String, u64>, BTreeSet<String>), Error> {
        let rows = client.snapshot(None).scan(Interval::all(), false, 0).await?;
        let (mut counters, mut marks) = (BTreeMap::new(), BTreeSet::new());
        for (key, value) in rows {
            let key = String::from_utf8_lossy(&key).into_owned();
            if COUNTERS.contains(&key.as_str()) {
                counters.insert(key, number(&value));
            } else if let Some(mark) = key.strip_prefix(MARKS) {
                marks.insert(mark.to_owned());
            }
        }
        Ok((counters, marks))
    }
}

fn contradiction(addition: &Addition, status: TransactionStatus) -> Error {
    let message = format!("{} ended as {:?}, and its status is {status:?}", addition.mark, addition.fate);
    Error::definite(Reason::Internal, message)
}

struct Adder {
    doors: Vec<Door>,
    rng: StdRng,
    report: Arc<AdditionReport>,
}

impl Adder {
    async fn run(mut self, stop: CancellationToken) -> Vec<Tried> {
        let mut tried = Vec::new();
        while !stop.is_cancelled() {
            let door = self.door();
            // Nothing was sent if nothing could be read.
            let Ok((mut one, request)) = self.begin(&door).await else { continue };
            one.addition.fate = self.send(&request).await;
            match one.addition.fate {
                Fate::Acknowledged => drop(self.report.acknowledged.fetch_add(1, Ordering::SeqCst)),
                Fate::Unknown => drop(self.report.open.fetch_add(1, Ordering::SeqCst)),
                Fate::Refused => {}
            }
            tried.push(one);
        }
        tried
    }

    fn door(&mut self) -> Door {
        self.doors[self.rng.random_range(0..self.doors.len())].clone()
    }

    async fn begin(&mut self, door: &Door) -> Result<(Tried, pb::TxnCommitRequest), Error> {
        // One group, or several, with the primary in any of them.
        let first = self.rng.random_range(0..COUNTERS.len());
        let counters: Vec<String> = (0..self.rng.random_range(1..=COUNTERS.len()))
            .map(|n| COUNTERS[(first + n) % COUNTERS.len()].to_owned())
            .collect();
        let got = door.client.batch_get(counters.iter().map(|key| key.clone().into()).collect(), None).await?;
        let id = TxnId(self.rng.random());
        let put = |key: String, value: String| pb::Mutation {
            key: key.into(),
            update: Some(pb::mutation::Update::Put(pb::PutUpdate { value: value.into(), ttl_ms: 0 })),
        };
        let held = got.versions.iter().map(|version| version.as_ref().map_or(0, |version| number(&version.value)));
        let mut mutations: Vec<pb::Mutation> =
            counters.iter().zip(held).map(|(key, held)| put(key.clone(), (held + 1).to_string())).collect();
        mutations.push(put(format!("{MARKS}{id}"), String::new()));
        let request = pb::TxnCommitRequest {
            txn_id: encode_txn_id(id),
            attempt: 0,
            start_ts: got.read_ts.raw(),
            mutations,
            read_keys: counters.iter().map(|key| key.clone().into()).collect(),
            read_ranges: Vec::new(),
            timeout_ms: u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX),
        };
        let primary = counters[0].clone();
        let addition = Addition { mark: id.to_string(), counters, fate: Fate::Unknown };
        Ok((Tried { addition, id, primary, start_ts: got.read_ts }, request))
    }

    /// Sends a commit up to three times, each time through some node, counting up. What the first answers decide must stay.
    async fn send(&mut self, request: &pb::TxnCommitRequest) -> Fate {
        let (mut fate, mut committed_at, mut open) = (Fate::Unknown, None, false);
        for attempt in 1..=3 {
            let request = pb::TxnCommitRequest { attempt, ..request.clone() };
            // Some answers are lost on purpose: nobody waits for them while the coordinator works on.
            let patience = match self.rng.random_bool(0.4) {
                true => Duration::from_millis(self.rng.random_range(0..30)),
                false => PATIENCE,
            };
            let mut door = self.door();
            let call = async move { door.txn.commit(request).await };
            let Ok(answer) = tokio::time::timeout(patience, call).await else {
                open = true;
                continue;
            };
            let answer = answer.map_err(|status| status_to_error(&status));
            self.report.repeated.fetch_add(usize::from(attempt > 1), Ordering::SeqCst);
            match answer {
                Ok(answer) => {
                    let commit_ts = answer.into_inner().commit_ts;
                    assert_ne!(fate, Fate::Refused, "a transaction was refused for good, and committed at {commit_ts}");
                    assert!(committed_at.is_none_or(|at| at == commit_ts), "{committed_at:?} and {commit_ts}");
                    (fate, committed_at) = (Fate::Acknowledged, Some(commit_ts));
                }
                Err(error) if error.is_unknown() => open = true,
                Err(error) if fate == Fate::Acknowledged => {
                    let is_refused =
                        matches!(error.reason, Reason::TxnConflict | Reason::TxnAborted | Reason::TxnReused);
                    assert!(!is_refused, "a commit that was acknowledged is refused when it is sent again: {error}");
                }
                // A node that is told of earlier attempts settles them before it says so.
                Err(error) if !open || matches!(error.reason, Reason::TxnConflict | Reason::TxnAborted) => {
                    return Fate::Refused;
                }
                Err(_) => {}
            }
            // An acknowledged commit is sent again in half of the cases.
            if fate == Fate::Acknowledged && self.rng.random_bool(0.5) {
                break;
            }
        }
        fate
    }
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).expect("counters hold numbers")
}
