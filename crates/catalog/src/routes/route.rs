use drover_keys::{GroupId, Interval, JobId, RouteId, ShardId};

/// One interval of route keys and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Route {
    /// A name for people.
    pub id: RouteId,
    /// What it covers.
    pub interval: Interval,
    /// Who serves it.
    pub group: GroupId,
    /// Where its rows are inside the group's store.
    pub shard: ShardId,
    /// What may be done with it now.
    pub state: RouteState,
}

/// What may be done with a route now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum RouteState {
    /// Reads and writes.
    #[default]
    Active,
    /// Reads; coordinators hold writes until the job has moved the interval or given up.
    WriteFenced {
        /// Whose fence it is.
        job: JobId,
    },
}
