//! Where writes wait while their range changes hands.
//!
//! # Model
//!
//! A write that a group refuses because of a fence, or whose route reads write-fenced in the map, waits in one queue of bounded
//! size until its routes have changed, and is routed anew then. Whoever waits looks at the queue when the map changes; the first of
//! them judges all, in the order of their arrival, and gives each a moment at which it goes: a few at a time, so that those who
//! waited together do not arrive together, and one alone goes at once.
//!
//! The news may be lost, or the map ahead of the group. So each waits no longer than its patience lasts, which grows with each
//! try, and asks the group again then.
//!
//! # Invariants
//!
//! - What a fence waits for is never parked: only new writes are, and no transaction that holds a lock.
//! - A place is given back whatever becomes of the request.
//!
//! Knows nothing of groups, and decides nothing about what a request is told.

mod interest;
mod queue;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::Rng;
use tokio::sync::watch;

pub use interest::{Interest, Look, is_fenced};
pub use queue::{Arrival, ParkingLimits};

use crate::RouteCache;
use queue::{Entered, Queue, State};

/// Something that happened to a request that waits for its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkingEvent {
    /// It waits.
    Parked,
    /// It waits no longer.
    Left {
        /// For how long it has waited.
        waited: Duration,
    },
    /// There was no room for it.
    Refused,
}

/// Is told of everything that happens. It must not block.
pub type ParkingObserver = Arc<dyn Fn(ParkingEvent) + Send + Sync>;

/// Why a request goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// Its routes have changed.
    News,
    /// It has waited for long enough; the map may still say that writes are held back.
    Impatience,
}

/// Why a request does not wait any longer without a reason to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// There is no room.
    Full,
    /// The node is stopping.
    Closed,
    /// Its deadline has passed.
    Late,
}

/// The patience of one request, over all its tries, and its place in the order of arrival.
#[derive(Debug)]
pub struct Stay {
    arrival: Option<Arrival>,
    tries: u32,
    /// See [`patience`].
    patience: fn(u32) -> (Duration, Duration),
}

impl Default for Stay {
    fn default() -> Self {
        Self { arrival: None, tries: 0, patience }
    }
}

impl Stay {
    /// The longest it waits this time before it asks again, while nothing is said of its routes and while they are said to be held
    /// back. In the first case the group and the map disagree, which is over in a moment.
    fn patience(&mut self) -> (Duration, Duration) {
        let jitter = rand::rng().random_range(0.5..1.5);
        let (unclear, fenced) = (self.patience)(self.tries);
        self.tries = self.tries.saturating_add(1);
        (unclear.mul_f64(jitter), fenced.mul_f64(jitter))
    }
}

/// How long a request waits at most after so many tries, while nothing is said of its routes and while they are said to be held
/// back.
fn patience(tries: u32) -> (Duration, Duration) {
    let doubled = |first_ms: u64, longest_ms: u64| Duration::from_millis((first_ms << tries.min(10)).min(longest_ms));
    (doubled(5, 200), doubled(50, 500))
}

/// The parked requests of a node.
pub struct Parking {
    queue: Mutex<Queue>,
    closed: watch::Sender<bool>,
    observer: OnceLock<ParkingObserver>,
}

/// A place in the queue, given back when it is dropped.
struct Place<'a> {
    parking: &'a Parking,
    arrival: Arrival,
    since: Instant,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.parking.queue.lock().leave(self.arrival);
        self.parking.tell(ParkingEvent::Left { waited: self.since.elapsed() });
    }
}

impl Parking {
    /// An empty one.
    pub fn new(limits: ParkingLimits) -> Self {
        Self { queue: Mutex::new(Queue::new(limits)), closed: watch::Sender::new(false), observer: OnceLock::new() }
    }

    /// Tells `observer` of everything that happens from now on. The first one stays.
    pub fn observe(&self, observer: ParkingObserver) {
        let _ = self.observer.set(observer);
    }

    /// Requests and bytes that are parked.
    pub fn size(&self) -> (usize, usize) {
        self.queue.lock().size()
    }

    /// Turns away who is parked, and who comes from now on.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    fn tell(&self, event: ParkingEvent) {
        if let Some(observer) = self.observer.get() {
            observer(event);
        }
    }

    /// Waits until it makes sense to route a request anew that `interest` tells the routes of.
    ///
    /// # Errors
    /// Why it does not wait, or no longer. Nothing was sent meanwhile.
    pub async fn wait(
        &self,
        routes: &RouteCache,
        interest: Interest,
        bytes: usize,
        stay: &mut Stay,
        deadline: Instant,
    ) -> Result<Woken, Turned> {
        let (mut versions, mut closed) = (routes.versions(), self.closed.subscribe());
        if *closed.borrow_and_update() {
            return Err(Turned::Closed);
        }
        let entered = {
            let mut queue = self.queue.lock();
            // Under the lock: nobody has judged by a newer map.
            queue.enter(interest, bytes, stay.arrival, &routes.current())
        };
        let arrival = match entered {
            Entered::Waits(arrival) => arrival,
            Entered::Goes => return Ok(Woken::News),
            Entered::Full => {
                self.tell(ParkingEvent::Refused);
                return Err(Turned::Full);
            }
        };
        self.tell(ParkingEvent::Parked);
        let place = Place { parking: self, arrival, since: Instant::now() };
        stay.arrival = Some(arrival);
        let (unclear, fenced) = stay.patience();
        let mut woken = Woken::News;
        loop {
            versions.borrow_and_update();
            let state = {
                let mut queue = self.queue.lock();
                queue.judge(&routes.current(), Instant::now());
                queue.state(arrival).expect("a place is given back when it is dropped, and this one is held here")
            };
            let (wake, goes) = match state {
                State::Goes(at) => (at, true),
                State::Fenced => (place.since + fenced, false),
                State::Unclear => (place.since + unclear, false),
            };
            tokio::select! {
                biased;
                _ = closed.changed() => return Err(Turned::Closed),
                () = tokio::time::sleep_until(wake.min(deadline).into()) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return Err(Turned::Late);
                    }
                    if goes {
                        return Ok(woken);
                    }
                    woken = Woken::Impatience;
                    self.queue.lock().give_up(arrival, now);
                }
                _ = versions.changed(), if !goes => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
