use std::time::Instant;

use drover_kv::Reason;
use prometheus::{HistogramVec, IntCounterVec, IntGauge};

use super::{Families, latency_buckets};

/// Client requests; label `method` is the name of the call as in the protocol.
pub struct RequestMetrics {
    seconds: HistogramVec,
    errors: IntCounterVec,
    in_flight: IntGauge,
}

impl RequestMetrics {
    pub(super) fn register(families: &Families<'_>) -> Self {
        Self {
            seconds: families.histograms(
                "drover_request_seconds",
                "Time from the arrival of a request to its answer",
                &["method"],
                latency_buckets(),
            ),
            errors: families.counters(
                "drover_request_errors_total",
                "Requests answered with an error",
                &["method", "reason"],
            ),
            in_flight: families.gauge("drover_requests_in_flight", "Requests that are being worked on"),
        }
    }

    /// A request arrived.
    pub fn start(&self, method: &'static str) -> RequestTimer<'_> {
        self.in_flight.inc();
        RequestTimer { metrics: self, method, start: Instant::now(), answered: false }
    }
}

/// One request on its way. Dropped without an answer (the client went away), it counts as [`RequestTimer::CANCELLED`].
pub struct RequestTimer<'a> {
    metrics: &'a RequestMetrics,
    method: &'static str,
    start: Instant,
    answered: bool,
}

impl RequestTimer<'_> {
    /// The reason under which requests count whose clients did not wait for the answer.
    pub const CANCELLED: &'static str = "CANCELLED";

    /// The request is answered.
    pub fn finish(mut self, answer: Result<(), Reason>) {
        self.answered = true;
        if let Err(reason) = answer {
            self.count(reason.as_str());
        }
    }

    fn count(&self, reason: &str) {
        self.metrics.errors.with_label_values(&[self.method, reason]).inc();
    }
}

impl Drop for RequestTimer<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        self.metrics.seconds.with_label_values(&[self.method]).observe(self.start.elapsed().as_secs_f64());
        if !self.answered {
            self.count(Self::CANCELLED);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::Metrics;

    use super::*;

    #[test]
    fn requests_are_in_flight_until_answered_or_dropped_and_errors_have_reasons() {
        let metrics = Metrics::new();
        let requests = &metrics.requests;
        let (a, b, c) = (requests.start("Get"), requests.start("Get"), requests.start("Put"));
        assert_eq!(requests.in_flight.get(), 3);
        a.finish(Ok(()));
        b.finish(Err(Reason::Overloaded));
        drop(c);
        assert_eq!(requests.in_flight.get(), 0);
        assert_eq!(requests.errors.with_label_values(&["Get", "OVERLOADED"]).get(), 1);
        assert_eq!(requests.errors.with_label_values(&["Put", RequestTimer::CANCELLED]).get(), 1);
        assert_eq!(requests.seconds.with_label_values(&["Get"]).get_sample_count(), 2);
    }
}
