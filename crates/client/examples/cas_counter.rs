//! Counts to 1,000 from ten tasks at once. `cargo run -p drover-client --example cas_counter -- 127.0.0.1:7400`

use anyhow::Context;
use drover_client::{Client, CompareAndSet, Expectation, Update};

const KEY: &str = "counter";

async fn increment(client: &Client) -> anyhow::Result<()> {
    loop {
        let current = client.get(KEY).await?;
        let (expect, count) = match &current {
            None => (Expectation::Absent, 0),
            Some(version) => {
                let text = std::str::from_utf8(&version.value).context("the counter is not text")?;
                (Expectation::Version(version.commit_ts), text.parse::<u64>().context("the counter is no number")?)
            }
        };
        let update = Update::Put { value: (count + 1).to_string().into(), ttl_ms: None };
        // A failed comparison means that another task was faster: look again.
        if let CompareAndSet::Written { .. } = client.compare_and_set(KEY, expect, update).await? {
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::connect([endpoint]).await?;
    client.delete(KEY).await?;
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    increment(&client).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let count = client.get(KEY).await?.context("the counter is gone")?;
    show(&format!("counted to {}", String::from_utf8_lossy(&count.value)));
    Ok(())
}

#[allow(clippy::print_stdout)] // An example talks to people.
fn show(text: &str) {
    println!("{text}");
}
