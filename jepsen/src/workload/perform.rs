//! Does what was asked, and says what came of it.

use bytes::Bytes;
use drover_client::{Client, CompareAndSet, End, Error, Expectation, Interval, Timestamp, Update, Versioned};
use drover_testkit::history::{Action, Answer, Expect, Seen};
use serde_json::{Map, Value, json};

use super::count::counter;
use super::generate::{ACCOUNTS, Ask};
use super::{Doors, Kind};
use crate::cluster::RANGES;
use crate::event::{Ended, Type};

/// What a client of a workload sends through.
#[derive(Debug, Clone)]
pub struct Clients {
    /// Its own way in.
    pub own: Client,
    /// One way through each node.
    pub doors: Doors,
    /// Drawn from the seed: which door is next.
    pub turn: u64,
}

/// Does one operation. `Err`: what became of it, for the history.
pub async fn perform(kind: Kind, clients: &Clients, ask: &Ask) -> Ended {
    let done = match kind {
        Kind::Append | Kind::Wr => transaction(kind, &clients.own, &ask.value).await,
        Kind::Register | Kind::Delete | Kind::Stale => register(&clients.own, &ask.value).await,
        Kind::Bank => bank(&clients.own, ask).await,
        Kind::Set => set(&clients.own, ask).await,
        Kind::Counter => counter(clients, ask).await,
        Kind::Monotonic => monotonic(&clients.own, ask).await,
        Kind::LongFork => long_fork(&clients.own, ask).await,
        Kind::Predicate => predicate(&clients.own, ask).await,
    };
    done.unwrap_or_else(|error| failed(ask, &error))
}

fn failed(ask: &Ask, error: &Error) -> Ended {
    let kind = if error.is_unknown() { Type::Info } else { Type::Fail };
    Ended { kind, value: ask.value.clone(), ts: None, error: Some(error.to_string()) }
}

pub(super) fn number(value: &[u8]) -> Result<u64, Error> {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(|| strange(value))
}

/// A value that nobody wrote. It is a finding of its own: the history shows it as a failed read with this word in it.
fn strange(value: &[u8]) -> Error {
    let message = format!("STRANGE VALUE {:?}", Bytes::copy_from_slice(value));
    Error::definite(drover_client::Reason::Internal, message)
}

async fn transaction(kind: Kind, client: &Client, asked: &Value) -> Result<Ended, Error> {
    let txn = client.begin();
    let (mut seen, mut wrote) = (Vec::new(), false);
    for operation in asked.as_array().into_iter().flatten() {
        let key = operation[1].as_str().unwrap_or_default().to_owned();
        match operation[0].as_str() {
            Some("r") => {
                let value = txn.get(key.clone()).await?;
                seen.push(json!(["r", key, decode(kind, value.as_deref())?]));
                continue;
            }
            Some("append") => {
                let mut list = txn.get(key.clone()).await?.map(|list| list.to_vec()).unwrap_or_default();
                list.extend_from_slice(format!("{},", operation[2]).as_bytes());
                txn.put(key, list);
            }
            _ => txn.put(key, operation[2].to_string()),
        }
        wrote = true;
        seen.push(operation.clone());
    }
    let ts = txn.commit().await?;
    let done = Ended::ok(seen.into());
    Ok(if wrote { done.at(ts.raw()) } else { done })
}

fn decode(kind: Kind, value: Option<&[u8]>) -> Result<Value, Error> {
    match (value, kind) {
        (None, Kind::Append) => Ok(json!([])),
        (None, _) => Ok(Value::Null),
        (Some(list), Kind::Append) => {
            let parts = list.split(|byte| *byte == b',').filter(|part| !part.is_empty());
            parts.map(number).collect::<Result<Vec<u64>, Error>>().map(Value::from)
        }
        (Some(value), _) => number(value).map(Value::from),
    }
}

async fn register(client: &Client, asked: &Value) -> Result<Ended, Error> {
    let key = asked["key"].as_str().unwrap_or_default().to_owned();
    let action = serde_json::from_value(asked["action"].clone()).unwrap_or(Action::Read);
    let answer = match action {
        Action::Read => Answer::Read(client.get(key.clone()).await?.map(|version| seen(&version)).transpose()?),
        Action::Write { value } => {
            Answer::Written { commit_ts: client.put(key.clone(), value.to_string()).await?.raw() }
        }
        Action::Delete => Answer::Written { commit_ts: client.delete(key.clone()).await?.raw() },
        Action::Cas { expect, update } => {
            let put = |value: u64| Update::Put { value: value.to_string().into(), ttl_ms: None };
            let update = update.map_or(Update::Delete, put);
            match client.compare_and_set(key.clone(), expectation(expect), update).await? {
                CompareAndSet::Written { commit_ts } => Answer::Written { commit_ts: commit_ts.raw() },
                CompareAndSet::Failed { current } => Answer::CompareFailed(current.as_ref().map(met).transpose()?),
            }
        }
    };
    let ts = match answer {
        Answer::Written { commit_ts } => commit_ts,
        Answer::Read(_) | Answer::CompareFailed(_) => 0,
    };
    Ok(Ended::ok(json!({"key": key, "action": action, "answer": answer})).at(ts))
}

fn seen(version: &Versioned) -> Result<Seen, Error> {
    Ok(Seen { value: Some(number(&version.value)?), commit_ts: version.commit_ts.raw() })
}

/// What a failed comparison met: the answer to a repeated request leaves the value out.
fn met(version: &Versioned) -> Result<Seen, Error> {
    match version.value.is_empty() {
        true => Ok(Seen { value: None, commit_ts: version.commit_ts.raw() }),
        false => seen(version),
    }
}

fn expectation(expect: Expect) -> Expectation {
    match expect {
        Expect::Absent => Expectation::Absent,
        Expect::Present => Expectation::Present,
        Expect::Value(value) => Expectation::Value(value.to_string().into()),
        Expect::Version(commit_ts) => Expectation::Version(Timestamp::from_raw(commit_ts)),
    }
}

pub(super) fn account(n: u64) -> String {
    format!("bank/{n}")
}

/// Everything that begins so.
fn below(prefix: &str) -> Interval {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Interval::new(prefix.to_owned(), End::Key(end.into())).expect("a prefix comes before its successor")
}

async fn bank(client: &Client, ask: &Ask) -> Result<Ended, Error> {
    let amount = |value: Option<Bytes>| value.map_or(Ok(0), |value| number(&value).map(|n| n as i64));
    match ask.f {
        "transfer" => {
            let of = |name: &str| ask.value[name].as_u64().unwrap_or(0);
            let (from, to, moved) = (account(of("from")), account(of("to")), of("amount") as i64);
            let txn = client.begin();
            let (mine, theirs) = (amount(txn.get(from.clone()).await?)?, amount(txn.get(to.clone()).await?)?);
            if mine < moved {
                let value = ask.value.clone();
                return Ok(Ended { kind: Type::Fail, value, ts: None, error: Some("not enough money".to_owned()) });
            }
            txn.put(from, (mine - moved).to_string());
            txn.put(to, (theirs + moved).to_string());
            Ok(Ended::ok(ask.value.clone()).at(txn.commit().await?.raw()))
        }
        "scan" => {
            let rows = client.snapshot(None).scan(below("bank/"), false, 0).await?;
            let found = rows.into_iter().map(|(key, value)| {
                let name = String::from_utf8_lossy(&key).trim_start_matches("bank/").to_owned();
                Ok((name, amount(Some(value))?.into()))
            });
            Ok(Ended::ok(Value::Object(found.collect::<Result<Map<String, Value>, Error>>()?)))
        }
        _ => {
            let got = client.batch_get((0..ACCOUNTS).map(|n| account(n).into()).collect(), None).await?;
            let found = got.versions.into_iter().enumerate().filter_map(|(n, version)| Some((n, version?)));
            let found = found.map(|(n, version)| Ok((n.to_string(), amount(Some(version.value))?.into())));
            Ok(Ended::ok(Value::Object(found.collect::<Result<Map<String, Value>, Error>>()?)))
        }
    }
}

async fn set(client: &Client, ask: &Ask) -> Result<Ended, Error> {
    if ask.f == "read" {
        let rows = client.snapshot(None).scan(below("set/"), false, 0).await?;
        let found = rows.iter().map(|(key, _)| number(key.get(5..).unwrap_or_default()));
        return Ok(Ended::ok(found.collect::<Result<Vec<u64>, Error>>()?.into()));
    }
    let value = ask.value.as_u64().unwrap_or(0);
    let letter = char::from(b'a' + u8::try_from(value % 26).unwrap_or(0));
    let ts = client.put(format!("set/{letter}{value:012}"), "").await?;
    Ok(Ended::ok(ask.value.clone()).at(ts.raw()))
}

async fn monotonic(client: &Client, ask: &Ask) -> Result<Ended, Error> {
    if ask.f == "stamp" {
        let keys = RANGES.iter().map(|range| format!("{range}/mono/000000").into()).collect();
        let got = client.batch_get(keys, None).await?;
        return Ok(Ended::ok(json!({"read_ts": got.read_ts.raw()})));
    }
    let key = ask.value["key"].as_str().unwrap_or_default().to_owned();
    let ts = client.put(key, ask.value["value"].to_string()).await?;
    Ok(Ended::ok(ask.value.clone()).at(ts.raw()))
}

/// The two keys of a pair, in two groups.
fn pair(name: &str, value: &Value) -> [String; 2] {
    let pair = value["pair"].as_u64().unwrap_or(0);
    let [one, _, other] = RANGES;
    [one, other].map(|range| format!("{range}/{name}/{pair:06}/"))
}

async fn long_fork(client: &Client, ask: &Ask) -> Result<Ended, Error> {
    let keys = pair("fork", &ask.value);
    if ask.f == "write" {
        let which = usize::from(ask.value["which"] == json!(1));
        let ts = client.put(keys[which].clone(), "1").await?;
        return Ok(Ended::ok(ask.value.clone()).at(ts.raw()));
    }
    let got = client.batch_get(keys.map(Bytes::from).to_vec(), None).await?;
    let seen: Vec<bool> = got.versions.iter().map(Option::is_some).collect();
    Ok(Ended::ok(json!({"pair": ask.value["pair"], "seen": seen})))
}

async fn predicate(client: &Client, ask: &Ask) -> Result<Ended, Error> {
    let prefixes = pair("pred", &ask.value);
    let txn = client.begin();
    let mut rows = Vec::new();
    for prefix in &prefixes {
        rows.extend(txn.scan(below(prefix), false, 0).await?);
    }
    if ask.f == "read" {
        let found = rows.iter().map(|(_, value)| number(value)).collect::<Result<Vec<u64>, Error>>()?;
        return Ok(Ended::ok(json!({"pair": ask.value["pair"], "rows": found})));
    }
    if !rows.is_empty() {
        let (value, error) = (ask.value.clone(), Some("somebody was there before".to_owned()));
        return Ok(Ended { kind: Type::Fail, value, ts: None, error });
    }
    let which = usize::from(ask.value["which"] == json!(1));
    txn.put(format!("{}{}", prefixes[which], ask.value["row"]), ask.value["row"].to_string());
    Ok(Ended::ok(ask.value.clone()).at(txn.commit().await?.raw()))
}
