//! Lines of a node's log, one JSON object each.

use serde::{Deserialize, Deserializer, de};

use super::{Change, Write};

/// What the server says of a change.
const CHANGE: &str = "the ownership of a range changes";
/// What it says of a key.
const WRITE: &str = "a key is written";

/// What the nodes said.
#[derive(Debug, Default)]
pub struct Logs {
    /// With the node.
    pub changes: Vec<(u64, Change)>,
    /// Each once.
    pub writes: Vec<Write>,
    /// An entry may write a key twice, so its timestamp belongs to its name.
    seen: std::collections::BTreeSet<(u64, u64, u64, String)>,
}

/// Takes what a node said. A line that a node did not finish before it was killed is none.
pub fn parse(log: &str, node: u64, logs: &mut Logs) {
    for line in log.lines() {
        if line.contains(CHANGE) {
            logs.changes.extend(serde_json::from_str(line).ok().map(|change| (node, change)));
        } else if line.contains(WRITE)
            && let Ok(write) = serde_json::from_str::<Write>(line)
            && logs.seen.insert((write.group, write.index, write.ts, write.key.clone()))
        {
            logs.writes.push(write);
        }
    }
}

/// A number that stands there as text.
pub(super) fn number<'de, D: Deserializer<'de>>(source: D) -> Result<u64, D::Error> {
    String::deserialize(source)?.parse().map_err(de::Error::custom)
}

/// A hexadecimal number.
pub(super) fn hex<'de, D: Deserializer<'de>>(source: D) -> Result<u128, D::Error> {
    u128::from_str_radix(&String::deserialize(source)?, 16).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_halves_of_lines_are_not() {
        let log = r#"{"timestamp":"2026-01-01T00:00:00.000001Z","level":"INFO","message":"the ownership of a range changes","group":"2","index":7,"job":"4","epoch":"1","step":"activate-range","fence":"","start":"c","end":"","version":"9","armed_at":3,"rows":2,"sum":"000000000000000000000000000000ff","target":"drover_fsm::ownership"}
{"timestamp":"2026-01-01T00:00:00.000002Z","level":"TRACE","message":"a key is written","group":"2","index":8,"step":"put","key":"c/x","observed":9,"ts":77,"target":"drover_fsm::writes"}
{"timestamp":"2026-01-01T00:00:00.000002Z","level":"TRACE","message":"a key is written","group":"2","index":8,"step":"put","key":"c/x","observed":9,"ts":77,"target":"drover_fsm::writes"}
{"timestamp":"2026-01-01T00:00:00.000002Z","level":"TRACE","message":"a key is written","group":"2","index":8,"step":"put","key":"c/x","observed":9,"ts":78,"target":"drover_fsm::writes"}
{"timestamp":"2026-01-01T00:00:00.000003Z","level":"TRACE","message":"a key is written","group":"2","ind"#;
        let mut logs = Logs::default();
        parse(log, 3, &mut logs);
        let [(3, change)] = &logs.changes[..] else { panic!("{logs:?}") };
        assert_eq!((change.group, change.job, change.version, change.sum), (2, 4, 9, 255));
        let [write, second] = &logs.writes[..] else { panic!("{logs:?}") };
        assert_eq!(second.ts, 78);
        assert_eq!((write.key.as_str(), write.observed, write.ts, write.is_new()), ("c/x", 9, 77, true));
    }
}
