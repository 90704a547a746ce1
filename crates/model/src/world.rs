//! The state of everything, and what may happen next.

use drover_catalog::job::{JobEvent, JobPhase, SplitJob};
use drover_fsm::moving::{ChunkRows, MoveRefusal, MoveStep};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId};

use crate::catalog::{GROUPS, ModelCatalog, key};
use crate::client::{Request, Txn};
use crate::ghost::{Ghost, stored};
use crate::group::Group;
use crate::migrator::{FAIR, Feels, View};
use crate::network::{Message, MessageId, Network};
use crate::reach::Reach;
use crate::rows::version_row;
use crate::scenario::Scenario;
use crate::shared::Shared;

/// Of what there is only so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Left {
    /// Writes.
    pub writes: u8,
    /// Looks of the second migrator.
    pub looks: u8,
    /// Timestamps that it asks for.
    pub timestamps: u8,
    /// Jobs that may still be begun.
    pub jobs: u8,
    /// Rounds of garbage collection.
    pub collections: u8,
    /// Rows that copies lose.
    pub losses: u8,
    /// Rows that come into a copy and do not belong there.
    pub strays: u8,
    /// Notes of an older course that are taken for ones of the present course.
    pub mistakes: u8,
    /// Scans in two parts.
    pub scans: u8,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// In the default group, which never fails for good.
    pub catalog: Shared<ModelCatalog>,
    /// Source and target of the first job.
    pub groups: [Shared<Group>; 2],
    /// A replica of the first group that lags.
    pub lagging: Option<Shared<Group>>,
    /// What is under way.
    pub network: Shared<Network>,
    /// The job as the second migrator saw it when it looked.
    pub seen: Option<Shared<SplitJob>>,
    /// The highest timestamp that the oracle has issued.
    pub clock: u64,
    /// The transaction.
    pub txn: Txn,
    /// A scan of which the first part was read, as of this.
    pub scan: Option<Timestamp>,
    /// What has happened, for the checks.
    pub ghost: Shared<Ghost>,
    /// What may still happen.
    pub left: Left,
}

/// What may happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A migrator looks at everything and sends what comes next; the copy is read from the lagging replica, or the leader.
    Drive { feels: Feels, lagging: bool },
    /// Another one looks at the job,
    Look,
    /// and goes on with what it saw then.
    DriveBySeen { feels: Feels },
    /// A message arrives.
    Deliver(MessageId),
    /// A portion of a copy loses its last row on the way.
    LoseRow(MessageId),
    /// A portion of a copy comes also with a row that does not belong there.
    AddRow(MessageId),
    /// That the copy is closed was noted in an older course, and is taken for a note of the present one.
    Mistake(MessageId),
    /// A client asks for something.
    Ask(Request),
    /// People call the live job off,
    Abandon,
    /// try it again after it has failed,
    Retry,
    /// or it fails.
    Fail,
    /// Somebody asks for a job.
    Start,
    /// The safe point of a group advances, and garbage is collected.
    Collect(GroupId),
    /// The replica that lags catches up.
    CatchUp,
    /// A group forgets marks of jobs that are over.
    Forget(GroupId),
}

/// The place of a group among the two.
pub fn place_of(group: GroupId) -> usize {
    usize::from(group != GROUPS[0])
}

impl World {
    /// Before the first step of the first job.
    pub fn new(scenario: &Scenario) -> Self {
        let mut catalog = ModelCatalog::new();
        let mut groups = GROUPS.map(|id| Group::new(&catalog, id));
        let mut ghost = Ghost::default();
        let reach = if scenario.beside { Reach::Both } else { Reach::Key };
        for at in 1..=u64::from(scenario.versions) {
            let (at, version) = (Timestamp::from_raw(at), Some(catalog.version()));
            groups[0].write(reach, version, at, &stored(true)).expect("the first writes are accepted");
            reach.places().iter().for_each(|key| ghost.acknowledged(*key, at, true));
        }
        assert!(catalog.start_job(), "the first job is accepted");
        let [first, second] = groups.map(Shared::new);
        Self {
            catalog: Shared::new(catalog),
            lagging: scenario.lagging.then(|| first.clone()),
            groups: [first, second],
            network: Shared::new(Network::default()),
            seen: None,
            // One timestamp was issued for something else: a read may be above the newest version.
            clock: u64::from(scenario.versions) + 1,
            txn: Txn::default(),
            scan: None,
            ghost: Shared::new(ghost),
            left: Left {
                writes: scenario.writes,
                looks: scenario.looks,
                timestamps: 0,
                jobs: scenario.jobs - 1,
                collections: scenario.collections,
                losses: scenario.losses,
                strays: scenario.strays,
                mistakes: scenario.mistakes,
                scans: scenario.scans,
            },
        }
    }

    /// A group.
    pub fn group(&self, id: GroupId) -> &Shared<Group> {
        &self.groups[place_of(id)]
    }

    fn view<'a>(&'a self, job: &'a SplitJob, lagging: bool, chunk: usize) -> View<'a> {
        let source = self.group(job.source);
        let replica = self.lagging.as_ref().filter(|_| lagging && job.source == GROUPS[0]);
        View {
            job,
            source,
            replica: replica.unwrap_or(source),
            target: self.group(job.target),
            fresh: Timestamp::from_raw(self.clock + 1),
            chunk,
        }
    }

    /// What may happen next.
    pub fn actions(&self, scenario: &Scenario, actions: &mut Vec<Action>) {
        if self.ghost.broken.is_some() || self.catalog.is_broken() {
            return;
        }
        let live = self.catalog.live().next();
        if self.network.in_flight() < scenario.in_flight {
            self.drives(scenario, live, actions);
        }
        if let Some(job) = live {
            if self.left.looks > 0 {
                actions.push(Action::Look);
            }
            let may_turn = job.epoch.0 < scenario.courses;
            if scenario.abandons {
                actions.push(Action::Abandon);
            }
            if scenario.fails && job.phase == JobPhase::Failed {
                actions.push(Action::Retry);
            }
            if scenario.fails && may_turn {
                actions.push(Action::Fail);
            }
        }
        if self.left.jobs > 0 && (live.is_none() || scenario.at_once) {
            actions.push(Action::Start);
        }
        for (id, message, arrived) in self.network.messages() {
            actions.push(Action::Deliver(id));
            if self.left.losses > 0 && !arrived && loses_row(message).is_some() {
                actions.push(Action::LoseRow(id));
            }
            if self.left.strays > 0 && with_stray(message).is_some() {
                actions.push(Action::AddRow(id));
            }
            if self.left.mistakes > 0 && matches!(message, Message::Catalog { event: JobEvent::CutOver, .. }) {
                actions.push(Action::Mistake(id));
            }
        }
        if self.left.collections > 0 {
            actions.extend(GROUPS.map(Action::Collect));
        }
        if scenario.horizons {
            actions.extend(GROUPS.map(Action::Forget));
        }
        if self.lagging.as_ref().is_some_and(|lagging| *lagging != self.groups[0]) {
            actions.push(Action::CatchUp);
        }
        self.requests(scenario, &mut |request| actions.push(Action::Ask(request)));
    }

    fn drives(&self, scenario: &Scenario, live: Option<&SplitJob>, actions: &mut Vec<Action>) {
        let calm = Feels { failed_for_long: false, ..FAIR };
        let feelings = |job: &SplitJob| {
            let overrun = scenario.overruns && job.epoch.0 < scenario.courses;
            let overrun = overrun && matches!(job.phase, JobPhase::Fence | JobPhase::DeltaCopy | JobPhase::Cutover);
            let rounds = scenario.rounds && job.phase == JobPhase::Backfill;
            let long = job.phase == JobPhase::Failed;
            [
                Some(calm),
                overrun.then_some(Feels { overrun: true, ..calm }),
                rounds.then_some(Feels { pause_fits: false, ..calm }),
                long.then_some(Feels { failed_for_long: true, ..calm }),
            ]
        };
        if let Some(job) = live {
            let replicas: &[bool] = if self.lagging.is_some() { &[false, true] } else { &[false] };
            for feels in feelings(job).into_iter().flatten() {
                actions.extend(replicas.iter().map(|lagging| Action::Drive { feels, lagging: *lagging }));
            }
        }
        if let Some(seen) = self.seen.as_deref() {
            actions.extend(feelings(seen).into_iter().flatten().map(|feels| Action::DriveBySeen { feels }));
        }
    }

    /// What comes of an action; `None` if nothing does.
    pub fn after(&self, scenario: &Scenario, action: &Action) -> Option<World> {
        let mut next = self.clone();
        match action {
            Action::Drive { feels, lagging } => {
                let live: Vec<SplitJob> = self.catalog.live().cloned().collect();
                for job in &live {
                    next.drive(scenario, job, *feels, *lagging);
                }
            }
            Action::Look => {
                next.left.looks -= 1;
                next.left.timestamps = 1;
                next.seen = self.catalog.live().next().cloned().map(Shared::new);
            }
            Action::DriveBySeen { feels } => {
                let seen = self.seen.clone()?;
                let clock = self.clock;
                next.drive(scenario, &seen, *feels, false);
                // It asks for as many as it likes, but further ones differ in nothing, and would make the states endless.
                next.left.timestamps = self.left.timestamps.checked_sub(u8::from(next.clock > clock))?;
            }
            Action::Deliver(id) => {
                let message = self.network.message(*id)?;
                next.network.update(|network| network.arrived(*id, scenario.again));
                next.deliver(message);
            }
            Action::LoseRow(id) => {
                next.left.losses -= 1;
                let less = loses_row(self.network.message(*id)?)?;
                next.network.update(|network| {
                    network.arrived(*id, false);
                    network.send(less);
                });
            }
            Action::AddRow(id) => {
                next.left.strays -= 1;
                let more = with_stray(self.network.message(*id)?)?;
                next.network.update(|network| network.send(more));
            }
            Action::Mistake(id) => {
                next.left.mistakes -= 1;
                let Message::Catalog { job, event, .. } = self.network.message(*id)? else { return None };
                let current = self.catalog.job(*job)?.epoch;
                next.catalog.update(|catalog| catalog.job_event(*job, Some(current), event.clone())).then_some(())?;
            }
            Action::Ask(request) => next.ask(request)?,
            Action::Abandon => next.asked(JobEvent::Abandon)?,
            Action::Retry => next.asked(JobEvent::Retry)?,
            Action::Fail => {
                let (id, epoch) = self.catalog.live().next().map(|job| (job.id, job.epoch))?;
                let event = JobEvent::Fail { why: "it was told to".to_owned() };
                next.catalog.update(|catalog| catalog.job_event(id, Some(epoch), event));
            }
            Action::Start => {
                next.left.jobs -= 1;
                next.catalog.update(ModelCatalog::start_job).then_some(())?;
            }
            Action::Collect(group) => {
                next.left.collections -= 1;
                let now = Timestamp::from_raw(self.clock);
                let place = place_of(*group);
                if self.groups[place].forgets_records() {
                    next.ghost.update(|ghost| ghost.forgotten = now);
                }
                next.groups[place].update(|group| group.collect(now));
            }
            Action::CatchUp => next.lagging = Some(self.groups[0].clone()),
            Action::Forget(group) => {
                let horizon = self.catalog.horizon();
                next.groups[place_of(*group)].update(|group| group.advance_horizon(horizon));
            }
        }
        (next != *self).then_some(next)
    }

    fn asked(&mut self, event: JobEvent) -> Option<()> {
        let id = self.catalog.live().next()?.id;
        self.catalog.update(|catalog| catalog.job_event(id, None, event)).then_some(())
    }

    fn drive(&mut self, scenario: &Scenario, job: &SplitJob, feels: Feels, lagging: bool) {
        let decision = self.view(job, lagging, scenario.chunk).decide(feels);
        if decision.timestamped {
            // One for each course: a second one could only be higher, and would make the states endless.
            let is_for = |message: &Message| {
                matches!(message, Message::Catalog { job: of, epoch: Some(epoch), event: JobEvent::HandOver(_) }
                    if (*of, *epoch) == (job.id, job.epoch))
            };
            if self.network.messages().any(|(_, message, _)| is_for(message)) {
                return;
            }
            self.clock += 1;
        }
        if !decision.messages.is_empty() {
            self.network.update(|network| decision.messages.into_iter().for_each(|message| network.send(message)));
        }
    }

    /// A message arrives, whatever has become of what it is about.
    pub fn deliver(&mut self, message: &Message) {
        match message {
            Message::Catalog { job, epoch, event } => {
                let mut catalog = ModelCatalog::clone(&self.catalog);
                if catalog.job_event(*job, *epoch, event.clone()) {
                    self.catalog = Shared::new(catalog);
                }
            }
            Message::Group { to, command } => {
                let place = place_of(*to);
                let mut group = Group::clone(&self.groups[place]);
                match group.move_step(command) {
                    Ok(()) => {
                        self.groups[place] = Shared::new(group);
                        if matches!(command.step, MoveStep::Activate(_)) {
                            self.ghost.update(|ghost| ghost.read_at[place][0] = Timestamp::ZERO);
                        }
                    }
                    Err(MoveRefusal::OutOfOrder { wanted: "activated" | "released", .. }) => {
                        self.ghost.update(|ghost| ghost.ran_ahead = true);
                    }
                    Err(_) => {}
                }
            }
        }
    }

    /// Everybody is fair and nothing is late: each live job takes its next step. Whether anything has come of it.
    pub fn fair_step(&mut self, chunk: usize) -> bool {
        let before = (self.catalog.clone(), self.groups.clone(), self.txn);
        let live: Vec<SplitJob> = self.catalog.live().cloned().collect();
        for job in &live {
            let decision = self.view(job, false, chunk).decide(FAIR);
            self.clock += u64::from(decision.timestamped);
            for message in &decision.messages {
                self.deliver(message);
            }
        }
        // Whoever coordinates a transaction brings it to its end, and so does who meets its locks.
        self.end_txn();
        before != (self.catalog.clone(), self.groups.clone(), self.txn)
    }

    /// Whether the key can be written by somebody who knows the present map.
    pub fn is_writable(&self) -> bool {
        let mut group = Group::clone(self.group(self.catalog.route().group));
        let at = Timestamp::from_raw(self.clock + 1);
        group.write(Reach::Key, Some(self.catalog.version()), at, &stored(true)).is_ok()
            && group.rows.visible(self.catalog.route().shard, &key(), at).is_some_and(|(found, _)| found == at)
    }

    /// The versions of the map by which a request may be routed, and the group that each names.
    pub fn maps(&self, old: bool) -> Vec<(CatalogVersion, GroupId)> {
        let current = self.catalog.version();
        let mut maps = vec![(current, self.catalog.owner_at(current))];
        let owner = |version: u64| self.catalog.owner_at(CatalogVersion(version));
        if old {
            let ends = (1..current.0).filter(|version| owner(*version) != owner(version + 1));
            maps.extend(ends.map(|version| (CatalogVersion(version), owner(version))));
        }
        maps
    }
}

/// The message with a row too many, which deletes the first version of the key; `None` unless it is one of
/// what was written meanwhile.
fn with_stray(message: &Message) -> Option<Message> {
    let mut more = message.clone();
    let Message::Group { command, .. } = &mut more else { return None };
    let MoveStep::ImportChunk(chunk) = &mut command.step else { return None };
    let ChunkRows::Tracked { rows, .. } = &mut chunk.rows else { return None };
    let stray = version_row(&key(), Timestamp::from_raw(1), &stored(false));
    (!rows.contains(&stray)).then(|| rows.push(stray)).map(|()| more)
}

/// The message as it is if its last row is lost; `None` if it holds none.
fn loses_row(message: &Message) -> Option<Message> {
    let mut less = message.clone();
    let Message::Group { command, .. } = &mut less else { return None };
    let MoveStep::ImportChunk(chunk) = &mut command.step else { return None };
    let (ChunkRows::Copied { rows, .. } | ChunkRows::Tracked { rows, .. }) = &mut chunk.rows;
    rows.pop().map(|_| less)
}
