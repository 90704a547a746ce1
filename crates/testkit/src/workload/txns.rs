//! Transactions on few keys, recorded for a checker of isolation in Jepsen's format.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use drover_client::{Client, Transaction};
use drover_kv::Error;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What is kept under each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A list; transactions append to it and read all of it.
    List,
    /// One number; transactions write and read it.
    Register,
}

/// Clients that run transactions of a few operations each. What is written is unique.
#[derive(Debug, Clone)]
pub struct Transactions {
    /// How the keys begin. After `txns_per_key_set` transactions they give way to new ones that begin alike.
    pub keys: Vec<String>,
    /// What is kept under them.
    pub kind: Kind,
    /// How many transactions go by before the keys are replaced.
    pub txns_per_key_set: u64,
    /// Seed of all choices.
    pub seed: u64,
}

/// What clients did, one JSON object for each beginning and each end, in the order in which it happened.
#[derive(Debug, Default)]
pub struct TxnRecorder {
    lines: Mutex<Vec<Value>>,
    committed: AtomicUsize,
    processes: AtomicU64,
}

impl TxnRecorder {
    fn push(&self, kind: &str, process: u64, ops: &[Value]) {
        let mut lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let index = lines.len();
        lines.push(json!({ "index": index, "type": kind, "f": "txn", "process": process, "value": ops }));
        if kind == "ok" {
            self.committed.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many transactions were acknowledged.
    pub fn committed(&self) -> usize {
        self.committed.load(Ordering::SeqCst)
    }

    /// How many ended in each way: `ok`, `fail` or `info`.
    pub fn count(&self, kind: &str) -> usize {
        let lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().filter(|line| line["type"] == kind).count()
    }

    /// The history as JSON lines.
    pub fn history(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// A process that has not ended without an answer.
    fn process(&self) -> u64 {
        self.processes.fetch_add(1, Ordering::SeqCst)
    }
}

impl Transactions {
    /// Runs one task for each client until `stop`; returns when the last transaction of each has ended.
    ///
    /// # Panics
    /// If an answer does not hold what the workload wrote.
    pub async fn run(&self, clients: Vec<Client>, recorder: &Arc<TxnRecorder>, stop: &CancellationToken) {
        let begun = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for (number, client) in (0u64..).zip(clients) {
            let rng = StdRng::seed_from_u64(self.seed.wrapping_mul(1000).wrapping_add(number));
            let worker = Worker {
                workload: self.clone(),
                client,
                recorder: Arc::clone(recorder),
                begun: Arc::clone(&begun),
                rng,
                process: recorder.process(),
            };
            tasks.spawn(worker.run(stop.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("a client does not panic");
        }
    }

    /// The names of the keys when so many transactions have begun.
    fn key_set(&self, begun: u64) -> u64 {
        begun / self.txns_per_key_set.max(1)
    }

    fn key(&self, set: u64, which: usize) -> String {
        format!("{}{set:04}", self.keys[which])
    }

    /// Reads every key there ever was, in one transaction for each set of keys, and records that.
    ///
    /// # Errors
    /// If one cannot be read.
    pub async fn final_read(&self, client: &Client, recorder: &TxnRecorder) -> Result<(), Error> {
        let begun = recorder.count("invoke") as u64;
        for set in 0..=self.key_set(begun) {
            let process = recorder.process();
            let wanted = |which| json!(["r", self.key(set, which), null]);
            recorder.push("invoke", process, &(0..self.keys.len()).map(wanted).collect::<Vec<_>>());
            let txn = client.begin();
            let mut seen = Vec::new();
            for which in 0..self.keys.len() {
                let key = self.key(set, which);
                let value = txn.get(key.clone()).await?;
                seen.push(json!(["r", key, decode(self.kind, value.as_deref())]));
            }
            txn.commit().await?;
            recorder.push("ok", process, &seen);
        }
        Ok(())
    }
}

struct Worker {
    workload: Transactions,
    client: Client,
    recorder: Arc<TxnRecorder>,
    begun: Arc<AtomicU64>,
    rng: StdRng,
    process: u64,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let number = self.begun.fetch_add(1, Ordering::SeqCst);
            let asked = self.choose(number);
            self.recorder.push("invoke", self.process, &asked);
            let txn = self.client.begin();
            let ended = async {
                let seen = self.perform(&txn, &asked).await?;
                txn.commit().await?;
                Ok::<_, Error>(seen)
            };
            match ended.await {
                Ok(seen) => self.recorder.push("ok", self.process, &seen),
                Err(error) if error.is_unknown() => {
                    self.recorder.push("info", self.process, &asked);
                    self.process = self.recorder.process();
                }
                Err(_) => self.recorder.push("fail", self.process, &asked),
            }
        }
    }

    fn choose(&mut self, number: u64) -> Vec<Value> {
        let set = self.workload.key_set(number);
        let (operations, keys) = (self.rng.random_range(1..=4), self.workload.keys.len());
        let choose = |place: u64| {
            let key = self.workload.key(set, self.rng.random_range(0..keys));
            // Unique over all transactions.
            let value = number * 4 + place + 1;
            match (self.rng.random_bool(0.5), self.workload.kind) {
                (true, _) => json!(["r", key, null]),
                (false, Kind::List) => json!(["append", key, value]),
                (false, Kind::Register) => json!(["w", key, value]),
            }
        };
        (0..operations).map(choose).collect()
    }

    async fn perform(&self, txn: &Transaction, asked: &[Value]) -> Result<Vec<Value>, Error> {
        let mut seen = Vec::new();
        for operation in asked {
            let key = operation[1].as_str().expect("keys are texts").to_owned();
            match operation[0].as_str() {
                Some("r") => {
                    let value = txn.get(key.clone()).await?;
                    seen.push(json!(["r", key, decode(self.workload.kind, value.as_deref())]));
                }
                Some("append") => {
                    let before = txn.get(key.clone()).await?;
                    let mut list = before.map(|list| list.to_vec()).unwrap_or_default();
                    list.extend_from_slice(format!("{},", operation[2]).as_bytes());
                    txn.put(key, list);
                    seen.push(operation.clone());
                }
                _ => {
                    txn.put(key, operation[2].to_string());
                    seen.push(operation.clone());
                }
            }
        }
        Ok(seen)
    }
}

/// What a key holds, as the checker takes it. An empty list and a register that was never written are `null`.
fn decode(kind: Kind, value: Option<&[u8]>) -> Value {
    let text = value.map(|value| std::str::from_utf8(value).expect("only text is written to these keys"));
    let number = |text: &str| text.parse::<u64>().expect("only numbers are written to these keys");
    match (text, kind) {
        (None, Kind::List) => json!([]),
        (None, Kind::Register) => Value::Null,
        (Some(text), Kind::List) => text.split_terminator(',').map(number).collect(),
        (Some(text), Kind::Register) => number(text).into(),
    }
}
