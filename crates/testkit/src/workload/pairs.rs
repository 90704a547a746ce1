//! Pairs of keys, each written once by writers that know nothing of each other, and readers of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use drover_client::{Client, End, Interval};
use drover_kv::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fate_of;
use crate::check::Look;
use crate::ledger::Fate;

/// Runs pair after pair, each with two writers and some readers at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pairs;

/// What has been done so far.
#[derive(Debug, Default)]
pub struct PairCount {
    done: AtomicUsize,
    one_sided: AtomicUsize,
}

impl PairCount {
    /// How many pairs are done, both writes of which were acknowledged.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// How many looks saw one write without the other: those that show something.
    pub fn one_sided(&self) -> usize {
        self.one_sided.load(Ordering::SeqCst)
    }
}

/// What became of the pairs.
#[derive(Debug, Default)]
pub struct PairReport {
    /// What the readers saw.
    pub looks: Vec<Look>,
    /// Names the pairs, with what the writers of each were told.
    pub written: Vec<(u64, [Fate; 2])>,
}

impl Pairs {
    /// Until `stop`, one lane of pairs for each of `lanes`: the clients of the two writers, and of the readers.
    ///
    /// # Panics
    /// If a task does.
    pub async fn run(
        self,
        lanes: Vec<([Client; 2], Vec<Client>)>,
        count: &Arc<PairCount>,
        stop: &CancellationToken,
    ) -> PairReport {
        let mut tasks = JoinSet::new();
        let step = lanes.len() as u64;
        for (lane, (writers, readers)) in (0u64..).zip(lanes) {
            let (count, stop) = (Arc::clone(count), stop.clone());
            tasks.spawn(async move {
                let mut report = PairReport::default();
                let mut pair = lane;
                while !stop.is_cancelled() {
                    one(pair, &writers, &readers, &count, &mut report).await;
                    pair += step;
                }
                report
            });
        }
        let mut all = PairReport::default();
        for report in super::join(tasks).await {
            all.looks.extend(report.looks);
            all.written.extend(report.written);
        }
        all
    }

    /// Looks at every pair once more.
    ///
    /// # Errors
    /// If one cannot be read.
    pub async fn final_read(self, client: &Client, report: &mut PairReport) -> Result<(), Error> {
        for (pair, _) in &report.written {
            let seen = look(client, *pair, 0).await?;
            report.looks.push(Look { pair: *pair, how: "the last look".to_owned(), seen });
        }
        Ok(())
    }
}

/// In one group, or in two.
fn keys(pair: u64) -> [String; 2] {
    match pair % 3 {
        0 => [format!("b/pair/{pair}/x"), format!("c/pair/{pair}/y")],
        _ => [format!("b/pair/{pair}/x"), format!("y/pair/{pair}/y")],
    }
}

async fn one(pair: u64, writers: &[Client; 2], readers: &[Client], count: &PairCount, report: &mut PairReport) {
    let written = CancellationToken::new();
    let writing = async {
        let [x, y] = keys(pair);
        let fates = tokio::join!(write(&writers[0], x, pair), write(&writers[1], y, pair));
        written.cancel();
        [fates.0, fates.1]
    };
    let reading = readers.iter().enumerate().map(|(number, reader)| {
        let written = &written;
        async move {
            let mut looks = Vec::new();
            for kind in number.. {
                let last = written.is_cancelled();
                if let Ok(seen) = look(reader, pair, kind).await {
                    count.one_sided.fetch_add(usize::from(seen[0] != seen[1]), Ordering::SeqCst);
                    looks.push(Look { pair, how: format!("reader {number} by {}", KINDS[kind % KINDS.len()]), seen });
                }
                if last {
                    return looks;
                }
            }
            looks
        }
    });
    let (fates, looks) = tokio::join!(writing, futures::future::join_all(reading));
    count.done.fetch_add(usize::from(fates == [Fate::Acknowledged; 2]), Ordering::SeqCst);
    report.written.push((pair, fates));
    report.looks.extend(looks.into_iter().flatten());
}

/// By itself, as a transaction of one group, or as one of two groups, whose locks stand for a while.
async fn write(client: &Client, key: String, pair: u64) -> Fate {
    let ended = match pair % 4 {
        0 => client.put(key, "1").await,
        kind => {
            let txn = client.begin();
            if kind > 1 {
                txn.put(format!("n/beside/{key}"), "1");
            }
            txn.put(key, "1");
            txn.commit().await
        }
    };
    ended.map_or_else(|error| fate_of(&error), |_| Fate::Acknowledged)
}

const KINDS: [&str; 4] = ["one read", "a transaction", "a transaction the other way round", "scans of a snapshot"];

async fn look(client: &Client, pair: u64, kind: usize) -> Result<[bool; 2], Error> {
    let [x, y] = keys(pair);
    match kind % KINDS.len() {
        0 => {
            let got = client.batch_get(vec![x.into(), y.into()], None).await?.versions;
            Ok([got[0].is_some(), got[1].is_some()])
        }
        1 => {
            let txn = client.begin();
            let (x, y) = (txn.get(x).await?.is_some(), txn.get(y).await?.is_some());
            txn.commit().await?;
            Ok([x, y])
        }
        2 => {
            let txn = client.begin();
            let (y, x) = (txn.get(y).await?.is_some(), txn.get(x).await?.is_some());
            txn.commit().await?;
            Ok([x, y])
        }
        _ => {
            let snapshot = client.snapshot(None);
            let part = |key: &str| Interval::new(key.to_owned(), End::Key(Bytes::from(format!("{key}~"))));
            let scan = async |key: &str| {
                let part = part(key).expect("no key ends after it begins");
                Ok::<_, Error>(!snapshot.scan(part, false, 0).await?.is_empty())
            };
            Ok([scan(&x).await?, scan(&y).await?])
        }
    }
}
