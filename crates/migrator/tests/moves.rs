//! Jobs that are driven to their end over real groups.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_catalog::MOVES_RANGES;
use drover_catalog::job::{JobEvent, JobOptions, JobPhase, SplitJob};
use drover_fsm::MoveCommand;
use drover_fsm::moving::MoveStep;
use drover_keys::{JobEpoch, JobId};
use drover_kv::Reason;
use drover_migrator::MigratorOptions;
use drover_raftgroup::Group;
use drover_rafttypes::Vote;
use openraft::impls::leader_id_std::LeaderId;
use openraft::raft::AppendEntriesRequest;
use support::{Fixture, Held, LEFT, RIGHT, range, soon};
use tokio_util::sync::CancellationToken;

/// A budget that a slow machine keeps as well.
fn patient() -> JobOptions {
    JobOptions { max_pause_ms: 20_000, max_bytes_per_second: 0 }
}

fn ended(job: &SplitJob) -> bool {
    job.phase.has_ended()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_job_says_how_long_writes_and_reads_were_held_back() {
    let fixture = Fixture::new(Duration::ZERO).await;
    for n in 0..20 {
        fixture.put(format!("x{n}"), "value").await.unwrap();
    }
    let _driven = fixture.drive(MigratorOptions::default());
    let job = fixture.start(range("x", ""), LEFT, patient()).await;
    let done = fixture.job(job, ended).await;
    assert_eq!((done.phase, done.fences), (JobPhase::Done, 1));
    let [pause] = done.pauses[..] else { panic!("{:?}", done.pauses) };
    assert_eq!(pause.fence, 1);
    assert!(0 < pause.read_us && pause.read_us < pause.write_us, "{pause:?}");
    let catalog = Arc::clone(&fixture.default_group().fsm().catalog().borrow());
    assert_eq!(catalog.job(job).map(|kept| &kept.pauses), Some(&done.pauses), "it stays in the history");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_did_not_see_the_fence_from_its_beginning_does_not_record_what_it_cost() {
    let fixture = Fixture::new(Duration::ZERO).await;
    fixture.put("x", "value").await.unwrap();
    let job = fixture.start(range("x", ""), LEFT, patient()).await;
    // Behind the fence, before the copy is closed.
    fixture.here.held.send_replace(Held::Last);
    let driven = fixture.drive(MigratorOptions::default());
    fixture.job(job, |job| job.phase == JobPhase::DeltaCopy).await;
    drop(driven);
    fixture.here.held.send_replace(Held::Nothing);
    let _driven = fixture.drive(MigratorOptions::default());
    let done = fixture.job(job, ended).await;
    assert_eq!((done.phase, done.pauses), (JobPhase::Done, Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn h35_groups_forget_the_marks_of_jobs_that_are_over_and_refuse_their_late_steps_all_the_same() {
    let fixture = Fixture::new(Duration::ZERO).await;
    let _driven = fixture.drive(MigratorOptions::default());
    let first = fixture.start(range("x", "y"), LEFT, patient()).await;
    // A live job: those behind it keep their marks.
    let live = fixture.start(range("y", ""), LEFT, patient()).await;
    fixture.ask(live, JobEvent::Pause).await;
    let last = fixture.start(range("n", "o"), LEFT, patient()).await;
    for job in [first, last] {
        assert_eq!(fixture.job(job, ended).await.phase, JobPhase::Done);
    }
    let late = |job, step| MoveCommand { job, epoch: JobEpoch(9), step };
    for group in [LEFT, RIGHT] {
        fixture.state(group, |state| state.moves.horizon == live).await;
        let retired = fixture.groups[&group].fsm().state().moves.retired.clone();
        assert_eq!(retired.into_iter().collect::<Vec<_>>(), [last], "{group}");
        for job in [first, last] {
            let steps = [
                MoveStep::ArmMigration { interval: range("x", "y"), target: LEFT },
                MoveStep::PrepareImport { interval: range("x", "y"), shard: drover_keys::ShardId(99), source: RIGHT },
                MoveStep::ApplyWriteFence,
            ];
            for step in steps {
                let refused = fixture.groups[&group].move_step(late(job, step), soon()).await.unwrap_err();
                assert_eq!(refused.reason, Reason::FailedPrecondition);
                assert!(refused.message.contains("is over"), "{refused}");
            }
        }
    }
    fixture.ask(live, JobEvent::Abandon).await;
    assert_eq!(fixture.job(live, ended).await.phase, JobPhase::Abandoned);
    for group in [LEFT, RIGHT] {
        fixture.state(group, |state| state.moves.horizon == JobId(4) && state.moves.retired.is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_its_turn_and_says_so() {
    let fixture = Fixture::new(Duration::ZERO).await;
    fixture.put("x", "value").await.unwrap();
    fixture.here.held.send_replace(Held::All);
    let _driven = fixture.drive(MigratorOptions { jobs_at_once: 1, ..MigratorOptions::default() });
    let first = fixture.start(range("x", "y"), LEFT, patient()).await;
    let second = fixture.start(range("y", ""), LEFT, patient()).await;
    fixture.job(first, |job| job.phase == JobPhase::Backfill).await;
    let until = soon();
    while !fixture.waits_for(second).starts_with("its turn") {
        assert!(std::time::Instant::now() < until, "{}", fixture.waits_for(second));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fixture.job(second, |_| true).await.phase, JobPhase::Planned);
    fixture.here.held.send_replace(Held::Nothing);
    for job in [first, second] {
        assert_eq!(fixture.job(job, ended).await.phase, JobPhase::Done);
    }
}

/// For a moment another node leads the group, if this one does.
async fn be_led_by_another(group: &Group) {
    let Ok(leadership) = group.leadership() else { return };
    let vote = Vote { leader_id: LeaderId { term: leadership.term + 1, voted_for: 2 }, committed: true };
    for _ in 0..20 {
        let heartbeat = AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        group.raft().append_entries(heartbeat).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_sent_again_when_the_leader_that_they_were_sent_to_was_replaced_and_never_answers() {
    let fixture = Fixture::new(Duration::ZERO).await;
    fixture.put("x", "value").await.unwrap();
    fixture.here.held.send_replace(Held::All);
    let _driven = fixture.drive(MigratorOptions::default());
    let job = fixture.start(range("x", ""), LEFT, patient()).await;
    let until = soon();
    for came in [1, 2] {
        while fixture.here.came.load(Ordering::SeqCst) < came {
            assert!(std::time::Instant::now() < until, "{came}: {}", fixture.waits_for(job));
            if came == 2 {
                be_led_by_another(&fixture.groups[&LEFT]).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    fixture.here.held.send_replace(Held::Nothing);
    assert_eq!(fixture.job(job, ended).await.phase, JobPhase::Done);
}

/// Moves a range of which a target that is slow takes one row at a time, while three write into it as fast as they may. How the
/// job ends, or fails, and whether it said that the writers were slowed down.
async fn outrun(fixture: &Fixture, options: MigratorOptions) -> (SplitJob, bool) {
    let options = MigratorOptions { chunk_bytes: 1, share_percent: 100, ..options };
    let value = vec![b'v'; 4 << 10];
    for n in 0..60 {
        fixture.put(format!("x{n}"), value.clone()).await.unwrap();
    }
    let (stop, written) = (CancellationToken::new(), AtomicU64::new(0));
    let write = async || {
        while !stop.is_cancelled() {
            let n = written.fetch_add(1, Ordering::Relaxed);
            fixture.put(format!("x-{n}"), value.clone()).await.unwrap();
            // No faster than a target that takes as long for one row.
            tokio::time::sleep(fixture.here.import_takes).await;
        }
    };
    let work = async {
        let _driven = fixture.drive(options);
        let budget = JobOptions { max_pause_ms: 500, max_bytes_per_second: 0 };
        let job = fixture.start(range("x", ""), LEFT, budget).await;
        let mut said_so = false;
        let stopped = fixture.job(job, |job| ended(job) || job.phase == JobPhase::Failed);
        tokio::pin!(stopped);
        let stopped = loop {
            tokio::select! {
                stopped = &mut stopped => break stopped,
                () = tokio::time::sleep(Duration::from_millis(5)) => {
                    said_so |= fixture.waits_for(job).contains("they are slowed down to");
                }
            }
        };
        stop.cancel();
        (stopped, said_so)
    };
    let (outcome, ..) = tokio::join!(work, write(), write(), write());
    outcome
}

/// How much longer the target takes for a row.
const SLOW: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn h34_a_copy_that_its_writers_outrun_fails_if_they_may_not_be_slowed_down() {
    let fixture = Fixture::new(SLOW).await;
    let options =
        MigratorOptions { slowest_writers: 0, catch_up: Duration::from_secs(3), ..MigratorOptions::default() };
    let (job, said_so) = outrun(&fixture, options).await;
    assert_eq!((job.phase, said_so), (JobPhase::Failed, false));
    assert!(job.failure.unwrap().why.starts_with("the copy does not catch up with the writers"));
    assert_eq!(fixture.groups[&RIGHT].stats().snapshot().slowed_writes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn h34_a_copy_that_its_writers_outrun_has_them_slowed_down_and_catches_up() {
    let fixture = Fixture::new(SLOW).await;
    // Writers that nobody slows down have it fail within a time that a test can wait for.
    let options = MigratorOptions { catch_up: Duration::from_secs(30), ..MigratorOptions::default() };
    let (job, said_so) = outrun(&fixture, options).await;
    assert_eq!((job.phase, said_so), (JobPhase::Done, true), "{job:?}");
    assert!(fixture.groups[&RIGHT].stats().snapshot().slowed_writes > 0);
    assert_eq!(fixture.groups[&LEFT].stats().snapshot().slowed_writes, 0, "who writes elsewhere is not slowed down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_stops_at_the_next_portion_when_a_node_cannot_move_ranges_any_more() {
    let fixture = Fixture::new(SLOW).await;
    const ROWS: usize = 200;
    for n in 0..ROWS {
        fixture.put(format!("x{n}"), "value").await.unwrap();
    }
    let came = || fixture.here.came.load(Ordering::SeqCst);
    let _driven = fixture.drive(MigratorOptions { chunk_bytes: 1, share_percent: 100, ..MigratorOptions::default() });
    let job = fixture.start(range("x", ""), LEFT, patient()).await;
    let until = soon();
    while came() < 3 {
        assert!(std::time::Instant::now() < until, "{}", fixture.waits_for(job));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    fixture.register(&[]).await;
    let stopped = fixture.job(job, |job| ended(job) || job.phase == JobPhase::Failed).await;
    assert_eq!(stopped.phase, JobPhase::Failed);
    assert!(stopped.failure.unwrap().why.contains("cannot move ranges any more"));
    assert!(came() < ROWS, "the copy went on to its end: {} portions", came());
    // It is seen to, and tried again.
    fixture.register(&[MOVES_RANGES]).await;
    fixture.ask(job, JobEvent::Retry).await;
    assert_eq!(fixture.job(job, ended).await.phase, JobPhase::Done);
}
