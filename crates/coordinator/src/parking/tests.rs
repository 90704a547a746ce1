use drover_catalog::RouteMap;

use super::interest::tests::{keys, map};
use super::*;

const OPEN: [(u64, bool); 3] = [(2, false), (2, false), (2, false)];
const FENCED: [(u64, bool); 3] = [(2, false), (2, false), (2, true)];
const MOVED: [(u64, bool); 3] = [(2, false), (2, false), (3, false)];

struct World {
    parking: Arc<Parking>,
    routes: Arc<RouteCache>,
    events: Arc<Mutex<Vec<ParkingEvent>>>,
}

impl World {
    fn new(requests: usize, routes: RouteMap) -> Self {
        let parking = Arc::new(Parking::new(ParkingLimits { requests, bytes: 1_000 }));
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        parking.observe(Arc::new(move |event| seen.lock().push(event)));
        Self { parking, routes: RouteCache::new(routes), events }
    }

    /// Parks a write of "z" that was routed by the present map, with endless patience.
    fn park(&self, deadline: Instant) -> tokio::task::JoinHandle<Result<Woken, Turned>> {
        let day = |_| (Duration::from_secs(86_400), Duration::from_secs(86_400));
        self.park_as(Stay { patience: day, ..Stay::default() }, deadline)
    }

    fn park_as(&self, mut stay: Stay, deadline: Instant) -> tokio::task::JoinHandle<Result<Woken, Turned>> {
        let (parking, routes) = (Arc::clone(&self.parking), Arc::clone(&self.routes));
        let interest = Interest::new(keys(&["z"]), &routes.current());
        tokio::spawn(async move { parking.wait(&routes, interest, 10, &mut stay, deadline).await })
    }

    async fn until(&self, parked: usize) {
        while self.parking.size().0 != parked {
            tokio::task::yield_now().await;
        }
    }

    /// How many were parked, have left, and were refused.
    fn counts(&self) -> (usize, usize, usize) {
        let events = self.events.lock();
        let count = |of: fn(&ParkingEvent) -> bool| events.iter().filter(|event| of(event)).count();
        (
            count(|event| *event == ParkingEvent::Parked),
            count(|event| matches!(event, ParkingEvent::Left { .. })),
            count(|event| *event == ParkingEvent::Refused),
        )
    }
}

fn late() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[test]
fn patience_grows_with_each_try_up_to_a_bound_and_is_short_while_nothing_is_said() {
    let ms = Duration::from_millis;
    let table =
        [(0, 5, 50), (1, 10, 100), (2, 20, 200), (3, 40, 400), (4, 80, 500), (6, 200, 500), (u32::MAX, 200, 500)];
    for (tries, unclear, fenced) in table {
        assert_eq!(patience(tries), (ms(unclear), ms(fenced)), "{tries}");
    }
    let mut stay = Stay { tries: u32::MAX, ..Stay::default() };
    for _ in 0..100 {
        let (unclear, fenced) = stay.patience();
        assert!(ms(100) <= unclear && unclear < ms(300) && ms(250) <= fenced && fenced < ms(750), "{unclear:?}");
    }
}

#[tokio::test]
async fn news_wake_all_who_wait_for_them() {
    for news in [MOVED, OPEN] {
        let world = World::new(100, map(1, FENCED));
        let waiting: Vec<_> = (0..100).map(|_| world.park(late())).collect();
        world.until(100).await;
        assert!(world.routes.replace(map(2, news)));
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(Woken::News));
        }
        assert_eq!((world.parking.size(), world.counts()), ((0, 0), (100, 100, 0)));
    }
}

#[tokio::test]
async fn without_news_it_is_tried_again_all_the_same() {
    for known in [FENCED, OPEN] {
        let world = World::new(1, map(1, known));
        assert_eq!(world.park_as(Stay::default(), late()).await.unwrap(), Ok(Woken::Impatience));
        assert_eq!((world.parking.size(), world.counts()), ((0, 0), (1, 1, 0)));
    }
}

#[tokio::test]
async fn who_finds_no_room_is_turned_away_at_once() {
    let world = World::new(1, map(1, FENCED));
    let first = world.park(late());
    world.until(1).await;
    assert_eq!(world.park(late()).await.unwrap(), Err(Turned::Full));
    assert!(world.routes.replace(map(2, OPEN)));
    assert_eq!(first.await.unwrap(), Ok(Woken::News));
    assert_eq!(world.counts(), (1, 1, 1));
}

#[tokio::test]
async fn a_deadline_ends_the_wait() {
    let world = World::new(1, map(1, FENCED));
    let soon = Instant::now() + Duration::from_millis(10);
    assert_eq!(world.park(soon).await.unwrap(), Err(Turned::Late));
    assert_eq!(world.parking.size(), (0, 0));
}

#[tokio::test]
async fn who_goes_away_gives_the_place_back() {
    let world = World::new(1, map(1, FENCED));
    let gone = world.park(late());
    world.until(1).await;
    gone.abort();
    world.until(0).await;
    assert_eq!((world.parking.size(), world.counts()), ((0, 0), (1, 1, 0)));
}

#[tokio::test]
async fn a_node_that_stops_turns_away_who_waits_and_who_comes() {
    let world = World::new(2, map(1, FENCED));
    let waiting = world.park(late());
    world.until(1).await;
    world.parking.close();
    assert_eq!(waiting.await.unwrap(), Err(Turned::Closed));
    assert_eq!(world.park(late()).await.unwrap(), Err(Turned::Closed));
    assert_eq!(world.parking.size(), (0, 0));
}

#[tokio::test]
async fn a_change_between_the_refusal_and_the_wait_is_no_reason_to_wait() {
    let world = World::new(0, map(1, FENCED));
    let interest = Interest::new(keys(&["z"]), &world.routes.current());
    assert!(world.routes.replace(map(2, MOVED)));
    let woken = world.parking.wait(&world.routes, interest, 10, &mut Stay::default(), late()).await;
    assert_eq!(woken, Ok(Woken::News));
}
