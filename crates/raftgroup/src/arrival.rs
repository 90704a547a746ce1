//! Requests for a range that is copied here, and not activated yet.
//!
//! From the moment at which the catalog names this group until the entry that activates the range is applied, a request that was
//! routed here finds nobody who owns it. That takes a commit or two, so the leader holds the request for as long: its coordinator
//! could only ask again and again.

use std::time::Instant;

use drover_fsm::GroupState;
use drover_fsm::moving::ImportPhase;
use drover_keys::{CatalogVersion, Interval};
use drover_kv::{Error, ReadOp, ReadSet, Reason, WriteKind};

use crate::group::Group;

/// Whether all of `touched` that is not owned here will be as soon as a complete copy is activated, if anything. Routed by a map
/// that is older than the last time at which it was given away, it is somebody else's.
fn arrives(state: &GroupState, touched: &[Interval], observed: Option<CatalogVersion>) -> bool {
    let Some(observed) = observed else { return false };
    let moves = &state.moves;
    let mut arriving = touched.iter().filter(|interval| state.owner_of(interval).is_none()).peekable();
    arriving.peek().is_some()
        && arriving.all(|interval| {
            let named_since = moves.gone(interval).is_none_or(|gone| observed > gone.version);
            let complete = |phase: ImportPhase| phase == ImportPhase::Closed;
            let mut imports = moves.arriving(interval);
            named_since && imports.any(|import| complete(import.phase) && import.interval.covers(interval))
        })
}

/// What a write touches.
pub(crate) fn written(kind: &WriteKind) -> Vec<Interval> {
    match kind {
        WriteKind::Txn(step) => {
            let keys = step.keys().map(|key| Interval::point(key.clone()));
            keys.chain(step.reads().into_iter().flat_map(intervals)).collect()
        }
        WriteKind::Put { .. }
        | WriteKind::Delete { .. }
        | WriteKind::CompareAndSet { .. }
        | WriteKind::DeleteRange { .. }
        | WriteKind::Settle { .. } => vec![kind.footprint()],
    }
}

/// What a read touches.
pub(crate) fn read(op: &ReadOp) -> Vec<Interval> {
    match op {
        ReadOp::Get { key, .. } | ReadOp::LatestCommitTs { key } => vec![Interval::point(key.clone())],
        ReadOp::BatchGet { keys, .. } => keys.iter().map(|key| Interval::point(key.clone())).collect(),
        ReadOp::Scan(request) => vec![request.interval.clone()],
        ReadOp::Refresh(request) => intervals(&request.reads).collect(),
        ReadOp::TxnStatus { primary, .. } => vec![Interval::point(primary.clone())],
        ReadOp::Locks { interval, .. } => vec![interval.clone()],
    }
}

fn intervals(reads: &ReadSet) -> impl Iterator<Item = Interval> {
    reads.keys.iter().map(|key| Interval::point(key.clone())).chain(reads.intervals.iter().cloned())
}

impl Group {
    /// Whether a complete copy waits here to be activated.
    pub(crate) fn takes_in(&self) -> bool {
        self.fsm.state().moves.imports.iter().any(|import| import.phase == ImportPhase::Closed)
    }

    /// Makes `attempt` when nothing of `touched` waits to be activated here any more, and again if it meets such a wait after all:
    /// each begins with a new proof of leadership, and is judged anew. Not for longer than [`crate::GroupOptions::hold_arriving`]:
    /// what was routed here by an old map would wait for something that is not meant for it.
    ///
    /// # Errors
    /// Those of `attempt`; [`Reason::NotLeader`] or [`Reason::Timeout`] if the wait ends for that, definite.
    pub(crate) async fn once_arrived<T, F: Future<Output = Result<T, Error>>>(
        &self,
        touched: &[Interval],
        observed: Option<CatalogVersion>,
        deadline: Instant,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        let until = deadline.min(Instant::now() + self.options.hold_arriving);
        loop {
            let may_wait = match arrives(&self.fsm.state(), touched, observed) {
                true => self.activated(touched, observed, until, deadline).await?,
                false => true,
            };
            match attempt().await {
                Err(error)
                    if error.reason == Reason::CutoverPending
                        && !error.is_unknown()
                        && may_wait
                        && arrives(&self.fsm.state(), touched, observed) => {}
                answer => return answer,
            }
        }
    }

    /// Waits until nothing of `touched` waits to be activated here any more; whether that is so. If there is no room to wait, or
    /// `until` comes first, it is not.
    async fn activated(
        &self,
        touched: &[Interval],
        observed: Option<CatalogVersion>,
        until: Instant,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let Ok(_room) = self.holding.try_acquire() else { return Ok(false) };
        let leadership = self.leadership()?;
        self.stats.request_held();
        let mut applied = self.fsm.applied_log_id();
        let activated = async {
            loop {
                applied.borrow_and_update();
                if !arrives(&self.fsm.state(), touched, observed) || applied.changed().await.is_err() {
                    return;
                }
            }
        };
        match leadership.wait(until, activated).await {
            Ok(()) => Ok(true),
            Err(error) if error.reason == Reason::Timeout && until < deadline => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_fsm::OwnedInterval;
    use drover_fsm::moving::{ImportJob, Moves, Released};
    use drover_hlc::Timestamp;
    use drover_keys::{End, GroupId, JobEpoch, JobId, RouteId, ShardId};

    use super::*;

    fn interval(start: &'static str, end: &'static str) -> Interval {
        let end = if end.is_empty() { End::Unbounded } else { End::Key(end.into()) };
        Interval::new(start, end).unwrap()
    }

    fn owned(start: &'static str, end: &'static str) -> OwnedInterval {
        OwnedInterval {
            interval: interval(start, end),
            route: RouteId(1),
            shard: ShardId(1),
            acquired_version: CatalogVersion(1),
            floor_ts: Timestamp::ZERO,
            history_start: Timestamp::ZERO,
            safe_point: Timestamp::ZERO,
            txn_horizon: Timestamp::ZERO,
        }
    }

    fn import(phase: ImportPhase) -> ImportJob {
        let begun = ImportJob::begun(JobId(1), JobEpoch(1), interval("m", "x"), ShardId(2), GroupId(9));
        ImportJob { phase, closed_in: JobEpoch(1), ..begun }
    }

    #[test]
    fn a_request_waits_for_what_is_complete_and_nothing_else_is_in_its_way() {
        use ImportPhase::{Closed, Differs, Open};
        let gone =
            |version| Released { interval: interval("m", "x"), group: GroupId(9), version: CatalogVersion(version) };
        // The copy, when the range was given away before, the map, what is touched; whether it waits.
        type Case = (&'static str, ImportPhase, Option<u64>, Option<u64>, Vec<Interval>, bool);
        let table: [Case; 13] = [
            ("a key of it", Closed, None, Some(5), vec![interval("n", "o")], true),
            ("all of it", Closed, None, Some(5), vec![interval("m", "x")], true),
            ("more than it", Closed, None, Some(5), vec![interval("m", "y")], false),
            ("across its start", Closed, None, Some(5), vec![interval("l", "n")], false),
            ("beside it", Closed, None, Some(5), vec![interval("y", "z")], false),
            ("owned", Closed, None, Some(5), vec![interval("a", "b")], false),
            ("owned and arriving", Closed, None, Some(5), vec![interval("a", "b"), interval("n", "o")], true),
            ("owned, arriving and foreign", Closed, None, Some(5), vec![interval("n", "o"), interval("y", "z")], false),
            ("still copied", Open, None, Some(5), vec![interval("n", "o")], false),
            ("copied in vain", Differs, None, Some(5), vec![interval("n", "o")], false),
            ("routed by no map", Closed, None, None, vec![interval("n", "o")], false),
            (
                "routed by a map from before it was given away",
                Closed,
                Some(5),
                Some(5),
                vec![interval("n", "o")],
                false,
            ),
            ("given away earlier", Closed, Some(4), Some(5), vec![interval("n", "o")], true),
        ];
        for (case, phase, released, observed, touched, expect) in table {
            let moves = Moves {
                imports: vec![import(phase)],
                released: released.map(gone).into_iter().collect(),
                ..Moves::default()
            };
            let state = GroupState { bootstrapped: true, owned: vec![owned("a", "m")], moves, ..GroupState::default() };
            assert_eq!(arrives(&state, &touched, observed.map(CatalogVersion)), expect, "{case}");
        }
    }
}
