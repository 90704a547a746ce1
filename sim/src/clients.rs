//! The clients of a run: each is a host of its own with the Rust client of the product.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use drover_client::{
    Client, Error, GroupId, Interval, JobAction, JobFilter, JobId, MoveRequest, MoveWhat, RouteId, has_ended,
};
use drover_keys::End;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::history::{History, Outcome, What};
use crate::machine::now;
use crate::node::{DATA_GROUPS, NODES, PORT};
use crate::plan::QUIET_AGAIN;
use crate::properties::TOTAL;

/// How long clients go on when the last fault is over.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// How long a call may take. Short, so that some outcomes are unknown.
const DEADLINE: Duration = Duration::from_millis(2_500);
/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);

/// Who writes numbers, and how many keys in each half of the keys.
const WRITERS: u64 = 3;
const KEYS: u64 = 3;
const ACCOUNTS: [&str; 6] = ["account-a", "bank", "cash", "money", "savings", "vault"];

/// What the clients of a run share.
#[derive(Clone)]
pub struct Shared {
    /// Seeds what the clients draw.
    pub seed: u64,
    /// Where they note what they do.
    pub history: History,
    /// How many are at work.
    pub at_work: Arc<AtomicUsize>,
}

/// A client with a name.
struct Worker {
    name: String,
    random: StdRng,
    client: Client,
    shared: Shared,
}

/// The clients by name, and what each does.
pub fn all(shared: &Shared) -> Vec<(String, futures::future::LocalBoxFuture<'static, Result<()>>)> {
    let mut clients: Vec<(String, futures::future::LocalBoxFuture<'static, Result<()>>)> = Vec::new();
    for writer in 0..WRITERS {
        clients.push(worker(shared, format!("writer{writer}"), async move |worker: &mut Worker| {
            worker.write(writer).await
        }));
    }
    clients.push(worker(shared, "reader".to_owned(), Worker::read));
    clients.push(worker(shared, "teller0".to_owned(), Worker::transfer));
    clients.push(worker(shared, "teller1".to_owned(), Worker::transfer));
    clients.push(worker(shared, "auditor".to_owned(), Worker::count));
    clients.push(worker(shared, "mover".to_owned(), Worker::move_ranges));
    shared.at_work.store(clients.len(), Ordering::SeqCst);
    let judge = shared.clone();
    clients.push((
        "judge".to_owned(),
        Box::pin(async move { Worker::start(judge, "judge".to_owned()).await?.judge().await }),
    ));
    clients
}

fn worker(
    shared: &Shared,
    name: String,
    work: impl AsyncFnOnce(&mut Worker) -> Result<()> + 'static,
) -> (String, futures::future::LocalBoxFuture<'static, Result<()>>) {
    let (shared, own) = (shared.clone(), name.clone());
    let work = async move {
        let mut worker = Worker::start(shared.clone(), own).await?;
        work(&mut worker).await?;
        shared.at_work.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    };
    (name, Box::pin(work))
}

fn keys(writer: u64) -> impl Iterator<Item = String> {
    (0..KEYS).flat_map(move |key| ["f", "t"].map(|half| format!("{half}-{writer}-{key}")))
}

fn number(value: &[u8]) -> Result<u64> {
    Ok(std::str::from_utf8(value)?.split(' ').next().unwrap_or_default().parse()?)
}

fn outcome<T>(result: Result<T, Error>, ts: impl FnOnce(T) -> drover_client::Timestamp) -> Outcome {
    match result {
        Ok(done) => Outcome::Done(ts(done)),
        Err(error) if error.is_unknown() => Outcome::Unknown(error.message),
        Err(error) => Outcome::Never(error.message),
    }
}

impl Worker {
    async fn start(shared: Shared, name: String) -> Result<Self> {
        let mixed = name.bytes().fold(shared.seed, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(byte.into()));
        let endpoints: Vec<String> = (1..=NODES).map(|node| format!("n{node}:{PORT}")).collect();
        let client = loop {
            match Client::builder().endpoints(endpoints.clone()).deadline(DEADLINE).connect().await {
                Ok(client) => break client,
                Err(error) if now() > PATIENCE => bail!("{name} cannot connect: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        Ok(Self { name, random: StdRng::seed_from_u64(mixed), client, shared })
    }

    fn note(&self, began: Duration, what: What) {
        self.shared.history.note(&self.name, began, what);
    }

    fn goes_on(&self) -> bool {
        now() < QUIET_AGAIN + AFTERWARDS
    }

    async fn pause(&mut self, longest_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.random_range(0..longest_ms))).await;
    }

    /// Writes ever higher numbers. A key whose last write has no known outcome is left alone: that write may still happen.
    async fn write(&mut self, writer: u64) -> Result<()> {
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
            let value = format!("{number} {}", "x".repeat(self.random.random_range(0..200)));
            let outcome = outcome(self.client.put(key.clone(), value).await, |ts| ts);
            let unknown = matches!(outcome, Outcome::Unknown(_));
            self.note(began, What::Wrote { key: key.clone(), number, outcome });
            if unknown {
                generation += 1;
                keys[at] = (format!("{}-{writer}-{at}-{generation}", &key[..1]), 0);
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        while self.goes_on() {
            self.pause(20).await;
            let writer = self.random.random_range(0..WRITERS);
            let keys: Vec<String> = keys(writer).collect();
            let began = now();
            if self.random.random_bool(0.7) {
                let key = keys[self.random.random_range(0..keys.len())].clone();
                if let Ok(found) = self.client.get(key.clone()).await {
                    let number = found.map_or(Ok(0), |found| number(&found.value))?;
                    self.note(began, What::Read { key, number });
                }
                continue;
            }
            let asked = keys.iter().map(|key| key.clone().into()).collect();
            if let Ok(found) = self.client.batch_get(asked, None).await {
                for (key, version) in keys.into_iter().zip(found.versions) {
                    let number = version.map_or(Ok(0), |version| number(&version.value))?;
                    self.note(began, What::Read { key, number });
                }
            }
        }
        Ok(())
    }

    async fn transfer(&mut self) -> Result<()> {
        let share = TOTAL / ACCOUNTS.len() as i64;
        while self.goes_on() {
            self.pause(80).await;
            let from = self.random.random_range(0..ACCOUNTS.len());
            let to = (from + self.random.random_range(1..ACCOUNTS.len())) % ACCOUNTS.len();
            let amount = self.random.random_range(1..30);
            let began = now();
            let txn = self.client.begin();
            let moved: Result<_, Error> = async {
                // Whoever comes first opens all accounts.
                let mut held = Vec::new();
                for value in txn.batch_get(ACCOUNTS).await? {
                    held.push(value.map(|value| String::from_utf8_lossy(&value).parse::<i64>()));
                }
                for (at, name) in ACCOUNTS.iter().enumerate() {
                    let before = match &held[at] {
                        None => share,
                        Some(Ok(before)) => *before,
                        Some(Err(error)) => panic!("an account holds no number: {error}"),
                    };
                    let change = if at == from { -amount } else { amount * i64::from(at == to) };
                    if change != 0 || held[at].is_none() {
                        txn.put(*name, (before + change).to_string());
                    }
                }
                txn.commit().await
            }
            .await;
            self.note(began, What::Transferred(outcome(moved, |ts| ts)));
        }
        Ok(())
    }

    async fn count(&mut self) -> Result<()> {
        while self.goes_on() {
            self.pause(150).await;
            let began = now();
            if let Ok(total) = self.total().await? {
                self.note(began, What::Counted(total));
            }
        }
        Ok(())
    }

    /// What all accounts hold; the total as well if there are none yet.
    async fn total(&self) -> Result<Result<i64, Error>> {
        let found = match self.client.batch_get(ACCOUNTS.map(bytes::Bytes::from).into(), None).await {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if found.versions.iter().all(Option::is_none) {
            return Ok(Ok(TOTAL));
        }
        let mut total = 0;
        for version in found.versions.into_iter().flatten() {
            total += std::str::from_utf8(&version.value)?.parse::<i64>()?;
        }
        Ok(Ok(total))
    }

    /// Moves parts of the keys back and forth, and calls some of the moves off.
    async fn move_ranges(&mut self) -> Result<()> {
        while self.goes_on() {
            self.pause(2_500).await;
            let began = now();
            let Ok(routes) = self.client.routes().await else { continue };
            let route = &routes.routes[self.random.random_range(0..routes.routes.len())];
            let others = (2..2 + DATA_GROUPS).map(GroupId).filter(|group| group.0 != route.group_id);
            let Some(target) = others.last() else { continue };
            let end = route.end.clone().map_or(End::Unbounded, End::Key);
            let whole = Interval::new(route.start.clone(), end)?;
            let letter = char::from(b'a' + self.random.random_range(0..26)).to_string();
            let what = match whole.contains(letter.as_bytes()) && letter.as_bytes() != &route.start[..] {
                true if routes.routes.len() < 8 => MoveWhat::From(letter.into()),
                _ => MoveWhat::Range(whole),
            };
            let asked = MoveRequest {
                expected: routes.version,
                route: RouteId(route.route_id),
                what,
                target,
                max_pause: None,
                max_bytes_per_second: None,
            };
            let told = match self.client.start_move(&asked, "sim").await {
                Ok(job) => {
                    self.note(began, What::Moves(format!("job {}: {:?} to group {target}", job.job_id, asked.what)));
                    if !self.random.random_bool(0.2) {
                        continue;
                    }
                    self.pause(400).await;
                    let called_off = self.client.change_job(JobId(job.job_id), JobAction::Abandon, "sim").await;
                    format!(
                        "job {} called off: {:?}",
                        job.job_id,
                        called_off.map(|job| job.phase).map_err(|e| e.reason)
                    )
                }
                Err(error) => format!("no move: {:?}", error.reason),
            };
            self.note(began, What::Moves(told));
        }
        Ok(())
    }

    /// Waits until everything has come to rest, reads all once more, and compares the replicas.
    async fn judge(&mut self) -> Result<()> {
        self.client = self.client.with_deadline(Duration::from_secs(20));
        while self.shared.at_work.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let until = now() + PATIENCE;
        loop {
            let live = self.client.jobs(&JobFilter { ended: Some(false), ..JobFilter::default() }).await;
            match live {
                Ok(jobs) if jobs.is_empty() => break,
                Ok(jobs) => {
                    let job = jobs.iter().filter_map(|status| status.job.as_ref()).find(|job| !has_ended(job.phase()));
                    let waits: Vec<_> = jobs.iter().filter_map(|status| status.progress.as_ref()).collect();
                    if now() > until {
                        bail!("a move does not come to its end: {job:?} {waits:?}");
                    }
                    if let Some(failed) = job.filter(|job| job.phase().as_str_name().ends_with("FAILED")) {
                        // Somebody has to decide; a refusal means that it has gone on by itself.
                        let _ = self.client.change_job(JobId(failed.job_id), JobAction::Abandon, "sim").await;
                    }
                }
                Err(error) if now() > until => bail!("the jobs cannot be listed: {error}"),
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for key in (0..WRITERS).flat_map(keys) {
            let began = now();
            let found = self.client.get(key.clone()).await?;
            let number = found.map_or(Ok(0), |found| number(&found.value))?;
            self.note(began, What::Read { key, number });
        }
        let began = now();
        let total = self.total().await??;
        self.note(began, What::Counted(total));
        for group in (1..=1 + DATA_GROUPS).map(GroupId) {
            let began = now();
            let found = self.client.compare_digests(group).await?;
            let digests = format!("{:?}", found.digests);
            self.note(began, What::Compared { group, equal: found.equal, digests });
        }
        Ok(())
    }
}
