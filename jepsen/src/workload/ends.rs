//! What is there before the clients begin, and what is read when all is healed.

use std::time::{Duration, Instant};

use drover_client::{Client, Error};
use drover_testkit::history::Action;
use serde_json::{Value, json};

use super::Kind;
use super::generate::{ACCOUNTS, Ask, EACH};
use super::perform::{Clients, account, perform};
use crate::cluster::RANGES;
use crate::event::{Ended, Recorder, Type, Who};

/// How long a read of the end is tried again.
const LAST_READS: Duration = Duration::from_secs(60);

/// What has to be there before the clients begin.
///
/// # Errors
/// If it cannot be written.
pub async fn set_up(kind: Kind, client: &Client) -> Result<(), Error> {
    if kind != Kind::Bank {
        return Ok(());
    }
    let fill = |txn: drover_client::Transaction| async move {
        (0..ACCOUNTS).for_each(|n| txn.put(account(n), EACH.to_string()));
        Ok::<_, Error>(())
    };
    client.transaction(fill).await
}

/// Reads everything that the clients used, and records that.
///
/// # Errors
/// If something cannot be read although all is healed.
pub async fn final_reads(
    kind: Kind,
    clients: &Clients,
    recorder: &Recorder,
    keys: u64,
    process: u64,
) -> Result<(), String> {
    let who = Who { process, workload: kind.name(), node: None };
    for ask in last_asks(kind, keys) {
        let until = Instant::now() + LAST_READS;
        loop {
            recorder.invoke(&who, ask.f, ask.value.clone());
            let ended = perform(kind, clients, &ask).await;
            let (is_read, why) = (ended.kind == Type::Ok, ended.error.clone());
            // Reads change nothing, so one that got no answer has just failed.
            let kind_of_end = if is_read { Type::Ok } else { Type::Fail };
            recorder.end(&who, ask.f, Ended { kind: kind_of_end, ..ended });
            if is_read {
                break;
            }
            if Instant::now() > until {
                return Err(format!("{} of {}: {}", ask.f, ask.value, why.unwrap_or_default()));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

fn last_asks(kind: Kind, keys: u64) -> Vec<Ask> {
    let sets = 0..=keys;
    let all = |name: &'static str| (0..=keys).flat_map(move |n| RANGES.map(|range| format!("{range}/{name}/{n:06}")));
    let read = |name: &'static str| -> Vec<Ask> {
        all(name).map(|key| Ask { f: "read", value: json!({"key": key, "action": Action::Read}) }).collect()
    };
    let transaction = |name: &'static str| -> Vec<Ask> {
        let of_set = |n: u64| RANGES.map(|range| json!(["r", format!("{range}/{name}/{n:06}"), null])).to_vec();
        (0..=keys).map(|n| Ask { f: "txn", value: of_set(n).into() }).collect()
    };
    match kind {
        Kind::Append => transaction("append"),
        Kind::Wr => transaction("wr"),
        Kind::Register => read("reg"),
        Kind::Delete => read("del"),
        Kind::Stale => read("stale"),
        Kind::Bank => ["read", "scan"].map(|f| Ask { f, value: Value::Null }).to_vec(),
        Kind::Set => vec![Ask { f: "read", value: Value::Null }],
        Kind::Counter => vec![Ask { f: "holds", value: Value::Null }],
        Kind::Monotonic => vec![Ask { f: "stamp", value: Value::Null }],
        Kind::LongFork => sets.map(|n| Ask { f: "look", value: json!({"pair": n}) }).collect(),
        Kind::Predicate => sets.map(|n| Ask { f: "read", value: json!({"pair": n}) }).collect(),
    }
}
