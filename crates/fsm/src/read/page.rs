//! One page of a scan, collected row by row. Pure.

use std::ops::ControlFlow;

use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_kv::{Entry, ScanCursor, ScanPage, ScanRequest};
use drover_mvcc::Stored;

use crate::gate::conditions::live;

/// Keys that one page looks at, deleted and expired ones included.
pub const SCAN_BUDGET_ROWS: u64 = 50_000;
/// Bytes of keys and values that one page looks at, whether it returns them or not. The first row is always read.
pub const SCAN_BUDGET_BYTES: u64 = 32 << 20;
/// Bytes of keys and values that one page returns at most, whatever the request says; the first row always fits.
pub const PAGE_BYTES: u64 = 4 << 20;

/// Collects a page. A page that runs out of budget before it has found a row still has a cursor: that is progress.
pub struct PageBuilder<'a> {
    request: &'a ScanRequest,
    page: ScanPage,
    returned_bytes: u64,
    scanned_rows: u64,
    scanned_bytes: u64,
}

impl<'a> PageBuilder<'a> {
    /// An empty page of `request`.
    pub fn new(request: &'a ScanRequest) -> Self {
        Self { request, page: ScanPage::default(), returned_bytes: 0, scanned_rows: 0, scanned_bytes: 0 }
    }

    /// Takes the next row in scan order, or ends the page in front of it.
    pub fn visit(&mut self, key: Bytes, commit_ts: Timestamp, version: Stored) -> ControlFlow<()> {
        let key_bytes = key.len() as u64;
        if self.scanned_rows > 0 && (self.scanned_rows >= SCAN_BUDGET_ROWS || self.scanned_bytes >= SCAN_BUDGET_BYTES) {
            return self.stop_before(key);
        }
        self.scanned_rows += 1;
        self.scanned_bytes += key_bytes + value_bytes(&version);
        let Some(mut version) = live(Some((commit_ts, version)), self.request.read_ts) else {
            return ControlFlow::Continue(());
        };
        let limits = self.request.limits;
        if limits.rows > 0 && self.page.count >= limits.rows {
            return self.stop_before(key);
        }
        if self.request.keys_only {
            version.value = Bytes::new();
        }
        if !self.request.count_only {
            let most = if limits.bytes > 0 { limits.bytes.min(PAGE_BYTES) } else { PAGE_BYTES };
            let size = key_bytes + version.value.len() as u64;
            if self.page.count > 0 && self.returned_bytes + size > most {
                return self.stop_before(key);
            }
            self.returned_bytes += size;
            self.page.entries.push(Entry { key, version });
        }
        self.page.count += 1;
        ControlFlow::Continue(())
    }

    /// Whether the page ended before the interval did.
    pub fn is_stopped(&self) -> bool {
        self.page.cursor.is_some()
    }

    /// The page.
    pub fn finish(self) -> ScanPage {
        self.page
    }

    fn stop_before(&mut self, key: Bytes) -> ControlFlow<()> {
        self.page.cursor = Some(ScanCursor::before(key, self.request.reverse));
        ControlFlow::Break(())
    }
}

fn value_bytes(version: &Stored) -> u64 {
    match version {
        Stored::Put { value, .. } => value.len() as u64,
        Stored::Tombstone => 0,
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::Interval;
    use drover_kv::ScanLimits;

    use super::*;
    use crate::state::tests::ts;

    fn request(rows: u64, bytes: u64) -> ScanRequest {
        ScanRequest {
            interval: Interval::all(),
            read_ts: ts(10),
            reverse: false,
            keys_only: false,
            count_only: false,
            limits: ScanLimits { rows, bytes },
        }
    }

    fn put(value: &str) -> Stored {
        Stored::Put { value: Bytes::copy_from_slice(value.as_bytes()), expire_at: None }
    }

    fn page(request: &ScanRequest, rows: &[(&'static str, Stored)]) -> ScanPage {
        let mut builder = PageBuilder::new(request);
        for (key, version) in rows {
            if builder.visit(Bytes::from_static(key.as_bytes()), ts(1), version.clone()).is_break() {
                assert!(builder.is_stopped());
                break;
            }
        }
        builder.finish()
    }

    fn shape(page: &ScanPage) -> (String, u64, Option<&str>) {
        let keys = page.entries.iter().map(|e| std::str::from_utf8(&e.key).unwrap()).collect();
        (keys, page.count, page.cursor.as_ref().map(|c| std::str::from_utf8(&c.0).unwrap()))
    }

    #[test]
    fn limits_end_a_page_in_front_of_the_row_that_does_not_fit() {
        let expired = Stored::Put { value: "e".into(), expire_at: Some(ts(10)) };
        let rows = [("a", put("11")), ("b", Stored::Tombstone), ("c", put("22")), ("d", expired), ("e", put("33"))];
        let with = |request: ScanRequest, keys_only, count_only| ScanRequest { keys_only, count_only, ..request };
        let table = [
            ("no limit", request(0, 0), ("ace", 3, None)),
            ("as many rows as there are", request(3, 0), ("ace", 3, None)),
            ("one row fewer", request(2, 0), ("ac", 2, Some("e"))),
            ("bytes for two rows", request(0, 8), ("ac", 2, Some("e"))),
            ("the first row always fits", request(0, 1), ("a", 1, Some("c"))),
            ("keys only are smaller", with(request(0, 3), true, false), ("ace", 3, None)),
            ("counting returns no rows and no bytes", with(request(0, 1), false, true), ("", 3, None)),
            ("counting stops at the row limit", with(request(2, 0), false, true), ("", 2, Some("e"))),
        ];
        for (case, request, expect) in table {
            assert_eq!(shape(&page(&request, &rows)), (expect.0.to_owned(), expect.1, expect.2), "{case}");
        }
    }

    #[test]
    fn a_reverse_cursor_leaves_the_row_in_front_of_which_it_stopped() {
        let request = ScanRequest { reverse: true, ..request(1, 0) };
        let got = page(&request, &[("c", put("")), ("a", put(""))]);
        assert_eq!(shape(&got), ("c".to_owned(), 1, Some("a\0")));
    }

    #[test]
    fn a_page_of_tombstones_ends_with_a_cursor_and_without_rows() {
        let request = request(1, 0);
        let mut builder = PageBuilder::new(&request);
        let mut seen = 0;
        while builder.visit(Bytes::from(format!("{seen:08}")), ts(1), Stored::Tombstone).is_continue() {
            seen += 1;
        }
        let page = builder.finish();
        assert_eq!((seen, page.count), (SCAN_BUDGET_ROWS, 0));
        assert_eq!(page.cursor, Some(ScanCursor(format!("{seen:08}").into())));
    }

    #[test]
    fn counting_huge_values_is_bounded_too() {
        let request = ScanRequest { count_only: true, ..request(0, 0) };
        let mut builder = PageBuilder::new(&request);
        let huge = Stored::Put { value: vec![0; SCAN_BUDGET_BYTES as usize].into(), expire_at: None };
        assert!(builder.visit("a".into(), ts(1), huge.clone()).is_continue());
        assert!(builder.visit("b".into(), ts(1), huge).is_break());
        assert_eq!(shape(&builder.finish()), (String::new(), 1, Some("b")));
    }
}
