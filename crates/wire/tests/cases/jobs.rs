//! Jobs that move ranges.

use drover_wire::proto::v1::list_split_jobs_request::Which;
use drover_wire::proto::v1::split_job::Phase;
use drover_wire::proto::v1::start_split_migration_request::What;
use drover_wire::proto::v1::*;

use super::{Case, case};

fn planned() -> SplitJob {
    SplitJob {
        job_id: 5,
        epoch: 1,
        phase: Phase::Planned.into(),
        start: "a".into(),
        from_route: 2,
        source_group: 3,
        target_group: 4,
        shard_id: 6,
        max_pause_ms: 100,
        max_bytes_per_second: 300,
        actor: "me".to_owned(),
        created_unix_ms: 301,
        changed_unix_ms: 302,
        starts: 1,
        ..SplitJob::default()
    }
}

fn failed() -> SplitJob {
    let failure = SplitJobFailure { why: "no disk".to_owned(), at_unix_ms: 303, retry_phase: Phase::Backfill.into() };
    let phase = Phase::Failed.into();
    SplitJob { phase, paused: true, end: Some("m".into()), fences: 2, failure: Some(failure), ..planned() }
}

fn in_phase(phase: Phase) -> SplitJob {
    SplitJob { phase: phase.into(), rows: Some(300), own_route: 8, handed_over_version: 9, ..planned() }
}

fn progress() -> SplitJobProgress {
    SplitJobProgress {
        job_id: 5,
        waits_for: "w".to_owned(),
        bytes_copied: 300,
        bytes_total: 301,
        bytes_per_second: 302,
        tracked_left: 303,
        projected_pause_ms: 304,
        eta_ms: Some(305),
        write_pause_ms: Some(306),
        read_pause_ms: Some(307),
    }
}

fn plan() -> MovePlan {
    let room = NodeRoom { node_id: 1, free_bytes: 300, reserve_bytes: 200, error: "e".to_owned(), pending_bytes: 400 };
    MovePlan {
        refusal: Some(MoveRefusal { reason: "R".to_owned(), message: "no".to_owned() }),
        start: "a".into(),
        end: Some("m".into()),
        source_group: 3,
        target_group: 4,
        approximate_bytes: Some(300),
        keys: Some(0),
        copy_ms: Some(301),
        rooms: vec![room],
    }
}

pub fn cases() -> Vec<Case> {
    // One option: the order of several is not fixed.
    let start = |what| StartSplitMigrationRequest {
        expected_version: 3,
        route_id: 2,
        what: Some(what),
        target_group: 4,
        options: [("max_pause_ms".to_owned(), "50".to_owned())].into(),
        request_id: vec![7; 16].into(),
        actor: "me".to_owned(),
        dry_run: true,
        timeout_ms: 8,
    };
    let range = KeyRange { start: "a".into(), end: Some("m".into()) };
    let list = ListSplitJobsRequest {
        which: Which::Live.into(),
        phases: vec![Phase::Planned.into(), Phase::Failed.into()],
        source_group: 3,
        target_group: 4,
        limit: 5,
        page_token: "t".into(),
        timeout_ms: 8,
    };
    let ended = ListSplitJobsRequest { which: Which::Ended.into(), ..ListSplitJobsRequest::default() };
    let status = SplitJobStatus { job: Some(planned()), progress: Some(progress()) };
    let change =
        ChangeSplitJobRequest { job_id: 5, request_id: vec![7; 16].into(), actor: "me".to_owned(), timeout_ms: 8 };
    vec![
        case("StartSplitMigrationRequest/split_key", start(What::SplitKey("k".into()))),
        case("StartSplitMigrationRequest/range", start(What::Range(range))),
        case("StartSplitMigrationResponse/job", StartSplitMigrationResponse { job: Some(planned()), plan: None }),
        case("StartSplitMigrationResponse/plan", StartSplitMigrationResponse { job: None, plan: Some(plan()) }),
        case("SplitJob/planned", planned()),
        case("SplitJob/failed", failed()),
        case("SplitJob/backfill", in_phase(Phase::Backfill)),
        case("SplitJob/fence", in_phase(Phase::Fence)),
        case("SplitJob/delta_copy", in_phase(Phase::DeltaCopy)),
        case("SplitJob/cutover", in_phase(Phase::Cutover)),
        case("SplitJob/cleanup", in_phase(Phase::Cleanup)),
        case("SplitJob/done", in_phase(Phase::Done)),
        case("SplitJob/pauses", {
            let pause = SplitJobPause { fence: 2, write_us: 30_500, read_us: 304 };
            SplitJob { pauses: vec![pause], fences: 2, ..in_phase(Phase::Done) }
        }),
        case("SplitJob/abandoning", in_phase(Phase::Abandoning)),
        case("SplitJob/abandoned", in_phase(Phase::Abandoned)),
        case("SplitJobStatus/both", status.clone()),
        case("GetSplitJobRequest/job", GetSplitJobRequest { job_id: 5, timeout_ms: 8 }),
        case("ListSplitJobsRequest/all", list),
        case("ListSplitJobsRequest/ended", ended),
        case("ListSplitJobsResponse/page", {
            ListSplitJobsResponse { jobs: vec![status], next_page_token: "t".into() }
        }),
        case("WatchSplitJobRequest/job", WatchSplitJobRequest { job_id: 5 }),
        case("ChangeSplitJobRequest/job", change),
        case("ChangeSplitJobResponse/job", ChangeSplitJobResponse { job: Some(failed()) }),
    ]
}
