//! `drover.storage.v1.SplitJob`, `StartJob` and `JobEventCommand`.

use drover_catalog::job::{Failure, Handover, HandoverTerms, JobEvent, JobOptions, JobPause, JobPhase, SplitJob};
use drover_catalog::{CatalogCommandKind, StartJob};
use drover_hlc::Timestamp;
use drover_keys::{CatalogVersion, GroupId, JobEpoch, JobId, RouteId, ShardId};
use drover_wire::proto::storage::v1 as pb;
use drover_wire::{decode_base_sum, decode_range, encode_base_sum, encode_range};
use pb::JobSimpleEvent as Simple;
use pb::job_event_command::Event;
use pb::split_job::Phase;

use super::parts::{missing, time};

pub(super) fn encode_start(start: &StartJob) -> pb::StartJob {
    pb::StartJob {
        expected_version: start.expected_version.0,
        route_id: start.route.0,
        range: Some(encode_range(&start.interval)),
        target_group_id: start.target.0,
        options: Some(encode_options(&start.options)),
    }
}

pub(super) fn decode_start(start: pb::StartJob) -> Result<StartJob, String> {
    Ok(StartJob {
        expected_version: CatalogVersion(start.expected_version),
        route: RouteId(start.route_id),
        interval: decode_range(start.range).map_err(|error| error.to_string())?,
        target: GroupId(start.target_group_id),
        options: decode_options(start.options)?,
    })
}

pub(super) fn encode_event(job: JobId, epoch: Option<JobEpoch>, event: &JobEvent) -> pb::JobEventCommand {
    let event = match event {
        JobEvent::Begin => simple(Simple::Begin),
        JobEvent::Scanned(base) => Event::Scanned(encode_base_sum(base)),
        JobEvent::Carve => simple(Simple::Carve),
        JobEvent::Fence => simple(Simple::Fence),
        JobEvent::Sealed => simple(Simple::Sealed),
        JobEvent::CutOver => simple(Simple::CutOver),
        JobEvent::HandOver(terms) => Event::HandOver(encode_terms(terms)),
        JobEvent::Activated => simple(Simple::Activated),
        JobEvent::Finish => simple(Simple::Finish),
        JobEvent::Unfence => simple(Simple::Unfence),
        JobEvent::StartOver => simple(Simple::StartOver),
        JobEvent::Fail { why } => Event::Fail(why.clone()),
        JobEvent::Retry => simple(Simple::Retry),
        JobEvent::Abandon => simple(Simple::Abandon),
        JobEvent::Abandoned => simple(Simple::Abandoned),
        JobEvent::Held(pause) => Event::Held(encode_pause(pause)),
        JobEvent::Pause => simple(Simple::Pause),
        JobEvent::Resume => simple(Simple::Resume),
    };
    pb::JobEventCommand { job_id: job.0, epoch: epoch.map(|epoch| epoch.0), event: Some(event) }
}

fn simple(event: Simple) -> Event {
    Event::Simple(event.into())
}

pub(super) fn decode_event(command: pb::JobEventCommand) -> Result<CatalogCommandKind, String> {
    let event = match command.event.ok_or_else(missing("what happens to the job"))? {
        Event::Scanned(base) => JobEvent::Scanned(decode_base_sum(&base)),
        Event::HandOver(terms) => JobEvent::HandOver(decode_terms(terms)),
        Event::Fail(why) => JobEvent::Fail { why },
        Event::Held(pause) => JobEvent::Held(decode_pause(pause)),
        Event::Simple(raw) => match Simple::try_from(raw) {
            Ok(Simple::Begin) => JobEvent::Begin,
            Ok(Simple::Carve) => JobEvent::Carve,
            Ok(Simple::Fence) => JobEvent::Fence,
            Ok(Simple::Sealed) => JobEvent::Sealed,
            Ok(Simple::CutOver) => JobEvent::CutOver,
            Ok(Simple::Activated) => JobEvent::Activated,
            Ok(Simple::Finish) => JobEvent::Finish,
            Ok(Simple::Unfence) => JobEvent::Unfence,
            Ok(Simple::StartOver) => JobEvent::StartOver,
            Ok(Simple::Retry) => JobEvent::Retry,
            Ok(Simple::Abandon) => JobEvent::Abandon,
            Ok(Simple::Abandoned) => JobEvent::Abandoned,
            Ok(Simple::Pause) => JobEvent::Pause,
            Ok(Simple::Resume) => JobEvent::Resume,
            Ok(Simple::Unspecified) | Err(_) => return Err(format!("the unknown event {raw} of a job")),
        },
    };
    Ok(CatalogCommandKind::JobEvent { job: JobId(command.job_id), epoch: command.epoch.map(JobEpoch), event })
}

pub(super) fn encode(job: &SplitJob) -> pb::SplitJob {
    pb::SplitJob {
        job_id: job.id.0,
        epoch: job.epoch.0,
        phase: encode_phase(job.phase).into(),
        paused: job.paused,
        range: Some(encode_range(&job.interval)),
        from_route_id: job.from_route.0,
        source_group_id: job.source.0,
        target_group_id: job.target.0,
        shard_id: job.shard.0,
        options: Some(encode_options(&job.options)),
        actor: job.actor.clone(),
        created_ms: job.created.unix_ms(),
        changed_ms: job.changed.unix_ms(),
        starts: job.starts,
        fences: job.fences,
        base: job.base.as_ref().map(encode_base_sum),
        own_route_id: job.own_route.map_or(0, |route| route.0),
        handover: job.handover.as_ref().map(|handover| pb::JobHandover {
            version: handover.version.0,
            terms: Some(encode_terms(&handover.terms)),
        }),
        failure: job.failure.as_ref().map(|failure| pb::JobFailure {
            why: failure.why.clone(),
            at_ms: failure.at.unix_ms(),
            retry_phase: encode_phase(failure.retry_phase).into(),
        }),
        pauses: job.pauses.iter().map(encode_pause).collect(),
    }
}

pub(super) fn decode(job: pb::SplitJob) -> Result<SplitJob, String> {
    let handover = |handover: pb::JobHandover| {
        let terms = handover.terms.ok_or_else(missing("what the new owner begins with"))?;
        Ok::<_, String>(Handover { version: CatalogVersion(handover.version), terms: decode_terms(terms) })
    };
    let failure = |failure: pb::JobFailure| {
        Ok::<_, String>(Failure {
            why: failure.why,
            at: time(failure.at_ms)?,
            retry_phase: decode_phase(failure.retry_phase)?,
        })
    };
    Ok(SplitJob {
        id: JobId(job.job_id),
        epoch: JobEpoch(job.epoch),
        phase: decode_phase(job.phase)?,
        paused: job.paused,
        interval: decode_range(job.range).map_err(|error| error.to_string())?,
        from_route: RouteId(job.from_route_id),
        source: GroupId(job.source_group_id),
        target: GroupId(job.target_group_id),
        shard: ShardId(job.shard_id),
        options: decode_options(job.options)?,
        actor: job.actor,
        created: time(job.created_ms)?,
        changed: time(job.changed_ms)?,
        starts: job.starts,
        fences: job.fences,
        base: job.base.as_ref().map(decode_base_sum),
        own_route: (job.own_route_id > 0).then_some(RouteId(job.own_route_id)),
        handover: job.handover.map(handover).transpose()?,
        failure: job.failure.map(failure).transpose()?,
        pauses: job.pauses.into_iter().map(decode_pause).collect(),
    })
}

fn encode_pause(pause: &JobPause) -> pb::JobPause {
    pb::JobPause { fence: pause.fence, write_us: pause.write_us, read_us: pause.read_us }
}

fn decode_pause(pause: pb::JobPause) -> JobPause {
    JobPause { fence: pause.fence, write_us: pause.write_us, read_us: pause.read_us }
}

fn encode_options(options: &JobOptions) -> pb::JobOptions {
    pb::JobOptions { max_pause_ms: options.max_pause_ms, max_bytes_per_second: options.max_bytes_per_second }
}

fn decode_options(options: Option<pb::JobOptions>) -> Result<JobOptions, String> {
    let pb::JobOptions { max_pause_ms, max_bytes_per_second } = options.ok_or_else(missing("the options of a job"))?;
    Ok(JobOptions { max_pause_ms, max_bytes_per_second })
}

fn encode_terms(terms: &HandoverTerms) -> pb::JobHandoverTerms {
    pb::JobHandoverTerms {
        floor_ts: terms.floor_ts.raw(),
        history_start: terms.history_start.raw(),
        txn_horizon: terms.txn_horizon.raw(),
        record_horizon: terms.record_horizon.raw(),
    }
}

fn decode_terms(terms: pb::JobHandoverTerms) -> HandoverTerms {
    let at = Timestamp::from_raw;
    HandoverTerms {
        floor_ts: at(terms.floor_ts),
        history_start: at(terms.history_start),
        txn_horizon: at(terms.txn_horizon),
        record_horizon: at(terms.record_horizon),
    }
}

fn encode_phase(phase: JobPhase) -> Phase {
    match phase {
        JobPhase::Planned => Phase::Planned,
        JobPhase::Backfill => Phase::Backfill,
        JobPhase::Fence => Phase::Fence,
        JobPhase::DeltaCopy => Phase::DeltaCopy,
        JobPhase::Cutover => Phase::Cutover,
        JobPhase::Cleanup => Phase::Cleanup,
        JobPhase::Done => Phase::Done,
        JobPhase::Abandoning => Phase::Abandoning,
        JobPhase::Abandoned => Phase::Abandoned,
        JobPhase::Failed => Phase::Failed,
    }
}

fn decode_phase(raw: i32) -> Result<JobPhase, String> {
    Ok(match Phase::try_from(raw) {
        Ok(Phase::Planned) => JobPhase::Planned,
        Ok(Phase::Backfill) => JobPhase::Backfill,
        Ok(Phase::Fence) => JobPhase::Fence,
        Ok(Phase::DeltaCopy) => JobPhase::DeltaCopy,
        Ok(Phase::Cutover) => JobPhase::Cutover,
        Ok(Phase::Cleanup) => JobPhase::Cleanup,
        Ok(Phase::Done) => JobPhase::Done,
        Ok(Phase::Abandoning) => JobPhase::Abandoning,
        Ok(Phase::Abandoned) => JobPhase::Abandoned,
        Ok(Phase::Failed) => JobPhase::Failed,
        Ok(Phase::Unspecified) | Err(_) => return Err(format!("the unknown phase {raw} of a job")),
    })
}

#[cfg(test)]
mod tests {
    use drover_keys::Interval;
    use prost::Message;

    use super::*;

    const PAUSE: JobPause = JobPause { fence: 2, write_us: 300, read_us: 301 };
    const GOLDEN: [u8; 8] = [0x08, 0x02, 0x10, 0xac, 0x02, 0x18, 0xad, 0x02];

    #[test]
    fn golden_bytes_of_a_pause_and_a_record_from_before_there_were_any() {
        let event = encode_event(JobId(5), Some(JobEpoch(6)), &JobEvent::Held(PAUSE)).encode_to_vec();
        assert_eq!(event, [&[0x08, 0x05, 0x10, 0x06, 0x3a, 0x08], &GOLDEN[..]].concat());
        let before = pb::SplitJob {
            job_id: 5,
            phase: Phase::Planned.into(),
            range: Some(encode_range(&Interval::all())),
            options: Some(encode_options(&JobOptions::default())),
            ..pb::SplitJob::default()
        };
        let old = decode(pb::SplitJob::decode(before.encode_to_vec().as_slice()).unwrap()).unwrap();
        assert_eq!(old.pauses, Vec::new(), "of its pauses nothing is known");
        let new = SplitJob { pauses: vec![PAUSE], ..old };
        let bytes = encode(&new).encode_to_vec();
        assert!(bytes.ends_with(&[&[0xa2, 0x01, 0x08], &GOLDEN[..]].concat()));
        assert_eq!(decode(pb::SplitJob::decode(bytes.as_slice()).unwrap()), Ok(new));
    }
}
