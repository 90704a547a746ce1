//! A job for tests.

use drover_catalog::job::{JobOptions, JobPhase, SplitJob};
use drover_hlc::PhysicalMs;
use drover_keys::{GroupId, Interval, JobEpoch, JobId, RouteId, ShardId};

/// One that has nothing but its number and its phase.
pub(crate) fn job(id: u64, phase: JobPhase) -> SplitJob {
    SplitJob {
        id: JobId(id),
        epoch: JobEpoch(1),
        phase,
        paused: false,
        interval: Interval::all(),
        from_route: RouteId(1),
        source: GroupId(2),
        target: GroupId(3),
        shard: ShardId(9),
        options: JobOptions::default(),
        actor: String::new(),
        created: PhysicalMs::default(),
        changed: PhysicalMs::default(),
        starts: 1,
        fences: 0,
        base: None,
        own_route: None,
        handover: None,
        failure: None,
        pauses: Vec::new(),
    }
}
