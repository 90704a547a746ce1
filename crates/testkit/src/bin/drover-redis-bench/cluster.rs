//! A client of a Redis Cluster as its specification describes one: it keeps a map of the slots, follows `MOVED` and `ASK`, and tries
//! again what is refused for a moment.

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use drover_bench::Store;
use tokio::sync::{Mutex, RwLock};

use crate::resp::{Answer, Connection};
use crate::slots::{SLOTS, slot_of};

/// Pause before what is refused for a moment is tried again.
const PAUSE: Duration = Duration::from_millis(1);

type Pool = Arc<Mutex<Vec<Connection>>>;

/// What all clients know together. A request takes a connection of its own out of a pool.
#[derive(Clone)]
pub struct RedisCluster {
    /// Address of the server of each slot.
    slots: Arc<RwLock<Vec<String>>>,
    pools: Arc<RwLock<HashMap<String, Pool>>>,
    deadline: Duration,
}

/// What a server said about a command.
enum Said {
    Done(Answer),
    /// The slot belongs to another server, from now on.
    Moved(u16, String),
    /// The key is at another server already; the slot is not.
    Ask(String),
    /// Not now.
    Later,
}

impl RedisCluster {
    /// A cluster of which all slots are taken to be at `address`: refusals tell where they are.
    pub fn new(address: &str, deadline: Duration) -> Self {
        let slots = vec![address.to_owned(); SLOTS.into()];
        Self { slots: Arc::new(RwLock::new(slots)), pools: Arc::default(), deadline }
    }

    async fn request(&self, key: &[u8], command: &[&[u8]]) -> Result<Answer> {
        let by = Instant::now() + self.deadline;
        let answered = tokio::time::timeout(self.deadline, self.follow(key, command, by)).await;
        answered.context("no answer in time")?
    }

    async fn follow(&self, key: &[u8], command: &[&[u8]], by: Instant) -> Result<Answer> {
        let slot = usize::from(slot_of(tag_of(key)));
        let mut ask: Option<String> = None;
        while Instant::now() < by {
            let said = match ask.take() {
                Some(address) => self.send(&address, &[&[b"ASKING"], command]).await?,
                None => {
                    let address = self.slots.read().await[slot].clone();
                    self.send(&address, &[command]).await?
                }
            };
            match said {
                Said::Done(answer) => return Ok(answer),
                Said::Moved(slot, address) => self.slots.write().await[usize::from(slot)] = address,
                Said::Ask(address) => ask = Some(address),
                Said::Later => tokio::time::sleep(PAUSE).await,
            }
        }
        bail!("no answer in time")
    }

    async fn send(&self, address: &str, commands: &[&[&[u8]]]) -> Result<Said> {
        let known = self.pools.read().await.get(address).cloned();
        let pool = match known {
            Some(pool) => pool,
            None => self.pools.write().await.entry(address.to_owned()).or_default().clone(),
        };
        let idle = pool.lock().await.pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(address).await?,
        };
        let answer = connection.call(commands).await?;
        // A connection whose request was given up is dropped with it: an answer may still come.
        pool.lock().await.push(connection);
        understand(answer)
    }
}

/// What stands between the first braces decides about the slot.
fn tag_of(key: &[u8]) -> &[u8] {
    let tag = key.split(|byte| *byte == b'{').nth(1).and_then(|rest| rest.split(|byte| *byte == b'}').next());
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

fn understand(answer: Answer) -> Result<Said> {
    let Answer::Error(error) = answer else { return Ok(Said::Done(answer)) };
    let mut words = error.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("MOVED"), Some(slot), Some(address)) => Ok(Said::Moved(slot.parse()?, address.to_owned())),
        (Some("ASK"), Some(_), Some(address)) => Ok(Said::Ask(address.to_owned())),
        (Some("TRYAGAIN" | "CLUSTERDOWN" | "LOADING"), ..) => Ok(Said::Later),
        _ => bail!("{error}"),
    }
}

/// The answer to `GET` or `MGET`.
fn values(answer: Answer) -> Result<Vec<Option<Bytes>>> {
    let parts = if let Answer::Array(parts) = answer { parts } else { vec![answer] };
    let value = |part| match part {
        Answer::Bulk(value) => Ok(value),
        other => bail!("no value: {other:?}"),
    };
    parts.into_iter().map(value).collect()
}

impl Store for RedisCluster {
    type Error = anyhow::Error;

    async fn put(&self, rows: Vec<(Bytes, Bytes)>) -> Result<()> {
        let name: &[u8] = if rows.len() == 1 { b"SET" } else { b"MSET" };
        let parts = rows.iter().flat_map(|(key, value)| [&key[..], &value[..]]);
        let command: Vec<&[u8]> = iter::once(name).chain(parts).collect();
        self.request(&rows[0].0, &command).await.map(drop)
    }

    async fn get(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>> {
        let name: &[u8] = if keys.len() == 1 { b"GET" } else { b"MGET" };
        let command: Vec<&[u8]> = iter::once(name).chain(keys.iter().map(|key| &key[..])).collect();
        values(self.request(&keys[0], &command).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_decides_about_the_slot_if_there_is_one() {
        for (key, tag) in [("plain", "plain"), ("a{b}c", "b"), ("{x}", "x"), ("a{}b", "a{}b")] {
            assert_eq!(tag_of(key.as_bytes()), tag.as_bytes(), "{key}");
        }
    }

    #[test]
    fn refusals_are_followed_and_errors_are_errors() {
        let said = |error: &str| understand(Answer::Error(error.to_owned()));
        assert!(matches!(said("MOVED 7 h:1"), Ok(Said::Moved(7, address)) if address == "h:1"));
        assert!(matches!(said("ASK 7 h:1"), Ok(Said::Ask(address)) if address == "h:1"));
        assert!(matches!(said("TRYAGAIN Multiple keys"), Ok(Said::Later)));
        assert_eq!(said("ERR unknown").err().unwrap().to_string(), "ERR unknown");
    }
}
