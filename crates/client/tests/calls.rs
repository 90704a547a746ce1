//! The client against a server that answers by a script, over a real socket.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Act, Commands, Script, Server, failed, written};
use drover_client::{
    CatalogVersion, Certainty, Client, ClientBuilder, CompatAction, End, Error, GroupId, IdempotencyKeys, Interval,
    Limits, NodeId, NodeStatus, Reason, RetryPolicy, Route, RouteId, ScanQuery, Settled, Timestamp, WriteAnswer,
    WriteKind, WriteOptions,
};
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::*;
use parking_lot::Mutex;

fn script(act: impl Fn(&Call) -> Act + Send + Sync + 'static) -> Script {
    Arc::new(act)
}

/// Does the first things in turn, then the last one for good.
fn in_turn(acts: Vec<fn() -> Act>) -> Script {
    let next = AtomicUsize::new(0);
    script(move |_| acts[next.fetch_add(1, Ordering::SeqCst).min(acts.len() - 1)]())
}

async fn lone(script: Script) -> Server {
    Server::start(1, Vec::new(), Vec::new(), script).await
}

fn short(server: &Server) -> ClientBuilder {
    Client::builder().endpoints([server.endpoint()]).deadline(Duration::from_millis(400))
}

fn certainty(error: &Error) -> (Reason, Certainty) {
    (error.reason, error.certainty)
}

fn options(call: &Call) -> Options {
    match call {
        Call::Put(put) => put.options.clone().unwrap_or_default(),
        Call::Settle(settle) => settle.options.clone().unwrap_or_default(),
        Call::DeleteRange(batch) => batch.options.clone().unwrap_or_default(),
        other => panic!("{other:?} is not expected"),
    }
}

#[tokio::test]
async fn a_thousand_concurrent_calls_share_one_connection_and_far_fewer_messages() {
    let server = lone(script(|call| match call {
        Call::Get(get) => {
            let version = Version { value: get.key.clone(), commit_ts: 7, expire_at: 0 };
            Act::Answer(Answer::Get(GetResponse { version: Some(version), read_ts: 0 }), 1)
        }
        other => panic!("{other:?} is not expected"),
    }))
    .await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    let calls = (0..1_000).map(|i| {
        let client = client.clone();
        async move {
            let key = Bytes::from(format!("key-{i}"));
            assert_eq!(client.get(key.clone()).await.unwrap().unwrap().value, key);
        }
    });
    futures::future::join_all(calls).await;
    assert_eq!(server.calls.load(Ordering::SeqCst), 1_000);
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    assert!(server.messages.load(Ordering::SeqCst) < 100, "{:?}", server.messages);
}

#[tokio::test]
async fn a_write_that_is_lost_is_sent_again_under_the_same_name_until_it_is_answered() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let server = lone(script(move |call| {
        let mut log = log.lock();
        log.push(options(call));
        if log.len() < 3 { Act::HangUp } else { written(42) }
    }))
    .await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    assert_eq!(client.put("k", "v").await.unwrap(), Timestamp::from_raw(42));
    let seen = seen.lock();
    let names: HashSet<_> = seen.iter().map(|o| (o.idempotency_key.clone(), o.not_after)).collect();
    assert_eq!((seen.len(), names.len()), (3, 1));
    assert_eq!(seen[0].idempotency_key.len(), 16);
}

#[tokio::test]
async fn what_was_lost_stays_unknown_although_later_attempts_are_refused() {
    let refused = || failed(&Error::definite(Reason::DiskFull, "no room"));
    let server = lone(in_turn(vec![|| Act::HangUp, refused])).await;
    let error = short(&server).connect().await.unwrap().put("k", "v").await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::DiskFull, Certainty::Unknown), "{error}");
}

#[tokio::test]
async fn what_was_lost_stays_unknown_until_the_deadline_although_later_attempts_are_turned_away() {
    let refused = || failed(&Error::definite(Reason::NotLeader, "not here"));
    let server = lone(in_turn(vec![|| Act::HangUp, refused])).await;
    let error = short(&server).connect().await.unwrap().put("k", "v").await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::TimeoutIndefinite, Certainty::Unknown), "{error}");
    assert!(server.calls.load(Ordering::SeqCst) > 2);
}

#[tokio::test]
async fn an_answer_from_apply_makes_a_lost_write_definite_again() {
    let settled = || failed(&Error::definite(Reason::IdempotencySettled, "settled"));
    let server = lone(in_turn(vec![|| Act::HangUp, settled])).await;
    let error = short(&server).connect().await.unwrap().put("k", "v").await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::IdempotencySettled, Certainty::Definite));
}

#[tokio::test]
async fn a_write_that_was_only_ever_turned_away_ends_definitely() {
    // The last pause ends the call: an attempt that the deadline cut off would leave it open what has happened.
    fn refused(after_ms: u64) -> Act {
        failed(&Error::definite(Reason::Unavailable, "no quorum").retry_after_ms(after_ms))
    }
    let server = lone(in_turn(vec![|| refused(1), || refused(1), || refused(60_000)])).await;
    let error = short(&server).connect().await.unwrap().put("k", "v").await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::Timeout, Certainty::Definite), "{error}");
    assert_eq!(server.calls.load(Ordering::SeqCst), 3);
    assert!(error.message.contains("no quorum"), "{error}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline_unknown_for_a_write_and_definite_for_a_read() {
    let server = lone(script(|_| Act::Silence)).await;
    let client = short(&server).connect().await.unwrap();
    let put = client.put("k", "v").await.unwrap_err();
    assert_eq!(certainty(&put), (Reason::TimeoutIndefinite, Certainty::Unknown), "{put}");
    let get = client.get("k").await.unwrap_err();
    assert_eq!(certainty(&get), (Reason::Timeout, Certainty::Definite), "{get}");
}

#[tokio::test]
async fn a_blind_write_is_not_sent_again_after_it_was_lost_but_is_after_a_refusal() {
    let refused = || failed(&Error::definite(Reason::NotLeader, "not here"));
    let server = lone(in_turn(vec![refused, refused, || Act::HangUp, || written(1)])).await;
    let client = short(&server).idempotency_keys(IdempotencyKeys::Off).connect().await.unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::Unavailable, Certainty::Unknown));
    assert_eq!(server.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn without_retries_a_write_is_sent_once_and_carries_no_key() {
    let server = lone(script(|call| {
        assert_eq!(options(call).idempotency_key, Bytes::new());
        failed(&Error::definite(Reason::NotLeader, "not here"))
    }))
    .await;
    let client = short(&server).retry(RetryPolicy::never()).connect().await.unwrap();
    assert_eq!(certainty(&client.put("k", "v").await.unwrap_err()), (Reason::NotLeader, Certainty::Definite));
    assert_eq!(server.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_write_under_a_name_of_the_callers_is_settled_under_it() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let server = lone(script(move |call| {
        let Options { idempotency_key, not_after, .. } = options(call);
        log.lock().push((idempotency_key, not_after));
        match call {
            Call::Settle(_) => {
                let verdict = settle_response::Verdict::Applied.into();
                Act::Answer(Answer::Settle(SettleResponse { verdict, succeeded: true, commit_ts: 9 }), 0)
            }
            _ => Act::Silence,
        }
    }))
    .await;
    let client = short(&server).connect().await.unwrap();
    let name = client.new_idempotency();
    let kind = WriteKind::Put { key: "k".into(), value: "v".into(), ttl_ms: None };
    let options = WriteOptions { idempotency: Some(name.clone()), ..WriteOptions::default() };
    assert!(client.write(kind, options).await.unwrap_err().is_unknown());
    let settled = client.settle("k", &name).await.unwrap();
    assert_eq!(settled, Settled::Applied { commit_ts: Timestamp::from_raw(9) });
    assert!(seen.lock().iter().all(|seen| *seen == (name.key.clone(), name.not_after.raw())));
}

#[tokio::test]
async fn the_server_is_told_less_time_than_the_caller_has() {
    let server = lone(script(|call| {
        let told = options(call).timeout_ms;
        assert!((1..400).contains(&told), "{told}");
        written(1)
    }))
    .await;
    short(&server).connect().await.unwrap().put("k", "v").await.unwrap();
}

fn one_route(leader: u64) -> Vec<Route> {
    vec![Route { route_id: 1, group_id: 1, shard_id: 1, leader, ..Route::default() }]
}

/// Two nodes, of which the second is not among the endpoints; the client learns its address from the cluster.
async fn pair(believed_leader: u64, first: Script, second: Script) -> (Server, Server) {
    let second = Server::start(2, one_route(believed_leader), Vec::new(), second).await;
    let nodes = vec![NodeStatus { node_id: 2, grpc_address: second.endpoint(), ..NodeStatus::default() }];
    (Server::start(1, one_route(believed_leader), nodes, first).await, second)
}

#[tokio::test]
async fn a_large_map_is_read_as_a_whole_although_it_changes_between_any_two_pages() {
    let route = |n: u64| {
        let key = |n: u64| Bytes::from(format!("{n:03}"));
        let (start, end) = (if n == 1 { Bytes::new() } else { key(n) }, (n < 7).then(|| key(n + 1)));
        Route { route_id: n, start, end, group_id: 1, shard_id: 1, leader: 1, ..Route::default() }
    };
    let routes: Vec<Route> = (1..=7).map(route).collect();
    let server = Server::start(1, routes.clone(), Vec::new(), script(|_| written(1))).await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    assert_eq!(client.routes().await.unwrap().routes, routes);
    let sized = client.list_routes(true).await.unwrap();
    assert_eq!(sized.routes.iter().map(|r| r.approximate_bytes).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7].map(Some));
    assert_eq!(sized.routes.iter().map(|r| r.leader).collect::<Vec<_>>(), [1; 7]);
}

#[tokio::test]
async fn jobs_are_read_page_by_page_up_to_the_limit() {
    let server = lone(script(|_| written(1))).await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    for (limit, expect) in [(None, 5), (Some(9), 5), (Some(5), 5), (Some(3), 3), (Some(1), 1), (Some(0), 0)] {
        let filter = drover_client::JobFilter { limit, ..drover_client::JobFilter::default() };
        let found = client.jobs(&filter).await.unwrap();
        let ids: Vec<u64> = found.into_iter().map(|status| status.job.unwrap().job_id).collect();
        assert_eq!(ids, [5, 4, 3, 2, 1][..expect], "{limit:?}");
    }
}

#[tokio::test]
async fn requests_go_to_the_believed_leader_even_if_it_is_no_endpoint() {
    let (first, second) = pair(2, script(|_| written(1)), script(|_| written(2))).await;
    let client = Client::connect([first.endpoint()]).await.unwrap();
    assert_eq!(client.put("k", "v").await.unwrap(), Timestamp::from_raw(2));
    assert_eq!((first.calls.load(Ordering::SeqCst), second.calls.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test]
async fn a_leader_hint_in_an_answer_is_followed_by_the_next_call() {
    let hinting = script(|_| Act::Answer(Answer::Put(PutResponse { commit_ts: 1 }), 2));
    let first = Server::start(1, one_route(1), Vec::new(), hinting).await;
    let second = Server::start(2, one_route(1), Vec::new(), script(|_| written(2))).await;
    let third = Server::start(3, one_route(1), Vec::new(), script(|_| panic!("nobody leads here"))).await;
    let endpoints = [first.endpoint(), second.endpoint(), third.endpoint()];
    let client = Client::connect(endpoints).await.unwrap();
    assert_eq!(client.put("k", "v").await.unwrap(), Timestamp::from_raw(1));
    assert_eq!(client.put("k", "v").await.unwrap(), Timestamp::from_raw(2));
}

#[tokio::test]
async fn a_leader_hint_in_a_refusal_is_followed_at_once() {
    let refusing = script(|_| failed(&Error::definite(Reason::NotLeader, "node 2 leads").leader_hint(Some(NodeId(2)))));
    let first = Server::start(1, one_route(1), Vec::new(), refusing).await;
    let second = Server::start(2, one_route(1), Vec::new(), script(|_| written(2))).await;
    let client = Client::connect([first.endpoint(), second.endpoint()]).await.unwrap();
    assert_eq!(client.put("k", "v").await.unwrap(), Timestamp::from_raw(2));
    assert_eq!(first.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn after_a_leader_has_answered_too_late_the_others_are_asked_as_well() {
    for late in [Error::definite(Reason::Timeout, "no quorum"), Error::unknown(Reason::TimeoutIndefinite, "no quorum")]
    {
        let first = Server::start(1, one_route(1), Vec::new(), script(move |_| failed(&late))).await;
        let second = Server::start(2, one_route(1), Vec::new(), script(|_| written(2))).await;
        let client = Client::builder().endpoints([first.endpoint(), second.endpoint()]).retry(RetryPolicy::never());
        let client = client.connect().await.unwrap();
        client.put("k", "v").await.unwrap_err();
        // They take turns.
        let answers = [client.put("k", "v").await, client.put("k", "v").await];
        assert!(answers.iter().any(Result::is_ok), "{answers:?}");
    }
}

#[tokio::test]
async fn a_client_of_one_endpoint_alone_sends_nothing_to_the_leader_it_is_told_of() {
    let hinting = || Act::Answer(Answer::Put(PutResponse { commit_ts: 1 }), 2);
    let refusing = || failed(&Error::definite(Reason::NotLeader, "node 2 leads").leader_hint(Some(NodeId(2))));
    let (first, second) = pair(2, in_turn(vec![hinting, refusing, hinting]), script(|_| written(2))).await;
    let client = Client::builder().endpoints([first.endpoint()]).only_these_endpoints().connect().await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.put("k", "v").await.unwrap(), Timestamp::from_raw(1));
    }
    assert_eq!(first.calls.load(Ordering::SeqCst), 3);
    assert_eq!(second.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn when_a_node_is_gone_its_calls_go_to_another_endpoint() {
    let first = Server::start(1, one_route(1), Vec::new(), script(|_| Act::HangUp)).await;
    let second = Server::start(2, one_route(1), Vec::new(), script(|_| written(2))).await;
    let client = Client::connect([first.endpoint(), second.endpoint()]).await.unwrap();
    first.stop().await;
    assert_eq!(client.put("k", "v").await.unwrap(), Timestamp::from_raw(2));
}

#[tokio::test]
async fn a_client_starts_while_some_endpoints_are_down_and_not_if_all_are() {
    let server = lone(script(|_| written(1))).await;
    let gone = lone(script(|_| written(1))).await;
    let gone_endpoint = gone.endpoint();
    gone.stop().await;
    let client = Client::connect([gone_endpoint.clone(), server.endpoint()]).await.unwrap();
    client.put("k", "v").await.unwrap();
    let error = Client::connect([gone_endpoint]).await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::Unavailable, Certainty::Definite));
}

#[tokio::test]
async fn what_breaks_a_limit_is_refused_by_the_server_which_alone_knows_its_limits() {
    let server = lone(script(|call| match call {
        Call::Get(get) if get.key.is_empty() => failed(&Error::definite(Reason::KeyEmpty, "the server's")),
        Call::Put(put) if put.value.len() == 9 << 20 => failed(&Error::definite(Reason::ValueTooLarge, "the server's")),
        Call::Delete(delete) if delete.key.len() == 5_000 => {
            failed(&Error::definite(Reason::KeyTooLarge, "the server's"))
        }
        other => panic!("{other:?} may not be sent"),
    }))
    .await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    let refused = |error: Error, reason| assert_eq!((error.reason, error.message.as_str()), (reason, "the server's"));
    refused(client.get("").await.unwrap_err(), Reason::KeyEmpty);
    refused(client.put("k", vec![0; 9 << 20]).await.unwrap_err(), Reason::ValueTooLarge);
    refused(client.delete(vec![1; 5_000]).await.unwrap_err(), Reason::KeyTooLarge);
    // No message holds it, whatever the limits are.
    let error = client.put("k", vec![0; 256 << 20]).await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::BatchTooLarge, Certainty::Definite), "{error}");
}

#[tokio::test]
async fn what_breaks_a_limit_that_the_client_was_given_is_refused_before_it_is_sent() {
    let server = lone(script(|_| panic!("nothing may be sent"))).await;
    let client = Client::builder().endpoints([server.endpoint()]).limits(Limits::default()).connect().await.unwrap();
    assert_eq!(client.get("").await.unwrap_err().reason, Reason::KeyEmpty);
    assert_eq!(client.put("k", vec![0; 9 << 20]).await.unwrap_err().reason, Reason::ValueTooLarge);
    assert_eq!(client.delete(vec![1; 5_000]).await.unwrap_err().reason, Reason::KeyTooLarge);
}

#[tokio::test]
async fn more_calls_than_may_be_under_way_wait_their_turn_and_time_out_definitely() {
    let server = lone(script(|_| Act::Silence)).await;
    let client = short(&server).max_in_flight(1).connect().await.unwrap();
    let (first, second) = tokio::join!(client.put("a", "v"), client.put("b", "v"));
    let mut ends = [certainty(&first.unwrap_err()), certainty(&second.unwrap_err())];
    ends.sort_by_key(|(reason, _)| reason.as_str());
    assert_eq!(ends, [(Reason::Timeout, Certainty::Definite), (Reason::TimeoutIndefinite, Certainty::Unknown)]);
}

fn row(key: u64) -> KeyValue {
    KeyValue {
        key: Bytes::from(format!("{key:03}")),
        version: Some(Version { value: Bytes::from(key.to_string()), commit_ts: 5, expire_at: 0 }),
    }
}

/// Serves ten rows, three on a page, one of the pages empty; the cursor is the index of the next row.
fn ten_rows() -> Script {
    script(|call| {
        let Call::Scan(scan) = call else { panic!("{call:?} is not expected") };
        let cursor = std::str::from_utf8(&scan.cursor).unwrap();
        if cursor == "6" {
            let page = ScanResponse { entries: Vec::new(), count: 0, cursor: "6 again".into(), read_ts: 77 };
            return Act::Answer(Answer::Scan(page), 0);
        }
        let from: u64 = cursor.trim_end_matches(" again").parse().unwrap_or(0);
        let rows = if scan.limit_rows == 0 { 3 } else { scan.limit_rows.min(3) };
        let to = (from + rows).min(10);
        let entries = if scan.count_only { Vec::new() } else { (from..to).map(row).collect() };
        let cursor = if to == 10 { Bytes::new() } else { to.to_string().into() };
        Act::Answer(Answer::Scan(ScanResponse { entries, count: to - from, cursor, read_ts: 77 }), 0)
    })
}

#[tokio::test]
async fn a_scan_goes_through_all_pages_empty_ones_too_and_ends_at_its_limit() {
    use futures::TryStreamExt;
    let server = lone(ten_rows()).await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    let keys = |query: ScanQuery| {
        let scan = client.scan(query);
        async move {
            let rows: Vec<_> = scan.into_stream().try_collect().await.unwrap();
            rows.into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect::<Vec<_>>()
        }
    };
    let all: Vec<String> = (0..10).map(|i| format!("{i:03}")).collect();
    assert_eq!(keys(ScanQuery::new(Interval::all())).await, all);
    assert_eq!(keys(ScanQuery::new(Interval::all()).limit(7)).await, all[..7]);
    assert_eq!(keys(ScanQuery::new(Interval::all()).limit(3)).await, all[..3]);
    assert_eq!(client.count(Interval::all(), None).await.unwrap(), 10);
}

#[tokio::test]
async fn a_range_delete_drives_all_batches_each_under_its_own_name() {
    let names = Arc::new(Mutex::new(HashSet::new()));
    let log = names.clone();
    let server = lone(script(move |call| {
        let Call::DeleteRange(batch) = call else { panic!("{call:?} is not expected") };
        assert_eq!(batch.range.as_ref().unwrap().end.as_deref(), Some(&b"z"[..]));
        log.lock().insert(options(call).idempotency_key);
        let next = match &batch.cursor[..] {
            b"" => "1",
            b"1" => "2",
            _ => "",
        };
        Act::Answer(Answer::DeleteRange(DeleteRangeResponse { deleted: 10, cursor: next.into(), commit_ts: 3 }), 0)
    }))
    .await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    let interval = Interval::new("a", End::Key("z".into())).unwrap();
    let mut told = Vec::new();
    let done = client.delete_range(interval, |progress| told.push(progress.deleted)).await.unwrap();
    assert_eq!((done.deleted, done.batches, told), (30, 3, vec![10, 20, 30]));
    assert_eq!(names.lock().len(), 3);
}

#[tokio::test]
async fn cluster_calls_carry_the_servers_answer_and_error() {
    let server = lone(script(|_| written(1))).await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    assert_eq!(client.transfer_leader(GroupId(1), NodeId(3)).await.unwrap().leader, NodeId(3));
    let error = client.compare_digests(GroupId(4)).await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::UnknownGroup, Certainty::Definite));
    assert!(error.message.contains("no group 4"), "{error}");
}

async fn refusing(node_id: u64, refusal: &Error) -> Server {
    let refusal = drover_wire::error_to_status(refusal);
    Server::commanded(node_id, Vec::new(), Commands { refusal, ..Commands::default() }).await
}

#[tokio::test]
async fn a_read_whose_answer_was_lost_is_asked_of_the_next_node() {
    let lost = Error::unknown(Reason::TimeoutIndefinite, "the connection broke");
    let nodes = [refusing(1, &lost).await, refusing(2, &Error::definite(Reason::DiskFull, "no room")).await];
    let client = Client::connect(nodes.iter().map(Server::endpoint)).await.unwrap();
    let listed = client.groups().await.unwrap_err();
    assert_eq!(certainty(&listed), (Reason::DiskFull, Certainty::Definite), "{listed}");
}

#[tokio::test]
async fn what_one_node_may_still_carry_out_stays_unknown_although_the_next_one_refuses() {
    let lost = || Error::unknown(Reason::Unavailable, "the answer was lost");
    let turned_away = || Error::definite(Reason::Unavailable, "no leader");
    let (unknown, definite) = (Certainty::Unknown, Certainty::Definite);
    let table = [
        (lost(), Reason::DiskFull, (Reason::DiskFull, unknown)),
        (lost(), Reason::ShuttingDown, (Reason::ShuttingDown, unknown)),
        (lost(), Reason::FailedPrecondition, (Reason::FailedPrecondition, unknown)),
        (lost(), Reason::Timeout, (Reason::TimeoutIndefinite, unknown)),
        (turned_away(), Reason::DiskFull, (Reason::DiskFull, definite)),
        (turned_away(), Reason::ShuttingDown, (Reason::ShuttingDown, definite)),
    ];
    for (first, second, expect) in table {
        let nodes = [refusing(1, &first).await, refusing(2, &Error::definite(second, "no room")).await];
        let connect = || Client::connect(nodes.iter().map(Server::endpoint));
        // Each on a client of its own: one that was turned away by a node begins with the other.
        let client = connect().await.unwrap();
        let frozen = client.compat(CompatAction::Freeze, "test").await.unwrap_err();
        assert_eq!(certainty(&frozen), expect, "freeze: {frozen}");
        assert!(frozen.message.contains("no room"), "{frozen}");
        let client = connect().await.unwrap();
        let split = client.split_route(CatalogVersion(1), RouteId(1), "k", "test").await.unwrap_err();
        assert_eq!(certainty(&split), expect, "split: {split}");
        let client = connect().await.unwrap();
        let added = client.add_replica(GroupId(1), NodeId(1), "test").await.unwrap_err();
        assert_eq!(certainty(&added), expect, "add replica: {added}");
        // A read changes nothing on either node.
        let listed = connect().await.unwrap().groups().await.unwrap_err();
        assert_eq!(certainty(&listed), (second, definite), "list: {listed}");
    }
}

#[tokio::test]
async fn an_outcome_that_does_not_fit_what_was_asked_for_is_no_success() {
    use CompatAction::{Freeze, Show, Unfreeze};
    let table = [(Show, vec![1]), (Freeze, vec![2, 3]), (Unfreeze, vec![4, 5])];
    // None, those that are known, and one of the future.
    for outcome in [0, 1, 2, 3, 4, 5, 99] {
        let commands = Commands { outcome: Some(outcome), ..Commands::default() };
        let server = Server::commanded(1, Vec::new(), commands).await;
        let client = Client::connect([server.endpoint()]).await.unwrap();
        for (action, fitting) in &table {
            match client.compat(*action, "test").await {
                Ok(_) => assert!(fitting.contains(&outcome), "{action:?} {outcome}"),
                Err(error) => {
                    assert!(!fitting.contains(&outcome), "{action:?} {outcome}: {error}");
                    assert_eq!(certainty(&error), (Reason::Internal, Certainty::Unknown), "{error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_leaves_nothing_unknown() {
    let gone = lone(script(|_| Act::Silence)).await;
    let other = refusing(2, &Error::definite(Reason::DiskFull, "no room")).await;
    let endpoints = [gone.endpoint(), other.endpoint()];
    gone.stop().await;
    let client = Client::connect(endpoints).await.unwrap();
    let error = client.compat(CompatAction::Freeze, "test").await.unwrap_err();
    assert_eq!(certainty(&error), (Reason::DiskFull, Certainty::Definite), "{error}");
}

#[tokio::test]
async fn an_answer_of_another_kind_is_an_error_and_not_a_panic() {
    let server = lone(script(|_| Act::Answer(Answer::Delete(DeleteResponse { commit_ts: 1 }), 0))).await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    assert_eq!(client.get("k").await.unwrap_err().reason, Reason::Internal);
    let kind = WriteKind::Put { key: "k".into(), value: "v".into(), ttl_ms: None };
    let answer = client.write(kind, WriteOptions::default()).await.unwrap();
    assert!(matches!(answer, WriteAnswer::Written { .. }));
}

#[tokio::test]
async fn a_snapshot_remembers_nothing_of_what_it_has_read_and_a_transaction_all_of_it() {
    let server = lone(script(|call| match call {
        Call::BatchGet(get) => {
            let versions = get.keys.iter().map(|_| MaybeVersion::default()).collect();
            Act::Answer(Answer::BatchGet(BatchGetResponse { versions, read_ts: 7 }), 1)
        }
        Call::Scan(_) => Act::Answer(Answer::Scan(ScanResponse { read_ts: 7, ..ScanResponse::default() }), 1),
        other => panic!("{other:?} is not expected"),
    }))
    .await;
    let client = Client::connect([server.endpoint()]).await.unwrap();
    let range = Interval::new("first-of-range", End::Key("last-of-range".into())).unwrap();
    let transaction = client.begin();
    transaction.get("lone-key").await.unwrap();
    transaction.scan(range.clone(), false, 0).await.unwrap();
    let contents = transaction.contents();
    assert_eq!((contents.read_keys, contents.read_intervals), (vec!["lone-key".into()], vec![range.clone()]));
    let snapshot = client.snapshot(None);
    snapshot.get("lone-key").await.unwrap();
    snapshot.scan(range, false, 0).await.unwrap();
    assert_eq!(snapshot.read_ts(), transaction.start_ts(), "it has read");
    // What is shown for debugging is all that either has.
    for (shown, remembers) in [(format!("{transaction:?}"), true), (format!("{snapshot:?}"), false)] {
        for part in ["lone-key", "first-of-range"] {
            assert_eq!(shown.contains(part), remembers, "{part}: {shown}");
        }
    }
}
