//! A job for tests.

use drover_catalog::job::{JobOptions, JobPhase, NewJob, SplitJob};
use drover_hlc::PhysicalMs;
use drover_keys::{GroupId, Interval, JobId, RouteId, ShardId};

/// One that has nothing but its number and its phase.
pub(crate) fn job(id: u64, phase: JobPhase) -> SplitJob {
    let begun = SplitJob::begun(NewJob {
        id: JobId(id),
        interval: Interval::all(),
        from_route: RouteId(1),
        source: GroupId(2),
        target: GroupId(3),
        shard: ShardId(9),
        options: JobOptions::default(),
        actor: String::new(),
        now: PhysicalMs::default(),
    });
    SplitJob { phase, ..begun }
}
