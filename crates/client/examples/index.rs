//! Keeps an index of users by city beside the users, and the two always agree.
//! `cargo run -p drover-client --example index -- 127.0.0.1:7400`

use anyhow::ensure;
use bytes::Bytes;
use drover_client::{Client, End, Error, Interval};

/// Moves a user to a city: the row, its entry in the index, and the entry that is no longer right.
async fn move_to(client: &Client, user: &str, city: &str) -> Result<(), Error> {
    client
        .transaction(|txn| async move {
            let row = format!("user/{user}");
            if let Some(before) = txn.get(row.clone()).await? {
                txn.delete(entry(&before, user));
            }
            txn.put(row, city.to_owned());
            txn.put(entry(city.as_bytes(), user), "");
            Ok(())
        })
        .await
}

fn entry(city: &[u8], user: &str) -> Bytes {
    [b"by-city/", city, b"/", user.as_bytes()].concat().into()
}

/// The users of a city, from the index alone.
async fn users_in(client: &Client, city: &str) -> anyhow::Result<Vec<String>> {
    let prefix = format!("by-city/{city}/");
    // "0" follows "/".
    let interval = Interval::new(prefix.clone(), End::Key(format!("by-city/{city}0").into()))?;
    let rows = client.snapshot(None).scan(interval, false, 0).await?;
    let names = rows.iter().map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned());
    Ok(names.collect())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::connect([endpoint]).await?;
    for (user, city) in [("ada", "london"), ("grace", "boston"), ("edsger", "austin"), ("ada", "boston")] {
        move_to(&client, user, city).await?;
    }
    let boston = users_in(&client, "boston").await?;
    show(&format!("boston: {boston:?}, london: {:?}", users_in(&client, "london").await?));
    ensure!(boston == ["ada", "grace"], "the index is not what the users say");
    Ok(())
}

#[allow(clippy::print_stdout)] // An example talks to people.
fn show(text: &str) {
    println!("{text}");
}
