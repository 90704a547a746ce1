use std::time::Duration;

use drover_keys::NodeId;
use drover_kv::{Certainty, Error, Reason};
use drover_transport::{Sent, Tuning};
use drover_wire::proto::storage::v1 as stored;
use drover_wire::proto::v1;
use futures::StreamExt;
use futures::future::join_all;
use tokio::time::Instant;

use crate::node::{TestNode, eventually, options, tuning};
use crate::proxy::Proxy;

#[tokio::test]
async fn calls_of_many_callers_share_frames_and_get_their_own_answers() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(b.id, &b.address);
    let keys = ["", "a", "bb", "ccc", "dddd"];
    let answers = join_all((0..1_000).map(|n| a.ask(b.id, keys[n % keys.len()]))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Ok((n % keys.len()) as u64));
    }
    let stats = a.stats_of(b.id);
    assert_eq!(stats.messages_sent, 1_000);
    assert!(stats.frames_sent < 100, "1,000 messages that wait together went out in {} frames", stats.frames_sent);
    assert_eq!((stats.connects, stats.calls_not_sent, stats.calls_unknown), (1, 0, 0));
    assert_eq!(b.stats_of(a.id).messages_received, 1_000);
}

#[tokio::test]
async fn timestamps_and_the_errors_of_the_oracle_come_through() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(b.id, &b.address);
    let deadline = Instant::now() + Duration::from_secs(30);
    assert_eq!(a.pool.timestamps(b.id, 5, deadline).await.unwrap().raw(), 1_005);
    let error = a.pool.timestamps(b.id, 0, deadline).await.unwrap_err();
    assert_eq!(error, Error::definite(Reason::NotLeader, "no oracle here").leader_hint(Some(NodeId(9))));
}

#[tokio::test]
async fn what_a_moving_range_holds_comes_portion_by_portion_until_an_error_ends_it() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(b.id, &b.address);
    let request = v1::ExportRangeVersionsRequest { bytes: 3, ..Default::default() };
    let deadline = Instant::now() + Duration::from_secs(30);
    let portions = a.pool.export_range_versions(b.id, request, deadline).await.unwrap().collect::<Vec<_>>().await;
    let numbers = portions.into_iter().map(|portion| portion.map(|portion| portion.chunk.unwrap().armed_at));
    let error = Error::definite(Reason::FailedPrecondition, "not armed");
    assert_eq!(numbers.collect::<Vec<_>>(), [Ok(0), Ok(1), Ok(2), Err(error)]);
}

#[tokio::test]
async fn a_portion_is_answered_refused_or_unknown_when_no_answer_comes() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(b.id, &b.address);
    let import = |job_id, deadline| {
        let command = Some(stored::MoveCommand { job_id, ..Default::default() });
        let request = v1::ImportRangeVersionsRequest { command, ..Default::default() };
        a.pool.import_range_versions(b.id, request, deadline)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    assert_eq!(import(5, deadline).await.unwrap().import.unwrap().job_id, 5);
    let refusal = Error::definite(Reason::NotLeader, "not here").leader_hint(Some(NodeId(9)));
    assert_eq!(import(0, deadline).await, Err(refusal));
    let error = import(u64::MAX, Instant::now() + Duration::from_millis(20)).await.unwrap_err();
    assert_eq!((error.reason, error.certainty), (Reason::TimeoutIndefinite, Certainty::Unknown), "{error}");
}

#[tokio::test]
async fn a_lost_connection_leaves_what_was_sent_unknown_and_is_replaced() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    let proxy = Proxy::start(b.address.clone()).await;
    a.pool.set_address(b.id, &proxy.address);
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
    let hanging = async { a.ask(b.id, "hang").await };
    let cutting = async {
        eventually("the call has arrived", || b.stats_of(a.id).messages_received == 2).await;
        proxy.cut();
    };
    let (error, ()) = tokio::join!(hanging, cutting);
    let error = error.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::Unknown, Reason::TimeoutIndefinite), "{error}");
    assert_eq!(Error::from(error).certainty, Certainty::Unknown);
    eventually("the connection is replaced", || a.stats_of(b.id).connects == 2).await;
    assert_eq!(a.ask(b.id, "yy").await, Ok(2));
}

#[tokio::test]
async fn a_call_to_a_dead_or_unknown_peer_was_not_sent() {
    let a = TestNode::start(1).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    a.pool.set_address(NodeId(2), &dead);
    let error = a.ask(NodeId(2), "x").await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::NotSent, Reason::Unavailable), "{error}");
    assert_eq!(Error::from(error).certainty, Certainty::Definite);
    let error = a.ask(NodeId(3), "x").await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::NotSent, Reason::UnknownNode), "{error}");
    assert!(!a.pool.is_connected(NodeId(2)));
}

#[tokio::test]
async fn a_deadline_ends_a_call_whose_answer_may_still_come() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(b.id, &b.address);
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
    let error = a.ask_within(b.id, "hang", Duration::from_millis(50)).await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::Unknown, Reason::TimeoutIndefinite), "{error}");
    assert_eq!(a.ask(b.id, "x").await, Ok(1), "the connection is none the worse");
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_noticed() {
    let quick = Tuning { keep_alive_interval_ms: 50, keep_alive_timeout_ms: 200, ..tuning() };
    let a = TestNode::start_with(options(1, 1, 1, quick)).await;
    let b = TestNode::start(2).await;
    let stuck = StuckProxy::start(b.address.clone()).await;
    a.pool.set_address(b.id, &stuck.address);
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
    stuck.stop_forwarding();
    let error = a.ask(b.id, "hang").await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::Unknown, Reason::TimeoutIndefinite));
    assert!(error.message.contains("connection was lost"), "not by its deadline: {error}");
}

#[tokio::test]
async fn a_new_address_replaces_the_connection() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    a.pool.set_address(b.id, &dead);
    assert!(a.ask(b.id, "x").await.is_err());
    a.pool.set_address(b.id, &b.address);
    eventually("connected", || a.pool.is_connected(b.id)).await;
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
    a.pool.remove(b.id);
    assert_eq!(a.ask(b.id, "x").await.unwrap_err().sent, Sent::NotSent);
}

#[tokio::test]
async fn a_message_that_no_frame_can_carry_is_refused_before_it_is_sent() {
    let small = Tuning { max_message_bytes: 200, ..tuning() };
    let a = TestNode::start_with(options(1, 1, 1, small)).await;
    let b = TestNode::start(2).await;
    a.pool.set_address(b.id, &b.address);
    let long: &str = "0123456789".repeat(25).leak();
    let error = a.ask(b.id, long).await.unwrap_err();
    assert_eq!((error.sent, error.reason), (Sent::NotSent, Reason::BatchTooLarge), "{error}");
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
}

#[tokio::test]
async fn an_answer_that_no_frame_can_carry_is_refused_and_the_connection_goes_on() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    a.pool.set_address(b.id, &b.address);
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
    let limit = u32::try_from(Tuning::default().max_message_bytes).unwrap();
    let hanging = async { a.ask_within(b.id, "hang", Duration::from_secs(2)).await };
    let asking = async {
        eventually("the other call has arrived", || b.stats_of(a.id).messages_received == 2).await;
        let error = a.ask_for(b.id, limit + 1).await.unwrap_err();
        assert_eq!((error.reason, error.certainty), (Reason::BatchTooLarge, Certainty::Definite), "{error}");
        assert_eq!(a.ask_for(b.id, limit - 64).await, Ok(limit as usize - 64), "a little less fits");
    };
    let (other, ()) = tokio::join!(hanging, asking);
    assert!(other.unwrap_err().message.contains("deadline"), "a call beside it is not lost with the connection");
    assert_eq!((a.stats_of(b.id).connects, a.stats_of(b.id).disconnects), (1, 0));
}

/// A proxy that can stop to forward without closing anything.
struct StuckProxy {
    address: String,
    stopped: std::sync::Arc<tokio::sync::watch::Sender<bool>>,
}

impl StuckProxy {
    async fn start(target: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stopped = std::sync::Arc::new(tokio::sync::watch::Sender::new(false));
        let sender = std::sync::Arc::clone(&stopped);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = tokio::net::TcpStream::connect(&target).await.unwrap();
                let mut stopped = sender.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = stopped.wait_for(|stopped| *stopped) => {}
                    }
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { address, stopped }
    }

    fn stop_forwarding(&self) {
        self.stopped.send_replace(true);
    }
}
