//! Scans.

use drover_keys::CatalogVersion;
use drover_kv::{ScanPage, ScanRequest};

use super::Admitted;
use super::page::PageBuilder;
use crate::cell::View;
use crate::error::ReadError;
use crate::handle::FsmHandle;

impl FsmHandle {
    /// One page of a scan, judged on the whole interval of the request and bounded in rows looked at. A cursor without
    /// rows is legal: everything looked at was deleted or expired.
    ///
    /// # Errors
    /// As [`FsmHandle::get`].
    pub fn scan(&self, request: &ScanRequest, observed: Option<CatalogVersion>) -> Result<ScanPage, ReadError> {
        self.scan_in(&self.view(), request, observed)
    }

    pub(super) fn scan_in(
        &self,
        view: &View,
        request: &ScanRequest,
        observed: Option<CatalogVersion>,
    ) -> Result<ScanPage, ReadError> {
        let admitted = Admitted::judge(view, &request.interval, observed, Some(request.read_ts))?;
        admitted.interval_unlocked(request.read_ts)?;
        let mut parts: Vec<_> = admitted.parts().collect();
        if request.reverse {
            parts.reverse();
        }
        let mut page = PageBuilder::new(request);
        for (owned, part) in parts {
            let mut visit = |key, at, version| page.visit(key, at, version);
            view.snapshot.scan(owned.shard, &part, request.read_ts, request.reverse, &mut visit)?;
            if page.is_stopped() {
                break;
            }
        }
        self.still_kept(&request.interval, request.read_ts)?;
        Ok(page.finish())
    }
}
