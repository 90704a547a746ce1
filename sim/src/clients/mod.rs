//! The clients of a run: each is a host of its own with the Rust client of the product.

mod bank;
mod changes;
mod judge;
mod lists;
mod numbers;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use drover_client::{Client, Error};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::history::{History, Outcome, What};
use crate::machine::now;
use crate::node::{NODES, PORT};
use crate::plan::QUIET_AGAIN;

/// How long clients go on when the last fault is over.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// How long a call may take. Short, so that some outcomes are unknown.
const DEADLINE: Duration = Duration::from_millis(2_500);
/// How long everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(120);
/// For how long after its deadline an open outcome can be asked for.
const SETTLE_WINDOW: Duration = Duration::from_secs(5);

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
    for writer in 0..numbers::WRITERS {
        clients.push(worker(shared, format!("writer{writer}"), async move |worker: &mut Worker| {
            worker.write(writer).await
        }));
    }
    clients.push(worker(shared, "reader".to_owned(), Worker::read));
    clients.push(worker(shared, "teller0".to_owned(), Worker::transfer));
    clients.push(worker(shared, "teller1".to_owned(), Worker::transfer));
    clients.push(worker(shared, "auditor".to_owned(), Worker::count));
    clients.push(worker(shared, "appender0".to_owned(), Worker::append));
    clients.push(worker(shared, "appender1".to_owned(), Worker::append));
    clients.push(worker(shared, "operator".to_owned(), Worker::replace_replicas));
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
            let builder = Client::builder().endpoints(endpoints.clone()).deadline(DEADLINE);
            match builder.settle_window(SETTLE_WINDOW).connect().await {
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
}
