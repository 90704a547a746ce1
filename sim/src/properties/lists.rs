use std::collections::BTreeSet;
use std::time::Duration;

use super::{Property, Tick};
use crate::history::{Event, Outcome, What};

/// Transactions append the same to all lists. So all lists are equal at any moment, each content that was seen is the beginning of
/// every later one, and nothing is in them that was refused. With that the transactions on them are strictly serializable: a list
/// tells their order.
#[derive(Default)]
pub struct Lists {
    /// The longest content that was seen.
    longest: Vec<String>,
    /// When which length was known to have been reached: both ascend.
    known: Vec<(Duration, usize)>,
    /// What may be in the lists.
    possible: BTreeSet<String>,
    appended: u64,
    read: u64,
}

impl Lists {
    /// Takes note of the content of all lists at a moment after `event` began, of which `own` elements are the event's own.
    fn content(&mut self, event: &Event, lists: &[Vec<String>], own: usize) -> Result<(), String> {
        let Some(content) = lists.first() else { return Err(format!("no list was read: {event}")) };
        if lists.iter().any(|list| list != content) {
            return Err(format!("the lists differ: {event}"));
        }
        let before = self.known.partition_point(|(since, _)| *since < event.began);
        let at_least = before.checked_sub(1).map_or(0, |last| self.known[last].1);
        if content.len() - own < at_least {
            return Err(format!("the lists held {at_least} elements before {event}"));
        }
        let (short, long) = match content.len() < self.longest.len() {
            true => (content, &self.longest),
            false => (&self.longest, content),
        };
        if !long.starts_with(short) {
            return Err(format!("the lists held {:?}, which does not fit {event}", self.longest));
        }
        if let Some(element) = content.iter().find(|element| !self.possible.contains(*element)) {
            return Err(format!("{element} was never appended, or was refused: {event}"));
        }
        if content.len() > self.longest.len() {
            self.longest.clone_from(content);
        }
        if self.known.last().is_none_or(|(_, longest)| *longest < content.len()) {
            self.known.push((event.ended, content.len()));
        }
        Ok(())
    }

    fn judge(&mut self, event: &Event) -> Result<(), String> {
        match &event.what {
            What::Appends { element } => drop(self.possible.insert(element.clone())),
            What::Appended { lists, outcome: Outcome::Done(_), .. } => {
                self.appended += 1;
                self.content(event, lists, 1)?;
            }
            What::Appended { element, outcome: Outcome::Never(_), .. } => {
                self.possible.remove(element);
                if self.longest.contains(element) {
                    return Err(format!("{element} was seen, and refused later: {event}"));
                }
            }
            What::Listed { lists } => {
                self.read += 1;
                self.content(event, lists, 0)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl Property for Lists {
    fn name(&self) -> &'static str {
        "transactions have one order"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        tick.events.iter().try_for_each(|event| self.judge(event))
    }

    fn at_the_end(&self) -> Result<(), String> {
        let idle = self.appended == 0 || self.read == 0;
        if idle { Err("nothing was appended, or no list read".to_owned()) } else { Ok(()) }
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

    fn list(text: &str) -> Vec<String> {
        text.chars().map(String::from).collect()
    }

    fn appends(at: u64, element: &str) -> Event {
        event(at, at, What::Appends { element: element.to_owned() })
    }

    fn done(began: u64, ended: u64, element: &str, content: &str) -> Event {
        let lists = vec![list(content), list(content)];
        let outcome = Outcome::Done(Timestamp::from_raw(1));
        event(began, ended, What::Appended { element: element.to_owned(), lists, outcome })
    }

    fn ends(at: u64, element: &str, outcome: Outcome) -> Event {
        event(at, at, What::Appended { element: element.to_owned(), lists: Vec::new(), outcome })
    }

    fn read(began: u64, ended: u64, one: &str, other: &str) -> Event {
        event(began, ended, What::Listed { lists: vec![list(one), list(other)] })
    }

    #[test]
    fn lists_are_equal_only_grow_and_hold_nothing_that_was_refused() {
        let (never, unknown) = (|| Outcome::Never(String::new()), || Outcome::Unknown(String::new()));
        let table: [(&str, Vec<Event>, bool); 10] = [
            ("appended", vec![appends(1, "a"), done(1, 2, "a", "a"), read(3, 4, "a", "a")], true),
            ("differ", vec![appends(1, "a"), done(1, 2, "a", "a"), read(3, 4, "a", "")], false),
            ("lost", vec![appends(1, "a"), done(1, 2, "a", "a"), read(3, 4, "", "")], false),
            ("at the same time", vec![appends(1, "a"), done(1, 3, "a", "a"), read(2, 4, "", "")], true),
            ("seen and lost", vec![appends(1, "a"), read(2, 3, "a", "a"), read(4, 5, "", "")], false),
            ("unknown", vec![appends(1, "a"), ends(2, "a", unknown()), read(3, 4, "", ""), read(5, 6, "a", "a")], true),
            ("refused", vec![appends(1, "a"), ends(2, "a", never()), read(3, 4, "a", "a")], false),
            ("seen, then refused", vec![appends(1, "a"), read(2, 3, "a", "a"), ends(4, "a", never())], false),
            (
                "two orders",
                vec![appends(1, "a"), appends(1, "b"), read(1, 9, "ab", "ab"), read(1, 9, "ba", "ba")],
                false,
            ),
            (
                "over one another",
                vec![appends(1, "a"), appends(1, "b"), done(1, 2, "a", "a"), done(3, 4, "b", "b")],
                false,
            ),
        ];
        for (case, events, holds) in table {
            let tick = Tick { changed: &[], events: &events };
            assert_eq!(Lists::default().after(&tick).is_ok(), holds, "{case}");
        }
    }
}
