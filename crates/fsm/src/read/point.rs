//! Reads of single keys.

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, Interval, LogicalKey};
use drover_kv::{Limits, Versioned};
use drover_mvcc::Stored;

use super::Admitted;
use crate::cell::View;
use crate::error::ReadError;
use crate::gate::conditions::live;
use crate::handle::FsmHandle;

/// What one version counts for at least in an answer to several reads: a rough size of what stands around its value.
pub const VERSION_BYTES: usize = 64;

/// As of when a key is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest committed version.
    Latest,
    /// The snapshot at this timestamp, which the oracle has issued.
    Ts(Timestamp),
}

/// What a read of one key came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadOutcome {
    /// The visible version, if there is one.
    Version(Option<Versioned>),
    /// The newest version has an expiry, and only the oracle knows what time it is: come back with [`At::Ts`].
    NeedTimestamp,
}

impl FsmHandle {
    /// Reads one key.
    ///
    /// # Errors
    /// [`ReadError`]: refused by owner or composed gate, or locked; a snapshot that is no longer kept.
    pub fn get(&self, key: &Bytes, at: At, observed: Option<CatalogVersion>) -> Result<ReadOutcome, ReadError> {
        self.get_in(&self.view(), key, at, observed)
    }

    pub(super) fn get_in(
        &self,
        view: &View,
        key: &Bytes,
        at: At,
        observed: Option<CatalogVersion>,
    ) -> Result<ReadOutcome, ReadError> {
        let interval = Interval::point(key.clone());
        let logical = LogicalKey::plain(key.clone());
        match at {
            At::Latest => {
                let admitted = Admitted::judge(view, &interval, observed, None)?;
                admitted.key_unlocked(&logical, None)?;
                Ok(latest(view.snapshot.newest(admitted.owned[0].shard, &logical)?))
            }
            At::Ts(at) => {
                let admitted = Admitted::judge(view, &interval, observed, Some(at))?;
                admitted.key_unlocked(&logical, Some(at))?;
                let version = view.snapshot.visible(admitted.owned[0].shard, &logical, at)?;
                self.still_kept(&interval, at)?;
                Ok(ReadOutcome::Version(live(version, at)))
            }
        }
    }

    /// Reads several keys as of one timestamp, from one view; the answers stand in the order of the keys. It stops to read
    /// when the versions exceed what `limits` say about an answer, where each counts for [`VERSION_BYTES`] at least.
    ///
    /// # Errors
    /// As [`FsmHandle::get`]; one key that is refused refuses all. [`drover_kv::Reason::BatchTooLarge`].
    pub fn batch_get(
        &self,
        keys: &[Bytes],
        at: Timestamp,
        observed: Option<CatalogVersion>,
        limits: &Limits,
    ) -> Result<Vec<Option<Versioned>>, ReadError> {
        self.batch_get_in(&self.view(), keys, at, observed, limits)
    }

    pub(super) fn batch_get_in(
        &self,
        view: &View,
        keys: &[Bytes],
        at: Timestamp,
        observed: Option<CatalogVersion>,
        limits: &Limits,
    ) -> Result<Vec<Option<Versioned>>, ReadError> {
        let intervals: Vec<Interval> = keys.iter().map(|key| Interval::point(key.clone())).collect();
        let (mut versions, mut bytes) = (Vec::with_capacity(keys.len()), 0);
        for (key, interval) in keys.iter().zip(&intervals) {
            let admitted = Admitted::judge(view, interval, observed, Some(at))?;
            let logical = LogicalKey::plain(key.clone());
            admitted.key_unlocked(&logical, Some(at))?;
            let version = live(view.snapshot.visible(admitted.owned[0].shard, &logical, at)?, at);
            bytes += version.as_ref().map_or(0, |version| version.value.len().max(VERSION_BYTES));
            limits.check_answer(bytes).map_err(ReadError::Failed)?;
            versions.push(version);
        }
        for interval in &intervals {
            self.still_kept(interval, at)?;
        }
        Ok(versions)
    }

    /// The commit timestamp of the newest version of a key, a deletion included. `None` if no version is known: a
    /// deletion that lies below the safe point may have been forgotten.
    ///
    /// # Errors
    /// As [`FsmHandle::get`].
    pub fn latest_commit_ts(
        &self,
        key: &Bytes,
        observed: Option<CatalogVersion>,
    ) -> Result<Option<Timestamp>, ReadError> {
        let view = self.view();
        let interval = Interval::point(key.clone());
        let admitted = Admitted::judge(&view, &interval, observed, None)?;
        let logical = LogicalKey::plain(key.clone());
        admitted.key_unlocked(&logical, None)?;
        Ok(view.snapshot.newest(admitted.owned[0].shard, &logical)?.map(|(commit_ts, _)| commit_ts))
    }
}

fn latest(newest: Option<(Timestamp, Stored)>) -> ReadOutcome {
    match newest {
        None | Some((_, Stored::Tombstone)) => ReadOutcome::Version(None),
        Some((_, Stored::Put { expire_at: Some(_), .. })) => ReadOutcome::NeedTimestamp,
        Some((commit_ts, Stored::Put { value, expire_at: None })) => {
            ReadOutcome::Version(Some(Versioned { value, commit_ts, expire_at: None }))
        }
    }
}
