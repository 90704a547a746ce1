//! Reads of single keys and of batches of keys.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use drover_catalog::Route;
use drover_hlc::Timestamp;
use drover_keys::GroupId;
use drover_kv::{Error, ReadAnswer, ReadOp, Versioned};
use drover_wire::{GroupAnswer, GroupOp};

use crate::coordinator::{Coordinator, misfit};
use crate::dispatch::{Attempts, CallError};
use crate::retry::Repeat;
use crate::routing::Patience;

impl Coordinator {
    pub(crate) async fn read(&self, key: &Bytes, op: ReadOp, deadline: Instant) -> Result<ReadAnswer, Error> {
        let op = match op {
            // A latest read that had to wait for a lock goes on as one of a fresh snapshot: younger locks do not concern it.
            ReadOp::Get { key: latest, read_ts: None } => match self.read_latest(&latest, deadline).await? {
                Some(answer) => return Ok(answer),
                None => ReadOp::Get { key: latest, read_ts: Some(self.fresh(deadline).await?) },
            },
            op => op,
        };
        let operation = |version, _: &Route| GroupOp::Read { op: op.clone(), observed_version: Some(version) };
        match self.routed(key, Repeat::Read, deadline, operation).await? {
            GroupAnswer::Read(answer) => Ok(answer),
            other => Err(misfit(&other)),
        }
    }

    /// The newest value of a key; `None` if a lock was in the way, which has been seen to.
    async fn read_latest(&self, key: &Bytes, deadline: Instant) -> Result<Option<ReadAnswer>, Error> {
        let (mut attempts, mut patience) = (Attempts::default(), Patience::default());
        loop {
            let (group, version) = {
                let routes = self.routes().current();
                (routes.route_of(key).group, routes.version())
            };
            let op = ReadOp::Get { key: key.clone(), read_ts: None };
            let op = GroupOp::Read { op, observed_version: Some(version) };
            match self.dispatcher().call_routed(group, op, Repeat::Read, &mut attempts, deadline).await {
                Ok(GroupAnswer::Read(answer)) => return Ok(Some(answer)),
                Ok(other) => return Err(misfit(&other)),
                Err(CallError::Failed(error)) => return Err(error),
                Err(CallError::Misrouted(_) | CallError::Fenced(_)) => {
                    self.newer_routes(version, &mut patience, &attempts, deadline).await?
                }
                Err(CallError::Blocked(error)) => {
                    self.unblock(&error, &mut patience, &attempts, deadline).await?;
                    return Ok(None);
                }
            }
        }
    }

    /// Reads keys group by group, all groups at once, at one snapshot.
    pub(crate) async fn batch_get(
        &self,
        keys: Vec<Bytes>,
        read_ts: Timestamp,
        deadline: Instant,
    ) -> Result<Vec<Option<Versioned>>, Error> {
        for key in &keys {
            self.limits().check_key(key)?;
        }
        self.limits().check_batch(keys.iter().map(Bytes::len).sum())?;
        let (mut versions, mut bytes) = (vec![None; keys.len()], 0);
        let mut patience = Patience::default();
        let mut attempts: BTreeMap<GroupId, Attempts> = BTreeMap::new();
        let mut open: Vec<usize> = (0..keys.len()).collect();
        while !open.is_empty() {
            let mut by_group: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
            let routed_by = {
                let routes = self.routes().current();
                for place in open.drain(..) {
                    by_group.entry(routes.route_of(&keys[place]).group).or_default().push(place);
                }
                routes.version()
            };
            let calls = by_group.into_iter().map(|(group, places)| {
                let keys = places.iter().map(|place| keys[*place].clone()).collect();
                let op = ReadOp::BatchGet { keys, read_ts };
                let mut tried = attempts.remove(&group).unwrap_or_default();
                async move {
                    let op = GroupOp::Read { op, observed_version: Some(routed_by) };
                    let answer = self.dispatcher().call_routed(group, op, Repeat::Read, &mut tried, deadline).await;
                    (group, places, tried, answer)
                }
            });
            let (mut misrouted, mut blocked) = (None, None);
            for (group, places, tried, answer) in futures::future::join_all(calls).await {
                match answer {
                    Ok(GroupAnswer::Read(ReadAnswer::BatchGet { versions: found })) if found.len() == places.len() => {
                        bytes += found.iter().flatten().map(|version| version.value.len()).sum::<usize>();
                        self.limits().check_answer(bytes)?;
                        for (place, version) in places.into_iter().zip(found) {
                            versions[place] = version;
                        }
                    }
                    Ok(other) => return Err(misfit(&other)),
                    Err(CallError::Failed(error)) => return Err(error),
                    Err(CallError::Misrouted(_) | CallError::Fenced(_)) => {
                        open.extend(places);
                        attempts.insert(group, tried);
                        misrouted = Some(group);
                    }
                    Err(CallError::Blocked(error)) => {
                        open.extend(places);
                        attempts.insert(group, tried);
                        blocked = Some((group, error));
                    }
                }
            }
            if let Some((group, error)) = blocked {
                self.unblock(&error, &mut patience, &attempts[&group], deadline).await?;
            } else if let Some(group) = misrouted {
                self.newer_routes(routed_by, &mut patience, &attempts[&group], deadline).await?;
            }
        }
        Ok(versions)
    }
}
