//! Sessions that write through one node and read through another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use drover_client::{Client, End, Interval};
use drover_hlc::Timestamp;
use drover_keys::NodeId;
use drover_kv::Error;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fate_of;
use crate::check::SessionEvent;
use crate::ledger::Fate;

/// Sessions side by side, each with keys of its own.
#[derive(Debug, Clone)]
pub struct Sessions {
    /// How many.
    pub sessions: usize,
    /// Seed of all choices.
    pub seed: u64,
}

impl Sessions {
    /// Runs until `stop`, over clients of one node each: what each session did. `reads` counts what was read through another node
    /// than the last write went through.
    ///
    /// # Panics
    /// If a value is none that was written.
    pub async fn run(
        &self,
        nodes: Vec<(NodeId, Client)>,
        reads: &Arc<AtomicUsize>,
        stop: &CancellationToken,
    ) -> Vec<Vec<SessionEvent>> {
        let mut tasks = JoinSet::new();
        for number in 0..self.sessions {
            let session = Session {
                number,
                nodes: nodes.clone(),
                rng: StdRng::seed_from_u64(self.seed.wrapping_mul(1000).wrapping_add(number as u64)),
                keys: 0,
                events: Vec::new(),
            };
            tasks.spawn(session.run(Arc::clone(reads), stop.clone()));
        }
        super::join(tasks).await
    }

    /// Reads every key of every session once more.
    ///
    /// # Panics
    /// If a value is none that was written.
    ///
    /// # Errors
    /// If one cannot be read.
    pub async fn final_read(&self, client: &Client, sessions: &mut [Vec<SessionEvent>]) -> Result<(), Error> {
        for session in sessions {
            let written = session.iter().filter_map(|event| match event {
                SessionEvent::Wrote { keys, .. } => Some(keys.clone()),
                SessionEvent::Read { .. } => None,
            });
            let keys: std::collections::BTreeSet<String> = written.flatten().collect();
            for key in keys {
                let value = client.get(key.clone()).await?.map(|version| number(&version.value));
                session.push(SessionEvent::Read { key, value, how: "the last read".to_owned() });
            }
        }
        Ok(())
    }
}

struct Session {
    number: usize,
    nodes: Vec<(NodeId, Client)>,
    rng: StdRng,
    /// Counts the pairs of keys: after a write of unknown fate, which may happen later, there are new ones.
    keys: u64,
    events: Vec<SessionEvent>,
}

const READS: [&str; 5] = ["a latest read", "a transaction", "a new snapshot", "a scan", "a snapshot at the write"];

impl Session {
    async fn run(mut self, reads: Arc<AtomicUsize>, stop: CancellationToken) -> Vec<SessionEvent> {
        for value in (1..).take_while(|_| !stop.is_cancelled()) {
            let writer = self.rng.random_range(0..self.nodes.len());
            let (fate, written_at) = self.write(writer, value).await;
            for _ in 0..2 {
                let reader = (writer + self.rng.random_range(1..self.nodes.len())) % self.nodes.len();
                let kind = self.rng.random_range(0..READS.len());
                // One that ends without an answer shows nothing.
                if let Ok(values) = self.read(reader, kind, written_at).await {
                    reads.fetch_add(1, Ordering::SeqCst);
                    let how = format!(
                        "{} through node {} after a write of {value} through node {}",
                        READS[kind], self.nodes[reader].0, self.nodes[writer].0
                    );
                    for (key, value) in self.pair().into_iter().zip(values) {
                        self.events.push(SessionEvent::Read { key, value, how: how.clone() });
                    }
                }
            }
            if fate == Fate::Unknown {
                self.keys += 1;
            }
        }
        self.events
    }

    /// In two groups.
    fn pair(&self) -> [String; 2] {
        ["c", "x"].map(|letter| format!("{letter}/session/{}/{}", self.number, self.keys))
    }

    /// One key alone, or both in one transaction.
    async fn write(&mut self, writer: usize, value: u64) -> (Fate, Option<Timestamp>) {
        let client = self.nodes[writer].1.clone();
        let [x, y] = self.pair();
        let (keys, ended) = match self.rng.random_range(0..4) {
            0 => (vec![x.clone()], client.put(x, value.to_string()).await),
            1 => (vec![y.clone()], client.put(y, value.to_string()).await),
            _ => {
                let txn = client.begin();
                txn.put(x.clone(), value.to_string());
                txn.put(y.clone(), value.to_string());
                (vec![x, y], txn.commit().await)
            }
        };
        let fate = ended.as_ref().map_or_else(fate_of, |_| Fate::Acknowledged);
        self.events.push(SessionEvent::Wrote { keys, value, fate });
        (fate, ended.ok())
    }

    async fn read(&self, reader: usize, kind: usize, written_at: Option<Timestamp>) -> Result<Vec<Option<u64>>, Error> {
        let (client, [x, y]) = (&self.nodes[reader].1, self.pair());
        let values = match kind {
            0 => {
                let (x, y) = (client.get(x).await?, client.get(y).await?);
                vec![x.map(|version| version.value), y.map(|version| version.value)]
            }
            1 => {
                let txn = client.begin();
                let values = vec![txn.get(x).await?, txn.get(y).await?];
                txn.commit().await?;
                values
            }
            2 => client.snapshot(None).batch_get([x, y]).await?,
            3 => {
                let snapshot = client.snapshot(None);
                let mut values = Vec::new();
                for key in [x, y] {
                    let end = End::Key(Bytes::from(format!("{key}\0")));
                    let part = Interval::new(key, end).expect("no key ends after it begins");
                    values.push(snapshot.scan(part, false, 0).await?.pop().map(|(_, value)| value));
                }
                values
            }
            _ => client.snapshot(written_at).batch_get([x, y]).await?,
        };
        Ok(values.into_iter().map(|value| value.map(|value| number(&value))).collect())
    }
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).expect("only numbers are written to these keys")
}
