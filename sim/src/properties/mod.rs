//! What must hold of a run, each in a file of its own.

mod acknowledged;
mod agreement;
mod bank;
mod composed;
mod digests;
mod leftovers;
mod lists;
mod one_owner;
mod repeatable;
mod routes_tile;
mod timestamps;

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_catalog::Catalog;
use drover_fsm::GroupState;
use drover_keys::{GroupId, NodeId};

use crate::history::Event;

pub use bank::TOTAL;

/// What a replica has applied.
#[derive(Clone)]
pub struct Replica {
    /// On which node it is.
    pub node: NodeId,
    /// Its group.
    pub group: GroupId,
    /// Index of the last entry that it has applied.
    pub applied: u64,
    /// The control state behind that.
    pub state: Arc<GroupState>,
    /// The catalog, in the default group.
    pub catalog: Option<Arc<Catalog>>,
}

/// What happened in a tick.
pub struct Tick<'a> {
    /// Replicas that have applied something.
    pub changed: &'a [Replica],
    /// What clients were told.
    pub events: &'a [Event],
}

/// A property of all runs. It is asked after each tick, and remembers what it needs.
pub trait Property {
    /// What holds.
    fn name(&self) -> &'static str;

    /// Judges a tick.
    ///
    /// # Errors
    /// What was seen that must not be.
    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String>;

    /// Judges the run as a whole when it is over.
    ///
    /// # Errors
    /// What was not seen that must be.
    fn at_the_end(&self) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
pub fn all() -> Vec<Box<dyn Property>> {
    vec![
        Box::<acknowledged::Acknowledged>::default(),
        Box::<one_owner::OneOwner>::default(),
        Box::<routes_tile::RoutesTile>::default(),
        Box::<composed::Composed>::default(),
        Box::<timestamps::Timestamps>::default(),
        Box::<bank::Bank>::default(),
        Box::<lists::Lists>::default(),
        Box::<repeatable::Repeatable>::default(),
        Box::<agreement::Agreement>::default(),
        Box::<leftovers::Leftovers>::default(),
        Box::<digests::Digests>::default(),
    ]
}

/// The newest state of each group that any replica has shown. Applied entries are committed, so the group has reached it.
#[derive(Default)]
struct Newest(BTreeMap<GroupId, (u64, Arc<GroupState>)>);

impl Newest {
    /// Takes note of a tick. Whether anything is newer than before.
    fn note(&mut self, changed: &[Replica]) -> bool {
        let mut newer = false;
        for replica in changed {
            let known = self.0.entry(replica.group).or_default();
            if replica.applied >= known.0 && !Arc::ptr_eq(&known.1, &replica.state) {
                *known = (replica.applied, Arc::clone(&replica.state));
                newer = true;
            }
        }
        newer
    }
}
