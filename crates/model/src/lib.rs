//! A model of the move of a range, gone through state by state by the checker `stateright`.
//!
//! What decides is the product: the catalog and its commands (`drover_catalog::Catalog`), the job and its next step
//! (`SplitJob`, `next_step`), what each step makes of a group (`drover_fsm::moving::apply_step`), the gates
//! (`drover_fsm::gate`, `admit`), the safe point and the rules of garbage collection. What is modelled is what lies
//! around: rows in memory ([`rows`]), a network that delivers late, twice or never ([`network`]), migrators that look at what is
//! not so any more ([`migrator`], [`world`]), clients with old maps and low timestamps ([`client`]).
//!
//! ```text
//!            migrators ──messages──▶ network ──late, twice, never──▶ catalog, two groups ◀── clients
//!                ▲                                                        │
//!                └────────────── looks, at once or a while ago ───────────┘
//! ```
//!
//! # Invariants
//!
//! - Nothing in here decides what a product function decides.
//! - A state is a value; two that differ in nothing which decides anything are equal.
//! - What the checks know ([`ghost`]) is seen by nobody in the model.
//!
//! `docs/model.md` says what is covered, what is not, and how to run it.

pub mod catalog;
pub mod client;
pub mod ghost;
pub mod group;
pub mod liveness;
pub mod migrator;
pub mod network;
pub mod properties;
pub mod reach;
pub mod rows;
pub mod scenario;
pub mod shared;
pub mod world;

use drover_catalog::job::JobPhase;
use stateright::{Model, Property};

use crate::liveness::{EVERY_JOB_ENDS, Ends};
use crate::scenario::Scenario;
use crate::world::{Action, World};

/// The model, with its bounds.
#[derive(Debug)]
pub struct MoveModel {
    scenario: Scenario,
    ends: Ends,
}

impl MoveModel {
    /// The model of a scenario.
    pub fn new(scenario: Scenario) -> Self {
        Self { scenario, ends: Ends::default() }
    }
}

/// The range was moved, in some state.
pub const DONE: &str = "a job is done";
/// A job was called off, in some state.
pub const ABANDONED: &str = "a job is abandoned";

fn any_job_is(world: &World, phase: JobPhase) -> bool {
    world.catalog.jobs().any(|job| job.phase == phase)
}

impl Model for MoveModel {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.scenario)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.actions(&self.scenario, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        world.after(&self.scenario, &action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(properties::NOTHING_STALE, |_, world| properties::nothing_stale(world)),
            Property::always(properties::ONE_SERVER, |_, world| properties::one_server(world)),
            Property::always(properties::TILING, |_, world| properties::tiling(world)),
            Property::always(properties::COMPOSED, |_, world| properties::composed(world)),
            Property::always(properties::NOTHING_STUCK, |_, world| properties::nothing_stuck(world)),
            Property::always(properties::NO_DEAD_LOCK, |_, world| properties::no_dead_lock(world)),
            Property::always(properties::NOTHING_UNDECIDED_AGAIN, |_, world| {
                properties::nothing_undecided_again(world)
            }),
            Property::sometimes(DONE, |_, world| any_job_is(world, JobPhase::Done)),
        ];
        // A catalog that was deceived names an owner who refuses to be one, rightly: there the range waits for people.
        if self.scenario.mistakes == 0 {
            properties.extend([
                Property::always(properties::NOTHING_LOST, |_, world| properties::nothing_lost(world)),
                Property::always(properties::NOBODY_RUNS_AHEAD, |_, world| properties::nobody_runs_ahead(world)),
                Property::always(EVERY_JOB_ENDS, |model: &Self, world| model.ends.judge(world, model.scenario.chunk)),
            ]);
        }
        if self.scenario.losses == 0 && self.scenario.strays == 0 {
            properties.push(Property::always(properties::COPY_EQUAL, |_, world| properties::copy_equal(world)));
        }
        if self.scenario.abandons {
            properties.push(Property::sometimes(ABANDONED, |_, world| any_job_is(world, JobPhase::Abandoned)));
        }
        properties
    }

    fn within_boundary(&self, world: &World) -> bool {
        // The last course may be called off, and no further one begins.
        world.catalog.jobs().all(|job| job.epoch.0 <= self.scenario.courses + 1)
    }
}
