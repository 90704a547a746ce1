//! Every job ends: from every state, if from now on nothing fails, nothing is late and everybody takes his next step in turn.
//!
//! That is less than "on every fair run, whatever else happens": a job may be called back and forth without end by people who
//! change their minds, and the model says nothing about that. What it excludes are states from which there is no way out: a guard
//! that nobody lifts, a step that every group refuses, two steps that undo each other. It is checked as something that holds
//! in every state, by going all the way; the checker's own `eventually` overlooks cycles.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::shared::hash_of;
use crate::world::World;

/// Every job ends, and afterwards the range can be written.
pub const EVERY_JOB_ENDS: &str = "every job ends";

/// Steps that a job takes at most, over all its courses, with all that has to be cleared up before.
const MOST_STEPS: usize = 200;

/// From which states every job ends, as far as it is known. What clients and networks remember makes no difference to that.
#[derive(Debug, Default)]
pub struct Ends {
    known: Mutex<HashSet<u64>>,
}

impl Ends {
    /// Whether every job that is live in `world` ends. `chunk`: rows in a portion of a copy.
    pub fn judge(&self, world: &World, chunk: usize) -> bool {
        let mut world = world.clone();
        let mut trail = Vec::new();
        for _ in 0..MOST_STEPS {
            let place = hash_of(&(&world.catalog, &world.groups, world.txn));
            let is_known = self.known.lock().expect("nobody panics while holding it").contains(&place);
            let is_over = !is_known && world.catalog.live().next().is_none() && !world.has_open_txn();
            if is_over && !(world.is_writable() && crate::properties::nothing_stuck(&world)) {
                return false;
            }
            trail.push(place);
            if is_known || is_over {
                self.known.lock().expect("nobody panics while holding it").extend(trail);
                return true;
            }
            if !world.fair_step(chunk) {
                return false;
            }
        }
        false
    }
}
