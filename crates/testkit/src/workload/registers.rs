use std::sync::Arc;

use bytes::Bytes;
use drover_client::{Client, CompareAndSet};
use drover_kv::{Error, Expectation, Update, Versioned};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ending_of;
use crate::history::{Action, Answer, Ending, Expect, Recorder, Seen};

/// How often each kind of operation is chosen, relative to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Reads.
    pub read: u32,
    /// Writes.
    pub write: u32,
    /// Deletes.
    pub delete: u32,
    /// Compare-and-sets, half of them by version and the rest by value, presence or absence.
    pub cas: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { read: 5, write: 3, delete: 1, cas: 3 }
    }
}

/// Clients that read and write few keys, so that they meet often. Values are unique numbers.
#[derive(Debug, Clone)]
pub struct Registers {
    /// The keys.
    pub keys: Vec<String>,
    /// What is done to them.
    pub mix: Mix,
    /// Seed of all choices.
    pub seed: u64,
}

impl Registers {
    /// Runs one task for each client until `stop`; returns when the last operation of each has ended.
    ///
    /// # Panics
    /// If an answer does not hold what the workload wrote.
    pub async fn run(&self, clients: Vec<Client>, recorder: &Arc<Recorder>, stop: &CancellationToken) {
        let mut tasks = JoinSet::new();
        for (number, client) in (0u64..).zip(clients) {
            let worker = Worker {
                number,
                client,
                keys: self.keys.clone(),
                mix: self.mix,
                recorder: recorder.clone(),
                rng: StdRng::seed_from_u64(self.seed.wrapping_mul(1000).wrapping_add(number)),
                writes: 0,
                last: None,
            };
            tasks.spawn(worker.run(stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a client does not panic");
        }
    }

    /// Reads every key once more, and records that.
    ///
    /// # Errors
    /// If one cannot be read.
    pub async fn final_read(&self, client: &Client, recorder: &Recorder) -> Result<(), Error> {
        for key in &self.keys {
            let call = recorder.call(u64::MAX, key.clone(), Action::Read);
            let read = client.get(key.clone()).await?.map(|version| seen(&version));
            recorder.end(call, Ending::Answered(Answer::Read(read)));
        }
        Ok(())
    }
}

struct Worker {
    number: u64,
    client: Client,
    keys: Vec<String>,
    mix: Mix,
    recorder: Arc<Recorder>,
    rng: StdRng,
    writes: u64,
    /// What this client saw last, for comparisons that have a chance.
    last: Option<Seen>,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let key = self.keys[self.rng.random_range(0..self.keys.len())].clone();
            let action = self.choose();
            let call = self.recorder.call(self.number, key.clone(), action);
            let ending = self.perform(key, action).await.unwrap_or_else(|error| ending_of(&error));
            self.recorder.end(call, ending);
            if let Ending::Answered(Answer::Read(seen) | Answer::CompareFailed(seen)) = ending {
                self.last = seen;
            }
        }
    }

    fn choose(&mut self) -> Action {
        let Mix { read, write, delete, cas } = self.mix;
        let dice = self.rng.random_range(0..read + write + delete + cas);
        match dice {
            n if n < read => Action::Read,
            n if n < read + write => Action::Write { value: self.next_value() },
            n if n < read + write + delete => Action::Delete,
            _ => {
                let expect = self.choose_expectation();
                let update = if self.rng.random_ratio(1, 8) { None } else { Some(self.next_value()) };
                Action::Cas { expect, update }
            }
        }
    }

    fn choose_expectation(&mut self) -> Expect {
        match (self.last, self.rng.random_range(0..6)) {
            (Some(seen), 0..=2) => Expect::Version(seen.commit_ts),
            (Some(Seen { value: Some(value), .. }), 3) => Expect::Value(value),
            (_, 4) => Expect::Present,
            _ => Expect::Absent,
        }
    }

    /// Unique over all clients.
    fn next_value(&mut self) -> u64 {
        self.writes += 1;
        self.number * 1_000_000_000 + self.writes
    }

    async fn perform(&self, key: String, action: Action) -> Result<Ending, Error> {
        let answer = match action {
            Action::Read => Answer::Read(self.client.get(key).await?.map(|version| seen(&version))),
            Action::Write { value } => Answer::Written { commit_ts: self.client.put(key, encode(value)).await?.raw() },
            Action::Delete => Answer::Written { commit_ts: self.client.delete(key).await?.raw() },
            Action::Cas { expect, update } => {
                let update = update.map_or(Update::Delete, |value| Update::Put { value: encode(value), ttl_ms: None });
                match self.client.compare_and_set(key, expectation(expect), update).await? {
                    CompareAndSet::Written { commit_ts } => Answer::Written { commit_ts: commit_ts.raw() },
                    CompareAndSet::Failed { current } => Answer::CompareFailed(current.as_ref().map(met)),
                }
            }
        };
        Ok(Ending::Answered(answer))
    }
}

fn encode(value: u64) -> Bytes {
    value.to_string().into()
}

fn seen(version: &Versioned) -> Seen {
    let text = std::str::from_utf8(&version.value).ok();
    let value = text.and_then(|text| text.parse().ok()).expect("only numbers are written to these keys");
    Seen { value: Some(value), commit_ts: version.commit_ts.raw() }
}

/// What a failed comparison met: the answer to a repeated request leaves the value out.
fn met(version: &Versioned) -> Seen {
    if version.value.is_empty() { Seen { value: None, commit_ts: version.commit_ts.raw() } } else { seen(version) }
}

fn expectation(expect: Expect) -> Expectation {
    match expect {
        Expect::Absent => Expectation::Absent,
        Expect::Present => Expectation::Present,
        Expect::Value(value) => Expectation::Value(encode(value)),
        Expect::Version(commit_ts) => Expectation::Version(drover_hlc::Timestamp::from_raw(commit_ts)),
    }
}
