use std::collections::BTreeSet;

use drover_keys::GroupId;

use super::{Property, Tick};
use crate::history::What;
use crate::node::DATA_GROUPS;

/// When all is over, the replicas of each group are equal.
#[derive(Default)]
pub struct Digests {
    equal: BTreeSet<GroupId>,
}

impl Property for Digests {
    fn name(&self) -> &'static str {
        "replicas are equal in the end"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for event in tick.events {
            match &event.what {
                What::Compared { group, equal: true, .. } => drop(self.equal.insert(*group)),
                What::Compared { group, digests, .. } => return Err(format!("group {group}: {digests}")),
                _ => {}
            }
        }
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        let groups = 1 + DATA_GROUPS as usize;
        if self.equal.len() == groups {
            Ok(())
        } else {
            Err(format!("{} of {groups} groups were compared", self.equal.len()))
        }
    }
}
