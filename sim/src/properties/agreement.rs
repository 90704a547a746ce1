use std::collections::BTreeMap;
use std::sync::Arc;

use drover_fsm::GroupState;
use drover_keys::{GroupId, NodeId};

use super::{Property, Tick};

/// How many indexes of a group are remembered.
const REMEMBERED: usize = 4_096;

/// Replicas that have applied the same entries have the same control state.
#[derive(Default)]
pub struct Agreement {
    known: BTreeMap<GroupId, BTreeMap<u64, (NodeId, Arc<GroupState>)>>,
    compared: u64,
}

impl Property for Agreement {
    fn name(&self) -> &'static str {
        "replicas agree at every entry"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for replica in tick.changed {
            let known = self.known.entry(replica.group).or_default();
            let (first, state) =
                known.entry(replica.applied).or_insert_with(|| (replica.node, Arc::clone(&replica.state)));
            if *first != replica.node {
                self.compared += 1;
            }
            if **state != *replica.state {
                return Err(format!(
                    "group {}, entry {}: node {first} has {state:?}, node {} {:?}",
                    replica.group, replica.applied, replica.node, replica.state
                ));
            }
            if known.len() > REMEMBERED {
                known.pop_first();
            }
        }
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        if self.compared == 0 { Err("no two replicas were seen at one entry".to_owned()) } else { Ok(()) }
    }
}
