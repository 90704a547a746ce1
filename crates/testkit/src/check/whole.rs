use std::collections::BTreeMap;

use bytes::Bytes;

use super::Findings;
use crate::ledger::Fate;

/// A transaction that wrote one value under several keys, which nobody else writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spread {
    /// The keys.
    pub keys: Vec<String>,
    /// The value.
    pub value: String,
    /// What its client was told.
    pub fate: Fate,
}

/// Checks that of what was acknowledged all keys are there, of what was refused none, of the rest all or none. `rows` is one
/// consistent read.
///
/// # Errors
/// The transactions of which something else is there.
pub fn whole_or_absent(written: &[Spread], rows: &BTreeMap<Bytes, Bytes>) -> Result<(), Findings> {
    let mut found = Vec::new();
    for Spread { keys, value, fate } in written {
        let there: Vec<&String> =
            keys.iter().filter(|key| rows.get(key.as_bytes()).is_some_and(|row| row == value)).collect();
        let fine = match fate {
            Fate::Acknowledged => there.len() == keys.len(),
            Fate::Refused => there.is_empty(),
            Fate::Unknown => there.is_empty() || there.len() == keys.len(),
        };
        if !fine {
            found.push(format!("of {value} ({fate:?}), written under {keys:?}, there is {there:?}"));
        }
    }
    Findings::none_of(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_in_part_is_found() {
        use Fate::{Acknowledged, Refused, Unknown};
        let all = &["a", "b"][..];
        let table = [
            (Acknowledged, all, true),
            (Acknowledged, &["a"][..], false),
            (Acknowledged, &[], false),
            (Refused, &[], true),
            (Refused, &["b"], false),
            (Refused, all, false),
            (Unknown, all, true),
            (Unknown, &[], true),
            (Unknown, &["b"], false),
        ];
        for (fate, there, fine) in table {
            let written = [Spread { keys: vec!["a".into(), "b".into()], value: "v".into(), fate }];
            let mut rows: BTreeMap<Bytes, Bytes> =
                there.iter().map(|key| (Bytes::from_static(key.as_bytes()), Bytes::from_static(b"v"))).collect();
            assert_eq!(whole_or_absent(&written, &rows).is_ok(), fine, "{fate:?} {there:?}");
            // Somebody else's value is not its own.
            rows.values_mut().for_each(|row| *row = Bytes::from_static(b"w"));
            assert_eq!(whole_or_absent(&written, &rows).is_ok(), fate != Acknowledged, "{fate:?} {there:?}");
        }
    }
}
