use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use drover_catalog::RouteMap;
use drover_keys::CatalogVersion;

use super::interest::{Interest, Look};

/// How much may be parked at once on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParkingLimits {
    /// Requests.
    pub requests: usize,
    /// Bytes of their payloads.
    pub bytes: usize,
}

impl Default for ParkingLimits {
    fn default() -> Self {
        Self { requests: 2_048, bytes: 64 << 20 }
    }
}

/// Requests that are let go at once, and how long after them the next ones are. A group takes in more than that, and one that has
/// just got a range is not asked for all of it in one instant.
const BATCH: usize = 32;
const STEP: Duration = Duration::from_millis(1);

/// The number of a request in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrival(u64);

/// What a request that wants to park is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// It waits, under this number.
    Waits(Arrival),
    /// The routes have changed already: there is nothing to wait for.
    Goes,
    /// There is no room.
    Full,
}

/// What a parked request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The routes; the map says that writes are held back.
    Fenced,
    /// The routes; nothing is said of them.
    Unclear,
    /// This moment: its routes have changed, or its patience is over, and those that came before it go first.
    Goes(Instant),
}

#[derive(Debug)]
struct Waiting {
    interest: Interest,
    bytes: usize,
    state: State,
}

/// The parked requests of a node. Pure: whoever waits asks it.
#[derive(Debug)]
pub struct Queue {
    limits: ParkingLimits,
    waiting: BTreeMap<Arrival, Waiting>,
    bytes: usize,
    arrivals: u64,
    /// The map by which all of them were judged.
    judged: CatalogVersion,
    /// Since when requests are let go in the present step, and how many.
    step: Option<(Instant, usize)>,
}

impl Queue {
    /// An empty one.
    pub fn new(limits: ParkingLimits) -> Self {
        let judged = CatalogVersion::default();
        Self { limits, waiting: BTreeMap::new(), bytes: 0, arrivals: 0, judged, step: None }
    }

    /// Requests and bytes that are parked.
    pub fn size(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }

    /// Lets a request in that `bytes` belong to, unless its routes have changed by now. `earlier` is the number it had when it was
    /// parked before: it keeps its place in the order of arrival.
    pub fn enter(
        &mut self,
        mut interest: Interest,
        bytes: usize,
        earlier: Option<Arrival>,
        routes: &RouteMap,
    ) -> Entered {
        let state = match interest.look(routes) {
            Look::Changed => return Entered::Goes,
            Look::Fenced => State::Fenced,
            Look::Unclear => State::Unclear,
        };
        let full = self.waiting.len() >= self.limits.requests || self.bytes.saturating_add(bytes) > self.limits.bytes;
        if full {
            return Entered::Full;
        }
        let arrival = earlier.unwrap_or_else(|| {
            self.arrivals += 1;
            Arrival(self.arrivals)
        });
        self.bytes += bytes;
        self.waiting.insert(arrival, Waiting { interest, bytes, state });
        Entered::Waits(arrival)
    }

    /// Gives the place of a request back.
    pub fn leave(&mut self, arrival: Arrival) {
        if let Some(waiting) = self.waiting.remove(&arrival) {
            self.bytes -= waiting.bytes;
        }
    }

    /// Looks at a newer map. Whose routes have changed by it are let go, in the order of their arrival, a few at a time.
    pub fn judge(&mut self, routes: &RouteMap, now: Instant) {
        if routes.version() <= self.judged {
            return;
        }
        self.judged = routes.version();
        for waiting in self.waiting.values_mut() {
            if matches!(waiting.state, State::Goes(_)) {
                continue;
            }
            waiting.state = match waiting.interest.look(routes) {
                Look::Fenced => State::Fenced,
                Look::Unclear => waiting.state,
                Look::Changed => State::Goes(slot(&mut self.step, now)),
            };
        }
    }

    /// The patience of a request is over: it is let go as well, behind those that are on their way.
    pub fn give_up(&mut self, arrival: Arrival, now: Instant) {
        if let Some(waiting) = self.waiting.get_mut(&arrival) {
            waiting.state = State::Goes(slot(&mut self.step, now));
        }
    }

    /// What a request waits for; `None` if it is not parked.
    pub fn state(&self, arrival: Arrival) -> Option<State> {
        self.waiting.get(&arrival).map(|waiting| waiting.state)
    }
}

/// When the next request may go.
fn slot(step: &mut Option<(Instant, usize)>, now: Instant) -> Instant {
    let (since, gone) = match *step {
        Some((since, _)) if now >= since + STEP => (now, 0),
        Some((since, BATCH)) => (since + STEP, 0),
        Some((since, gone)) => (since, gone),
        None => (now, 0),
    };
    *step = Some((since, gone + 1));
    since.max(now)
}

#[cfg(test)]
mod tests {
    use super::super::interest::tests::{keys, map};
    use super::*;

    const OPEN: [(u64, bool); 3] = [(2, false), (2, false), (2, false)];
    const FENCED: [(u64, bool); 3] = [(2, false), (2, true), (2, true)];
    const LAST_MOVED: [(u64, bool); 3] = [(2, false), (2, true), (3, false)];

    fn queue(requests: usize, bytes: usize) -> Queue {
        Queue::new(ParkingLimits { requests, bytes })
    }

    fn interest(of: &[&'static str], routed: [(u64, bool); 3]) -> Interest {
        Interest::new(keys(of), &map(1, routed))
    }

    fn enter(queue: &mut Queue, key: &'static str) -> Arrival {
        match queue.enter(interest(&[key], FENCED), 1, None, &map(1, FENCED)) {
            Entered::Waits(arrival) => arrival,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_and_bytes_are_bounded_and_whoever_leaves_makes_room() {
        let mut queue = queue(3, 10);
        let enter = |queue: &mut Queue, bytes| queue.enter(interest(&["z"], FENCED), bytes, None, &map(1, FENCED));
        let first = enter(&mut queue, 6);
        assert_eq!(enter(&mut queue, 5), Entered::Full, "bytes");
        assert!(matches!(enter(&mut queue, 4), Entered::Waits(_)));
        assert_eq!(enter(&mut queue, 1), Entered::Full, "bytes");
        assert!(matches!(enter(&mut queue, 0), Entered::Waits(_)));
        assert_eq!(enter(&mut queue, 0), Entered::Full, "requests");
        assert_eq!(queue.size(), (3, 10));
        let Entered::Waits(first) = first else { panic!("{first:?}") };
        queue.leave(first);
        queue.leave(first);
        assert_eq!(queue.size(), (2, 4));
        assert!(matches!(enter(&mut queue, 6), Entered::Waits(_)));
    }

    #[test]
    fn what_has_changed_already_needs_no_room() {
        let mut queue = queue(0, 0);
        assert_eq!(queue.enter(interest(&["z"], FENCED), 9, None, &map(2, OPEN)), Entered::Goes);
        assert_eq!(queue.enter(interest(&["z"], OPEN), 9, None, &map(2, FENCED)), Entered::Full);
    }

    #[test]
    fn those_whose_routes_changed_go_in_the_order_of_arrival_and_the_others_stay() {
        let mut queue = queue(10_000, 10_000);
        let now = Instant::now();
        let early = enter(&mut queue, "z");
        let parked: Vec<_> = (0..3 * BATCH).map(|n| enter(&mut queue, if n % 2 == 0 { "z" } else { "n" })).collect();
        // It is parked a second time, and is still the first.
        queue.leave(early);
        let again = queue.enter(interest(&["z"], FENCED), 1, Some(early), &map(1, FENCED));
        assert_eq!(again, Entered::Waits(early));
        queue.judge(&map(2, LAST_MOVED), now);
        queue.judge(&map(2, OPEN), now);
        let goes: Vec<_> = std::iter::once(&early).chain(parked.iter().step_by(2)).collect();
        for (n, arrival) in goes.into_iter().enumerate() {
            let wait = STEP * u32::try_from(n / BATCH).unwrap();
            assert_eq!(queue.state(*arrival), Some(State::Goes(now + wait)), "{n}");
        }
        for stays in parked.iter().skip(1).step_by(2) {
            assert_eq!(queue.state(*stays), Some(State::Fenced));
        }
    }

    #[test]
    fn steps_are_filled_one_after_the_other_and_a_quiet_time_is_not_saved_up() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut step = None;
        let mut slots = |n: usize, now| (0..n).map(|_| slot(&mut step, now)).collect::<Vec<_>>();
        assert_eq!(slots(1, at(0)), [at(0)], "one goes at once");
        assert!(slots(BATCH - 1, at(0)).iter().all(|slot| *slot == at(0)));
        assert!(slots(BATCH, at(0)).iter().all(|slot| *slot == at(1)));
        assert_eq!(slots(1, at(0)), [at(2)]);
        assert!(slots(BATCH - 1, at(1)).iter().all(|slot| *slot == at(2)), "behind those that wait");
        assert!(slots(BATCH, at(100)).iter().all(|slot| *slot == at(100)), "nobody waits any more");
        assert_eq!(slots(1, at(100)), [at(101)]);
    }

    #[test]
    fn a_map_that_says_nothing_new_of_a_route_changes_nothing() {
        let mut queue = queue(10, 10);
        let now = Instant::now();
        let Entered::Waits(unclear) = queue.enter(interest(&["z"], OPEN), 1, None, &map(1, OPEN)) else { panic!() };
        let fenced = enter(&mut queue, "z");
        let moved = [(9, false), (2, true), (2, true)];
        assert_eq!(queue.state(unclear), Some(State::Unclear));
        queue.judge(&map(2, moved), now);
        assert_eq!((queue.state(unclear), queue.state(fenced)), (Some(State::Fenced), Some(State::Fenced)));
        queue.judge(&map(1, OPEN), now);
        assert_eq!(queue.state(fenced), Some(State::Fenced), "an older map");
        queue.give_up(fenced, now);
        assert_eq!(queue.state(fenced), Some(State::Goes(now)));
        queue.judge(&map(3, OPEN), now + STEP);
        assert_eq!(queue.state(fenced), Some(State::Goes(now)), "it is on its way");
        assert_eq!(queue.state(unclear), Some(State::Goes(now + STEP)));
    }
}
