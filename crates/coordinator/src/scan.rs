//! Scans, group by group in key order.

use std::time::Instant;

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_hlc::Timestamp;
use drover_keys::{End, Interval};
use drover_kv::{Entry, Error, ReadAnswer, ReadOp, Reason, ScanCursor, ScanLimits, ScanPage, ScanRequest};
use drover_wire::{GroupAnswer, GroupOp, ScanPageRequest};

use crate::answer::Answer;
use crate::coordinator::{Coordinator, misfit};
use crate::cursor::{Cursor, request_hash};
use crate::dispatch::{Attempts, CallError};
use crate::retry::Repeat;
use crate::routing::Patience;

impl Coordinator {
    /// One page of a scan: the groups in key order, until the page is full.
    pub(crate) async fn scan(&self, scan: ScanPageRequest, deadline: Instant) -> Result<Answer, Error> {
        self.limits().check_interval(&scan.interval)?;
        let hash = request_hash(&scan.interval, &[scan.reverse, scan.keys_only, scan.count_only]);
        let cursor = scan.cursor.as_ref().map(|token| Cursor::decode(token, hash)).transpose()?;
        let read_ts = match (&cursor, scan.options.read_ts) {
            (Some(cursor), at) if at.is_none_or(|at| at == cursor.read_ts) => Some(cursor.read_ts),
            (Some(_), _) => {
                let message = "the cursor belongs to another read timestamp; leave read_ts out or send the same";
                return Err(Error::definite(Reason::CursorInvalid, message));
            }
            (None, at) => at,
        };
        // A cursor comes from a client like any timestamp: it is checked like one.
        let read_ts = match &cursor {
            Some(cursor) if !guards::on(Guard::CursorChecked) => cursor.read_ts,
            _ => self.snapshot(read_ts, deadline).await?,
        };
        let start = cursor.map(|cursor| cursor.next);
        let page = self.collect(&scan, start, read_ts, deadline).await?;
        let cursor = page.cursor.map(|next| Cursor { request: hash, read_ts, next: next.0 }.encode());
        Ok(Answer::Scan { entries: page.entries, count: page.count, cursor, read_ts })
    }

    async fn collect(
        &self,
        scan: &ScanPageRequest,
        start: Option<Bytes>,
        read_ts: Timestamp,
        deadline: Instant,
    ) -> Result<ScanPage, Error> {
        let mut page = ScanPage::default();
        let mut left = ScanLimits {
            rows: within(scan.limits.rows, if scan.count_only { u64::MAX } else { self.options().scan_rows }),
            bytes: within(scan.limits.bytes, self.options().scan_bytes),
        };
        let mut patience = Patience::default();
        let mut attempts = Attempts::default();
        let mut rest = remaining(&scan.interval, start, scan.reverse)?;
        while let Some(interval) = rest.clone() {
            let (group, version, part) = {
                let routes = self.routes().current();
                let route = if scan.reverse {
                    routes.intersecting(&interval).next_back()
                } else {
                    routes.intersecting(&interval).next()
                };
                let route = route.ok_or_else(|| Error::definite(Reason::Internal, "the route map has a gap"))?;
                let part = route
                    .interval
                    .intersection(&interval)
                    .ok_or_else(|| Error::definite(Reason::Internal, "a route that intersects shares no key"))?;
                (route.group, routes.version(), part)
            };
            let request = ScanRequest {
                interval: part.clone(),
                read_ts,
                reverse: scan.reverse,
                keys_only: scan.keys_only,
                count_only: scan.count_only,
                limits: left,
            };
            let op = GroupOp::Read { op: ReadOp::Scan(request), observed_version: Some(version) };
            let found = match self.dispatcher().call_routed(group, op, Repeat::Read, &mut attempts, deadline).await {
                Ok(GroupAnswer::Read(ReadAnswer::Scan(found))) => found,
                Ok(other) => return Err(misfit(&other)),
                Err(CallError::Failed(error)) => return Err(error),
                Err(CallError::Misrouted(_) | CallError::Fenced(_)) => {
                    self.newer_routes(version, &mut patience, &attempts, deadline).await?;
                    continue;
                }
                Err(CallError::Blocked(error)) => {
                    self.unblock(&error, &mut patience, &attempts, deadline).await?;
                    continue;
                }
            };
            if let Some(first) = not_fitting(&page, &found, left) {
                page.cursor = Some(ScanCursor::before(first.key.clone(), scan.reverse));
                return Ok(page);
            }
            left.rows = left.rows.saturating_sub(found.count);
            left.bytes = left.bytes.saturating_sub(found.entries.iter().map(size).sum());
            page.count += found.count;
            page.entries.extend(found.entries);
            if found.cursor.is_some() {
                page.cursor = found.cursor;
                return Ok(page);
            }
            rest = beyond(&interval, &part, scan.reverse)?;
            if let Some(next) = &rest
                && (left.rows == 0 || left.bytes == 0)
            {
                let next = match (scan.reverse, next.end()) {
                    (false, _) => next.start().clone(),
                    (true, End::Key(end)) => end.clone(),
                    (true, End::Unbounded) => return Err(Error::definite(Reason::Internal, "a scan went backwards")),
                };
                page.cursor = Some(ScanCursor(next));
                return Ok(page);
            }
        }
        Ok(page)
    }
}

/// The smaller of a wish and a limit, where zero is no wish.
fn within(wish: u64, limit: u64) -> u64 {
    if wish == 0 { limit } else { wish.min(limit) }
}

fn size(entry: &Entry) -> u64 {
    (entry.key.len() + entry.version.value.len()) as u64
}

/// The first row of what a further group has found, if it does not fit behind the rows of `page`. In each group it fits
/// whatever its size, so that a scan goes on; a page needs that only once.
fn not_fitting<'a>(page: &ScanPage, found: &'a ScanPage, left: ScanLimits) -> Option<&'a Entry> {
    found.entries.first().filter(|first| !page.entries.is_empty() && size(first) > left.bytes)
}

/// What a cursor leaves of an interval; `None` if nothing.
pub(crate) fn remaining(interval: &Interval, next: Option<Bytes>, reverse: bool) -> Result<Option<Interval>, Error> {
    let Some(next) = next else { return Ok(Some(interval.clone())) };
    let rest = if reverse {
        Interval::new(interval.start().clone(), End::Key(next))
    } else {
        Interval::new(next, interval.end().clone())
    };
    match rest {
        Ok(rest) if interval.covers(&rest) => Ok(Some(rest)),
        Err(drover_keys::IntervalError::Empty { .. }) => Ok(None),
        Ok(_) | Err(_) => {
            Err(Error::definite(Reason::CursorInvalid, "the cursor points outside of the range; nothing happened"))
        }
    }
}

/// What is left of `interval` after its part `part` was dealt with; `None` if nothing.
fn beyond(interval: &Interval, part: &Interval, reverse: bool) -> Result<Option<Interval>, Error> {
    let edge = if reverse {
        (part.start() != interval.start()).then(|| part.start().clone())
    } else {
        match part.end() {
            End::Key(end) if part.end() != interval.end() => Some(end.clone()),
            End::Key(_) | End::Unbounded => None,
        }
    };
    match edge {
        None => Ok(None),
        Some(edge) => remaining(interval, Some(edge), reverse),
    }
}

#[cfg(test)]
mod tests {
    use drover_kv::Versioned;

    use super::*;

    fn interval(start: &'static str, end: Option<&'static str>) -> Interval {
        Interval::new(start, end.map_or(End::Unbounded, |end| End::Key(end.into()))).unwrap()
    }

    #[test]
    fn what_is_left_of_a_range_is_what_lies_beyond_the_part_in_the_direction_of_the_scan() {
        let whole = interval("b", Some("y"));
        assert_eq!(beyond(&whole, &interval("b", Some("m")), false).unwrap(), Some(interval("m", Some("y"))));
        assert_eq!(beyond(&whole, &interval("m", Some("y")), false).unwrap(), None);
        assert_eq!(beyond(&whole, &interval("m", Some("y")), true).unwrap(), Some(interval("b", Some("m"))));
        assert_eq!(beyond(&whole, &interval("b", Some("m")), true).unwrap(), None);
        assert_eq!(beyond(&interval("b", None), &interval("b", None), false).unwrap(), None);
    }

    #[test]
    fn the_first_row_of_a_further_group_fits_only_if_its_bytes_are_left() {
        let page = |sizes: &[usize]| {
            let version = |bytes| Versioned {
                value: vec![7; bytes].into(),
                commit_ts: Timestamp::from_raw(1_000),
                expire_at: None,
            };
            let entries = sizes.iter().map(|bytes| Entry { key: "k".into(), version: version(bytes - 1) });
            ScanPage { entries: entries.collect(), count: sizes.len() as u64, cursor: None }
        };
        let left = ScanLimits { rows: 1, bytes: 10 };
        let table = [
            ("the first row of a page", page(&[]), page(&[11, 1]), None),
            ("a row that fits", page(&[5]), page(&[10, 1]), None),
            ("a row that does not fit", page(&[5]), page(&[11, 1]), Some(11)),
            ("nothing found", page(&[5]), page(&[]), None),
        ];
        for (case, page, found, expect) in table {
            assert_eq!(not_fitting(&page, &found, left).map(size), expect, "{case}");
        }
    }

    #[test]
    fn a_cursor_outside_of_its_range_is_refused() {
        let whole = interval("b", Some("y"));
        assert_eq!(remaining(&whole, Some("y".into()), false).unwrap(), None);
        assert_eq!(remaining(&whole, Some("b".into()), true).unwrap(), None);
        for (next, reverse) in [("a", false), ("z", false), ("a", true), ("z", true)] {
            let error = remaining(&whole, Some(next.into()), reverse).unwrap_err();
            assert_eq!(error.reason, Reason::CursorInvalid, "{next} {reverse}");
        }
    }
}
