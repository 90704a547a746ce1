//! Slows down the writers of a range that moves away, while its copy does not keep up with them.
//!
//! Whoever moves the range lends the leader a rate, for a moment, and says it again for as long as it is needed. The leader keeps
//! that in memory, with its leadership: no log knows of it, apply does not, and it ends by itself when the one who lent it is
//! gone. New writes and prepares take turns at that rate before anything else is done for them. Nobody is refused: a turn comes
//! within [`LONGEST`], and within half of the time that the request has left, and no more than [`MOST_WAITING`] wait for one. Who may
//! hold locks does not wait, because others wait for those: what ends a transaction takes no turn, and a prepare that does not set
//! the first lock takes one and goes at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drover_fsm::moving::Fence;
use drover_guards::{self as guards, Guard};
use drover_keys::{Interval, JobEpoch, JobId};
use drover_kv::{Error, Mutation, Reason, TxnWrite, WriteKind};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::group::Group;
use crate::leadership::Leadership;

/// No write is held back for longer.
const LONGEST: Duration = Duration::from_millis(500);
/// More do not wait for their turns at once, but go: they would take up the room of requests for other ranges.
const MOST_WAITING: usize = 1_024;
/// No rate is lent for longer at once.
const LONGEST_LEASE: Duration = Duration::from_secs(30);

/// A rate that was lent.
#[derive(Debug)]
struct Lease {
    job: JobId,
    epoch: JobEpoch,
    interval: Interval,
    bytes_per_second: u64,
    until: Instant,
    /// When the next write may go.
    next: Instant,
    /// Cancelled when it is lifted: who waits for a turn need not.
    lifted: CancellationToken,
}

/// When a write may go.
#[derive(Debug)]
struct Turn {
    at: Instant,
    lifted: CancellationToken,
}

/// The ranges whose writers are slowed down, in one leadership.
#[derive(Debug)]
pub(crate) struct Throttle {
    leases: Mutex<Vec<Lease>>,
    /// For those who wait.
    places: Semaphore,
    /// Whether there is a lease: writes look no further if there is none.
    any: AtomicBool,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { leases: Mutex::default(), places: Semaphore::new(MOST_WAITING), any: AtomicBool::new(false) }
    }
}

impl Throttle {
    /// Lends a rate in bytes of keys and values a second, in place of the one that the job had before. Whether that was done: a
    /// later course of the job is not disturbed.
    fn lend(
        &self,
        (job, epoch): (JobId, JobEpoch),
        interval: &Interval,
        bytes_per_second: u64,
        now: Instant,
        duration: Duration,
    ) -> bool {
        let mut leases = self.leases.lock();
        leases.retain(|lease| lease.until > now);
        let until = now + duration.min(LONGEST_LEASE);
        self.any.store(true, Ordering::Release);
        match leases.iter_mut().find(|lease| lease.job == job) {
            Some(lease) if lease.epoch > epoch => return false,
            Some(lease) => {
                (lease.epoch, lease.interval, lease.until) = (epoch, interval.clone(), until);
                lease.bytes_per_second = bytes_per_second;
            }
            None => {
                let (interval, lifted) = (interval.clone(), CancellationToken::new());
                leases.push(Lease { job, epoch, interval, bytes_per_second, until, next: now, lifted });
            }
        }
        true
    }

    /// Takes back what was lent to a job in this course of it or an older one. Whether there was anything.
    fn lift(&self, job: JobId, epoch: JobEpoch) -> bool {
        let mut leases = self.leases.lock();
        let before = leases.len();
        leases.retain(|lease| {
            let stays = lease.job != job || lease.epoch > epoch;
            if !stays {
                lease.lifted.cancel();
            }
            stays
        });
        self.any.store(!leases.is_empty(), Ordering::Release);
        leases.len() < before
    }

    /// When a write that has time until `deadline` may go; `None`: now.
    fn turn(&self, kind: &WriteKind, now: Instant, deadline: Instant) -> Option<Turn> {
        if !self.any.load(Ordering::Acquire) || !takes_turns(kind) || !guards::on(Guard::WritersTakeTurns) {
            return None;
        }
        let mut leases = self.leases.lock();
        leases.retain(|lease| lease.until > now);
        self.any.store(!leases.is_empty(), Ordering::Release);
        let lease = leases.iter_mut().find(|lease| writes_into(kind, &lease.interval))?;
        let cost = Duration::from_secs_f64(kind.payload_bytes() as f64 / lease.bytes_per_second.max(1) as f64);
        let turn = lease.next.max(now);
        // What is owed is bounded by what anybody waits: it is a brake, and no queue.
        lease.next = turn.checked_add(cost).map_or(now + LONGEST, |next| next.min(now + LONGEST));
        if locks_already(kind) {
            return None;
        }
        let at = turn.min(lease.until).min(now + deadline.saturating_duration_since(now) / 2);
        (at > now).then(|| Turn { at, lifted: lease.lifted.clone() })
    }
}

/// Whether a write is a new one, and not what a transaction that holds locks does to get rid of them.
fn takes_turns(kind: &WriteKind) -> bool {
    match kind {
        WriteKind::Put { .. }
        | WriteKind::Delete { .. }
        | WriteKind::CompareAndSet { .. }
        | WriteKind::DeleteRange { .. } => true,
        WriteKind::Settle { .. } => false,
        WriteKind::Txn(step) => match step.as_ref() {
            TxnWrite::Commit(_) | TxnWrite::Prepare(_) => true,
            TxnWrite::Decide(_)
            | TxnWrite::Resolve(_)
            | TxnWrite::Rollback(_)
            | TxnWrite::Heartbeat(_)
            | TxnWrite::Finish(_) => false,
        },
    }
}

/// Whether a transaction may hold locks elsewhere when it sends this: others would wait for whoever waits here. It counts for the
/// turns of those who come later.
fn locks_already(kind: &WriteKind) -> bool {
    match kind {
        WriteKind::Txn(step) => match step.as_ref() {
            TxnWrite::Prepare(prepare) => !prepare.mutations.iter().any(|mutation| mutation.key == prepare.primary),
            _ => false,
        },
        _ => false,
    }
}

fn writes_into(kind: &WriteKind, interval: &Interval) -> bool {
    let any = |mutations: &[Mutation]| mutations.iter().any(|mutation| interval.contains(&mutation.key));
    match kind {
        WriteKind::Txn(step) => match step.as_ref() {
            TxnWrite::Commit(commit) => any(&commit.mutations),
            TxnWrite::Prepare(prepare) => any(&prepare.mutations),
            _ => false,
        },
        WriteKind::DeleteRange { interval: deleted, .. } => deleted.overlaps(interval),
        WriteKind::Put { key, .. }
        | WriteKind::Delete { key }
        | WriteKind::CompareAndSet { key, .. }
        | WriteKind::Settle { key } => interval.contains(key),
    }
}

impl Group {
    /// Lets new writes into the range that a job moves away in no faster than this from now on, in bytes of keys and values a
    /// second; zero: as fast as they come. That holds for `duration`, unless it is said again, and no longer than this
    /// leadership. Whether it holds, or was taken back.
    ///
    /// # Errors
    /// [`Reason::NotLeader`]; [`Reason::FailedPrecondition`] if no range of that job moves away from here in this course, or if
    /// its writes are held back anyway. Both definite.
    pub fn slow_writers(
        &self,
        job: JobId,
        epoch: JobEpoch,
        bytes_per_second: u64,
        duration: Duration,
    ) -> Result<bool, Error> {
        let leadership = self.leadership()?;
        if bytes_per_second == 0 {
            return Ok(leadership.throttle.lift(job, epoch));
        }
        let state = self.fsm.state();
        let source = state.moves.source(job).filter(|source| source.fence == Fence::Open && source.epoch <= epoch);
        let Some(source) = source else {
            let message = format!("no open range of job {job} moves away from group {} in epoch {epoch}", self.id);
            return Err(Error::definite(Reason::FailedPrecondition, message));
        };
        Ok(leadership.throttle.lend((job, epoch), &source.interval, bytes_per_second, Instant::now(), duration))
    }

    /// Waits for the turn of a write, if it writes into a range whose writers are slowed down.
    pub(crate) async fn slowed_down(&self, leadership: &Leadership, kind: &WriteKind, deadline: Instant) {
        let now = Instant::now();
        let Some(turn) = leadership.throttle.turn(kind, now, deadline) else { return };
        // Whoever waits takes room that requests for other ranges need as well.
        let Ok(_place) = leadership.throttle.places.try_acquire() else { return };
        tokio::select! {
            () = tokio::time::sleep_until(turn.at.into()) => {}
            () = turn.lifted.cancelled() => {}
            // Whoever proposes is told so.
            () = leadership.over.cancelled() => {}
        }
        self.stats.write_slowed(now.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use drover_hlc::Timestamp;
    use drover_keys::End;
    use drover_kv::{Attempt, TxnHeartbeat, TxnId, TxnPrepare, TxnRef, Update};

    use super::*;

    const JOB: (JobId, JobEpoch) = (JobId(5), JobEpoch(2));
    const LONG: Duration = Duration::from_secs(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn range() -> Interval {
        Interval::new("m", End::Key("x".into())).unwrap()
    }

    /// Of 100 bytes.
    fn put(key: &'static str) -> WriteKind {
        WriteKind::Put { key: key.into(), value: vec![b'v'; 100 - key.len()].into(), ttl_ms: None }
    }

    fn txn() -> TxnRef {
        TxnRef { id: TxnId([1; 16]), attempt: Attempt { number: 1, coordinator: 1 } }
    }

    fn prepare(primary: &'static str, key: &'static str) -> WriteKind {
        WriteKind::Txn(Box::new(TxnWrite::Prepare(TxnPrepare {
            txn: txn(),
            start_ts: Timestamp::from_raw(1),
            primary: primary.into(),
            fingerprint: 0,
            ttl_ms: 1,
            supersedes: false,
            mutations: vec![Mutation {
                key: key.into(),
                update: Update::Put { value: vec![b'v'; 100 - key.len()].into(), ttl_ms: None },
            }],
        })))
    }

    /// A range into which 1,000 bytes a second may be written, at a moment at which one write was let in.
    fn busy(now: Instant, duration: Duration) -> Throttle {
        let throttle = Throttle::default();
        assert!(throttle.lend(JOB, &range(), 1_000, now, duration));
        assert!(throttle.turn(&put("n"), now, now + LONG).is_none(), "the first one goes at once");
        throttle
    }

    fn wait(throttle: &Throttle, kind: &WriteKind, now: Instant, time_left: Duration) -> Option<Duration> {
        throttle.turn(kind, now, now + time_left).map(|turn| turn.at - now)
    }

    #[test]
    fn new_writes_and_prepares_of_the_range_take_turns_and_nothing_else_does() {
        let now = Instant::now();
        let delete = |start: &'static str, end: &'static str| WriteKind::DeleteRange {
            interval: Interval::new(start, End::Key(end.into())).unwrap(),
            resume: None,
        };
        let heartbeat = TxnHeartbeat { txn: txn(), primary: "n".into(), ttl_ms: 1 };
        let table = [
            (put("n"), true),
            (put("m"), true),
            (put("x"), false),
            (put("l"), false),
            (WriteKind::Delete { key: "n".into() }, true),
            (prepare("n", "n"), true),
            (prepare("a", "n"), false),
            (prepare("b", "b"), false),
            (delete("a", "n"), true),
            (delete("a", "m"), false),
            (WriteKind::Settle { key: "n".into() }, false),
            (WriteKind::Txn(Box::new(TxnWrite::Heartbeat(heartbeat))), false),
        ];
        for (kind, waits) in table {
            let waited = wait(&busy(now, LONG), &kind, now, LONG);
            assert_eq!(waited, waits.then_some(ms(100)), "{kind:?}");
        }
        // Who may hold a lock goes at once, at the cost of those who come later.
        let throttle = busy(now, LONG);
        let second = prepare("a", "n");
        assert_eq!(wait(&throttle, &second, now, LONG), None);
        assert_eq!(wait(&throttle, &put("n"), now, LONG), Some(ms(100 + second.payload_bytes() as u64)));
    }

    #[test]
    fn turns_come_at_the_rate_that_was_lent_within_half_a_second_and_half_of_the_time_that_is_left() {
        let now = Instant::now();
        let throttle = busy(now, LONG);
        for expect in [100, 200, 300, 400, 500, 500, 500] {
            assert_eq!(wait(&throttle, &put("n"), now, LONG), Some(ms(expect)));
        }
        assert_eq!(wait(&throttle, &put("n"), now, ms(60)), Some(ms(30)), "its deadline is kept");
        assert_eq!(wait(&throttle, &put("n"), now, ms(0)), None);
        // What was not used is not saved up.
        assert_eq!(wait(&throttle, &put("n"), now + ms(5_000), LONG), None);
        assert_eq!(wait(&throttle, &put("n"), now + ms(5_000), LONG), Some(ms(100)));
        assert!(throttle.lend(JOB, &range(), 2_000, now + ms(5_000), LONG), "another rate, from the next turn on");
        assert_eq!(wait(&throttle, &put("n"), now + ms(5_000), LONG), Some(ms(200)));
        assert_eq!(wait(&throttle, &put("n"), now + ms(5_000), LONG), Some(ms(250)));
    }

    #[test]
    fn what_was_lent_ends_by_itself_and_nobody_waits_longer_than_that() {
        let now = Instant::now();
        let throttle = busy(now, ms(40));
        assert_eq!(wait(&throttle, &put("n"), now, LONG), Some(ms(40)));
        assert_eq!(wait(&throttle, &put("n"), now + ms(40), LONG), None);
        assert_eq!(wait(&throttle, &put("n"), now + ms(40), LONG), None);
        assert!(!throttle.any.load(Ordering::Acquire), "writes look no further");
        let throttle = busy(now, Duration::from_secs(3_600));
        assert!(wait(&throttle, &put("n"), now + LONGEST_LEASE, LONG).is_none(), "nobody lends for ever");
    }

    #[test]
    fn what_was_lent_is_taken_back_by_its_own_course_or_a_later_one_and_who_waits_goes_at_once() {
        let now = Instant::now();
        let (job, epoch) = JOB;
        let throttle = busy(now, LONG);
        let turn = throttle.turn(&put("n"), now, now + LONG).unwrap();
        assert!(!throttle.lift(JobId(6), epoch) && !throttle.lift(job, JobEpoch(1)));
        assert!(!throttle.lend((job, JobEpoch(1)), &range(), 1, now, LONG), "of an older course");
        assert!(!turn.lifted.is_cancelled());
        assert!(throttle.lift(job, JobEpoch(3)));
        assert!(turn.lifted.is_cancelled());
        assert_eq!(wait(&throttle, &put("n"), now, LONG), None);
    }
}
