//! Nothing but the log matters: batch boundaries, flushes, compactions, crashes and copies change neither the state nor
//! an answer.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use drover_fsm::{Command, RecordName, TxnRecordName};
use drover_kv::{Expectation, TxnWrite, Update, WriteKind};
use drover_mvcc::Digest;
use drover_rafttypes::{ApplyReply, Entry, Payload};
use proptest::prelude::*;
use support::*;

/// What happens to a replica between two entries, besides the log.
#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    CutBatch,
    Flush,
    Compact,
    /// Forgets what came after the last flush, and replays it.
    Crash,
    /// Goes on with a copy of the store.
    Copy,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Nothing),
        4 => Just(Event::CutBatch),
        2 => Just(Event::Flush),
        1 => Just(Event::Compact),
        1 => Just(Event::Crash),
        1 => Just(Event::Copy),
    ]
}

fn name() -> impl Strategy<Value = String> {
    // "A" is not owned; "k" and "n" lie in different shards.
    prop_oneof![1 => Just("A"), 4 => Just("b"), 6 => Just("k"), 6 => Just("n"), 2 => Just("z")].prop_map(str::to_owned)
}

fn kind() -> impl Strategy<Value = WriteKind> {
    let value = "[ab]".boxed();
    let ttl = proptest::option::weighted(0.3, 0u64..3);
    let expect = prop_oneof![
        Just(Expectation::Absent),
        Just(Expectation::Present),
        "[ab]".prop_map(|v| Expectation::Value(key(&v))),
        (1u64..40).prop_map(|n| Expectation::Version(ts(n << 14))),
    ];
    prop_oneof![
        4 => (name(), value.clone(), ttl)
            .prop_map(|(n, v, ttl_ms)| WriteKind::Put { key: key(&n), value: key(&v), ttl_ms }),
        2 => name().prop_map(|n| delete(&n)),
        4 => (name(), expect, any::<bool>()).prop_map(|(n, expect, put)| {
            let update = if put { Update::Put { value: key("c"), ttl_ms: None } } else { Update::Delete };
            WriteKind::CompareAndSet { key: key(&n), expect, update }
        }),
        2 => (0usize..3, 1usize..3).prop_map(|(from, len)| {
            let bounds = ["a", "k", "n", "", ""];
            delete_range(bounds[from], bounds[from + len])
        }),
        1 => name().prop_map(|n| settle(&n)),
        8 => txn_step().prop_map(|step| WriteKind::Txn(Box::new(step))),
    ]
}

/// Steps of a few transactions that concern the same few keys, in any order.
fn txn_step() -> impl Strategy<Value = TxnWrite> {
    let names = proptest::collection::vec(name(), 1..3);
    let raw = || (0u64..40).prop_map(tick);
    (1u8..4, 1u32..3, raw(), raw(), names, 0u8..8).prop_map(|(id, number, start, commit_ts, names, what)| {
        let (this, names) = (txn(id, number), names.iter().map(String::as_str).collect::<Vec<_>>());
        let mutations = || puts(&names.iter().map(|name| (*name, "t")).collect::<Vec<_>>());
        let primary = names[0];
        match what {
            0 => commit(this, start, mutations(), reads(&["b"], &[("k", "n")])),
            1 => prepare(this, start, primary, mutations()),
            2 => prepare(this, start, "b", mutations()),
            3 => decide(this, start, commit_ts.max(start + 1), &names, &["z"]),
            4 => resolve(this, start, Some(commit_ts.max(start + 1)), &names),
            5 => resolve(this, start, None, &names),
            6 => rollback(this, start, primary, (number == 1).then_some(commit_ts)),
            _ => heartbeat(this, primary, 1),
        }
    })
}

/// A command; timestamps grow with the index, less a jitter that makes some too low.
fn command() -> impl Strategy<Value = (u64, RawCommand)> {
    let write =
        (kind(), 0u64..3, proptest::option::weighted(0.5, 0u8..3)).prop_map(|(kind, below, id)| (kind, below, id));
    (
        0u64..8,
        prop_oneof![
            10 => proptest::collection::vec(write, 1..4).prop_map(RawCommand::Writes),
            2 => (0u64..6).prop_map(RawCommand::SafePoint),
            1 => (0u64..6).prop_map(RawCommand::Horizon),
            1 => (name(), 0u8..3).prop_map(|(n, id)| RawCommand::Remove(n, id)),
            1 => (0u64..40).prop_map(RawCommand::TxnHorizon),
            2 => (name(), 1u8..4, any::<bool>()).prop_map(|(n, id, marker)| RawCommand::RemoveTxn(n, id, marker)),
            1 => Just(RawCommand::WrongTerm),
        ],
    )
}

#[derive(Debug, Clone)]
enum RawCommand {
    Writes(Vec<(WriteKind, u64, Option<u8>)>),
    SafePoint(u64),
    Horizon(u64),
    Remove(String, u8),
    TxnHorizon(u64),
    RemoveTxn(String, u8, bool),
    WrongTerm,
}

/// A quarter of a millisecond, so that times to live of a few milliseconds matter.
fn tick(n: u64) -> u64 {
    n << 14
}

fn log(commands: Vec<(u64, RawCommand)>) -> Vec<Entry> {
    let mut now = 1;
    let mut entries = vec![entry(1, 0, &bootstrap())];
    for ((step, raw), index) in commands.into_iter().zip(1..) {
        now += step;
        let command = match raw {
            RawCommand::Writes(writes) => {
                let write = |(kind, below, id): (WriteKind, u64, Option<u8>)| {
                    now += 1;
                    let commit_ts = tick(now.saturating_sub(below).max(1)) + index;
                    match (&kind, id) {
                        (WriteKind::Settle { .. }, id) => {
                            once(commit_ts, kind, &format!("i{}", id.unwrap_or(0)), tick(40))
                        }
                        (WriteKind::Txn(_), _) | (_, None) => at(commit_ts, kind),
                        (_, Some(id)) => once(commit_ts, kind, &format!("i{id}"), tick(40)),
                    }
                };
                Command::Write(writes.into_iter().map(write).collect())
            }
            RawCommand::SafePoint(behind) => Command::AdvanceSafePoint(ts(tick(now.saturating_sub(behind)))),
            RawCommand::Horizon(behind) => Command::AdvanceRecordHorizon(ts(tick(now.saturating_sub(behind)))),
            RawCommand::Remove(name, id) => Command::RemoveRecords(vec![RecordName {
                route_key: key(&name),
                idempotency_key: key(&format!("i{id}")),
            }]),
            RawCommand::TxnHorizon(behind) => Command::AdvanceTxnHorizon(ts(tick(now.saturating_sub(behind)))),
            RawCommand::RemoveTxn(name, id, marker) => {
                Command::RemoveTxnRecords(vec![TxnRecordName { route_key: key(&name), id: txn(id, 1).id, marker }])
            }
            RawCommand::WrongTerm => {
                let payload = Payload::Normal(Command::Write(vec![at(tick(now), put("k", "no"))]).encode(9).unwrap());
                entries.push(Entry { log_id: log_id(1, index), payload });
                continue;
            }
        };
        entries.push(entry(1, index, &command));
    }
    entries
}

/// One entry at a time, nothing else.
fn reference(log: &[Entry]) -> (Digest, Vec<ApplyReply>) {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(&env(), &dir.path().join("store"));
    let replies = log.iter().flat_map(|entry| replica.apply(std::slice::from_ref(entry))).collect();
    let (snapshot, mut locks) = (replica.store.snapshot(), 0);
    for owned in &replica.state.owned {
        let count = &mut |_, _| {
            locks += 1;
            std::ops::ControlFlow::Continue(())
        };
        snapshot.scan_locks(owned.shard, &owned.interval, count).unwrap();
    }
    assert_eq!(replica.state.locks, locks, "the count of locks is wrong");
    (replica.digest(), replies)
}

/// The same log with events; the answers of replayed entries are compared on the way.
fn disturbed(log: &[Entry], events: &[Event], expect: &[ApplyReply]) -> Digest {
    let dir = tempfile::tempdir().unwrap();
    let env = env();
    let path = |n: usize| dir.path().join(format!("store{n}"));
    let mut copies = 0;
    let mut replica = Replica::open(&env, &path(0));
    let mut from = 0;
    let mut events = events.iter().copied().chain(std::iter::repeat(Event::Nothing));
    for to in 1..=log.len() {
        let event = events.next().expect("it repeats");
        if matches!(event, Event::Nothing) && to < log.len() {
            continue;
        }
        assert_eq!(replica.apply(&log[from..to]), expect[from..to], "entries {from}..{to}");
        from = to;
        match event {
            Event::Nothing | Event::CutBatch => {}
            Event::Flush => drop(replica.store.flush().unwrap()),
            Event::Compact => replica.store.compact().unwrap(),
            Event::Crash => {
                drop(replica);
                replica = Replica::open(&env, &path(copies));
                let durable = replica.next_index() as usize;
                assert_eq!(replica.apply(&log[durable..to]), expect[durable..to], "replay of {durable}..{to}");
            }
            Event::Copy => {
                copies += 1;
                replica.store.checkpoint(&path(copies)).unwrap();
                drop(replica);
                replica = Replica::open(&env, &path(copies));
                assert_eq!(replica.next_index() as usize, to);
            }
        }
    }
    replica.digest()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_but_the_log_decides_answers_and_state(
        commands in proptest::collection::vec(command(), 1..40),
        events in proptest::collection::vec(event(), 0..40),
    ) {
        let log = log(commands);
        let (digest, replies) = reference(&log);
        prop_assert_eq!(disturbed(&log, &events, &replies), digest);
    }
}

/// Hand-picked: versions, tombstones and expired values that garbage collection has removed are asked about again, by
/// every kind of operation, after a replay.
#[test]
fn what_garbage_collection_removed_is_answered_as_if_it_were_there() {
    let is = |v: &str| Expectation::Value(key(v));
    let write = |index, writes: Vec<_>| entry(1, index, &Command::Write(writes));
    let log = [
        entry(1, 0, &bootstrap()),
        write(1, vec![at(1 << 16, put("k", "a")), at(2 << 16, delete("k")), at(3 << 16, put_ttl("n", "a", 0))]),
        write(2, vec![at(3 << 16, put("b", "a")), at(4 << 16, put("b", "b"))]),
        entry(1, 3, &Command::AdvanceSafePoint(ts(5 << 16))),
        write(
            4,
            vec![at(2 << 16, put("k", "x")), at(2 << 16, cas("k", is("a"), "x")), at(1 << 16, delete_range("a", ""))],
        ),
        write(5, vec![at(6 << 16, cas("k", Expectation::Absent, "y")), at(7 << 16, cas("b", is("b"), "c"))]),
        write(6, vec![at(8 << 16, cas("n", Expectation::Absent, "y")), at(9 << 16, delete_range("a", ""))]),
    ];
    let (digest, replies) = reference(&log);
    let events = [Event::CutBatch, Event::CutBatch, Event::CutBatch, Event::Compact, Event::Crash, Event::Compact];
    assert_eq!(disturbed(&log, &events, &replies), digest);
}
