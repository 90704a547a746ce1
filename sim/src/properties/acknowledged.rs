use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Property, Tick};
use crate::history::{Event, Outcome, What};

/// Each key has one writer, who writes ever higher numbers and stops behind an unknown outcome. So a read must find a number that
/// was written, and none below what was acknowledged, or read by anybody, before it began.
#[derive(Default)]
pub struct Acknowledged {
    keys: BTreeMap<String, Key>,
    read: u64,
}

#[derive(Default)]
struct Key {
    /// Numbers that may be there.
    possible: BTreeSet<u64>,
    /// When which number was known to be there: both ascend.
    known: Vec<(Duration, u64)>,
}

impl Key {
    fn knows(&mut self, since: Duration, number: u64) {
        if self.known.last().is_none_or(|(_, highest)| *highest < number) {
            self.known.push((since, number));
        }
    }

    fn at_least(&self, began: Duration) -> u64 {
        let before = self.known.partition_point(|(since, _)| *since < began);
        before.checked_sub(1).map_or(0, |last| self.known[last].1)
    }
}

impl Acknowledged {
    fn judge(&mut self, event: &Event) -> Result<(), String> {
        match &event.what {
            What::Writes { key, number } => {
                self.keys.entry(key.clone()).or_default().possible.insert(*number);
            }
            What::Wrote { key, number, outcome } => {
                let key = self.keys.entry(key.clone()).or_default();
                match outcome {
                    Outcome::Done(_) => key.knows(event.ended, *number),
                    Outcome::Never(_) => drop(key.possible.remove(number)),
                    Outcome::Unknown(_) => {}
                }
            }
            What::Read { key: name, number } => {
                self.read += 1;
                let key = self.keys.entry(name.clone()).or_default();
                let at_least = key.at_least(event.began);
                if *number < at_least {
                    return Err(format!("{name} was at {at_least} before a read that found {number}: {event}"));
                }
                if *number > 0 && !key.possible.contains(number) {
                    return Err(format!("{number} was never written to {name}, or was refused: {event}"));
                }
                key.knows(event.ended, *number);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Property for Acknowledged {
    fn name(&self) -> &'static str {
        "acknowledged writes are read"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        tick.events.iter().try_for_each(|event| self.judge(event))
    }

    fn at_the_end(&self) -> Result<(), String> {
        let written = self.keys.values().filter(|key| !key.known.is_empty()).count();
        if written == 0 || self.read == 0 { Err("nothing was written, or nothing read".to_owned()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use drover_client::Timestamp;

    use super::*;

    fn event(began: u64, ended: u64, what: What) -> Event {
        let (began, ended) = (Duration::from_millis(began), Duration::from_millis(ended));
        Event { client: "c".to_owned(), began, ended, what }
    }

    fn writes(at: u64, number: u64) -> Event {
        event(at, at, What::Writes { key: "k".to_owned(), number })
    }

    fn wrote(at: u64, number: u64, outcome: Outcome) -> Event {
        event(at, at, What::Wrote { key: "k".to_owned(), number, outcome })
    }

    fn read(began: u64, ended: u64, number: u64) -> Event {
        event(began, ended, What::Read { key: "k".to_owned(), number })
    }

    #[test]
    fn a_read_finds_what_was_acknowledged_or_read_before_it_began() {
        let done = || Outcome::Done(Timestamp::from_raw(1));
        let (never, unknown) = (|| Outcome::Never(String::new()), || Outcome::Unknown(String::new()));
        let table: [(&str, Vec<Event>, bool); 8] = [
            ("acknowledged", vec![writes(1, 1), wrote(2, 1, done()), read(3, 4, 1)], true),
            ("lost", vec![writes(1, 1), wrote(2, 1, done()), read(3, 4, 0)], false),
            ("at the same time", vec![writes(1, 1), wrote(3, 1, done()), read(2, 4, 0)], true),
            ("unknown", vec![writes(1, 1), wrote(2, 1, unknown()), read(3, 4, 0), read(5, 6, 1)], true),
            ("back again", vec![writes(1, 1), wrote(2, 1, unknown()), read(3, 4, 1), read(5, 6, 0)], false),
            ("refused", vec![writes(1, 1), wrote(2, 1, never()), read(3, 4, 1)], false),
            ("before its answer", vec![writes(1, 1), read(2, 3, 1)], true),
            ("never written", vec![read(2, 3, 1)], false),
        ];
        for (case, events, holds) in table {
            let tick = Tick { changed: &[], events: &events };
            assert_eq!(Acknowledged::default().after(&tick).is_ok(), holds, "{case}");
        }
    }
}
