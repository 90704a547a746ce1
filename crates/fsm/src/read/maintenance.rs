//! What a leader looks up before it proposes: bounds of a range delete, records that may be removed.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, End, Interval};
use drover_mvcc::RecordKind;

use super::Admitted;
use crate::codec::command::RecordName;
use crate::codec::record::OutcomeRecord;
use crate::error::ReadError;
use crate::gate::conditions::live;
use crate::handle::FsmHandle;

/// A part of a range delete that is small enough for one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounded {
    /// The part.
    pub interval: Interval,
    /// Where the rest starts; `None` if this is all.
    pub resume: Option<Bytes>,
}

/// Some of the idempotency records that may be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiredRecords {
    /// Their names, in key order.
    pub names: Vec<RecordName>,
    /// The route key to go on from; `None` if all records were looked at.
    pub resume: Option<Bytes>,
}

impl FsmHandle {
    /// Cuts a range delete short, in front of the key that would be the one after `max_keys` live ones or
    /// `max_scanned` looked at, as of the newest versions and, for expiry, of `at`. Both bounds are at least 1.
    ///
    /// # Errors
    /// As [`FsmHandle::get`].
    pub fn bound_delete_range(
        &self,
        interval: &Interval,
        at: Timestamp,
        max_keys: u64,
        max_scanned: u64,
        observed: Option<CatalogVersion>,
    ) -> Result<Bounded, ReadError> {
        let view = self.view();
        let admitted = Admitted::judge(&view, interval, observed, None)?;
        let (mut keys, mut scanned, mut resume) = (0, 0, None);
        for (owned, part) in admitted.parts() {
            view.snapshot.scan(owned.shard, &part, Timestamp::MAX, false, &mut |key, commit_ts, version| {
                let is_live = live(Some((commit_ts, version)), at).is_some();
                if scanned >= max_scanned.max(1) || (is_live && keys >= max_keys.max(1)) {
                    resume = Some(key);
                    return ControlFlow::Break(());
                }
                scanned += 1;
                keys += u64::from(is_live);
                ControlFlow::Continue(())
            })?;
            if resume.is_some() {
                break;
            }
        }
        let interval = match &resume {
            // The key lies above the start: at least one row was looked at before it.
            Some(key) => Interval::new(interval.start().clone(), End::Key(key.clone()))
                .expect("the bound lies above a key of the interval"),
            None => interval.clone(),
        };
        Ok(Bounded { interval, resume })
    }

    /// Looks at up to `max_scanned` (at least 1) idempotency records from the route key `from` on, and names those whose
    /// `not_after` is at or below `horizon`.
    ///
    /// # Errors
    /// If the store fails or a record cannot be read.
    pub fn expired_records(
        &self,
        from: &Bytes,
        horizon: Timestamp,
        max_scanned: u64,
    ) -> Result<ExpiredRecords, ReadError> {
        let view = self.view();
        let rest = Interval::new(from.clone(), End::Unbounded).expect("no key lies above an unbounded end");
        let (mut names, mut resume, mut damaged) = (Vec::new(), None, None);
        let (mut scanned, mut last_key) = (0, None);
        for owned in &view.state.owned {
            let Some(part) = owned.interval.intersection(&rest) else { continue };
            view.snapshot.scan_records(owned.shard, &part, &mut |row| {
                // The records of one route key are looked at together, so that a route key says where to go on.
                if scanned >= max_scanned.max(1) && last_key.as_ref() != Some(&row.route_key) {
                    resume = Some(row.route_key);
                    return ControlFlow::Break(());
                }
                scanned += 1;
                last_key = Some(row.route_key.clone());
                match row.kind {
                    RecordKind::Idempotency => match OutcomeRecord::decode(row.value) {
                        Ok(record) if record.not_after <= horizon => {
                            names.push(RecordName { route_key: row.route_key, idempotency_key: row.name });
                        }
                        Ok(_) => {}
                        Err(error) => {
                            damaged = Some(error);
                            return ControlFlow::Break(());
                        }
                    },
                }
                ControlFlow::Continue(())
            })?;
            if resume.is_some() || damaged.is_some() {
                break;
            }
        }
        match damaged {
            Some(error) => Err(error.into()),
            None => Ok(ExpiredRecords { names, resume }),
        }
    }
}
