//! Steps of moves, as the states of replicas show them.

use std::fmt;

use drover_fsm::GroupState;
use drover_fsm::moving::Fence;
use drover_keys::GroupId;

/// A step of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The source takes no new writes.
    WritesFenced,
    /// At the source nothing changes any more.
    Sealed,
    /// The source serves no reads.
    ReadsFenced,
    /// The target serves.
    Activated,
    /// The source has given the range up.
    Released,
}

impl Step {
    /// All of them.
    pub const ALL: [Step; 5] = [Step::WritesFenced, Step::Sealed, Step::ReadsFenced, Step::Activated, Step::Released];
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::WritesFenced => "writes are fenced",
            Step::Sealed => "the range is sealed",
            Step::ReadsFenced => "reads are fenced",
            Step::Activated => "the target serves",
            Step::Released => "the source has given the range up",
        })
    }
}

/// A step that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub step: Step,
    /// From where the range moves.
    pub source: GroupId,
    /// Where it moves to.
    pub target: GroupId,
}

/// The steps that a replica of `group` has applied between two looks.
pub fn taken(group: GroupId, before: &GroupState, after: &GroupState) -> Vec<Taken> {
    let mut taken = Vec::new();
    for job in &after.moves.sources {
        let fence = before.moves.source(job.job).map_or(Fence::Open, |before| before.fence);
        let steps =
            [(Fence::Written, Step::WritesFenced), (Fence::Sealed, Step::Sealed), (Fence::Read, Step::ReadsFenced)];
        let reached = steps.into_iter().filter(|(at, _)| fence < *at && *at <= job.fence);
        taken.extend(reached.map(|(_, step)| Taken { step, source: group, target: job.target }));
    }
    for job in &before.moves.sources {
        let over = after.moves.source(job.job).is_none();
        if over && after.moves.gone(&job.interval).is_some_and(|gone| gone.group == job.target) {
            taken.push(Taken { step: Step::Released, source: group, target: job.target });
        }
    }
    for job in &before.moves.imports {
        let over = after.moves.import(job.job).is_none();
        if over && after.owned.iter().any(|owned| owned.shard == job.shard) {
            taken.push(Taken { step: Step::Activated, source: job.source, target: group });
        }
    }
    taken
}
