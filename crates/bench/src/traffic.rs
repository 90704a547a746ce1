use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Rows, Seen, Stage, Store};

/// Keys that a writer tries before it takes a rest: it leaves alone those of whose last write it does not know what became.
const TRIES: u32 = 16;
const REST: Duration = Duration::from_millis(5);

/// How many clients there are. Each has one request under way, and sends the next one as soon as it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clients {
    /// Those that write; each has keys of its own.
    pub writers: u64,
    /// Those that read all keys.
    pub readers: u64,
    /// How many keys, drawn at random, each request writes or reads at one moment.
    pub keys: usize,
}

/// Clients at work.
pub struct Traffic {
    stop: CancellationToken,
    clients: JoinSet<Seen>,
}

impl Traffic {
    /// Starts the clients.
    ///
    /// # Panics
    /// If there are not `keys` rows for every writer.
    pub fn start<S: Store>(store: &S, rows: &Arc<Rows>, clients: Clients, stage: &Stage) -> Traffic {
        let needed = clients.writers.max(1).checked_mul(clients.keys as u64);
        assert!(needed.is_some_and(|needed| needed <= rows.count()), "every writer needs keys of its own");
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let one = |number: u64| Client {
            store: store.clone(),
            rows: Arc::clone(rows),
            stage: stage.clone(),
            stop: stop.clone(),
            keys: clients.keys,
            random: StdRng::seed_from_u64(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            seen: Seen::default(),
        };
        for number in 0..clients.writers {
            tasks.spawn(one(number).write(number, clients.writers));
        }
        for number in 0..clients.readers {
            tasks.spawn(one(clients.writers + number).read());
        }
        Traffic { stop, clients: tasks }
    }

    /// Ends the clients behind their present requests; what they all saw.
    ///
    /// # Errors
    /// If a client panicked.
    pub async fn end(mut self) -> Result<Seen, tokio::task::JoinError> {
        self.stop.cancel();
        let mut all = Seen::default();
        while let Some(seen) = self.clients.join_next().await {
            all.add(&seen?);
        }
        Ok(all)
    }
}

struct Client<S> {
    store: S,
    rows: Arc<Rows>,
    stage: Stage,
    stop: CancellationToken,
    keys: usize,
    random: StdRng,
    seen: Seen,
}

impl<S: Store> Client<S> {
    /// Writes keys whose number leaves the remainder `lane` when divided by `lanes`.
    async fn write(mut self, lane: u64, lanes: u64) -> Seen {
        let own = (self.rows.count() - lane).div_ceil(lanes);
        while !self.stop.is_cancelled() {
            // A key that was drawn has a write under way and is not drawn twice.
            let mut drawn = Vec::with_capacity(self.keys);
            for _ in 0..TRIES * self.keys as u32 {
                let n = lane + lanes * self.random.random_range(0..own);
                drawn.extend(self.rows.send(n).map(|write| (n, write)));
                if drawn.len() == self.keys {
                    break;
                }
            }
            if drawn.is_empty() {
                tokio::time::sleep(REST).await;
                continue;
            }
            let rows = drawn.iter().map(|(n, write)| (self.rows.key(*n), self.rows.value(*n, *write))).collect();
            let (stage, began) = (self.stage.now(), Instant::now());
            let done = self.store.put(rows).await;
            self.seen.writes.record(stage, self.stage.now(), began.elapsed());
            match done {
                Ok(()) => {
                    drawn.into_iter().for_each(|(n, write)| self.rows.acknowledge(n, write));
                    self.seen.acknowledged += 1;
                }
                Err(error) => self.seen.failed(&format!("a write: {error}")),
            }
        }
        self.seen
    }

    async fn read(mut self) -> Seen {
        while !self.stop.is_cancelled() {
            let drawn: Vec<(u64, u32)> = (0..self.keys)
                .map(|_| self.random.random_range(0..self.rows.count()))
                .map(|n| (n, self.rows.acknowledged(n)))
                .collect();
            let keys = drawn.iter().map(|(n, _)| self.rows.key(*n)).collect();
            let (stage, began) = (self.stage.now(), Instant::now());
            let found = self.store.get(keys).await;
            self.seen.reads.record(stage, self.stage.now(), began.elapsed());
            match found {
                Ok(found) => {
                    for ((n, least), value) in drawn.into_iter().zip(&found) {
                        self.rows.check(n, least, value.as_ref(), &mut self.seen.flaws);
                    }
                }
                Err(error) => self.seen.failed(&format!("a read: {error}")),
            }
        }
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::{fill, verify};

    /// A store that forgets a key of each `forgets`th write that it acknowledges, and refuses each `refuses`th.
    #[derive(Clone)]
    struct Fake {
        rows: Arc<Mutex<HashMap<Bytes, Bytes>>>,
        writes: Arc<AtomicU64>,
        forgets: u64,
        refuses: u64,
    }

    impl Fake {
        fn new(forgets: u64, refuses: u64) -> Fake {
            Fake { rows: Arc::default(), writes: Arc::default(), forgets, refuses }
        }
    }

    impl Store for Fake {
        type Error = &'static str;

        async fn put(&self, rows: Vec<(Bytes, Bytes)>) -> Result<(), Self::Error> {
            tokio::task::yield_now().await;
            let n = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
            if n.is_multiple_of(self.refuses) {
                return Err("refused");
            }
            // The last one of them.
            let kept = rows.len() - usize::from(n.is_multiple_of(self.forgets));
            self.rows.lock().unwrap().extend(rows.into_iter().take(kept));
            Ok(())
        }

        async fn get(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, Self::Error> {
            tokio::task::yield_now().await;
            let rows = self.rows.lock().unwrap();
            Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
        }
    }

    const ROWS: u64 = 50;

    async fn ran(store: &Fake, keys: usize, writes: u64) -> (Seen, Arc<Rows>) {
        let rows = Rows::new(ROWS, 32, |n| Bytes::from(format!("k{n:03}")));
        fill(store, &rows, |_| {}).await.unwrap();
        let stage = Stage::default();
        let traffic = Traffic::start(store, &rows, Clients { writers: 3, readers: 2, keys }, &stage);
        for _ in 0..4 {
            let before = store.writes.load(Ordering::SeqCst);
            stage.advance();
            while store.writes.load(Ordering::SeqCst) < before + writes {
                tokio::task::yield_now().await;
            }
        }
        (traffic.end().await.unwrap(), rows)
    }

    #[tokio::test]
    async fn a_store_that_keeps_its_word_is_found_without_flaw() {
        for keys in [1, 2, 5] {
            let store = Fake::new(u64::MAX, u64::MAX);
            let (seen, rows) = ran(&store, keys, 100).await;
            assert_eq!((seen.errors, seen.flaws.is_empty()), (0, true), "{:?}", seen.flaws);
            assert_eq!(seen.acknowledged, store.writes.load(Ordering::SeqCst) - ROWS);
            for latencies in [&seen.writes, &seen.reads] {
                assert!(!latencies.baseline.is_empty() && !latencies.moving.is_empty());
                assert!(latencies.pause_us(0).is_some() && latencies.pause_us(1).is_none());
            }
            assert_eq!(verify(&store, &rows, || {}).await.unwrap(), crate::Flaws::default());
        }
    }

    #[tokio::test]
    async fn a_store_that_forgets_a_write_is_found_out() {
        for keys in [1, 2] {
            let store = Fake::new(7, u64::MAX);
            let (seen, rows) = ran(&store, keys, 100).await;
            let mut flaws = verify(&store, &rows, || {}).await.unwrap();
            flaws.add(&seen.flaws);
            assert!(flaws.missing > 0 && seen.errors == 0, "{flaws:?}");
        }
    }

    #[tokio::test]
    async fn a_refused_write_is_an_error_and_no_flaw() {
        let store = Fake::new(u64::MAX, 77);
        let (seen, rows) = ran(&store, 1, 100).await;
        assert!(seen.errors > 0 && seen.first_error.as_deref() == Some("a write: refused"), "{seen:?}");
        assert!(seen.flaws.is_empty() && verify(&store, &rows, || {}).await.unwrap().is_empty());
    }
}
