//! Moves money between accounts from ten tasks at once; the total never changes.
//! `cargo run -p drover-client --example bank -- 127.0.0.1:7400`

use std::time::Duration;

use anyhow::{Context, ensure};
use drover_client::{Client, Error, Interval, Transaction};

const ACCOUNTS: u64 = 20;
const EACH: u64 = 100;

/// Accounts lie all over the key space, so most transfers concern several groups.
fn account(n: u64) -> String {
    format!("{:02x}/account", n * 256 / ACCOUNTS)
}

async fn balance(txn: &Transaction, n: u64) -> Result<u64, Error> {
    let value = txn.get(account(n)).await?;
    Ok(value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok()).unwrap_or(0))
}

/// Moves `amount` if it is there; whether it was.
async fn transfer(client: &Client, from: u64, to: u64, amount: u64) -> Result<bool, Error> {
    client
        .transaction(|txn| async move {
            let (have, theirs) = (balance(&txn, from).await?, balance(&txn, to).await?);
            if have < amount || from == to {
                return Ok(false);
            }
            txn.put(account(from), (have - amount).to_string());
            txn.put(account(to), (theirs + amount).to_string());
            Ok(true)
        })
        .await
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::builder().endpoints([endpoint]).deadline(Duration::from_secs(30)).connect().await?;
    let fill = |txn: Transaction| async move {
        (0..ACCOUNTS).for_each(|n| txn.put(account(n), EACH.to_string()));
        Ok::<_, Error>(())
    };
    client.transaction(fill).await?;

    let transfers = (0..10u64).map(|task| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut moved = 0;
            for n in 0..20 {
                let (from, to) = ((task * 7 + n * 3) % ACCOUNTS, (task * 5 + n * 11) % ACCOUNTS);
                moved += u64::from(transfer(&client, from, to, 1 + n).await?);
            }
            Ok::<u64, Error>(moved)
        })
    });
    let mut moved = 0;
    for task in transfers.collect::<Vec<_>>() {
        moved += task.await??;
    }

    let rows = client.snapshot(None).scan(Interval::all(), false, 0).await?;
    let mut total = 0;
    for (key, value) in rows.iter().filter(|(key, _)| key.ends_with(b"/account")) {
        let text = std::str::from_utf8(value).with_context(|| format!("{key:?}"))?;
        total += text.parse::<u64>().with_context(|| format!("{key:?}"))?;
    }
    show(&format!("{moved} transfers, total {total}"));
    ensure!(total == ACCOUNTS * EACH, "money was made or lost");
    Ok(())
}

#[allow(clippy::print_stdout)] // An example talks to people.
fn show(text: &str) {
    println!("{text}");
}
