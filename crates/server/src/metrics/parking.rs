use drover_coordinator::ParkingEvent;
use prometheus::{Histogram, IntCounter, IntGauge};

use super::{Families, latency_buckets};

/// Writes that wait while their range changes hands.
pub struct ParkingMetrics {
    parked: IntGauge,
    total: IntCounter,
    refused: IntCounter,
    seconds: Histogram,
}

impl ParkingMetrics {
    pub(super) fn register(families: &Families<'_>) -> Self {
        Self {
            parked: families.gauge("drover_parked_requests", "Writes that wait while their range changes hands"),
            total: families.counter(
                "drover_parked_requests_total",
                "Times that a write began to wait while its range changed hands",
            ),
            refused: families.counter(
                "drover_parking_refused_total",
                "Writes refused because too many waited for ranges that change hands",
            ),
            seconds: families.histogram(
                "drover_parked_seconds",
                "For how long writes waited while their range changed hands",
                latency_buckets(),
            ),
        }
    }

    /// Takes note of what happened.
    pub fn note(&self, event: ParkingEvent) {
        match event {
            ParkingEvent::Parked => {
                self.parked.inc();
                self.total.inc();
            }
            ParkingEvent::Left { waited } => {
                self.parked.dec();
                self.seconds.observe(waited.as_secs_f64());
            }
            ParkingEvent::Refused => self.refused.inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::metrics::Metrics;

    use super::*;

    #[test]
    fn who_waits_is_counted_until_it_leaves_and_who_is_refused_by_itself() {
        let metrics = Metrics::new();
        let waited = Duration::from_millis(30);
        for event in [ParkingEvent::Parked, ParkingEvent::Parked, ParkingEvent::Left { waited }, ParkingEvent::Refused]
        {
            metrics.parking.note(event);
        }
        let text = metrics.render().unwrap();
        for line in [
            "drover_parked_requests 1\n",
            "drover_parked_requests_total 2\n",
            "drover_parking_refused_total 1\n",
            "drover_parked_seconds_sum 0.03\n",
            "drover_parked_seconds_count 1\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
