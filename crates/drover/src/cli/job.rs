//! `drover job`: ranges that move to another group.

use std::io::IsTerminal;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Subcommand, ValueEnum};
use drover_client::{
    Client, GroupId, JobAction, JobFilter, JobId, JobPhase, MovePlan, NodeRoom, SplitJob, SplitJobPause,
    SplitJobProgress, SplitJobStatus, has_ended,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::Global;
use super::compat::shown_time;
use super::exit::End;
use super::interrupt::change;
use super::notation::Notation;
use super::output::Output;
use super::settle::Settle;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists jobs, the newest first: those under way, and those that have ended and are kept
    List(ListArgs),
    /// Shows a job, and how far it is
    Show { job: JobId },
    /// Follows a job until it has ended; exit code 1 if it was called off
    Watch { job: JobId },
    /// Calls a job off; possible until the range was handed over
    Abandon { job: JobId },
    /// Lets a job go on that has failed
    Retry { job: JobId },
    /// Lets a job take no further step for now
    Pause { job: JobId },
    /// Lets a job go on that was paused
    Resume { job: JobId },
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only those that have not ended
    #[arg(long, conflicts_with = "ended")]
    live: bool,
    /// Only those that are done or abandoned
    #[arg(long)]
    ended: bool,
    /// Only those in one of these phases
    #[arg(long, value_delimiter = ',', value_name = "PHASE,...")]
    phase: Vec<Phase>,
    /// Only those that move a range away from this group
    #[arg(long, value_name = "GROUP")]
    source: Option<GroupId>,
    /// Only those that move a range to this group
    #[arg(long, value_name = "GROUP")]
    target: Option<GroupId>,
    /// At most this many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

/// A phase as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Phase {
    Planned,
    Backfill,
    Fence,
    DeltaCopy,
    Cutover,
    Cleanup,
    Done,
    Abandoning,
    Abandoned,
    Failed,
}

impl From<Phase> for JobPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Planned => JobPhase::Planned,
            Phase::Backfill => JobPhase::Backfill,
            Phase::Fence => JobPhase::Fence,
            Phase::DeltaCopy => JobPhase::DeltaCopy,
            Phase::Cutover => JobPhase::Cutover,
            Phase::Cleanup => JobPhase::Cleanup,
            Phase::Done => JobPhase::Done,
            Phase::Abandoning => JobPhase::Abandoning,
            Phase::Abandoned => JobPhase::Abandoned,
            Phase::Failed => JobPhase::Failed,
        }
    }
}

fn phase_name(phase: JobPhase) -> &'static str {
    match phase {
        JobPhase::Unspecified => "?",
        JobPhase::Planned => "planned",
        JobPhase::Backfill => "backfill",
        JobPhase::Fence => "fence",
        JobPhase::DeltaCopy => "delta-copy",
        JobPhase::Cutover => "cutover",
        JobPhase::Cleanup => "cleanup",
        JobPhase::Done => "done",
        JobPhase::Abandoning => "abandoning",
        JobPhase::Abandoned => "abandoned",
        JobPhase::Failed => "failed",
    }
}

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    let client = global.connect().await?;
    let shown = Shown { notation: global.notation(), json: global.json };
    let (job, action) = match command {
        Command::List(args) => {
            let filter = JobFilter {
                ended: (args.live || args.ended).then_some(args.ended),
                phases: args.phase.into_iter().map(JobPhase::from).collect(),
                source: args.source,
                target: args.target,
                limit: args.limit,
            };
            shown.list(output, &client.jobs(&filter).await?)?;
            return Ok(End::Done);
        }
        Command::Show { job } => {
            shown.status(output, &client.job(job).await?)?;
            return Ok(End::Done);
        }
        Command::Watch { job } => return watch(&client, &shown, job, output).await,
        Command::Abandon { job } => (job, JobAction::Abandon),
        Command::Retry { job } => (job, JobAction::Retry),
        Command::Pause { job } => (job, JobAction::Pause),
        Command::Resume { job } => (job, JobAction::Resume),
    };
    let look = Settle::Look(format!("job show {job}"));
    shown.job(output, change(look, client.change_job(job, action, &global.actor())).await?)?;
    Ok(End::Done)
}

/// How long a watch waits before it asks another node.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows a job until it has ended: on a terminal as it changes in place, otherwise one line for each change.
async fn watch(client: &Client, shown: &Shown, job: JobId, output: &mut Output) -> anyhow::Result<End> {
    let live = !shown.json && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    let bar = if live { live_view() } else { ProgressBar::hidden() };
    let mut last: Option<SplitJobStatus> = None;
    loop {
        // A node that stops ends the stream; another one goes on.
        let mut events = match client.watch_job(job).await {
            Ok(events) => events,
            Err(error) if last.is_some() && error.is_transient() => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        while let Ok(Some(status)) = events.next().await {
            if last.as_ref() == Some(&status) {
                continue;
            }
            let phase = status.job.as_ref().map_or(JobPhase::Unspecified, SplitJob::phase);
            match (shown.json, live && !has_ended(phase)) {
                (true, _) => output.json(&shown.json_status(&status))?,
                (false, true) => draw(&bar, &status),
                (false, false) => {
                    bar.finish_and_clear();
                    output.line(&line(&status))?;
                }
            }
            output.flush()?;
            last = Some(status);
            match phase {
                JobPhase::Done => return Ok(End::Done),
                JobPhase::Abandoned => return Ok(End::No),
                _ => {}
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn live_view() -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix}\n{bar:40} {bytes}/{total_bytes}\n{msg}");
    ProgressBar::new(0).with_style(style.expect("the template is a constant"))
}

fn draw(bar: &ProgressBar, status: &SplitJobStatus) {
    let (progress, nothing) = (status.progress.as_ref(), SplitJobProgress::default());
    let known = progress.unwrap_or(&nothing);
    bar.set_length(known.bytes_total.max(known.bytes_copied));
    bar.set_position(known.bytes_copied);
    bar.set_prefix(status.job.as_ref().map(headline).unwrap_or_default());
    bar.set_message(progress.map(|progress| details(progress).join(", ")).unwrap_or_default());
    bar.tick();
}

/// Whether it goes on when somebody resumes it. What has ended does not, whatever was asked of it before.
fn is_paused(job: &SplitJob) -> bool {
    job.paused && !has_ended(job.phase())
}

/// Which job, and where it stands.
fn headline(job: &SplitJob) -> String {
    let paused = if is_paused(job) { ", paused" } else { "" };
    let failure = match &job.failure {
        Some(failure) if job.phase() == JobPhase::Failed => format!(": {}", failure.why),
        Some(_) | None => String::new(),
    };
    let (source, target) = (job.source_group, job.target_group);
    let phase = phase_name(job.phase());
    format!("job {} from group {source} to group {target}: {phase}{paused}{failure}", job.job_id)
}

/// How far it is.
fn details(progress: &SplitJobProgress) -> Vec<String> {
    let mut parts = Vec::new();
    if progress.bytes_total != 0 || progress.bytes_copied != 0 {
        let left = progress.bytes_total.saturating_sub(progress.bytes_copied);
        parts.push(format!("{} left", ByteSize(left)));
        parts.push(format!("{}/s", ByteSize(progress.bytes_per_second)));
        parts.push(format!("{} rows behind", progress.tracked_left));
        parts.push(format!("projected pause {} ms", progress.projected_pause_ms));
    }
    parts.extend(progress.eta_ms.map(|ms| format!("ETA {}", seconds(ms))));
    parts.extend(progress.write_pause_ms.map(|ms| format!("writes were held for {ms} ms")));
    parts.extend(progress.read_pause_ms.map(|ms| format!("reads were held for {ms} ms")));
    if !progress.waits_for.is_empty() {
        parts.push(format!("waits for {}", progress.waits_for));
    }
    parts
}

/// All of it on one line.
fn line(status: &SplitJobStatus) -> String {
    let head = status.job.as_ref().map(headline).unwrap_or_default();
    let Some(progress) = &status.progress else { return head };
    let copied = (progress.bytes_total != 0 || progress.bytes_copied != 0)
        .then(|| format!("{} of {}", ByteSize(progress.bytes_copied), ByteSize(progress.bytes_total)));
    [head].into_iter().chain(copied).chain(details(progress)).collect::<Vec<_>>().join(", ")
}

/// What one fence has cost.
fn pause_line(job: &SplitJob, pause: &SplitJobPause) -> String {
    let ms = |us: u64| format!("{}.{} ms", us / 1_000, us % 1_000 / 100);
    let lifted = if is_lifted(job, pause) { ", then it was lifted" } else { "" };
    format!("fence {} held writes for {}, reads for {}{lifted}", pause.fence, ms(pause.write_us), ms(pause.read_us))
}

/// Whether a fence was given up. The last one of a job that was handed over was not.
fn is_lifted(job: &SplitJob, pause: &SplitJobPause) -> bool {
    job.handed_over_version == 0 || pause.fence < job.fences
}

fn seconds(ms: u64) -> String {
    humantime::format_duration(Duration::from_secs(ms.div_ceil(1_000))).to_string()
}

fn rate(bytes_per_second: u64) -> String {
    if bytes_per_second == 0 { "no limit".to_owned() } else { format!("{}/s", ByteSize(bytes_per_second)) }
}

/// How jobs and plans are printed.
pub struct Shown {
    pub notation: Notation,
    pub json: bool,
}

impl Shown {
    fn end(&self, end: Option<&bytes::Bytes>) -> String {
        end.map_or_else(|| "-".to_owned(), |end| self.notation.format(end))
    }

    fn json_job(&self, job: &SplitJob) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("job".to_owned(), job.job_id.into());
        object.insert("phase".to_owned(), phase_name(job.phase()).into());
        object.insert("paused".to_owned(), job.paused.into());
        self.notation.add_json(&mut object, "start", &job.start);
        if let Some(end) = &job.end {
            self.notation.add_json(&mut object, "end", end);
        }
        let numbers = [
            ("epoch", job.epoch),
            ("from_route", job.from_route),
            ("source_group", job.source_group),
            ("target_group", job.target_group),
            ("shard", job.shard_id),
            ("max_pause_ms", job.max_pause_ms.into()),
            ("max_bytes_per_second", job.max_bytes_per_second),
            ("created_unix_ms", job.created_unix_ms),
            ("changed_unix_ms", job.changed_unix_ms),
            ("starts", job.starts.into()),
            ("fences", job.fences.into()),
        ];
        object.extend(numbers.map(|(name, number)| (name.to_owned(), number.into())));
        object.insert("actor".to_owned(), job.actor.clone().into());
        let known = [("rows", job.rows), ("own_route", (job.own_route != 0).then_some(job.own_route)), {
            ("handed_over_version", (job.handed_over_version != 0).then_some(job.handed_over_version))
        }];
        object.extend(known.into_iter().filter_map(|(name, number)| Some((name.to_owned(), number?.into()))));
        let pause = |pause: &SplitJobPause| json!({ "fence": pause.fence, "write_us": pause.write_us, "read_us": pause.read_us, "lifted": is_lifted(job, pause) });
        object.insert("pauses".to_owned(), job.pauses.iter().map(pause).collect());
        if let Some(failure) = &job.failure {
            let retry_phase = phase_name(failure.retry_phase());
            let failure = json!({ "why": failure.why, "at_unix_ms": failure.at_unix_ms, "retry_phase": retry_phase });
            object.insert("failure".to_owned(), failure);
        }
        object
    }

    fn json_status(&self, status: &SplitJobStatus) -> Value {
        let mut object = status.job.as_ref().map(|job| self.json_job(job)).unwrap_or_default();
        if let Some(progress) = &status.progress {
            let progress = json!({
                "waits_for": progress.waits_for,
                "bytes_copied": progress.bytes_copied,
                "bytes_total": progress.bytes_total,
                "bytes_per_second": progress.bytes_per_second,
                "tracked_left": progress.tracked_left,
                "projected_pause_ms": progress.projected_pause_ms,
                "eta_ms": progress.eta_ms,
                "write_pause_ms": progress.write_pause_ms,
                "read_pause_ms": progress.read_pause_ms,
            });
            object.insert("progress".to_owned(), progress);
        }
        Value::Object(object)
    }

    /// A job without its progress.
    pub fn job(&self, output: &mut Output, job: SplitJob) -> std::io::Result<()> {
        self.status(output, &SplitJobStatus { job: Some(job), progress: None })
    }

    fn list(&self, output: &mut Output, jobs: &[SplitJobStatus]) -> std::io::Result<()> {
        if self.json {
            let jobs: Vec<Value> = jobs.iter().map(|job| self.json_status(job)).collect();
            return output.json(&json!({ "jobs": jobs }));
        }
        let rows = jobs.iter().filter_map(|status| {
            let job = status.job.as_ref()?;
            let progress = status.progress.as_ref().filter(|progress| progress.bytes_total != 0);
            let copied = |progress: &SplitJobProgress| {
                format!("{} of {}", ByteSize(progress.bytes_copied), ByteSize(progress.bytes_total))
            };
            Some(vec![
                job.job_id.to_string(),
                format!("{}{}", phase_name(job.phase()), if is_paused(job) { " (paused)" } else { "" }),
                self.notation.format(&job.start),
                self.end(job.end.as_ref()),
                job.source_group.to_string(),
                job.target_group.to_string(),
                progress.map_or_else(|| "-".to_owned(), copied),
                shown_time(job.created_unix_ms),
                job.actor.clone(),
            ])
        });
        let head = ["job", "phase", "start", "end", "from group", "to group", "copied", "began", "actor"];
        output.table(&head, rows.collect())
    }

    fn status(&self, output: &mut Output, status: &SplitJobStatus) -> std::io::Result<()> {
        if self.json {
            return output.json(&self.json_status(status));
        }
        let Some(job) = &status.job else { return Ok(()) };
        output.line(&headline(job))?;
        let (start, end) = (self.notation.format(&job.start), self.end(job.end.as_ref()));
        output.line(&format!("range [{start}, {end}) of route {}", job.from_route))?;
        let (pause, limit) = (job.max_pause_ms, rate(job.max_bytes_per_second));
        output.line(&format!("writes may be held for {pause} ms, copied at {limit}"))?;
        let (began, changed) = (shown_time(job.created_unix_ms), shown_time(job.changed_unix_ms));
        let took = Duration::from_millis(job.changed_unix_ms.saturating_sub(job.created_unix_ms));
        output.line(&match has_ended(job.phase()) {
            true => {
                format!("began {began} by {}, ended {changed} after {}", job.actor, humantime::format_duration(took))
            }
            false => format!("began {began} by {}, last changed {changed}", job.actor),
        })?;
        let (epoch, starts, fences) = (job.epoch, job.starts, job.fences);
        output.line(&format!("epoch {epoch}, begun {starts} times, writes held back {fences} times"))?;
        if let Some(failure) = &job.failure {
            let (at, phase) = (shown_time(failure.at_unix_ms), phase_name(failure.retry_phase()));
            output.line(&format!("failed {at}: {}; a retry goes on with {phase}", failure.why))?;
        }
        for pause in &job.pauses {
            output.line(&pause_line(job, pause))?;
        }
        if let Some(progress) = &status.progress {
            let (copied, total) = (ByteSize(progress.bytes_copied), ByteSize(progress.bytes_total));
            output.line(&format!("copied {copied} of {total}"))?;
            output.line(&details(progress).join(", "))?;
        }
        Ok(())
    }

    /// What a move would come to.
    pub fn plan(&self, output: &mut Output, plan: &MovePlan) -> std::io::Result<()> {
        if self.json {
            return output.json(&self.json_plan(plan));
        }
        let (start, end) = (self.notation.format(&plan.start), self.end(plan.end.as_ref()));
        let source = if plan.source_group == 0 { "?".to_owned() } else { plan.source_group.to_string() };
        output.line(&format!("would move [{start}, {end}) from group {source} to group {}", plan.target_group))?;
        if let Some(bytes) = plan.approximate_bytes {
            let keys = plan.keys.map_or_else(|| "too many keys to count".to_owned(), |keys| format!("{keys} keys"));
            let time = plan.copy_ms.map(|ms| format!(", at least {} to copy", seconds(ms))).unwrap_or_default();
            output.line(&format!("about {} on disk, {keys}{time}", ByteSize(bytes)))?;
        }
        for room in &plan.rooms {
            let (node, free, reserve) = (room.node_id, ByteSize(room.free_bytes), ByteSize(room.reserve_bytes));
            match room.error.as_str() {
                "" if room.pending_bytes > 0 => {
                    let pending = ByteSize(room.pending_bytes);
                    let moves = format!("moves that are under way will take {pending}");
                    output.line(&format!("node {node}: {free} free, {reserve} of it have to stay free, {moves}"))?;
                }
                "" => output.line(&format!("node {node}: {free} free, {reserve} of it have to stay free"))?,
                error => output.line(&format!("node {node}: not known, {error}"))?,
            }
        }
        match &plan.refusal {
            Some(refusal) => output.line(&format!("would be refused: {}: {}", refusal.reason, refusal.message)),
            None => output.line("nothing stands against it"),
        }
    }

    fn json_plan(&self, plan: &MovePlan) -> Value {
        let mut object = Map::new();
        self.notation.add_json(&mut object, "start", &plan.start);
        if let Some(end) = &plan.end {
            self.notation.add_json(&mut object, "end", end);
        }
        let room = |room: &NodeRoom| {
            let error = (!room.error.is_empty()).then_some(&room.error);
            json!({ "node": room.node_id, "free_bytes": room.free_bytes, "reserve_bytes": room.reserve_bytes, "pending_bytes": room.pending_bytes, "error": error })
        };
        let rooms: Vec<Value> = plan.rooms.iter().map(room).collect();
        let refusal = plan.refusal.as_ref();
        let refusal = refusal.map(|refusal| json!({ "reason": refusal.reason, "message": refusal.message }));
        let values = [
            ("source_group", (plan.source_group != 0).then_some(plan.source_group).into()),
            ("target_group", plan.target_group.into()),
            ("approximate_bytes", plan.approximate_bytes.into()),
            ("keys", plan.keys.into()),
            ("copy_ms", plan.copy_ms.into()),
            ("nodes", rooms.into()),
            ("refusal", refusal.into()),
        ];
        object.extend(values.map(|(name, value): (&str, Value)| (name.to_owned(), value)));
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use drover_client::{MoveRefusal, SplitJobFailure};

    use super::super::output::tests::Captured;
    use super::*;

    fn job() -> SplitJob {
        SplitJob {
            job_id: 7,
            epoch: 2,
            phase: JobPhase::Backfill.into(),
            start: "m\0".into(),
            from_route: 4,
            source_group: 2,
            target_group: 3,
            max_pause_ms: 100,
            actor: "ada".to_owned(),
            created_unix_ms: 1_000,
            changed_unix_ms: 2_000,
            starts: 1,
            ..SplitJob::default()
        }
    }

    fn progress() -> SplitJobProgress {
        SplitJobProgress {
            job_id: 7,
            waits_for: "a lock on k".to_owned(),
            bytes_copied: 10 << 20,
            bytes_total: 40 << 20,
            bytes_per_second: 5 << 20,
            tracked_left: 120,
            projected_pause_ms: 40,
            eta_ms: Some(6_200),
            ..SplitJobProgress::default()
        }
    }

    fn printed(print: impl FnOnce(&mut Output) -> std::io::Result<()>) -> String {
        let captured = Captured::default();
        let mut output = Output::to(captured.clone());
        print(&mut output).unwrap();
        output.flush().unwrap();
        captured.text()
    }

    const PEOPLE: Shown = Shown { notation: Notation::Escaped, json: false };
    const SCRIPTS: Shown = Shown { notation: Notation::Escaped, json: true };

    #[test]
    fn a_change_is_one_line_that_tells_all_that_is_known() {
        let status = SplitJobStatus { job: Some(job()), progress: Some(progress()) };
        assert_eq!(
            line(&status),
            "job 7 from group 2 to group 3: backfill, 10.0 MiB of 40.0 MiB, 30.0 MiB left, 5.0 MiB/s, 120 rows behind, \
             projected pause 40 ms, ETA 7s, waits for a lock on k"
        );
        let failure = SplitJobFailure { why: "no disk".to_owned(), ..SplitJobFailure::default() };
        let failed = SplitJob { phase: JobPhase::Failed.into(), paused: true, failure: Some(failure), ..job() };
        let status = SplitJobStatus { job: Some(failed), progress: None };
        assert_eq!(line(&status), "job 7 from group 2 to group 3: failed, paused: no disk");
        let abandoned = SplitJob { phase: JobPhase::Abandoned.into(), paused: true, ..job() };
        assert_eq!(headline(&abandoned), "job 7 from group 2 to group 3: abandoned");
        let waits = SplitJobProgress { waits_for: "its turn".to_owned(), ..SplitJobProgress::default() };
        let status = SplitJobStatus { job: Some(job()), progress: Some(waits) };
        assert_eq!(line(&status), "job 7 from group 2 to group 3: backfill, waits for its turn");
    }

    #[test]
    fn what_the_fences_of_a_job_have_cost_is_shown_and_those_that_were_lifted_are_told_apart() {
        let pause = |fence, write_us, read_us| SplitJobPause { fence, write_us, read_us };
        let done = SplitJob {
            phase: JobPhase::Done.into(),
            fences: 2,
            handed_over_version: 9,
            pauses: vec![pause(1, 1_000_499, 0), pause(2, 41_550, 9_049)],
            ..job()
        };
        let text = printed(|output| PEOPLE.job(output, done.clone()));
        let lines = "fence 1 held writes for 1000.4 ms, reads for 0.0 ms, then it was lifted\n\
                     fence 2 held writes for 41.5 ms, reads for 9.0 ms\n";
        assert!(text.ends_with(lines), "{text}");
        let json: Value = serde_json::from_str(&printed(|output| SCRIPTS.job(output, done))).unwrap();
        let second = json!({ "fence": 2, "write_us": 41_550, "read_us": 9_049, "lifted": false });
        assert_eq!((&json["pauses"][1], &json["pauses"][0]["lifted"]), (&second, &true.into()));
        assert!(!printed(|output| PEOPLE.job(output, job())).contains("held writes"), "of others it is not known");
    }

    #[test]
    fn jobs_are_listed_for_people_and_for_scripts() {
        let jobs = [SplitJobStatus { job: Some(job()), progress: Some(progress()) }];
        let text = printed(|output| PEOPLE.list(output, &jobs));
        assert!(text.contains("backfill") && text.contains("10.0 MiB of 40.0 MiB") && text.contains("ada"), "{text}");
        let json: Value = serde_json::from_str(&printed(|output| SCRIPTS.list(output, &jobs))).unwrap();
        let shown = &json["jobs"][0];
        assert_eq!((&shown["job"], &shown["phase"], shown.get("end")), (&7.into(), &"backfill".into(), None));
        assert_eq!(
            (&shown["progress"]["tracked_left"], &shown["progress"]["read_pause_ms"]),
            (&120.into(), &Value::Null)
        );
    }

    #[test]
    fn a_plan_tells_why_it_would_be_refused() {
        let plan = MovePlan {
            refusal: Some(MoveRefusal {
                reason: "UNKNOWN_GROUP".to_owned(),
                message: "there is no group 9".to_owned(),
            }),
            start: "a".into(),
            source_group: 2,
            target_group: 9,
            approximate_bytes: Some(1 << 20),
            copy_ms: Some(20),
            rooms: vec![NodeRoom { node_id: 1, error: "no answer".to_owned(), ..NodeRoom::default() }],
            ..MovePlan::default()
        };
        let text = printed(|output| PEOPLE.plan(output, &plan));
        assert_eq!(
            text,
            "would move [a, -) from group 2 to group 9\nabout 1.0 MiB on disk, too many keys to count, at least 1s to copy\n\
             node 1: not known, no answer\nwould be refused: UNKNOWN_GROUP: there is no group 9\n"
        );
        let json: Value = serde_json::from_str(&printed(|output| SCRIPTS.plan(output, &plan))).unwrap();
        assert_eq!((&json["refusal"]["reason"], &json["keys"]), (&"UNKNOWN_GROUP".into(), &Value::Null));
    }

    #[test]
    fn every_phase_is_written_as_it_is_shown() {
        for phase in Phase::value_variants() {
            let written = phase.to_possible_value().unwrap();
            assert_eq!(written.get_name(), phase_name(JobPhase::from(*phase)));
        }
    }
}
