//! Answers are bounded in bytes wherever they pass: between nodes, on a session, on a page of a scan. What does not fit is
//! refused or comes later, and nothing beside it is lost.

use bytes::Bytes;
use drover_client::{Client, Interval, RetryPolicy, ScanQuery};
use drover_keys::{GroupId, NodeId};
use drover_kv::{Certainty, Limits, Reason};
use drover_testkit::Cluster;
use drover_testkit::cluster::PATIENCE;
use tokio_util::sync::CancellationToken;

/// A client that asks one node, on one connection, and never a second time.
async fn once(cluster: &Cluster, node: NodeId) -> Client {
    let builder = Client::builder().endpoints([cluster.node(node).grpc_address()]).only_these_endpoints();
    builder.retry(RetryPolicy::never()).deadline(PATIENCE).connect().await.unwrap()
}

/// Writes until `stop`; returns how many.
async fn write_on(client: Client, stop: &CancellationToken) -> u64 {
    let mut writes = 0;
    while !stop.is_cancelled() {
        client.put("small", "value").await.unwrap();
        writes += 1;
    }
    writes
}

fn largest_value() -> Bytes {
    vec![7; Limits::default().value_bytes].into()
}

/// The answer would not fit into a message between nodes, which would end the connection for everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_values_that_is_too_large_is_refused_by_the_leader_and_disturbs_no_other_request() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    cluster.client().await.unwrap().put("large", largest_value()).await.unwrap();
    let leader = cluster.leader(GroupId(2), PATIENCE).await.unwrap();
    let other = cluster.node_ids().into_iter().find(|node| *node != leader).unwrap();
    let (client, writer) = (once(&cluster, other).await, once(&cluster, other).await);
    let stop = CancellationToken::new();
    let asking = async {
        let fits = client.batch_get(vec!["large".into(); 2], None).await.unwrap();
        assert_eq!(fits.versions.iter().flatten().count(), 2, "as much as the limit says");
        for keys in [3, 8, 64] {
            let error = client.batch_get(vec!["large".into(); keys], None).await.unwrap_err();
            assert_eq!((error.reason, error.certainty), (Reason::BatchTooLarge, Certainty::Definite), "{error}");
            assert!(error.message.contains("fewer keys"), "{error}");
        }
        stop.cancel();
    };
    let (writes, ()) = tokio::join!(write_on(writer, &stop), asking);
    assert!(writes > 0);
    cluster.assert_quiet_logs(&[]);
}

/// All of them together are more than a client takes in one message.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_answers_on_one_session_come_in_many_messages() {
    let cluster = Cluster::builder().nodes(1).data_groups(1).start().await.unwrap();
    let client = once(&cluster, NodeId(1)).await;
    let value = largest_value();
    client.put("large", value.clone()).await.unwrap();
    let stop = CancellationToken::new();
    let reads = 1 + drover_wire::MAX_MESSAGE_BYTES / value.len() * 3 / 2;
    let reading = async {
        let reads = (0..reads).map(|_| async { client.get("large").await.map(|got| got.unwrap().value.len()) });
        let lengths = futures::future::join_all(reads).await;
        stop.cancel();
        lengths
    };
    let (writes, lengths) = tokio::join!(write_on(client.clone(), &stop), reading);
    assert!(writes > 0);
    for length in lengths {
        assert_eq!(length, Ok(value.len()));
    }
}

/// Keys of each page, and what a page has in bytes at most.
async fn pages(client: &Client, query: ScanQuery) -> (Vec<String>, usize) {
    let mut scan = client.scan(query);
    let (mut pages, mut most) = (Vec::new(), 0);
    while let Some(page) = scan.next_page().await.unwrap() {
        let size = |entry: &drover_kv::Entry| entry.key.len() + entry.version.value.len();
        most = most.max(page.entries.iter().map(size).sum());
        pages.push(page.entries.iter().map(|entry| String::from_utf8_lossy(&entry.key)).collect());
    }
    (pages, most)
}

#[tokio::test]
async fn a_page_over_two_groups_ends_in_front_of_the_row_that_does_not_fit() {
    let cluster = Cluster::builder().nodes(1).data_groups(2).start().await.unwrap();
    let client = cluster.client().await.unwrap();
    // The boundary lies between "b" and "x".
    for (key, bytes) in [("a", 400), ("b", 300), ("x", 900), ("y", 100)] {
        client.put(key, vec![7; bytes]).await.unwrap();
    }
    let table = [
        (1_000, false, vec!["ab", "x", "y"]),
        (1_000, true, vec!["y", "x", "ba"]),
        (1_603, false, vec!["abx", "y"]),
        (1_603, true, vec!["yxb", "a"]),
        (10, false, vec!["a", "b", "x", "y"]),
        (10, true, vec!["y", "x", "b", "a"]),
    ];
    for (bytes, reverse, expect) in table {
        let query = ScanQuery { reverse, ..ScanQuery::new(Interval::all()) }.page(0, bytes);
        let (pages, most) = pages(&client, query).await;
        assert_eq!(pages, expect, "{bytes} {reverse}");
        assert!(bytes == 10 || most as u64 <= bytes, "{most} bytes on a page of {bytes}");
    }
}
