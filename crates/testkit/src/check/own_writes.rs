use std::collections::BTreeMap;

use super::Findings;
use crate::ledger::Fate;

/// What a session did that alone writes its keys, one thing after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEvent {
    /// It wrote a value, which is unique, under some keys at once.
    Wrote {
        /// The keys.
        keys: Vec<String>,
        /// What was written under each.
        value: u64,
        /// What the session was told.
        fate: Fate,
    },
    /// It read a key.
    Read {
        /// The key.
        key: String,
        /// What it held.
        value: Option<u64>,
        /// How it was read, for the message.
        how: String,
    },
}

/// Checks that every read shows the last acknowledged write of its key, or one of unknown fate: a refused, an older or somebody
/// else's value never, and after an acknowledged write not nothing.
///
/// # Errors
/// The reads that show something else.
pub fn own_writes_are_read(session: &[SessionEvent]) -> Result<(), Findings> {
    // For each key the last acknowledged write, and all that may still happen.
    let mut keys: BTreeMap<&str, (Option<u64>, Vec<u64>)> = BTreeMap::new();
    let mut found = Vec::new();
    for event in session {
        match event {
            SessionEvent::Wrote { fate: Fate::Refused, .. } => {}
            SessionEvent::Wrote { keys: written, value, fate } => {
                for key in written {
                    let (last, open) = keys.entry(key).or_default();
                    match fate {
                        Fate::Acknowledged => *last = Some(*value),
                        Fate::Unknown | Fate::Refused => open.push(*value),
                    }
                }
            }
            SessionEvent::Read { key, value, how } => {
                let nothing = (None, Vec::new());
                let (last, open) = keys.get(key.as_str()).unwrap_or(&nothing);
                let may_be = value == last || value.is_some_and(|value| open.contains(&value));
                if !may_be {
                    found.push(format!(
                        "{how} of {key:?} shows {value:?}; last acknowledged was {last:?}, of unknown fate are {open:?}"
                    ));
                }
            }
        }
    }
    Findings::none_of(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrote(value: u64, fate: Fate) -> SessionEvent {
        SessionEvent::Wrote { keys: vec!["a".into(), "b".into()], value, fate }
    }

    fn read(key: &str, value: Option<u64>) -> SessionEvent {
        SessionEvent::Read { key: key.into(), value, how: "a read".into() }
    }

    #[test]
    fn reads_show_the_last_acknowledged_write_or_one_of_unknown_fate() {
        use Fate::{Acknowledged, Refused, Unknown};
        let table = [
            ("nothing before the first write", vec![read("a", None)], true),
            ("a value that was never written", vec![read("a", Some(9))], false),
            ("an acknowledged one", vec![wrote(1, Acknowledged), read("a", Some(1)), read("b", Some(1))], true),
            ("not the acknowledged one", vec![wrote(1, Acknowledged), read("b", None)], false),
            ("an older one", vec![wrote(1, Acknowledged), wrote(2, Acknowledged), read("a", Some(1))], false),
            ("a refused one", vec![wrote(1, Acknowledged), wrote(2, Refused), read("a", Some(2))], false),
            ("the one before a refused one", vec![wrote(1, Acknowledged), wrote(2, Refused), read("a", Some(1))], true),
            ("an unknown one", vec![wrote(1, Acknowledged), wrote(2, Unknown), read("a", Some(2))], true),
            (
                "the one before an unknown one",
                vec![wrote(1, Acknowledged), wrote(2, Unknown), read("a", Some(1))],
                true,
            ),
            ("nothing after an unknown one", vec![wrote(1, Acknowledged), wrote(2, Unknown), read("a", None)], false),
        ];
        for (case, session, fine) in table {
            assert_eq!(own_writes_are_read(&session).is_ok(), fine, "{case}");
        }
    }
}
