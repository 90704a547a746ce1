//! Limits that the operator has raised hold for every operation, through every node, and for clients that know nothing of them.

use std::io::Write;

use bytes::Bytes;
use drover_client::{Client, CompareAndSet, Interval, RetryPolicy, ScanQuery, Transaction};
use drover_kv::{Certainty, Error, Expectation, Limits, Reason, Update};
use drover_testkit::Cluster;
use drover_testkit::cluster::{PATIENCE, drover_binary};

/// Above what a value and a key may have by default.
const VALUE_BYTES: usize = 9_000_000;
const KEY_BYTES: usize = 5_000;

/// Two data groups, one of which owns the keys below "n".
async fn raised() -> Cluster {
    let limits =
        [("limits.key_bytes", "16KiB"), ("limits.value_bytes", "20MiB"), ("limits.batch_bytes", "40MiB")].into_iter();
    let builder = limits.fold(Cluster::builder().data_groups(2), |builder, (name, size)| builder.set(name, size));
    builder.start().await.unwrap()
}

fn long_key(first: u8) -> Bytes {
    let mut key = vec![b'k'; KEY_BYTES];
    key[0] = first;
    key.into()
}

fn value(byte: u8) -> Bytes {
    vec![byte; VALUE_BYTES].into()
}

async fn scanned(client: &Client) -> Vec<(Bytes, Bytes)> {
    let mut scan = client.scan(ScanQuery::new(Interval::all()));
    let mut rows = Vec::new();
    while let Some(page) = scan.next_page().await.unwrap() {
        rows.extend(page.entries.into_iter().map(|entry| (entry.key, entry.version.value)));
    }
    rows
}

/// `left` and `right` belong to different groups: the commit locks them in both.
async fn swap(txn: Transaction, left: Bytes, right: Bytes) -> Result<(), Error> {
    let found = txn.batch_get([left.clone(), right.clone()]).await?;
    let rows = txn.scan(Interval::all(), false, 0).await?;
    assert_eq!(rows.len(), 2);
    txn.put(left, found[1].clone().unwrap());
    txn.put(right, found[0].clone().unwrap());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_keys_up_to_raised_limits_are_written_and_read_by_every_operation_through_every_node() {
    let cluster = raised().await;
    let (left, right) = (long_key(b'a'), long_key(b'z'));
    for node in cluster.node_ids() {
        let builder = Client::builder().endpoints([cluster.node(node).grpc_address()]).only_these_endpoints();
        let client = builder.deadline(PATIENCE).connect().await.unwrap();
        client.put(left.clone(), value(1)).await.unwrap();
        assert_eq!(client.get(left.clone()).await.unwrap().unwrap().value, value(1));
        let update = Update::Put { value: value(2), ttl_ms: None };
        let compared = client.compare_and_set(left.clone(), Expectation::Value(value(1)), update).await.unwrap();
        assert!(matches!(compared, CompareAndSet::Written { .. }));
        client.put(right.clone(), value(3)).await.unwrap();
        client.transaction(|txn| swap(txn, left.clone(), right.clone())).await.unwrap();
        let got = client.batch_get(vec![left.clone(), right.clone()], None).await.unwrap();
        let got: Vec<Bytes> = got.versions.into_iter().map(|version| version.unwrap().value).collect();
        assert_eq!(got, [value(3), value(2)]);
        assert_eq!(scanned(&client).await, [(left.clone(), value(3)), (right.clone(), value(2))]);
        assert_eq!(client.delete_range(Interval::all(), |_| {}).await.unwrap().deleted, 2);
    }
    cluster.assert_quiet_logs(&[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_raised_limits_is_refused_by_the_server_with_those_limits() {
    let cluster = raised().await;
    let client = Client::builder().endpoints(cluster.endpoints()).retry(RetryPolicy::never());
    let client = client.deadline(PATIENCE).connect().await.unwrap();
    client.put("k", value(1)).await.unwrap();
    let refused = |what: &str, error: Error, reason: Reason, limit: &str| {
        assert_eq!((error.reason, error.certainty), (reason, Certainty::Definite), "{what}: {error}");
        assert!(error.message.contains(&format!("the limit is {limit} bytes")), "{what}: {error}");
    };
    let large = client.put("k", vec![0; (20 << 20) + 1]).await.unwrap_err();
    refused("value", large, Reason::ValueTooLarge, "20971520");
    let long = client.put(vec![b'k'; (16 << 10) + 1], "v").await.unwrap_err();
    refused("key", long, Reason::KeyTooLarge, "16384");
    let many = client.batch_get(vec!["k".into(); 5], None).await.unwrap_err();
    refused("answer", many, Reason::BatchTooLarge, "41943040");
    let txn = client.begin();
    for key in ["k", "x", "z"] {
        txn.put(key, vec![0; 15 << 20]);
    }
    refused("transaction", txn.commit().await.unwrap_err(), Reason::BatchTooLarge, "41943040");
    assert_eq!(client.get("k").await.unwrap().unwrap().value, value(1));
    // Whoever gives the client limits is refused by those.
    let narrow = Client::builder().endpoints(cluster.endpoints()).limits(Limits::default());
    let large = narrow.connect().await.unwrap().put("k", value(2)).await.unwrap_err();
    refused("limits of the client", large, Reason::ValueTooLarge, "8388608");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_writes_and_reads_values_up_to_raised_limits() {
    let cluster = raised().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&value(b'v')).unwrap();
    let key = String::from_utf8(long_key(b'a').to_vec()).unwrap();
    let run = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(drover_binary().unwrap());
        command.args(args).env("DROVER_ENDPOINTS", cluster.endpoints().join(",")).kill_on_drop(true);
        let output = command.output().await.unwrap();
        (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let path = file.path().to_str().unwrap().to_owned();
    let (code, _, err) = run(&["kv", "put", &key, "--file", &path, "--timeout", "60s"]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let (code, out, _) = run(&["kv", "get", &key, "--timeout", "60s"]).await;
    assert!(code == Some(0) && out == value(b'v'));
    file.write_all(&vec![b'v'; 20 << 20]).unwrap();
    let (code, _, err) = run(&["kv", "put", &key, "--file", &path]).await;
    assert_eq!(code, Some(4));
    assert!(err.contains("VALUE_TOO_LARGE") && err.contains("the limit is 20971520 bytes"), "{err}");
}
