//! Nodes that end themselves at a step of a transaction or of a move: those that were not come to before are tried first.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use drover_client::{GroupId, JobAction, JobId, SplitJob, has_ended};
use drover_guards::{CrashPoint, HOLD, JobMark, LAST_WORDS, Moment, MoveEntry, Place, TxnEntry};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::act::ACTOR;
use super::{Broken, Fault, Mend, Nemesis};
use crate::cluster::DATA_GROUPS;

/// How long clients may take to come to a step of a transaction.
const TXN_COMES: Duration = Duration::from_secs(4);
/// How long a move may take to come to one of its own.
const MOVE_COMES: Duration = Duration::from_secs(8);
/// Longer than a fence may stand that is allowed 100 ms.
const TOO_LONG: Duration = Duration::from_millis(2_500);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Where whoever drives a move waits, so that it can be called off, or its fence stands for too long.
const LATE: CrashPoint = CrashPoint::Job(JobMark::CutOver, Moment::Unsent);

/// The points that a nemesis may arm.
pub fn points(fault: Fault) -> Vec<CrashPoint> {
    let is_meant = |point: &CrashPoint| match point {
        CrashPoint::Txn(..) | CrashPoint::At(Place::TxnPrepared | Place::TxnTimestamped | Place::TxnRefreshed) => {
            fault == Fault::CrashTxn
        }
        CrashPoint::Move(..) => fault == Fault::CrashMove,
        // Its answer goes to people alone.
        CrashPoint::Job(JobMark::Abandon, moment) => fault == Fault::CrashMove && !moment.is_on_the_coordinator(),
        CrashPoint::Job(..) => fault == Fault::CrashMove,
        CrashPoint::At(_) => false,
    };
    CrashPoint::all().filter(is_meant).collect()
}

/// Who comes to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Any node.
    Coordinator,
    /// Who leads some data group.
    Leader,
    /// Who leads the default group.
    Driver,
    /// Who leads the group that the range moves out of.
    Source,
    /// Who leads the group that it moves into.
    Target,
}

/// Those who may come to a step; the entry stands in the log of either.
fn roles(point: CrashPoint) -> &'static [Role] {
    use MoveEntry::*;
    match point {
        CrashPoint::At(_) => &[Role::Coordinator],
        CrashPoint::Txn(_, moment) if moment.is_on_the_coordinator() => &[Role::Coordinator],
        CrashPoint::Txn(..) => &[Role::Leader],
        CrashPoint::Job(..) => &[Role::Driver],
        CrashPoint::Move(_, moment) if moment.is_on_the_coordinator() => &[Role::Driver],
        CrashPoint::Move(entry, _) => match entry {
            Arm | FenceWrites | Seal | FenceReads | Release => &[Role::Source],
            PrepareImport | FirstChunk | LaterChunk | ListedChunk | LastChunk | Activate => &[Role::Target],
            Clear | Retire => &[Role::Source, Role::Target],
        },
    }
}

/// How a move comes to a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// By itself.
    Forward,
    /// Its fence stands for too long, so it is lifted and set again.
    Unfenced,
    /// It is called off when the copy is complete.
    Abandoned,
}

fn course(point: CrashPoint) -> Course {
    match point {
        CrashPoint::Move(MoveEntry::Clear, _) | CrashPoint::Job(JobMark::Unfence, _) => Course::Unfenced,
        CrashPoint::Move(MoveEntry::Retire, _) | CrashPoint::Job(JobMark::Abandon | JobMark::Abandoned, _) => {
            Course::Abandoned
        }
        CrashPoint::At(_) | CrashPoint::Txn(..) | CrashPoint::Move(..) | CrashPoint::Job(..) => Course::Forward,
    }
}

/// How often clients pass a step before the crash. What is rare is not waited for.
fn passes(point: CrashPoint, rng: &mut StdRng) -> u64 {
    match point {
        CrashPoint::Txn(TxnEntry::Heartbeat | TxnEntry::Rollback | TxnEntry::ResolveRolledBack, _) => 0,
        CrashPoint::Txn(..) | CrashPoint::At(_) => rng.random_range(0..4),
        CrashPoint::Move(..) | CrashPoint::Job(..) => 0,
    }
}

/// One that was not come to, if there is one left.
fn draw(points: &[CrashPoint], tried: &BTreeSet<CrashPoint>, rng: &mut StdRng) -> CrashPoint {
    let left: Vec<CrashPoint> = points.iter().filter(|point| !tried.contains(point)).copied().collect();
    let from = if left.is_empty() { points } else { &left };
    *from.choose(rng).expect("there are points")
}

impl Nemesis {
    /// Lets a node end itself at a step that it comes to by what clients or a move do.
    pub(super) async fn crash(&self, fault: Fault, rng: &mut StdRng, stop: &CancellationToken) -> Result<Broken> {
        let all = points(fault);
        let point = {
            let mut tried = self.tried.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let point = draw(&all, &tried, rng);
            tried.insert(point);
            point
        };
        let (victim, came) = match fault {
            Fault::CrashMove => match self.draw_move_at_last(rng).await? {
                Some(asked) => self.crash_a_move(point, &asked, rng, stop).await?,
                None => return Ok(Broken::skipped("nothing is to be moved")),
            },
            _ => {
                let node = match roles(point).choose(rng) {
                    Some(Role::Leader) => {
                        let group = GroupId(2 + rng.random_range(0..DATA_GROUPS));
                        self.cluster.leader(&self.client, group).await
                    }
                    _ => self.cluster.nodes().choose(rng).copied(),
                };
                let Some(node) = node else { return Ok(Broken::skipped("no leader is known")) };
                let since = self.cluster.has_said(node);
                self.cluster.arm(node, &[format!("{point}:{}", passes(point, rng))])?;
                let until = Instant::now() + TXN_COMES;
                while Instant::now() < until && !self.ended_at(node, point, since) && !stop.is_cancelled() {
                    tokio::time::sleep(LOOK).await;
                }
                (node, self.ended_at(node, point, since))
            }
        };
        self.disarm_all()?;
        if !came {
            let mut broken = Broken::skipped("nobody came there in time");
            broken.what["point"] = point.to_string().into();
            return Ok(broken);
        }
        let what = json!({"node": victim, "point": point.to_string()});
        Ok(Broken::installed(what, Mend::Start(vec![victim])))
    }

    /// Moves a range, and lets a node end itself at a step of that. Who it was to be, and whether it did.
    async fn crash_a_move(
        &self,
        point: CrashPoint,
        asked: &drover_client::MoveRequest,
        rng: &mut StdRng,
        stop: &CancellationToken,
    ) -> Result<(u64, bool)> {
        let map = self.client.routes().await.map_err(|error| anyhow!("{error}"))?;
        let source =
            map.routes.iter().find(|route| route.route_id == asked.route.0).map(|route| GroupId(route.group_id));
        let source = source.ok_or_else(|| anyhow!("the route is gone"))?;
        let leader =
            async |group| self.cluster.leader(&self.client, group).await.ok_or_else(|| anyhow!("no leader is known"));
        let driver = leader(GroupId::DEFAULT).await?;
        let victim = match roles(point).choose(rng) {
            Some(Role::Source) => leader(source).await?,
            Some(Role::Target) => leader(asked.target).await?,
            _ => driver,
        };
        let course = course(point);
        let since = self.cluster.has_said(victim);
        let hold = format!("{HOLD}{LATE}");
        let lines = |holds: bool, node: u64| {
            let crash = (node == victim).then(|| point.to_string());
            crash.into_iter().chain((holds && node == driver).then(|| hold.clone())).collect::<Vec<_>>()
        };
        let holds = course != Course::Forward;
        for node in [victim, driver] {
            self.cluster.arm(node, &lines(holds, node))?;
        }
        let job = self.client.start_move(asked, ACTOR).await.map_err(|error| anyhow!("{error}"))?;
        let (id, began) = (JobId(job.job_id), Instant::now());
        let (mut last, mut held) = (None, holds);
        while began.elapsed() < MOVE_COMES && !self.ended_at(victim, point, since) && !stop.is_cancelled() {
            if let Some(job) = self.client.job(id).await.ok().and_then(|status| status.job) {
                self.note_phase(&job, &mut last);
                if has_ended(job.phase()) {
                    break;
                }
            }
            let lift_after = if course == Course::Abandoned { TOO_LONG / 3 } else { TOO_LONG };
            if held && began.elapsed() > lift_after {
                if course == Course::Abandoned {
                    let _ = self.client.change_job(id, JobAction::Abandon, ACTOR).await;
                }
                for node in [victim, driver] {
                    self.cluster.arm(node, &lines(false, node))?;
                }
                held = false;
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok((victim, self.ended_at(victim, point, since)))
    }

    /// Takes down a phase of a job that is another one than the last time.
    pub(super) fn note_phase(&self, job: &SplitJob, last: &mut Option<(i32, u64)>) {
        let now = Some((job.phase, job.epoch));
        if *last != now {
            *last = now;
            let phase = job.phase().as_str_name().trim_start_matches("PHASE_").to_lowercase();
            self.recorder.nemesis("move-phase", json!({"job": job.job_id, "phase": phase, "epoch": job.epoch}));
        }
    }

    fn disarm_all(&self) -> Result<()> {
        self.cluster.nodes().into_iter().try_for_each(|node| self.cluster.arm(node, &[]))
    }

    /// Whether a node has ended itself at a point, by what it said behind so many bytes.
    fn ended_at(&self, node: u64, point: CrashPoint, since: u64) -> bool {
        self.cluster.said_since(node, since).contains(&format!("{LAST_WORDS}{point}\n"))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_step_of_transactions_and_moves_is_tried_before_one_is_tried_again() {
        let mut rng = StdRng::seed_from_u64(1);
        for fault in [Fault::CrashTxn, Fault::CrashMove] {
            let all = points(fault);
            let mut tried = BTreeSet::new();
            while tried.len() < all.len() {
                let point = draw(&all, &tried, &mut rng);
                assert!(tried.insert(point), "{point} came twice");
                assert!(!roles(point).is_empty());
            }
            assert!(tried.contains(&draw(&all, &tried, &mut rng)));
        }
        let both = points(Fault::CrashTxn).len() + points(Fault::CrashMove).len();
        let of_replicas = Place::ALL.len() - 3;
        assert_eq!(both + of_replicas + 2, CrashPoint::all().count(), "all but those of replicas and of people");
    }

    #[test]
    fn moves_come_to_rare_steps_on_purpose() {
        let course_of = |name: &str| course(name.parse().unwrap());
        assert_eq!(course_of("move.clear.applied"), Course::Unfenced);
        assert_eq!(course_of("job.abandoned.unsent"), Course::Abandoned);
        assert_eq!(course_of("move.activate.committed"), Course::Forward);
        assert_eq!(roles("move.activate.committed".parse().unwrap()), [Role::Target]);
        assert_eq!(roles("move.activate.unsent".parse().unwrap()), [Role::Driver]);
    }
}
