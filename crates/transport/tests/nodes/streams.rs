//! Replication streams and single Raft calls, against a Raft whose answers are known.

use std::sync::Arc;
use std::time::Duration;

use drover_rafttypes::{CommandBytes, Entry, Payload, TypeConfig};
use drover_transport::{GroupNetwork, Tuning};
use futures::{StreamExt, stream};
use openraft::errors::RPCError;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::*;

use crate::endpoint::{Appends, Recorder, leader_vote, log_id};
use crate::node::{GROUP, REPLICA, TestNode, eventually, options, tuning};
use crate::proxy::Proxy;

pub fn option() -> RPCOption {
    RPCOption::new(Duration::from_secs(30))
}

fn request(index: u64, bytes: usize) -> AppendEntriesRequest<TypeConfig> {
    let payload = Payload::Normal(CommandBytes(vec![3; bytes].into()));
    AppendEntriesRequest {
        vote: leader_vote(2),
        prev_log_id: Some(log_id(2, index - 1)),
        entries: vec![Entry { log_id: log_id(2, index), payload }],
        leader_commit: None,
    }
}

async fn pair(appends: Appends, tuning: Tuning) -> (TestNode, TestNode, Arc<Recorder>) {
    let a = TestNode::start_with(options(1, 1, 1, tuning)).await;
    let b = TestNode::start(2).await;
    let recorder = Arc::new(Recorder::new(appends));
    b.set_group(GROUP, Arc::<Recorder>::clone(&recorder));
    (a, b, recorder)
}

async fn network(from: &TestNode, address: &str) -> GroupNetwork {
    let node = drover_rafttypes::Node::new(address, REPLICA);
    from.pool.raft_network(GROUP).new_client(2, &node).await
}

type Answers = Vec<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>;

async fn run(network: &mut GroupNetwork, requests: Vec<AppendEntriesRequest<TypeConfig>>) -> Answers {
    network.stream_append(stream::iter(requests), option()).await.unwrap().collect().await
}

#[tokio::test]
async fn requests_go_out_before_earlier_ones_are_answered_and_answers_keep_their_order() {
    let (a, b, _) = pair(Appends::AfterAll(50), tuning()).await;
    let mut network = network(&a, &b.address).await;
    let answers = run(&mut network, (1..=50).map(|n| request(n, 10)).collect()).await;
    let acknowledged: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().unwrap().unwrap().index).collect();
    assert_eq!(acknowledged, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_more_requests_are_under_way_than_the_windows_allow() {
    for narrow in [Tuning { append_window: 3, ..tuning() }, Tuning { append_window_bytes: 3_500, ..tuning() }] {
        let stalling = Tuning { append_stall_ms: 300, ..narrow };
        let (a, b, _) = pair(Appends::AfterAll(4), stalling.clone()).await;
        let mut stuck = network(&a, &b.address).await;
        let answers = run(&mut stuck, (1..=4).map(|n| request(n, 1_000)).collect()).await;
        assert!(matches!(&answers[..], [Err(_)]), "the fourth cannot be sent: {answers:?}");
        let (a, b, _) = pair(Appends::AfterAll(3), stalling).await;
        let mut fits = network(&a, &b.address).await;
        assert!(run(&mut fits, (1..=3).map(|n| request(n, 1_000)).collect()).await.iter().all(Result::is_ok));
    }
}

#[tokio::test]
async fn a_request_larger_than_every_window_passes_alone() {
    let narrow = Tuning { append_window_bytes: 100, queue_bytes: 100, frame_bytes: 10, ..tuning() };
    let (a, b, _) = pair(Appends::AfterAll(1), narrow).await;
    let mut network = network(&a, &b.address).await;
    let answers = run(&mut network, vec![request(1, 17 << 20)]).await;
    assert!(matches!(&answers[..], [Ok(Ok(Some(_)))]), "{answers:?}");
}

#[tokio::test]
async fn a_large_request_is_sent_in_parts_that_are_acknowledged_one_by_one() {
    let (a, b, _) = pair(Appends::AfterAll(4), Tuning { append_bytes: 1_000, ..tuning() }).await;
    let mut network = network(&a, &b.address).await;
    let mut whole = request(1, 600);
    whole.entries.extend((2..=4).map(|n| request(n, 600).entries.remove(0)));
    let answers = run(&mut network, vec![whole]).await;
    let acknowledged: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().unwrap().unwrap().index).collect();
    assert_eq!(acknowledged, [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_conflict_ends_the_stream_and_later_streams_go_on() {
    let (a, b, _) = pair(Appends::ConflictAfter(2), tuning()).await;
    let mut network = network(&a, &b.address).await;
    for _ in 0..3 {
        let answers = run(&mut network, (1..=20).map(|n| request(n, 10)).collect()).await;
        assert_eq!(answers.len(), 3);
        assert!(matches!(&answers[2], Ok(Err(StreamAppendError::Conflict(at))) if at.index == 2), "{answers:?}");
    }
    assert_eq!(b.stats_of(a.id).protocol_errors, 0, "requests that were under way are no offence");
}

#[tokio::test]
async fn a_lost_connection_ends_the_stream_with_an_error() {
    let (a, b, _) = pair(Appends::Never, tuning()).await;
    let proxy = Proxy::start(b.address.clone()).await;
    let mut network = network(&a, &proxy.address).await;
    let cutting = async {
        eventually("the request has arrived", || b.stats_of(a.id).messages_received >= 2).await;
        proxy.cut();
    };
    let (answers, ()) = tokio::join!(run(&mut network, vec![request(1, 10)]), cutting);
    assert!(matches!(&answers[..], [Err(RPCError::Network(_))]), "{answers:?}");
}

#[tokio::test]
async fn a_stream_to_a_dead_peer_polls_its_input_before_it_fails() {
    let a = TestNode::start(1).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut network = network(&a, &dead).await;
    let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
    let requests = stream::iter(1..=3).map(move |n| {
        asked.send(n).unwrap();
        request(n, 10)
    });
    let answers: Answers = network.stream_append(requests, option()).await.unwrap().collect().await;
    assert!(matches!(&answers[..], [Err(RPCError::Unreachable(_))]), "{answers:?}");
    assert_eq!(was_asked.try_recv(), Ok(1));
    assert!(was_asked.try_recv().is_err(), "and no more than the first");
}

#[tokio::test]
async fn a_removed_peer_ends_its_streams_and_a_new_address_brings_it_back() {
    let (a, b, _) = pair(Appends::AfterAll(2), tuning()).await;
    let mut network = network(&a, &b.address).await;
    let removing = async {
        eventually("the request has arrived", || b.stats_of(a.id).messages_received >= 2).await;
        a.pool.remove(b.id);
    };
    let endless = stream::iter([request(1, 10)]).chain(stream::pending());
    let streaming = async {
        let answers: Answers = network.stream_append(endless, option()).await.unwrap().collect().await;
        answers
    };
    let (answers, ()) = tokio::join!(streaming, removing);
    assert!(matches!(&answers[..], [Err(RPCError::Network(_))]), "{answers:?}");
    let answers = run(&mut network, vec![request(1, 10)]).await;
    assert!(matches!(&answers[..], [Err(RPCError::Unreachable(_))]), "{answers:?}");
    a.pool.set_address(b.id, &b.address);
    let answers = run(&mut network, vec![request(1, 10), request(2, 10)]).await;
    assert!(matches!(&answers[..], [Ok(Ok(_)), Ok(Ok(_))]), "{answers:?}");
}

#[tokio::test]
async fn a_stream_to_a_node_without_the_group_fails_and_disturbs_nobody() {
    let (a, b) = (TestNode::start(1).await, TestNode::start(2).await);
    let mut network = network(&a, &b.address).await;
    let answers = run(&mut network, vec![request(1, 10)]).await;
    assert!(matches!(&answers[..], [Err(RPCError::Unreachable(_))]), "{answers:?}");
    assert_eq!(a.ask(b.id, "x").await, Ok(1));
}

#[tokio::test]
async fn small_calls_overtake_appends_that_nobody_reads() {
    let slow = Tuning { append_window_bytes: 64 << 20, append_bytes: 1 << 20, ..tuning() };
    let (a, b, recorder) = pair(Appends::Never, slow).await;
    let mut bulk = network(&a, &b.address).await;
    let appends = tokio::spawn(async move { run(&mut bulk, (1..=40).map(|n| request(n, 1 << 20)).collect()).await });
    eventually("megabytes are under way", || a.stats_of(b.id).bytes_sent > 4 << 20).await;
    let mut heartbeats =
        a.pool.raft_network(GROUP).new_heartbeat_client(2, &drover_rafttypes::Node::new("", REPLICA)).await;
    for n in 1..=20 {
        let beat = AppendEntriesRequest { entries: vec![], ..request(n, 0) };
        let answers: Answers = heartbeats.stream_append(stream::iter([beat]), option()).await.unwrap().collect().await;
        assert!(matches!(&answers[..], [Ok(Ok(_))]), "{answers:?}");
    }
    assert_eq!(recorder.asked.lock().unwrap().len(), 20, "as single calls");
    assert!(!appends.is_finished());
    appends.abort();
}

#[tokio::test]
async fn votes_pre_votes_and_transfers_are_asked_and_answered_as_such() {
    let (a, b, recorder) = pair(Appends::Never, tuning()).await;
    let mut network = network(&a, &b.address).await;
    let mut candidate = leader_vote(4);
    candidate.committed = false;
    let mut ask = VoteRequest::new(candidate, Some(log_id(3, 3)));
    assert!(!network.pre_vote(ask.clone(), option()).await.unwrap().vote_granted, "a refusal is not a grant");
    ask.leadership_transfer = true;
    assert!(network.vote(ask, option()).await.unwrap().vote_granted);
    let transfer = TransferLeaderRequest::new(leader_vote(4), 2, None);
    let stopped = network.transfer_leader(transfer, option()).await.unwrap_err();
    assert!(matches!(&stopped, RPCError::Unreachable(error) if error.to_string().contains("stopped")), "{stopped}");
    assert_eq!(*recorder.asked.lock().unwrap(), ["pre-vote 4", "vote 4 true", "transfer to 2"]);
}

#[tokio::test]
async fn a_pre_vote_that_does_not_arrive_is_not_granted() {
    let a = TestNode::start(1).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut network = network(&a, &dead).await;
    let mut candidate = leader_vote(4);
    candidate.committed = false;
    assert!(network.pre_vote(VoteRequest::new(candidate, None), option()).await.is_err());
}

/// Replica 4 of the group is wanted on a node that holds replica 3: whatever is sent to it, replica 3 hears nothing of it.
#[tokio::test]
async fn what_is_meant_for_another_replica_of_the_node_is_not_delivered() {
    let (a, b, _) = pair(Appends::AfterAll(1), tuning()).await;
    let later = drover_rafttypes::Node::new(&b.address, drover_keys::ReplicaId(REPLICA.0 + 1));
    let mut network = a.pool.raft_network(GROUP).new_client(2, &later).await;
    let refused = "does not hold replica 4 of group 7";
    let error = network.vote(VoteRequest::new(leader_vote(9), None), option()).await.unwrap_err();
    assert!(error.to_string().contains(refused), "{error}");
    let error = network.append_entries(request(1, 1), option()).await.unwrap_err();
    assert!(error.to_string().contains(refused), "{error}");
    let answers = run(&mut network, vec![request(1, 1)]).await;
    let error = answers.into_iter().next().unwrap().unwrap_err();
    assert!(error.to_string().contains(refused), "{error}");
}
