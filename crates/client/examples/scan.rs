//! Writes a few rows and scans them both ways. `cargo run -p drover-client --example scan -- 127.0.0.1:7400`

use drover_client::{Client, End, Interval, ScanQuery};
use futures::TryStreamExt;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::connect([endpoint]).await?;
    for city in ["athens", "berlin", "cairo", "delhi", "essen"] {
        client.put(format!("city/{city}"), city.len().to_string()).await?;
    }

    // '0' is the character after '/': everything that starts with "city/".
    let cities = Interval::new("city/", End::Key("city0".into()))?;
    show(&format!("{} cities", client.count(cities.clone(), None).await?));

    // One page after the other, all of one snapshot.
    let mut pages = client.scan(ScanQuery::new(cities.clone()).page(2, 0));
    while let Some(page) = pages.next_page().await? {
        let keys: Vec<_> = page.entries.iter().map(|row| String::from_utf8_lossy(&row.key)).collect();
        show(&format!("page as of {}: {keys:?}", page.read_ts));
    }

    // Row by row, from the end.
    let rows = client.scan(ScanQuery::new(cities.clone()).reverse().limit(3)).into_stream();
    let last: Vec<_> = rows.try_collect().await?;
    show(&format!(
        "the last three: {:?}",
        last.iter().map(|row| String::from_utf8_lossy(&row.key)).collect::<Vec<_>>()
    ));

    let done = client.delete_range(cities, |progress| show(&format!("deleted {} so far", progress.deleted))).await?;
    show(&format!("deleted {} in {} batches", done.deleted, done.batches));
    Ok(())
}

#[allow(clippy::print_stdout)] // An example talks to people.
fn show(text: &str) {
    println!("{text}");
}
