//! The state machine of the end of a node, as a pure function.

/// Where the node stands on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Running,
    /// It was told to stop: it takes no new requests and finishes those it has.
    Draining,
    /// All requests are finished.
    Drained,
    /// The time for the drain is over; what was not finished is cut off.
    TimedOut,
    /// It was told a second time to stop: what is not finished is cut off.
    Forced,
    /// It cannot go on.
    Failed,
}

/// What happens to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Someone asks it to stop.
    StopRequested,
    /// The drain is complete.
    DrainComplete,
    /// The time for the drain is over.
    DrainTimeout,
    /// A part of it failed.
    Failure,
}

/// What follows from an event.
pub fn step(phase: Phase, event: Event) -> Phase {
    match (phase, event) {
        (Phase::Running, Event::StopRequested) => Phase::Draining,
        (Phase::Running, Event::Failure) => Phase::Failed,
        // No drain has begun, so none can end.
        (Phase::Running, Event::DrainComplete | Event::DrainTimeout) => Phase::Running,
        (Phase::Draining, Event::StopRequested) => Phase::Forced,
        (Phase::Draining, Event::DrainComplete) => Phase::Drained,
        (Phase::Draining, Event::DrainTimeout) => Phase::TimedOut,
        (Phase::Draining, Event::Failure) => Phase::Failed,
        (end @ (Phase::Drained | Phase::TimedOut | Phase::Forced | Phase::Failed), _) => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_drains_once_and_ends_once() {
        use Event::{DrainComplete, DrainTimeout, Failure, StopRequested};
        use Phase::{Drained, Draining, Failed, Forced, Running, TimedOut};
        let table: &[(&[Event], Phase)] = &[
            (&[], Running),
            (&[StopRequested], Draining),
            (&[StopRequested, DrainComplete], Drained),
            (&[StopRequested, DrainTimeout], TimedOut),
            (&[StopRequested, StopRequested], Forced),
            (&[StopRequested, Failure], Failed),
            (&[Failure], Failed),
            (&[DrainComplete, DrainTimeout], Running),
            (&[StopRequested, DrainComplete, StopRequested, Failure], Drained),
            (&[StopRequested, DrainTimeout, DrainComplete], TimedOut),
            (&[StopRequested, StopRequested, DrainComplete], Forced),
            (&[Failure, StopRequested], Failed),
        ];
        for (events, expect) in table {
            let end = events.iter().fold(Running, |phase, &event| step(phase, event));
            assert_eq!(end, *expect, "{events:?}");
        }
    }
}
