//! A queue: two tasks put jobs in, three take them out, and each job is taken exactly once.
//! `cargo run -p drover-client --example queue -- 127.0.0.1:7400`

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use drover_client::{Client, End, Error, Interval};

const JOBS: u64 = 50;

fn jobs() -> Interval {
    // "0" follows "/".
    Interval::new("queue/", End::Key("queue0".into())).unwrap_or_else(|_| Interval::all())
}

/// Takes the oldest job.
async fn take(client: &Client) -> Result<Option<Bytes>, Error> {
    client
        .transaction(|txn| async move {
            let Some((key, job)) = txn.scan(jobs(), false, 1).await?.pop() else { return Ok(None) };
            txn.delete(key);
            Ok(Some(job))
        })
        .await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::builder().endpoints([endpoint]).deadline(Duration::from_secs(60)).connect().await?;
    let putting = (0..2u64).map(|task| {
        let client = client.clone();
        tokio::spawn(async move {
            for n in (task..JOBS).step_by(2) {
                client.put(format!("queue/{n:04}"), n.to_string()).await?;
            }
            Ok::<_, Error>(())
        })
    });
    for task in putting.collect::<Vec<_>>() {
        task.await??;
    }
    let taking = (0..3).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Some(job) = take(&client).await? {
                taken.push(String::from_utf8_lossy(&job).into_owned());
            }
            Ok::<_, Error>(taken)
        })
    });
    let mut taken = Vec::new();
    for task in taking.collect::<Vec<_>>() {
        let jobs = task.await??;
        show(&format!("a worker took {} jobs", jobs.len()));
        taken.extend(jobs);
    }
    taken.sort_by_key(|job| job.parse::<u64>().unwrap_or(u64::MAX));
    ensure!(taken == (0..JOBS).map(|n| n.to_string()).collect::<Vec<_>>(), "a job was lost or taken twice");
    Ok(())
}

#[allow(clippy::print_stdout)] // An example talks to people.
fn show(text: &str) {
    println!("{text}");
}
