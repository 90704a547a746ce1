//! Numbers that only grow, each key with one writer.

use std::collections::BTreeMap;

use anyhow::Result;
use drover_client::{BatchGot, Error, Interval, ScanQuery, Settled, Timestamp, WriteAnswer, WriteKind, WriteOptions};
use drover_keys::End;
use rand::Rng;

use super::Worker;
use crate::history::{Outcome, What};
use crate::machine::now;

/// Who writes numbers, and how many keys in each half of the keys.
pub(super) const WRITERS: u64 = 3;
const KEYS: u64 = 3;
/// Snapshots that a reader remembers.
const SNAPSHOTS: usize = 6;
/// Rows on a page of a scan: few, so that a scan takes several and the routes change in between.
const PAGE_ROWS: u64 = 5;
/// How often an open outcome is asked for.
const QUESTIONS: usize = 6;

/// What a reader has seen at a timestamp.
struct Seen {
    at: Timestamp,
    keys: Vec<String>,
    numbers: Vec<u64>,
}

/// The keys of a writer.
pub(super) fn keys(writer: u64) -> impl Iterator<Item = String> {
    (0..KEYS).flat_map(move |key| ["f", "t"].map(|half| format!("{half}-{writer}-{key}")))
}

/// The number that a value begins with.
pub(super) fn number(value: &[u8]) -> Result<u64> {
    Ok(std::str::from_utf8(value)?.split(' ').next().unwrap_or_default().parse()?)
}

fn numbers(found: BatchGot) -> Result<Vec<u64>> {
    found.versions.into_iter().map(|version| version.map_or(Ok(0), |version| number(&version.value))).collect()
}

impl Worker {
    /// Writes ever higher numbers. What became of a write that has no known outcome is asked for; if that is not told, the key is
    /// left alone: the write may still happen.
    pub(super) async fn write(&mut self, writer: u64) -> Result<()> {
        let mut keys: Vec<(String, u64)> = keys(writer).map(|key| (key, 0)).collect();
        let mut generation = 0;
        while self.goes_on() {
            self.pause(60).await;
            let at = self.random.random_range(0..keys.len());
            let (key, last) = &mut keys[at];
            *last += 1;
            let (key, number) = (key.clone(), *last);
            self.note(now(), What::Writes { key: key.clone(), number });
            let began = now();
            let outcome = self.put(&key, number).await;
            let unknown = matches!(outcome, Outcome::Unknown(_));
            self.note(began, What::Wrote { key: key.clone(), number, outcome });
            if unknown {
                generation += 1;
                keys[at] = (format!("{}-{writer}-{at}-{generation}", &key[..1]), 0);
            }
        }
        Ok(())
    }

    async fn put(&mut self, key: &str, number: u64) -> Outcome {
        let value = format!("{number} {}", "x".repeat(self.random.random_range(0..200)));
        let idempotency = self.client.new_idempotency();
        let kind = WriteKind::Put { key: key.to_owned().into(), value: value.into(), ttl_ms: None };
        let options = WriteOptions { idempotency: Some(idempotency.clone()), ..WriteOptions::default() };
        let mut open = match self.client.write(kind, options).await {
            Ok(WriteAnswer::Written { commit_ts }) => return Outcome::Done(commit_ts),
            Ok(other) => panic!("a put is answered with {other:?}"),
            Err(error) if error.is_unknown() => error,
            Err(error) => return Outcome::Never(error.message),
        };
        for _ in 0..QUESTIONS {
            self.pause(500).await;
            open = match self.client.settle(key.to_owned(), &idempotency).await {
                Ok(Settled::Applied { commit_ts }) => return Outcome::Done(commit_ts),
                Ok(Settled::Never | Settled::CompareFailed) => return Outcome::Never(open.message),
                Err(error) => error,
            };
        }
        Outcome::Unknown(open.message)
    }

    /// Reads: single keys, several at once, by scans, and once more what was seen before.
    pub(super) async fn read(&mut self) -> Result<()> {
        let mut seen: Vec<Seen> = Vec::new();
        while self.goes_on() {
            self.pause(20).await;
            let writer = self.random.random_range(0..WRITERS);
            let keys: Vec<String> = keys(writer).collect();
            match self.random.random_range(0..10) {
                0..5 => {
                    let key = keys[self.random.random_range(0..keys.len())].clone();
                    let began = now();
                    if let Ok(found) = self.client.get(key.clone()).await {
                        let number = found.map_or(Ok(0), |found| number(&found.value))?;
                        self.note(began, What::Read { key, number });
                    }
                }
                5..7 => {
                    let began = now();
                    let asked = keys.iter().map(|key| key.clone().into()).collect();
                    let Ok(found) = self.client.batch_get(asked, None).await else { continue };
                    let at = found.read_ts;
                    let numbers = numbers(found)?;
                    for (key, number) in keys.iter().zip(&numbers) {
                        self.note(began, What::Read { key: key.clone(), number: *number });
                    }
                    if seen.len() == SNAPSHOTS {
                        seen.remove(0);
                    }
                    seen.push(Seen { at, keys, numbers });
                }
                7..9 => self.scan().await?,
                _ if seen.is_empty() => {}
                _ => {
                    let Seen { at, keys, numbers: first } = &seen[self.random.random_range(0..seen.len())];
                    let began = now();
                    let asked = keys.iter().map(|key| key.clone().into()).collect();
                    // One that is too old is refused.
                    if let Ok(found) = self.client.batch_get(asked, Some(*at)).await {
                        let (first, again) = (first.clone(), numbers(found)?);
                        self.note(began, What::ReadAgain { at: *at, keys: keys.clone(), first, again });
                    }
                }
            }
        }
        Ok(())
    }

    /// Scans all numbers, page by page.
    async fn scan(&mut self) -> Result<()> {
        let began = now();
        let everything = Interval::new("f-", End::Key("u".into()))?;
        let mut scan = self.client.scan(ScanQuery::new(everything).page(PAGE_ROWS, 0));
        let mut found = BTreeMap::new();
        loop {
            match scan.next_page().await {
                Ok(Some(page)) => {
                    for entry in page.entries {
                        found.insert(entry.key, entry.version.value);
                    }
                }
                Ok(None) => break,
                Err(Error { .. }) => return Ok(()),
            }
        }
        for key in (0..WRITERS).flat_map(keys) {
            let number = found.get(key.as_bytes()).map_or(Ok(0), |value| number(value))?;
            self.note(began, What::Read { key, number });
        }
        Ok(())
    }
}
