//! One run: nodes, clients, faults, and a look at everything after each tick.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use drover_coordinator::Replica as Running;
use drover_keys::{GroupId, NodeId};
use turmoil::{Builder, Sim};

use crate::clients::{self, Shared};
use crate::history::History;
use crate::machine;
use crate::net::SimulatedNetwork;
use crate::node::{Machine, NODES, name};
use crate::plan::{self, Ambush, FAULTS_END, Fault, Planned, Victim};
use crate::properties::{self, Property, Replica, Tick};
use crate::steps::{self, Taken};
use crate::trace::Trace;

/// How long a run may take, in simulated time.
const LIMIT: Duration = Duration::from_secs(300);
/// Longest time that a message takes while no fault holds it back.
const LATENCY: Duration = Duration::from_millis(8);

/// How a run ended.
pub struct Ended {
    /// What was wrong, if something was.
    pub verdict: Result<()>,
    /// How much time was simulated.
    pub simulated: Duration,
}

/// Runs a seed on this thread, with the nodes' files below `root`. A process does this once.
pub fn run(seed: u64, root: &std::path::Path, trace: &Trace) -> Ended {
    machine::begin(seed);
    drover_seams::simulate(Arc::new(SimulatedNetwork { trace: trace.clone() }));
    let mut sim = Builder::new()
        .rng_seed(seed)
        .epoch(SystemTime::now())
        .simulation_duration(LIMIT)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::ZERO)
        .max_message_latency(LATENCY)
        .tcp_capacity(4_096)
        .enable_random_order()
        .build();
    let machines: Vec<Arc<Machine>> = (1..=NODES).map(|node| Machine::new(NodeId(node), root)).collect();
    for machine in &machines {
        let machine = Arc::clone(machine);
        sim.host(name(machine.node), move || {
            let machine = Arc::clone(&machine);
            async move { machine.run().await.map_err(|error| format!("{error:#}").into()) }
        });
    }
    let history = History::new(trace.clone());
    let shared = Shared { seed, history: history.clone(), at_work: Arc::default() };
    for (name, work) in clients::all(&shared) {
        sim.client(name, async move { work.await.map_err(|error| format!("{error:#}").into()) });
    }
    let mut world = World {
        sim,
        machines,
        trace: trace.clone(),
        history,
        plan: plan::draw(seed),
        ambushes: plan::draw_ambushes(seed),
        under_way: Vec::new(),
        properties: properties::all(),
        seen: BTreeMap::new(),
    };
    let verdict = world.live();
    Ended { verdict, simulated: world.sim.elapsed() }
}

struct World<'a> {
    sim: Sim<'a>,
    machines: Vec<Arc<Machine>>,
    trace: Trace,
    history: History,
    /// Faults to come, the next one first.
    plan: Vec<Planned>,
    /// Faults that wait for a step of a move, the one that waits first.
    ambushes: Vec<Ambush>,
    under_way: Vec<Planned>,
    properties: Vec<Box<dyn Property>>,
    /// What each replica had applied when it was looked at last.
    seen: BTreeMap<(NodeId, GroupId), Replica>,
}

impl World<'_> {
    fn live(&mut self) -> Result<()> {
        loop {
            machine::set_elapsed(self.sim.elapsed());
            self.take_ended_off();
            self.begin_and_end_faults();
            let finished = self.sim.step().map_err(|error| anyhow!("{error}"))?;
            machine::set_elapsed(self.sim.elapsed());
            let (changed, taken) = self.look();
            let tick = Tick { changed: &changed, events: &self.history.take() };
            for property in &mut self.properties {
                property.after(&tick).map_err(|why| anyhow!("{}: {why}", property.name()))?;
            }
            self.strike(&taken);
            if finished {
                let mut properties = self.properties.iter();
                return properties.try_for_each(|property| {
                    property.at_the_end().map_err(|why| anyhow!("{}: {why}", property.name()))
                });
            }
        }
    }

    fn begin_and_end_faults(&mut self) {
        let now = self.sim.elapsed();
        let (over, on): (Vec<_>, Vec<_>) = self.under_way.drain(..).partition(|planned| planned.until <= now);
        self.under_way = on;
        for planned in over {
            self.trace.note(format_args!("over: {}", planned.fault));
            self.end(planned.fault);
        }
        while let Some(planned) = self.plan.first().copied().filter(|planned| planned.from <= now) {
            self.plan.remove(0);
            self.begin_planned(planned);
        }
    }

    fn begin_planned(&mut self, planned: Planned) {
        // Faults of the same links would end each other.
        if self.under_way.iter().any(|other| other.fault.shares(&planned.fault)) {
            return;
        }
        self.trace.note(planned.fault);
        self.begin(planned.fault);
        self.under_way.push(planned);
    }

    /// Takes processes off their machines that have ended as they were asked to.
    fn take_ended_off(&mut self) {
        for machine in &self.machines {
            if let Some(stopped) = machine.take_ended() {
                self.trace.note(format_args!("node {} has stopped: {stopped:?}", machine.node));
                self.sim.crash(name(machine.node));
            }
        }
    }

    /// Lets faults begin that have waited for what has just been done.
    fn strike(&mut self, taken: &[Taken]) {
        let now = self.sim.elapsed();
        for taken in taken {
            let waits = |ambush: &Ambush| ambush.from <= now && now < FAULTS_END && ambush.step == taken.step;
            let Some(at) = self.ambushes.iter().position(waits) else { continue };
            let Ambush { victim, blow, lasts, .. } = self.ambushes.remove(at);
            let group = match victim {
                Victim::Driver => GroupId::DEFAULT,
                Victim::Source => taken.source,
                Victim::Target => taken.target,
            };
            let Some(leader) = self.machines.iter().find_map(|machine| machine.leader(group)) else { continue };
            self.trace
                .note(format_args!("{} as a range moves from group {} to {}", taken.step, taken.source, taken.target));
            self.begin_planned(Planned { from: now, until: now + lasts, fault: blow.on(leader) });
        }
    }

    fn begin(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(node) => self.sim.crash(name(node)),
            Fault::Stop(node) => self.machine(node).ask_to_stop(),
            Fault::CutOff(node) => self.others(node).for_each(|other| self.sim.partition(name(node), name(other))),
            Fault::Cut(a, b) => self.sim.partition(name(a), name(b)),
            Fault::CutOneWay(from, to) => self.sim.partition_oneway(name(from), name(to)),
            Fault::Hold(a, b) => self.sim.hold(name(a), name(b)),
            Fault::Clock(node, ms) => self.machine(node).clock.set_ahead(ms),
        }
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(node) | Fault::Stop(node) => self.sim.bounce(name(node)),
            Fault::CutOff(node) => self.others(node).for_each(|other| self.sim.repair(name(node), name(other))),
            Fault::Cut(a, b) => self.sim.repair(name(a), name(b)),
            Fault::CutOneWay(from, to) => self.sim.repair_oneway(name(from), name(to)),
            Fault::Hold(a, b) => self.sim.release(name(a), name(b)),
            Fault::Clock(node, _) => self.machine(node).clock.set_ahead(0),
        }
    }

    fn others(&self, node: NodeId) -> impl Iterator<Item = NodeId> + use<> {
        (1..=NODES).map(NodeId).filter(move |other| *other != node)
    }

    fn machine(&self, node: NodeId) -> &Machine {
        let found = self.machines.iter().find(|machine| machine.node == node);
        found.expect("faults are drawn for the nodes that there are")
    }

    /// The replicas that have applied something since the last look, and the steps of moves that were among it.
    fn look(&mut self) -> (Vec<Replica>, Vec<Taken>) {
        let (mut changed, mut taken) = (Vec::new(), Vec::new());
        for machine in &self.machines {
            let Some(directory) = machine.replicas() else { continue };
            for (id, running) in directory.replicas() {
                let Running::Running(group) = running else { continue };
                let fsm = group.fsm();
                let applied = fsm.applied_log_id().borrow().map_or(0, |applied| applied.index);
                let known = self.seen.get(&(machine.node, id));
                if known.is_some_and(|known| known.applied == applied && Arc::ptr_eq(&known.state, &fsm.state())) {
                    continue;
                }
                let catalog = (id == GroupId::DEFAULT).then(|| Arc::clone(&fsm.catalog().borrow()));
                let replica = Replica { node: machine.node, group: id, applied, state: fsm.state(), catalog };
                let before = self.seen.insert((machine.node, id), replica.clone());
                taken.extend(before.into_iter().flat_map(|before| steps::taken(id, &before.state, &replica.state)));
                changed.push(replica);
            }
        }
        (changed, taken)
    }
}
