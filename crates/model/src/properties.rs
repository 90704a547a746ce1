//! What must hold in every state.

use bytes::Bytes;
use drover_catalog::RouteState;
use drover_catalog::job::SplitJob;
use drover_fsm::moving::ImportPhase;
use drover_hlc::Timestamp;
use drover_keys::ShardId;
use drover_kv::Update;

use crate::catalog::{GROUPS, beside, key};
use crate::client::Stage;
use crate::ghost::{Broken, stored};
use crate::group::Group;
use crate::shared::Shared;
use crate::world::World;

/// No acknowledged write is lost: whoever has the range by the catalog holds all that was acknowledged, as a version, or as
/// the lock of a transaction that is committed; what garbage collection may take away aside.
pub const NOTHING_LOST: &str = "no acknowledged write is lost";
/// No read misses what was acknowledged, and none that was served is made wrong by a later write.
pub const NOTHING_STALE: &str = "no read is stale";
/// No two groups serve a key.
pub const ONE_SERVER: &str = "at most one group serves the key";
/// Routes tile the key space, what a group owns does not overlap, and no job is in a state that must not be.
pub const TILING: &str = "routes tile the key space";
/// No request is accepted that was routed by a map under which the group was not the owner, without interruption until now.
pub const COMPOSED: &str = "no request by an older map is accepted";
/// When a job is over by the catalog, nothing of it is left in the groups, and the route is open.
pub const NOTHING_STUCK: &str = "no guard is left of a job that is over";
/// No copy differs from the range.
pub const COPY_EQUAL: &str = "no copy differs";
/// No lock stands of an attempt that is over.
pub const NO_DEAD_LOCK: &str = "no lock stands of an attempt that is over";
/// Nobody is told of a write that it was never applied while its record may have been removed, wherever that was.
pub const NOTHING_UNDECIDED_AGAIN: &str = "no write whose record is gone is settled";
/// The last line is never reached: no group is told to take a range over whose copy is not closed, or to give up one that it
/// serves. The groups would refuse, and the job would not end.
pub const NOBODY_RUNS_AHEAD: &str = "no step comes before those that it relies on";

fn holder(world: &World) -> (&Shared<Group>, ShardId, Timestamp) {
    let route = world.catalog.route();
    let group = world.group(route.group);
    let owned = group.state.owned.iter().find(|owned| owned.shard == route.shard && owned.interval.contains(&key()));
    let handed_over = world.catalog.jobs().rev().find_map(|job| job.handover.filter(|_| job.shard == route.shard));
    let oldest = match (owned, handed_over) {
        (Some(owned), _) => owned.safe_point.max(owned.history_start),
        (None, Some(handover)) => handover.terms.history_start,
        (None, None) => Timestamp::ZERO,
    };
    (group, route.shard, oldest)
}

/// [`NOTHING_LOST`].
pub fn nothing_lost(world: &World) -> bool {
    let (group, shard, oldest) = holder(world);
    let is_locked = |at: Timestamp| {
        world.txn.stage == Stage::Committed(at)
            && group.locks(shard, world.txn.attempt)
            && group.rows.lock(shard, &key()).is_some_and(|lock| matches!(lock.update, Update::Put { .. }))
    };
    let stays = world.group(GROUPS[0]);
    let beside_it = stays.state.owned.iter().find(|owned| owned.interval.contains(&beside()));
    let [of_key, of_beside] = &world.ghost.truth;
    holds(group, shard, &key(), oldest, of_key, is_locked)
        && beside_it.is_some_and(|owned| holds(stays, owned.shard, &beside(), owned.safe_point, of_beside, |_| false))
}

/// Whether a group holds all versions of a key that may be asked for at or above `oldest`, or a lock in the place of one.
fn holds(
    group: &Group,
    shard: ShardId,
    key: &Bytes,
    oldest: Timestamp,
    truth: &[(Timestamp, bool)],
    is_locked: impl Fn(Timestamp) -> bool,
) -> bool {
    let is_there = |at: Timestamp, is_value: bool| {
        group.rows.versions(shard, key).any(|(of, value)| of == at && value == stored(is_value))
    };
    truth.iter().enumerate().all(|(place, (at, is_value))| {
        let superseded = truth.get(place + 1).is_some_and(|(next, _)| *next <= oldest);
        let forgotten = *at <= oldest && (superseded || !is_value);
        forgotten || is_there(*at, *is_value) || is_locked(*at)
    })
}

/// [`NOTHING_STALE`].
pub fn nothing_stale(world: &World) -> bool {
    !matches!(world.ghost.broken, Some(Broken::StaleRead | Broken::WriteBelowRead))
}

/// [`ONE_SERVER`].
pub fn one_server(world: &World) -> bool {
    let version = world.catalog.version();
    !world.groups.iter().all(|group| group.serves(version))
}

/// [`TILING`].
pub fn tiling(world: &World) -> bool {
    world.catalog.is_valid() && world.groups.iter().all(|group| group.state.validate().is_ok())
}

/// [`COMPOSED`].
pub fn composed(world: &World) -> bool {
    world.ghost.broken != Some(Broken::Composed)
}

/// [`NOTHING_UNDECIDED_AGAIN`].
pub fn nothing_undecided_again(world: &World) -> bool {
    let (version, forgotten) = (world.catalog.version(), world.ghost.forgotten);
    let mut serving = world.groups.iter().filter(|group| group.serves(version));
    forgotten == Timestamp::ZERO || !serving.any(|group| group.settles(forgotten))
}

/// [`NOBODY_RUNS_AHEAD`].
pub fn nobody_runs_ahead(world: &World) -> bool {
    !world.ghost.ran_ahead
}

fn left_of(world: &World, job: &SplitJob) -> bool {
    world.groups.iter().any(|group| {
        let moves = &group.state.moves;
        moves.source(job.id).is_some() || moves.import(job.id).is_some()
    })
}

/// [`NOTHING_STUCK`].
pub fn nothing_stuck(world: &World) -> bool {
    let mut over = world.catalog.jobs().filter(|job| job.phase.has_ended());
    let is_open = world.catalog.live().next().is_some() || world.catalog.route().state == RouteState::Active;
    is_open && !over.any(|job| left_of(world, job))
}

/// [`COPY_EQUAL`].
pub fn copy_equal(world: &World) -> bool {
    let mut imports = world.groups.iter().flat_map(|group| &group.state.moves.imports);
    imports.all(|import| import.phase != ImportPhase::Differs)
}

/// [`NO_DEAD_LOCK`].
pub fn no_dead_lock(world: &World) -> bool {
    let over = matches!(world.txn.stage, Stage::Idle | Stage::Resolved);
    !over || GROUPS.iter().all(|group| world.group(*group).state.locks == 0)
}
