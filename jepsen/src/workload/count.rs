//! Counters: what adds is sent again and again under its name, through other nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, CompareAndSet, Error, Expectation, Settled, Update, WriteAnswer, WriteKind, WriteOptions};
use serde_json::json;

use super::generate::Ask;
use super::perform::{Clients, number};
use crate::cluster::RANGES;
use crate::event::{Ended, Type};

/// Longest wait for an answer that is thrown away.
const IMPATIENCE_MS: u64 = 20;

/// Sends a write under one name through several nodes, throws the first answers away, and finds out what became of it.
/// `Ok(None)`: nobody knows.
async fn insist(clients: &Clients, kind: WriteKind) -> Result<Option<WriteAnswer>, Error> {
    let idempotency = clients.own.new_idempotency();
    let options = WriteOptions { idempotency: Some(idempotency.clone()), ..WriteOptions::default() };
    let mut may_be_there = false;
    let doors = clients.doors.len().max(1) as u64;
    for attempt in 0..3u64 {
        let door = &clients.doors[usize::try_from((clients.turn + attempt) % doors).unwrap_or(0)];
        let call = door.write(kind.clone(), options.clone());
        if attempt < 2 {
            // An odd turn waits for the answer and does not look at it.
            let wait = (clients.turn + attempt * 7) % IMPATIENCE_MS;
            let wait =
                if (clients.turn + attempt).is_multiple_of(2) { Duration::from_millis(wait) } else { door.deadline() };
            let _ = tokio::time::timeout(wait, call).await;
            may_be_there = true;
            continue;
        }
        match call.await {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if !error.is_unknown() && !may_be_there => return Err(error),
            Err(_) => {}
        }
    }
    let settled = clients.own.settle(kind.record_key().clone(), &idempotency).await;
    Ok(match settled {
        Ok(Settled::Applied { commit_ts }) => Some(match kind {
            WriteKind::CompareAndSet { .. } => WriteAnswer::Compared(CompareAndSet::Written { commit_ts }),
            _ => WriteAnswer::Written { commit_ts },
        }),
        Ok(settled) => Some(WriteAnswer::Settled(settled)),
        Err(_) => None,
    })
}

/// Adds one to a counter, or does what [`again`] does, or reads all.
pub(super) async fn counter(clients: &Clients, ask: &Ask) -> Result<Ended, Error> {
    let key: Bytes = ask.value["key"].as_str().unwrap_or_default().to_owned().into();
    let unclear = |why: &str| Ended { kind: Type::Info, value: ask.value.clone(), ts: None, error: Some(why.into()) };
    match ask.f {
        "again" => return again(clients, ask, key).await,
        "holds" => return counters(&clients.own).await,
        _ => {}
    }
    let before = clients.own.get(key.clone()).await?;
    let (expect, held) = match &before {
        None => (Expectation::Absent, 0),
        Some(version) => (Expectation::Value(version.value.clone()), number(&version.value)?),
    };
    let update = Update::Put { value: (held + 1).to_string().into(), ttl_ms: None };
    match insist(clients, WriteKind::CompareAndSet { key, expect, update }).await? {
        Some(WriteAnswer::Compared(CompareAndSet::Written { commit_ts })) => {
            let value = json!({"key": ask.value["key"], "holds": held + 1});
            Ok(Ended::ok(value).at(commit_ts.raw()))
        }
        Some(_) => {
            let (value, error) = (ask.value.clone(), Some("the counter was changed meanwhile".to_owned()));
            Ok(Ended { kind: Type::Fail, value, ts: None, error })
        }
        None => Ok(unclear("no answer after three attempts and a settle")),
    }
}

/// Puts one, puts two, and sends the first put again: it must be answered as the first time, and change nothing. The key is
/// nobody else's.
async fn again(clients: &Clients, ask: &Ask, key: Bytes) -> Result<Ended, Error> {
    let put = |value: &'static str| WriteKind::Put { key: key.clone(), value: value.into(), ttl_ms: None };
    let options = WriteOptions { idempotency: Some(clients.own.new_idempotency()), ..WriteOptions::default() };
    let first = clients.own.write(put("1"), options.clone()).await?;
    let then = async {
        clients.own.put(key.clone(), "2").await?;
        let door = &clients.doors[usize::try_from(clients.turn).unwrap_or(0) % clients.doors.len()];
        let again = door.write(put("1"), options).await?;
        let held = clients.own.get(key.clone()).await?.map(|version| number(&version.value)).transpose()?;
        Ok::<_, Error>((again, held))
    };
    let ts = |answer: &WriteAnswer| match answer {
        WriteAnswer::Written { commit_ts } => commit_ts.raw(),
        _ => 0,
    };
    match then.await {
        Ok((again, held)) => {
            let value = json!({"key": ask.value["key"], "first": ts(&first), "again": ts(&again), "holds": held});
            Ok(Ended::ok(value))
        }
        // The first put is there.
        Err(error) => {
            Ok(Ended { kind: Type::Info, value: ask.value.clone(), ts: None, error: Some(error.to_string()) })
        }
    }
}

/// What the counters hold.
async fn counters(client: &Client) -> Result<Ended, Error> {
    let keys = RANGES.map(|range| format!("{range}/count/000000"));
    let got = client.batch_get(keys.iter().map(|key| Bytes::from(key.clone())).collect(), None).await?;
    let mut held = BTreeMap::new();
    for (key, version) in keys.into_iter().zip(got.versions) {
        held.insert(key, version.map_or(Ok(0), |version| number(&version.value))?);
    }
    Ok(Ended::ok(json!(held)))
}
