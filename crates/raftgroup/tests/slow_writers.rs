//! Writers of a range that moves away are slowed down by the leader for as long as it is told to.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use drover_fsm::MoveCommand;
use drover_fsm::moving::MoveStep;
use drover_keys::{End, GroupId, Interval, JobEpoch, JobId};
use drover_kv::Reason;
use support::{Fixture, reason, soon};

const JOB: JobId = JobId(5);
const EPOCH: JobEpoch = JobEpoch(2);
const LONG: Duration = Duration::from_secs(30);

impl Fixture {
    async fn step(&self, epoch: JobEpoch, step: MoveStep) {
        self.group.move_step(MoveCommand { job: JOB, epoch, step }, soon()).await.unwrap();
    }

    /// How many writes were slowed down so far.
    fn slowed(&self) -> u64 {
        self.group.stats().snapshot().slowed_writes
    }
}

async fn moving(dir: &std::path::Path) -> Fixture {
    let fixture = Fixture::open(dir).await;
    let interval = Interval::new("m", End::Key("x".into())).unwrap();
    fixture.step(EPOCH, MoveStep::ArmMigration { interval, target: GroupId(9) }).await;
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn only_writers_of_the_range_are_slowed_down_and_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = moving(dir.path()).await;
    // So slow that whatever comes second has to wait.
    assert_eq!(fixture.group.slow_writers(JOB, EPOCH, 1, LONG), Ok(true));
    let slows_down = async |key| {
        let before = fixture.slowed();
        let (first, second) = tokio::join!(fixture.put(key, "value"), fixture.put(key, "value"));
        first.and(second).unwrap();
        fixture.slowed() > before
    };
    for (key, slowed) in [("a", false), ("n", true), ("x", false), ("m", true), ("l", false)] {
        assert_eq!(slows_down(key).await, slowed, "{key}");
    }
    assert!(fixture.group.stats().snapshot().slowed_us > 0);
    assert_eq!(fixture.group.slow_writers(JOB, EPOCH, 0, LONG), Ok(true), "it is taken back");
    assert!(!slows_down("n").await);
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_to_slow_writers_down_forgets_it_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = moving(dir.path()).await;
    assert_eq!(fixture.group.slow_writers(JOB, EPOCH, 1, Duration::from_millis(20)), Ok(true));
    loop {
        // Each is held back no longer than what was lent, so one of them finds that gone.
        let before = fixture.slowed();
        for key in ["n", "n"] {
            fixture.put(key, "value").await.unwrap();
        }
        if fixture.slowed() == before {
            break;
        }
    }
    assert_eq!(fixture.group.slow_writers(JOB, EPOCH, 0, LONG), Ok(false), "there is nothing to take back");
    fixture.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_are_slowed_down_for_an_open_range_of_this_course_only() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = moving(dir.path()).await;
    let refused = |job, epoch| reason(&fixture.group.slow_writers(job, epoch, 1, LONG).unwrap_err());
    assert_eq!(refused(JobId(6), EPOCH), (Reason::FailedPrecondition, false), "a job that is not known here");
    assert_eq!(refused(JOB, JobEpoch(1)), (Reason::FailedPrecondition, false), "an older course");
    fixture.step(EPOCH, MoveStep::ApplyWriteFence).await;
    assert_eq!(refused(JOB, EPOCH), (Reason::FailedPrecondition, false), "writes are held back anyway");
    assert_eq!(fixture.slowed(), 0);
    fixture.close().await;
}
