use drover_keys::{NodeId, StoreId};
use drover_kv::Reason;
use drover_transport::{PeerIdentities, PeerPool, Sent};
use drover_wire::proto::v1;
use drover_wire::proto::v1::internal_client::InternalClient;
use drover_wire::status_to_error;

use crate::node::{TestNode, eventually, options, tuning};

#[tokio::test]
async fn nodes_of_different_clusters_refuse_each_other() {
    let a = TestNode::start_with(options(1, 1, 1, tuning())).await;
    let b = TestNode::start_with(options(2, 2, 2, tuning())).await;
    a.pool.set_address(b.id, &b.address);
    let error = a.ask(b.id, "x").await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::NotSent, Reason::WrongCluster), "{error}");
    assert_eq!(b.pool.identities().get(a.id), None, "a stranger is not remembered");
}

#[tokio::test]
async fn a_wrong_entry_in_the_address_book_reaches_nobody() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(NodeId(3), &b.address);
    let error = a.ask(NodeId(3), "x").await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::NotSent, Reason::WrongNode), "{error}");
}

#[tokio::test]
async fn a_peer_whose_data_directory_was_replaced_is_refused_when_it_calls_and_when_it_is_called() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(b.id, &b.address);
    b.pool.set_address(a.id, &a.address);
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
    assert_eq!(a.pool.identities().get(b.id), Some(StoreId([2; 16])));
    drop(b);

    let replaced = TestNode::start_with(options(2, 1, 99, tuning())).await;
    replaced.pool.set_address(a.id, &a.address);
    let error = replaced.ask(a.id, "x").await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::NotSent, Reason::WrongNode), "{error}");
    a.pool.set_address(NodeId(2), &replaced.address);
    eventually("the caller has noticed", || a.stats_of(NodeId(2)).connect_failures > 0).await;
    assert_eq!(a.ask(NodeId(2), "x").await.unwrap_err().reason, Reason::WrongNode);

    a.pool.identities().forget(NodeId(2)).unwrap();
    replaced.pool.remove(a.id);
    replaced.pool.set_address(a.id, &a.address);
    assert_eq!(replaced.ask(a.id, "x").await, Ok(1), "until an operator says that it is all right");
}

#[tokio::test]
async fn identities_outlive_a_restart() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    b.pool.set_address(a.id, &a.address);
    assert_eq!(b.ask(a.id, "x").await, Ok(1));
    let reopened = PeerIdentities::open(a.dir.path().join("peers")).unwrap();
    assert_eq!(reopened.get(b.id), Some(StoreId([2; 16])));
    let pool = PeerPool::new(options(1, 1, 1, tuning()), reopened);
    let replaced = TestNode::start_with(options(2, 1, 99, tuning())).await;
    pool.set_address(replaced.id, &replaced.address);
    let request = v1::GroupRequest::default();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    assert_eq!(pool.group_call(replaced.id, request, deadline).await.unwrap_err().reason, Reason::WrongNode);
}

#[tokio::test]
async fn nothing_is_taken_without_a_handshake() {
    let a = TestNode::start(1).await;
    let mut client = InternalClient::connect(format!("http://{}", a.address)).await.unwrap();
    let refused = [
        client.link(tokio_stream::empty()).await.map(|_| ()).unwrap_err(),
        client.offer_snapshot(v1::OfferSnapshotRequest::default()).await.map(|_| ()).unwrap_err(),
        client.send_snapshot(tokio_stream::empty()).await.map(|_| ()).unwrap_err(),
        client.install_snapshot(v1::InstallSnapshotRequest::default()).await.map(|_| ()).unwrap_err(),
        client.leave(v1::LeaveRequest {}).await.map(|_| ()).unwrap_err(),
    ];
    for status in refused {
        let error = status_to_error(&status);
        assert_eq!((error.reason, error.is_unknown()), (Reason::FailedPrecondition, false), "{error}");
    }
    let error = client.handshake(v1::HandshakeRequest::default()).await.unwrap_err();
    assert_eq!(status_to_error(&error).reason, Reason::WrongCluster);
}
