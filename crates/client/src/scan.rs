use bytes::Bytes;
use drover_hlc::Timestamp;
use drover_keys::Interval;
use drover_kv::{Entry, Error, ScanLimits};
use drover_wire::proto::v1::session_answer::Answer;
use drover_wire::proto::v1::session_call::Call;
use drover_wire::proto::v1::{KeyValue, ScanRequest};
use drover_wire::{decode_version, encode_key_range};
use futures::Stream;

use crate::drive::malformed;
use crate::request::read_options;
use crate::{Class, Client};

/// What to scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanQuery {
    /// Which keys.
    pub interval: Interval,
    /// Snapshot; `None`: the latest when the first page is read. All pages read the same one.
    pub at: Option<Timestamp>,
    /// From the highest key down.
    pub reverse: bool,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only count; pages have no entries.
    pub count_only: bool,
    /// Rows in all; zero: no limit.
    pub limit: u64,
    /// Bounds of each page; zero: the server's.
    pub page: ScanLimits,
}

impl ScanQuery {
    /// Everything in `interval`, latest values, forward.
    pub fn new(interval: Interval) -> Self {
        Self {
            interval,
            at: None,
            reverse: false,
            keys_only: false,
            count_only: false,
            limit: 0,
            page: ScanLimits::default(),
        }
    }

    /// As of `at`.
    #[must_use]
    pub fn at(mut self, at: Timestamp) -> Self {
        self.at = Some(at);
        self
    }

    /// From the highest key down.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// Without values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    /// Only counts.
    #[must_use]
    pub fn count_only(mut self) -> Self {
        self.count_only = true;
        self
    }

    /// At most `rows` rows in all; zero: no limit.
    #[must_use]
    pub fn limit(mut self, rows: u64) -> Self {
        self.limit = rows;
        self
    }

    /// At most this many rows and bytes of keys and values on one page; zero: the server's bounds.
    #[must_use]
    pub fn page(mut self, rows: u64, bytes: u64) -> Self {
        self.page = ScanLimits { rows, bytes };
        self
    }
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Rows in scan order. May be empty although more pages follow.
    pub entries: Vec<Entry>,
    /// Rows of this page, also when only counting.
    pub count: u64,
    /// The snapshot.
    pub read_ts: Timestamp,
}

/// A scan under way. Nothing is fetched ahead; the deadline holds for each page.
#[derive(Debug)]
pub struct Scan {
    client: Client,
    query: ScanQuery,
    cursor: Bytes,
    rows: u64,
    finished: bool,
}

impl Scan {
    pub(crate) fn new(client: Client, query: ScanQuery) -> Self {
        Self { client, query, cursor: Bytes::new(), rows: 0, finished: false }
    }

    /// The next page; `None` after the last.
    ///
    /// # Errors
    /// Definite. The scan stands where it was: calling this again tries the same page.
    pub async fn next_page(&mut self) -> Result<Option<Page>, Error> {
        if self.finished {
            return Ok(None);
        }
        // Routing by the bound where the scan enters: cursors are opaque. A wrong guess costs a hop.
        let key = match self.query.interval.end().as_key() {
            Some(end) if self.query.reverse => end.clone(),
            _ => self.query.interval.start().clone(),
        };
        let Answer::Scan(response) = self.client.read(self.request(), key).await? else {
            return Err(malformed(Class::Read, "an answer to something else than a scan"));
        };
        let page = decode_page(response.entries, response.count, response.read_ts)?;
        self.advance(&page, response.cursor);
        Ok(Some(page))
    }

    fn request(&self) -> Call {
        let ScanQuery { interval, at, reverse, keys_only, count_only, limit, page } = &self.query;
        let left = limit - self.rows.min(*limit);
        let limit_rows = [left, page.rows].into_iter().filter(|rows| *rows != 0).min().unwrap_or(0);
        Call::Scan(ScanRequest {
            range: Some(encode_key_range(interval)),
            reverse: *reverse,
            keys_only: *keys_only,
            count_only: *count_only,
            limit_rows,
            limit_bytes: page.bytes,
            cursor: self.cursor.clone(),
            options: read_options(*at),
        })
    }

    fn advance(&mut self, page: &Page, cursor: Bytes) {
        self.rows += page.count;
        self.client.inner.saw(page.read_ts);
        self.finished = cursor.is_empty() || (self.query.limit != 0 && self.rows >= self.query.limit);
        self.cursor = cursor;
    }

    /// The rows of all pages one by one. Ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Entry, Error>> + Send {
        futures::stream::try_unfold((self, Vec::new().into_iter()), |(mut scan, mut rows)| async move {
            loop {
                if let Some(entry) = rows.next() {
                    return Ok(Some((entry, (scan, rows))));
                }
                match scan.next_page().await? {
                    Some(page) => rows = page.entries.into_iter(),
                    None => return Ok(None),
                }
            }
        })
    }
}

fn decode_page(entries: Vec<KeyValue>, count: u64, read_ts: u64) -> Result<Page, Error> {
    let entries = entries
        .into_iter()
        .map(|row| {
            let version = row.version.ok_or_else(|| malformed(Class::Read, "a row without version"))?;
            Ok(Entry { key: row.key, version: decode_version(version) })
        })
        .collect::<Result<_, Error>>()?;
    Ok(Page { entries, count, read_ts: Timestamp::from_raw(read_ts) })
}
