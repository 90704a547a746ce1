//! Writes, reads and deletes one key. `cargo run -p drover-client --example basic -- 127.0.0.1:7400`

use std::time::Duration;

use drover_client::Client;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let endpoint = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7400".to_owned());
    let client = Client::connect([endpoint]).await?;

    let first = client.put("greeting", "hello").await?;
    client.put("greeting", "good morning").await?;
    let newest = client.get("greeting").await?;
    let earlier = client.get_at("greeting", first).await?;
    show(&format!("now: {newest:?}\nat {first}: {earlier:?}"));

    client.put_ttl("session", "soon gone", Duration::from_secs(60)).await?;
    client.delete("greeting").await?;
    show(&format!("after the delete: {:?}", client.get("greeting").await?));

    // A write whose outcome stays unknown can be settled under a name of the caller's choice.
    let name = client.new_idempotency();
    let kind = drover_client::WriteKind::Put { key: "order".into(), value: "1 kg".into(), ttl_ms: None };
    let options = drover_client::WriteOptions { idempotency: Some(name.clone()), ..Default::default() };
    match client.write(kind, options).await {
        Ok(answer) => show(&format!("written: {answer:?}")),
        Err(error) if error.is_unknown() => show(&format!("settled: {:?}", client.settle("order", &name).await?)),
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[allow(clippy::print_stdout)] // An example talks to people.
fn show(text: &str) {
    println!("{text}");
}
