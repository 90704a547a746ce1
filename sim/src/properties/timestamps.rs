use std::time::Duration;

use drover_client::Timestamp;

use super::{Property, Tick};
use crate::history::{Outcome, What};

/// The oracle's timestamps never go back: what was begun behind an acknowledgement, by whomever, commits above it.
#[derive(Default)]
pub struct Timestamps {
    /// When which timestamp was known to have been issued: both ascend.
    known: Vec<(Duration, Timestamp)>,
}

impl Property for Timestamps {
    fn name(&self) -> &'static str {
        "timestamps never go back"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for event in tick.events {
            let (What::Wrote { outcome: Outcome::Done(at), .. } | What::Transferred(Outcome::Done(at))) = &event.what
            else {
                continue;
            };
            let before = self.known.partition_point(|(since, _)| *since < event.began);
            if let Some((since, known)) = before.checked_sub(1).map(|last| self.known[last])
                && *at <= known
            {
                return Err(format!("{known} was known since {since:?}, and not above it is: {event}"));
            }
            if self.known.last().is_none_or(|(_, highest)| highest < at) {
                self.known.push((event.ended, *at));
            }
        }
        Ok(())
    }
}
