use std::collections::BTreeSet;
use std::time::Duration;

use drover_keys::NodeId;
use drover_transport::Sent;
use futures::FutureExt;
use tokio::time::Instant;

use crate::node::{TestNode, eventually};
use crate::proxy::Proxy;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Three nodes, each of which is connected with both others.
async fn connected() -> [TestNode; 3] {
    let nodes = [TestNode::start(1).await, TestNode::start(2).await, TestNode::start(3).await];
    for node in &nodes {
        nodes.iter().for_each(|peer| node.pool.set_address(peer.id, &peer.address));
    }
    for node in &nodes {
        let up = || nodes.iter().all(|peer| peer.id == node.id || node.pool.is_connected(peer.id));
        eventually("the nodes are connected", up).await;
    }
    nodes
}

#[tokio::test]
async fn a_node_that_leaves_says_so_and_hears_who_stays() {
    let [a, b, c] = connected().await;
    assert_eq!(a.pool.leave(soon()).await, [b.id, c.id].into());
    assert!(b.pool.is_leaving(a.id) && c.pool.is_leaving(a.id));
    assert_eq!(b.pool.leave(soon()).await, [c.id].into(), "the first one is known to leave");
    assert!(a.pool.is_leaving(b.id));
    assert_eq!(c.pool.leave(soon()).await, BTreeSet::new());
    assert!(a.pool.gone(c.id).now_or_never().is_some());
}

#[tokio::test]
async fn of_two_nodes_that_leave_at_the_same_time_one_hears_of_the_other_before_it_knows_who_stays() {
    let [a, b, c] = connected().await;
    let (by_a, by_b) = tokio::join!(a.pool.leave(soon()), b.pool.leave(soon()));
    assert!(!(by_a.contains(&b.id) && by_b.contains(&a.id)), "{by_a:?} {by_b:?}");
    assert!(by_a.contains(&c.id) && by_b.contains(&c.id), "{by_a:?} {by_b:?}");
    assert!(a.pool.is_leaving(b.id) && b.pool.is_leaving(a.id));
}

#[tokio::test]
async fn a_node_that_comes_back_is_leaving_no_more() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    let proxy = Proxy::start(a.address.clone()).await;
    b.pool.set_address(a.id, &proxy.address);
    assert_eq!(b.ask(a.id, "x").await, Ok(1));
    assert_eq!(b.pool.leave(soon()).await, [a.id].into());
    assert!(a.pool.is_leaving(b.id));
    proxy.cut();
    eventually("the node has connected again", || !a.pool.is_leaving(b.id)).await;
}

#[tokio::test]
async fn whoever_does_not_answer_in_time_does_not_stay() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    let proxy = Proxy::start(b.address.clone()).await;
    a.pool.set_address(b.id, &proxy.address);
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
    proxy.hold_after(0);
    assert_eq!(a.pool.leave(Instant::now() + Duration::from_millis(100)).await, BTreeSet::new());
}

#[tokio::test]
async fn a_peer_is_gone_once_it_says_that_it_leaves_or_the_connection_is_lost() {
    let [a, b, c] = connected().await;
    assert!(a.pool.gone(b.id).now_or_never().is_none());
    let (_, ()) = tokio::join!(b.pool.leave(soon()), a.pool.gone(b.id));
    assert!(a.pool.gone(c.id).now_or_never().is_none());
    a.pool.remove(c.id);
    a.pool.gone(c.id).await;
    a.pool.gone(NodeId(9)).await;
}

#[tokio::test]
async fn a_pool_that_is_closed_has_no_connection_and_makes_none() {
    let [a, b, _c] = connected().await;
    a.pool.close();
    a.pool.gone(b.id).await;
    assert_eq!(a.ask(b.id, "x").await.unwrap_err().sent, Sent::NotSent);
    assert_eq!(a.pool.leave(soon()).await, BTreeSet::new());
    assert_eq!(b.ask(a.id, "x").await, Ok(1), "it answers");
}
