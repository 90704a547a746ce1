use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_kv::Reason;
use drover_rafttypes::{SnapshotDir, SnapshotMeta, StoredMembership, TypeConfig, encode_snapshot_meta, encode_vote};
use drover_transport::{GroupNetwork, Snapshot, Tuning};
use drover_wire::proto::v1;
use drover_wire::status_to_error;
use futures::stream;
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::SnapshotResponse;

use crate::endpoint::{Appends, Recorder, collect, leader_vote, log_id};
use crate::garbage::Stranger;
use crate::node::{GROUP, REPLICA, TestNode, eventually, options, tuning};
use crate::proxy::Proxy;
use crate::streams::option;

type Files = BTreeMap<String, Vec<u8>>;

fn meta() -> SnapshotMeta {
    SnapshotMeta { last_log_id: Some(log_id(2, 30)), last_membership: StoredMembership::default() }
}

/// A few files, of which the first ones are large.
fn files(seed: u8) -> Files {
    let noise = |n: u32, length: u32| (0..length).map(|i| (i.wrapping_mul(2_654_435_761 + n) >> 13) as u8).collect();
    let mut files: Files = (0..6).map(|n| (format!("00000{n}.sst"), noise(n, 1 << 20))).collect();
    files.insert("MANIFEST".into(), vec![seed; 100]);
    files.insert("sub/empty".into(), vec![]);
    files.insert("sub/again".into(), noise(0, 1 << 20));
    files
}

fn snapshot(under: &Path, name: &str, files: &Files) -> Snapshot {
    let dir = under.join(name);
    for (name, content) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    Snapshot { meta: meta(), snapshot: SnapshotDir::new(dir) }
}

async fn pair(tuning: Tuning) -> (TestNode, TestNode, Arc<Recorder>) {
    let a = TestNode::start_with(options(1, 1, 1, tuning)).await;
    let b = TestNode::start(2).await;
    let recorder = Arc::new(Recorder::new(Appends::Never));
    b.set_group(GROUP, Arc::<Recorder>::clone(&recorder));
    (a, b, recorder)
}

async fn network(from: &TestNode, address: &str) -> GroupNetwork {
    from.pool.raft_network(GROUP).new_snapshot_client(2, &drover_rafttypes::Node::new(address, REPLICA)).await
}

async fn send(
    network: &mut GroupNetwork,
    snapshot: Snapshot,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    network.full_snapshot(leader_vote(3), snapshot, pending(), option()).await
}

/// Starts to send, and cuts the connection when `bytes` have arrived or a little more.
async fn send_in_part(from: &TestNode, to: &TestNode, proxy: &Proxy, snapshot: Snapshot, bytes: u64) {
    let mut network = network(from, &proxy.address).await;
    assert_eq!(from.ask(to.id, "x").await, Ok(1));
    let connects = from.stats_of(to.id).connects;
    proxy.hold_after(bytes + (1 << 18));
    let received = || to.stats_of(from.id).snapshot_bytes_received;
    let cutting = async {
        eventually("so much has arrived", || received() >= bytes).await;
        proxy.cut();
    };
    let (broken, ()) = tokio::join!(send(&mut network, snapshot), cutting);
    assert!(matches!(broken, Err(StreamingError::Unreachable(_))), "{broken:?}");
    eventually("the connection is replaced", || from.stats_of(to.id).connects > connects).await;
}

fn staged(node: &TestNode) -> Files {
    let mut files = Files::new();
    collect(&node.service.staging.join(GROUP.to_string()), Path::new(""), &mut files);
    files
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_leaves_nothing_behind() {
    let (a, b, recorder) = pair(Tuning { snapshot_chunk_bytes: 100_000, ..tuning() }).await;
    let mut network = network(&a, &b.address).await;
    let sent = snapshot(a.dir.path(), "s", &files(1));
    let response = send(&mut network, sent).await.unwrap();
    assert_eq!(response.vote, leader_vote(3));
    assert_eq!(*recorder.installed.lock().unwrap(), [files(1)]);
    assert_eq!(staged(&b), Files::new());
    assert!(!a.dir.path().join("s").exists());
    let (sent, received) = (a.stats_of(b.id), b.stats_of(a.id));
    assert_eq!(sent.snapshot_bytes_sent, TOTAL, "equal content goes once");
    assert_eq!(received.snapshot_bytes_received, sent.snapshot_bytes_sent);
    assert_eq!((sent.snapshots_sent, received.snapshots_received), (1, 1));
}

/// Bytes of [`files`] that have to be sent.
const TOTAL: u64 = (6 << 20) + 100;

fn small_chunks() -> Tuning {
    Tuning { snapshot_chunk_bytes: 64 << 10, ..tuning() }
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_was_even_with_a_newer_snapshot() {
    let (a, b, recorder) = pair(small_chunks()).await;
    let proxy = Proxy::start(b.address.clone()).await;
    let first = snapshot(a.dir.path(), "first", &files(1));
    send_in_part(&a, &b, &proxy, first, 7 << 19).await;
    let before = a.stats_of(b.id).snapshot_bytes_sent;
    let mut network = network(&a, &proxy.address).await;
    send(&mut network, snapshot(a.dir.path(), "second", &files(2))).await.unwrap();
    assert_eq!(*recorder.installed.lock().unwrap(), [files(2)]);
    assert!(a.stats_of(b.id).snapshot_bytes_sent - before <= TOTAL - (7 << 19));
    assert!(b.stats_of(a.id).snapshot_bytes_received <= TOTAL, "nothing arrived twice");
}

#[tokio::test]
async fn a_restarted_sender_does_not_send_what_is_there() {
    let (a, b, recorder) = pair(small_chunks()).await;
    let proxy = Proxy::start(b.address.clone()).await;
    send_in_part(&a, &b, &proxy, snapshot(a.dir.path(), "s", &files(1)), 5 << 20).await;
    drop(a);
    let again = TestNode::start(1).await;
    let mut network = network(&again, &b.address).await;
    send(&mut network, snapshot(again.dir.path(), "s", &files(1))).await.unwrap();
    assert_eq!(*recorder.installed.lock().unwrap(), [files(1)]);
    assert!(again.stats_of(b.id).snapshot_bytes_sent <= TOTAL - (5 << 20));
    assert!(b.stats_of(again.id).snapshot_bytes_received <= TOTAL, "nothing arrived twice");
}

#[tokio::test]
async fn a_cancelled_transfer_ends_and_the_next_one_succeeds() {
    let slow = Tuning { snapshot_bytes_per_second: Some(1 << 20), snapshot_chunk_bytes: 1 << 19, ..tuning() };
    let (a, b, recorder) = pair(slow).await;
    let mut slow = network(&a, &b.address).await;
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let cancel = async move {
        let _ = stopped.await;
        ReplicationClosed::new("enough")
    };
    let sending = slow.full_snapshot(leader_vote(3), snapshot(a.dir.path(), "s", &files(1)), cancel, option());
    let stopping = async {
        eventually("some of it has arrived", || b.stats_of(a.id).snapshot_bytes_received > 0).await;
        stop.send(()).unwrap();
    };
    let (result, ()) = tokio::join!(sending, stopping);
    assert!(matches!(result, Err(StreamingError::Closed(_))), "{result:?}");
    assert!(recorder.installed.lock().unwrap().is_empty());
    let other = TestNode::start(3).await;
    let mut quick = network(&other, &b.address).await;
    send(&mut quick, snapshot(other.dir.path(), "s", &files(1))).await.unwrap();
    assert_eq!(*recorder.installed.lock().unwrap(), [files(1)]);
}

#[tokio::test]
async fn a_staged_file_that_was_damaged_is_found_and_sent_again() {
    let (a, b, recorder) = pair(small_chunks()).await;
    let proxy = Proxy::start(b.address.clone()).await;
    send_in_part(&a, &b, &proxy, snapshot(a.dir.path(), "s", &files(1)), 5 << 19).await;
    let mut network = network(&a, &proxy.address).await;
    let dir = b.service.staging.join(GROUP.to_string());
    let (name, mut content) = staged(&b).into_iter().find(|(_, content)| content.len() == 1 << 20).unwrap();
    content[1_000] ^= 1;
    std::fs::write(dir.join(name), content).unwrap();
    let damaged = send(&mut network, snapshot(a.dir.path(), "s", &files(1))).await.unwrap_err();
    assert!(damaged.to_string().contains("sent again"), "{damaged}");
    assert!(recorder.installed.lock().unwrap().is_empty());
    send(&mut network, snapshot(a.dir.path(), "s", &files(1))).await.unwrap();
    assert_eq!(*recorder.installed.lock().unwrap(), [files(1)]);
}

#[tokio::test]
async fn a_snapshot_for_a_group_without_replica_is_refused() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    let mut network = network(&a, &b.address).await;
    let refused = send(&mut network, snapshot(a.dir.path(), "s", &files(1))).await.unwrap_err();
    assert!(refused.to_string().contains("does not hold replica 3 of group 7"), "{refused}");
    assert!(!b.service.staging.exists());
}

fn offer(names: &[&str], content: &[u8]) -> v1::OfferSnapshotRequest {
    let file = |name: &&str| v1::SnapshotFile {
        name: (*name).to_owned(),
        bytes: content.len() as u64,
        checksum: Bytes::copy_from_slice(&xxhash_rust::xxh3::xxh3_128(content).to_be_bytes()),
    };
    v1::OfferSnapshotRequest {
        group_id: GROUP.0,
        vote: Some(encode_vote(&leader_vote(3))),
        meta: Some(encode_snapshot_meta(&meta())),
        files: names.iter().map(file).collect(),
        snapshot_id: "it".into(),
        replica_id: REPLICA.0,
    }
}

fn chunk(offset: u64, data: &'static [u8]) -> v1::SnapshotChunk {
    let crc = crc32c::crc32c(data);
    let (group_id, snapshot_id) = (GROUP.0, "it".to_owned());
    v1::SnapshotChunk { group_id, snapshot_id, file: 0, offset, data: Bytes::from_static(data), crc }
}

async fn reason<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Reason {
    match tokio::time::timeout(Duration::from_secs(30), call).await.unwrap() {
        Ok(_) => panic!("it was taken"),
        Err(status) => status_to_error(&status).reason,
    }
}

#[tokio::test]
async fn names_that_lead_out_of_the_folder_are_refused() {
    let (_a, b, _) = pair(tuning()).await;
    let outside = b.dir.path().join("outside");
    let stranger = Stranger::meet_as(&b, 1).await;
    let absolute = outside.to_str().unwrap();
    for name in ["../outside", "../../outside", absolute, "a/../../outside", "..", "", "a\0b"] {
        let offered = stranger.client().offer_snapshot(stranger.request(offer(&["fine", name], b"hello"))).await;
        assert_eq!(reason(async { offered }).await, Reason::InvalidArgument, "{name:?}");
    }
    assert!(!outside.exists() && !b.service.staging.exists());
}

#[tokio::test]
async fn chunks_that_are_damaged_or_out_of_sequence_are_refused_and_the_transfer_can_go_on() {
    let (_a, b, recorder) = pair(tuning()).await;
    let stranger = Stranger::meet_as(&b, 1).await;
    let send = |chunks: Vec<v1::SnapshotChunk>| {
        let request = stranger.request(stream::iter(chunks));
        let mut client = stranger.client();
        async move { client.send_snapshot(request).await.map(|answer| answer.into_inner().received_bytes) }
    };
    let install = |id: &str| {
        let vote = Some(encode_vote(&leader_vote(3)));
        let request =
            v1::InstallSnapshotRequest { group_id: GROUP.0, vote, snapshot_id: id.to_owned(), replica_id: REPLICA.0 };
        let request = stranger.request(request);
        let mut client = stranger.client();
        async move { client.install_snapshot(request).await }
    };
    assert_eq!(reason(send(vec![chunk(0, b"hello")])).await, Reason::FailedPrecondition, "not offered");
    let offered = stranger.client().offer_snapshot(stranger.request(offer(&["f"], b"hello world"))).await.unwrap();
    assert_eq!(offered.into_inner().have_bytes, [0]);
    assert_eq!(send(vec![chunk(0, b"hello")]).await.unwrap(), 5);
    let table = [
        (v1::SnapshotChunk { crc: 1, ..chunk(5, b" world") }, Reason::InvalidArgument),
        (chunk(0, b"hello"), Reason::InvalidArgument),
        (chunk(6, b"world"), Reason::InvalidArgument),
        (chunk(5, b" worlds"), Reason::InvalidArgument),
        (chunk(u64::MAX, b"w"), Reason::InvalidArgument),
        (v1::SnapshotChunk { file: 1, ..chunk(5, b" world") }, Reason::InvalidArgument),
        (v1::SnapshotChunk { snapshot_id: "other".into(), ..chunk(5, b" world") }, Reason::FailedPrecondition),
        (v1::SnapshotChunk { group_id: 99, ..chunk(5, b" world") }, Reason::FailedPrecondition),
    ];
    for (bad, expect) in table {
        assert_eq!(reason(send(vec![bad.clone()])).await, expect, "{bad:?}");
    }
    assert_eq!(reason(install("it")).await, Reason::FailedPrecondition, "incomplete");
    assert_eq!(send(vec![chunk(5, b" world")]).await.unwrap(), 6);
    assert_eq!(reason(install("other")).await, Reason::FailedPrecondition);
    install("it").await.unwrap();
    assert_eq!(*recorder.installed.lock().unwrap(), [Files::from([("f".to_owned(), b"hello world".to_vec())])]);
    assert_eq!(reason(install("it")).await, Reason::FailedPrecondition, "once is enough");
}

#[tokio::test]
async fn a_later_offer_ends_the_earlier_transfer() {
    let (_a, b, _) = pair(tuning()).await;
    let (old, new) = (Stranger::meet_as(&b, 1).await, Stranger::meet_as(&b, 3).await);
    old.client().offer_snapshot(old.request(offer(&["f"], b"hello world"))).await.unwrap();
    let taken = old.client().send_snapshot(old.request(stream::iter([chunk(0, b"hello")]))).await.unwrap();
    assert_eq!(taken.into_inner().received_bytes, 5);
    let have = new.client().offer_snapshot(new.request(offer(&["g"], b"hello world"))).await.unwrap();
    assert_eq!(have.into_inner().have_bytes, [5], "the same content, whoever sent it");
    let mut client = old.client();
    let late = client.send_snapshot(old.request(stream::iter([chunk(5, b" world")])));
    assert_eq!(reason(late).await, Reason::FailedPrecondition);
}

#[tokio::test]
async fn what_nobody_completes_is_removed_after_a_while() {
    let b = TestNode::start_with(options(2, 1, 2, Tuning { snapshot_keep_ms: 300, ..tuning() })).await;
    b.set_group(GROUP, Arc::new(Recorder::new(Appends::Never)));
    let stranger = Stranger::meet_as(&b, 1).await;
    stranger.client().offer_snapshot(stranger.request(offer(&["f"], b"hello world"))).await.unwrap();
    let sent = stranger.request(stream::iter([chunk(0, b"hello")]));
    stranger.client().send_snapshot(sent).await.unwrap();
    eventually("it is gone", || staged(&b).is_empty()).await;
    let late = stranger.request(stream::iter([chunk(5, b" world")]));
    let mut client = stranger.client();
    assert_eq!(reason(client.send_snapshot(late)).await, Reason::FailedPrecondition);
}
