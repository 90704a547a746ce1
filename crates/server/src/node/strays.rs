//! How many places of the stores hold rows that should not be there, looked for no more often than that can change: a look costs
//! some reads of the disk for each interval of a group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use drover_fsm::{FsmHandle, Kept};
use drover_keys::GroupId;
use parking_lot::Mutex;

/// After how long a store is looked through again in which nothing was given up or taken in: then only a defect puts rows there.
const AGAIN: Duration = Duration::from_secs(60);

/// What was found in the stores of this node.
#[derive(Default)]
pub struct Strays {
    found: Mutex<BTreeMap<GroupId, Found>>,
}

/// What was found in one.
struct Found {
    /// What was to be there.
    kept: Kept,
    at: Instant,
    strays: u64,
}

impl Found {
    fn still_holds(&self, kept: &Kept, now: Instant) -> bool {
        self.kept == *kept && now.saturating_duration_since(self.at) < AGAIN
    }
}

impl Strays {
    /// In how many places of a replica's store there are rows that should not be there; `None` if that could not be found out.
    pub fn of(&self, group: GroupId, fsm: &FsmHandle) -> Option<u64> {
        let mut found = self.found.lock();
        if let Some(found) = found.get(&group)
            && found.still_holds(&fsm.kept(), Instant::now())
        {
            return Some(found.strays);
        }
        found.remove(&group);
        let at = Instant::now();
        match fsm.strays() {
            Ok((kept, strays)) => {
                found.insert(group, Found { kept, at, strays });
                Some(strays)
            }
            Err(error) => {
                tracing::warn!(%group, %error, "the store could not be looked through for what moves left behind");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_keys::{End, Interval, JobId, ShardId};

    use super::*;

    #[test]
    fn a_store_is_looked_through_again_when_something_else_is_to_be_there_and_after_a_while() {
        let owned = |end: &'static str| {
            let interval = Interval::new("a", End::Key(end.into())).unwrap();
            Kept { intervals: vec![(ShardId(1), interval)], lists: Vec::new() }
        };
        let listed = Kept { lists: vec![(ShardId(1), JobId(7))], ..owned("m") };
        let now = Instant::now();
        let found = Found { kept: owned("m"), at: now, strays: 0 };
        let table = [
            (owned("m"), 0, true),
            (owned("m"), 59, true),
            (owned("m"), 60, false),
            (owned("z"), 0, false),
            (listed, 0, false),
        ];
        for (kept, later, expect) in table {
            let holds = found.still_holds(&kept, now + Duration::from_secs(later));
            assert_eq!(holds, expect, "{kept:?} {later}");
        }
    }
}
