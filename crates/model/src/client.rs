//! What clients ask for, through coordinators that may know an old map only.
//!
//! A request is routed, judged and carried out in one action. What may lie between is in the choice of the map and of the
//! timestamp: a coordinator that lags sends by any older map, and an entry that comes late carries an old timestamp. A leader
//! keeps what it accepts above the reads that it has served itself; whatever its group accepts beyond that is for the gates.

use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId};

use crate::catalog::GROUPS;
use crate::ghost::{Broken, stored};
use crate::reach::{Reach, keys};
use crate::scenario::Scenario;
use crate::world::{World, place_of};

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A write at a timestamp.
    Write { route: Route, reach: Reach, at: Timestamp },
    /// A read as of a timestamp.
    Read { route: Route, reach: Reach, at: Timestamp },
    /// The first part of a scan over both keys, by a coordinator in whose map a route ends between them.
    Scan { at: Timestamp },
    /// The rest of it, as of the same timestamp.
    ScanOn { route: Route },
    /// The next attempt of the transaction locks the key.
    Prepare { route: Route },
    /// A prepare of the latest attempt comes again.
    PrepareAgain { route: Route },
    /// The transaction commits, in another group: from here on it is acknowledged.
    Commit,
    /// The lock of the attempt becomes a version, or goes.
    Resolve { route: Route },
    /// The attempt is given up.
    RollBack { route: Route },
}

/// How a request is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// To whom.
    pub group: GroupId,
    /// By which version of the map.
    pub observed: Option<CatalogVersion>,
}

/// Where the transaction stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    /// There is no attempt, or the latest was rolled back.
    #[default]
    Idle,
    /// The lock stands.
    Prepared,
    /// It is committed, and the lock is to become a version.
    Committed(Timestamp),
    /// All is done.
    Resolved,
}

/// The transaction. It writes the key, and its primary is elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Txn {
    /// The latest attempt; zero before the first one.
    pub attempt: u8,
    /// The snapshot that the latest attempt reads.
    pub start_ts: Timestamp,
    /// Where it stands.
    pub stage: Stage,
}

impl World {
    fn routes(&self, scenario: &Scenario) -> Vec<Route> {
        let maps = self.maps(scenario.old_maps);
        let mut routes: Vec<Route> =
            maps.iter().map(|(version, group)| Route { group: *group, observed: Some(*version) }).collect();
        if scenario.no_map {
            routes.push(Route { group: maps[0].1, observed: None });
        }
        routes
    }

    /// What may be asked for next.
    pub(crate) fn requests(&self, scenario: &Scenario, ask: &mut dyn FnMut(Request)) {
        let now = Timestamp::from_raw(self.clock);
        let fresh = Timestamp::from_raw(self.clock + 1);
        let routes = self.routes(scenario);
        // Before the range was carved out, one route held both keys.
        let undivided = Route { group: GROUPS[0], observed: Some(CatalogVersion::FIRST) };
        let both = scenario.beside.then_some((undivided, Reach::Both));
        for (route, reach) in routes.iter().map(|route| (*route, Reach::Key)).chain(both) {
            if self.left.writes > 0 {
                ask(Request::Write { route, reach, at: fresh });
                let low = self.lowest(route.group, reach);
                if scenario.low_timestamps && low <= now {
                    ask(Request::Write { route, reach, at: low });
                }
            }
            if scenario.reads {
                ask(Request::Read { route, reach, at: now });
                if now.raw() > 1 {
                    ask(Request::Read { route, reach, at: Timestamp::from_raw(1) });
                }
            }
        }
        if self.left.scans > 0 {
            ask(Request::Scan { at: now });
        }
        if self.scan.is_some() {
            routes.iter().for_each(|route| ask(Request::ScanOn { route: *route }));
        }
        // The transaction's coordinator knows the present map, and one that it had before.
        for &route in routes.iter().filter(|route| route.observed.is_some()) {
            match self.txn.stage {
                Stage::Idle if self.txn.attempt < scenario.attempts => ask(Request::Prepare { route }),
                Stage::Prepared => ask(Request::RollBack { route }),
                Stage::Committed(_) => ask(Request::Resolve { route }),
                Stage::Idle | Stage::Resolved => {}
            }
            if scenario.late_prepares && self.txn.attempt > 0 && self.txn.stage != Stage::Prepared {
                ask(Request::PrepareAgain { route });
            }
        }
        if self.txn.stage == Stage::Prepared {
            ask(Request::Commit);
        }
    }

    /// The lowest timestamp at which a writer may hope to get through: above the newest version of each key where it goes, and
    /// above what the leader there has served.
    fn lowest(&self, group: GroupId, reach: Reach) -> Timestamp {
        let place = place_of(group);
        let group = &self.groups[place];
        let newest = |key: usize| {
            group
                .state
                .owned
                .iter()
                .filter_map(|owned| group.newest(owned.shard, &keys()[key]))
                .max()
                .unwrap_or_default()
        };
        let low = reach.places().iter().map(|key| newest(*key).max(self.ghost.read_at[place][*key])).max();
        let mut low = low.unwrap_or_default().raw() + 1;
        while self.ghost.truth.iter().flatten().any(|(at, _)| at.raw() == low) {
            low += 1;
        }
        Timestamp::from_raw(low)
    }

    /// Carries a request out; `None` if it is refused.
    pub(crate) fn ask(&mut self, request: &Request) -> Option<()> {
        match *request {
            Request::Write { route, reach, at } => {
                let is_value = self.left.writes % 2 == 1;
                let value = stored(is_value);
                self.at_group(route, |group| group.write(reach, route.observed, at, &value).is_ok())?;
                self.left.writes -= 1;
                self.clock = self.clock.max(at.raw());
                self.ghost.update(|ghost| reach.places().iter().for_each(|key| ghost.acknowledged(*key, at, is_value)));
            }
            Request::Read { route, reach, at } => {
                self.read(route, reach, at)?;
                self.judge_route(route);
            }
            Request::Scan { at } => {
                // It never moves, and every map has it there.
                self.read(Route { group: GROUPS[0], observed: Some(self.catalog.version()) }, Reach::Beside, at)?;
                self.left.scans -= 1;
                self.scan = Some(at);
            }
            Request::ScanOn { route } => {
                self.read(route, Reach::Key, self.scan?)?;
                self.judge_route(route);
                self.scan = None;
            }
            Request::Prepare { route } => {
                let (number, start_ts) = (self.txn.attempt + 1, Timestamp::from_raw(self.clock));
                self.at_group(route, |group| group.prepare(route.observed, number, start_ts, &stored(true)).is_ok())?;
                self.txn = Txn { attempt: number, start_ts, stage: Stage::Prepared };
            }
            Request::PrepareAgain { route } => {
                let Txn { attempt, start_ts, .. } = self.txn;
                self.at_group(route, |group| group.prepare(route.observed, attempt, start_ts, &stored(true)).is_ok())?;
            }
            Request::Commit => {
                self.clock += 1;
                let at = Timestamp::from_raw(self.clock);
                self.txn.stage = Stage::Committed(at);
                self.ghost.update(|ghost| ghost.acknowledged(0, at, true));
            }
            Request::Resolve { route } => {
                let Txn { attempt, start_ts, stage: Stage::Committed(at) } = self.txn else { return None };
                self.at_group(route, |group| group.resolve(route.observed, attempt, start_ts, Some(at)).is_ok())?;
                self.txn.stage = Stage::Resolved;
            }
            Request::RollBack { route } => {
                let Txn { attempt, start_ts, .. } = self.txn;
                self.at_group(route, |group| group.resolve(route.observed, attempt, start_ts, None).is_ok())?;
                self.txn.stage = Stage::Idle;
            }
        }
        Some(())
    }

    /// Lets a group serve a read. `None` if it refuses.
    fn read(&mut self, route: Route, reach: Reach, at: Timestamp) -> Option<()> {
        let place = place_of(route.group);
        let seen = self.groups[place].read(reach, route.observed, at).ok()?;
        self.ghost.update(|ghost| {
            reach.places().iter().zip(seen).for_each(|(key, seen)| ghost.served(place, *key, at, seen));
        });
        Some(())
    }

    /// Lets a group carry an entry out. `None` if it refuses.
    fn at_group(&mut self, route: Route, entry: impl FnOnce(&mut crate::group::Group) -> bool) -> Option<()> {
        let place = place_of(route.group);
        let mut group = crate::group::Group::clone(&self.groups[place]);
        entry(&mut group).then_some(())?;
        self.judge_route(route);
        self.groups[place] = crate::shared::Shared::new(group);
        Some(())
    }

    /// Takes note if a request was accepted that should have been stale.
    fn judge_route(&mut self, route: Route) {
        let since = self.catalog.serves_since(route.group);
        let is_right = route.observed.is_some_and(|observed| since.is_some_and(|since| observed >= since));
        if !is_right {
            self.ghost.update(|ghost| ghost.breaks(Broken::Composed));
        }
    }

    /// The transaction comes to its end, by somebody who knows the present map.
    pub(crate) fn end_txn(&mut self) {
        let route = Route { group: self.catalog.route().group, observed: Some(self.catalog.version()) };
        let request = match self.txn.stage {
            Stage::Prepared => Request::RollBack { route },
            Stage::Committed(_) => Request::Resolve { route },
            Stage::Idle | Stage::Resolved => return,
        };
        // Refused: it is tried again.
        let _ = self.ask(&request);
    }
}
impl World {
    /// Whether a transaction holds locks, or has just committed.
    pub(crate) fn has_open_txn(&self) -> bool {
        matches!(self.txn.stage, Stage::Prepared | Stage::Committed(_))
    }
}
