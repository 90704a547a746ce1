//! `drover.v1.Distribution`: routes, and how they are changed.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::job::{JobEvent, JobOptions};
use drover_catalog::{CatalogCommandKind, CatalogReply, RequestId, Route, RouteMap};
use drover_coordinator::{Repeat, RouteCache};
use drover_keys::{CatalogVersion, ClusterId, GroupId, Interval, RouteId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::distribution_server::Distribution;
use drover_wire::proto::v1::{self, route_event::Event};
use drover_wire::{
    GroupAnswer, GroupOp, OwnershipFacts, RangeFacts, decode_key_range, encode_route, encode_route_delta,
    error_to_status,
};
use futures::Stream;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::jobs::Jobs;
use super::{Front, Nodes};

/// Routes in one answer, or in one part of a snapshot.
const PAGE: usize = 1_000;
/// Changes that are taken from the cache at a time.
const DELTAS: usize = 256;
/// How long a call may take if the caller does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// `drover.v1.Distribution`.
pub struct DistributionService {
    cluster: ClusterId,
    front: Arc<Front>,
    jobs: Jobs,
}

type Events = Pin<Box<dyn Stream<Item = Result<v1::RouteEvent, Status>> + Send>>;

impl DistributionService {
    /// The service of a node; `defaults` are allowed to moves whose caller does not say.
    pub fn new(cluster: ClusterId, front: Arc<Front>, nodes: Arc<Nodes>, defaults: JobOptions) -> Self {
        let jobs = Jobs::new(Arc::clone(&front), nodes, defaults);
        Self { cluster, front, jobs }
    }

    fn routes(&self) -> &Arc<RouteCache> {
        self.front.coordinator().routes()
    }

    fn shown(&self, route: &Route) -> v1::Route {
        shown(&self.front, route)
    }

    async fn list(&self, request: v1::ListRoutesRequest) -> Result<v1::ListRoutesResponse, Error> {
        let deadline = deadline(request.timeout_ms);
        let map = self.routes().current();
        if request.version != 0 && map.version().0 != request.version {
            return Err(other_version(CatalogVersion(request.version), &map));
        }
        let limit = match request.limit {
            0 => PAGE,
            limit => usize::try_from(limit).unwrap_or(PAGE).min(PAGE),
        };
        let rest = Interval::new(request.start, drover_keys::End::Unbounded)
            .map_err(|error| Error::definite(Reason::InvalidArgument, error.to_string()))?;
        // A page starts with a route, not within one.
        let mut found = map.intersecting(&rest).filter(|route| route.interval.start() >= rest.start());
        let page: Vec<&Route> = found.by_ref().take(limit).collect();
        let next = found.next().map(|route| route.interval.start().clone());
        let facts = match request.with_sizes {
            true => self.facts(&page, deadline).await?,
            false => Vec::new(),
        };
        // Whoever was asked for facts is known to lead now.
        let mut routes: Vec<v1::Route> = page.iter().map(|route| self.shown(route)).collect();
        for (route, facts) in routes.iter_mut().zip(facts) {
            route.approximate_bytes = Some(facts.approximate_bytes);
            route.acquired_version = facts.owned.iter().map(|owned| owned.acquired_version.0).max();
        }
        Ok(v1::ListRoutesResponse { version: map.version().0, routes, next })
    }

    /// What the groups say of the routes, each asked of its group's leader, all groups at once.
    async fn facts(&self, routes: &[&Route], deadline: Instant) -> Result<Vec<RangeFacts>, Error> {
        let mut by_group: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (place, route) in routes.iter().enumerate() {
            by_group.entry(route.group).or_default().push(place);
        }
        let asked = by_group.into_iter().map(|(group, places)| async move {
            let intervals = places.iter().map(|place| routes[*place].interval.clone()).collect();
            Ok::<_, Error>((places, describe(&self.front, group, intervals, deadline).await?))
        });
        let mut found = vec![RangeFacts::default(); routes.len()];
        for (places, facts) in futures::future::try_join_all(asked).await? {
            for (place, facts) in places.into_iter().zip(facts) {
                found[place] = facts;
            }
        }
        Ok(found)
    }

    async fn ownership(&self, request: v1::GetRouteOwnershipRequest) -> Result<v1::GetRouteOwnershipResponse, Error> {
        let deadline = deadline(request.timeout_ms);
        let map = self.routes().current();
        let route = map.route_of(&request.key);
        let facts = describe(&self.front, route.group, vec![Interval::point(request.key)], deadline).await?;
        let ownership = facts.into_iter().flat_map(|facts| facts.owned).next().map(|owned| ownership(&owned));
        Ok(v1::GetRouteOwnershipResponse { version: map.version().0, route: Some(self.shown(route)), ownership })
    }

    async fn intersecting(
        &self,
        request: v1::GetIntersectingRoutesRequest,
    ) -> Result<v1::GetIntersectingRoutesResponse, Error> {
        let interval = decode_key_range(Some(v1::KeyRange { start: request.start, end: request.end }))?;
        let version = CatalogVersion(request.version);
        if let Some(before) = version.0.checked_sub(1) {
            self.routes().newer_than(CatalogVersion(before), deadline(request.timeout_ms)).await;
        }
        let map = self.routes().current();
        if map.version() != version {
            return Err(other_version(version, &map));
        }
        let routes = map.intersecting(&interval).map(|route| self.shown(route)).collect();
        Ok(v1::GetIntersectingRoutesResponse { routes })
    }

    async fn split(&self, request: v1::SplitRangeRequest) -> Result<v1::SplitRangeResponse, Error> {
        let deadline = deadline(request.timeout_ms);
        let id = request_id(&request.request_id)?;
        let kind = CatalogCommandKind::SplitRange {
            expected_version: CatalogVersion(request.expected_version),
            route: RouteId(request.route_id),
            key: request.key,
        };
        match self.front.change_catalog(id, actor(request.actor), kind, deadline).await? {
            CatalogReply::Split(split) => Ok(v1::SplitRangeResponse {
                version: split.version.0,
                left: Some(self.shown(&split.left)),
                right: Some(self.shown(&split.right)),
            }),
            other => Err(misfit(&other)),
        }
    }
}

/// What the leader of a group says of ranges, in their order.
pub(super) async fn describe(
    front: &Front,
    group: GroupId,
    intervals: Vec<Interval>,
    deadline: Instant,
) -> Result<Vec<RangeFacts>, Error> {
    let count = intervals.len();
    let dispatcher = front.coordinator().dispatcher();
    match dispatcher.call(group, GroupOp::Describe { intervals }, Repeat::Read, deadline).await? {
        GroupAnswer::Described(facts) if facts.len() == count => Ok(facts),
        other => Err(Error::definite(Reason::Internal, format!("the group answered with {other:?}"))),
    }
}

/// The identity of a request, from its bytes.
pub(super) fn request_id(bytes: &Bytes) -> Result<RequestId, Error> {
    let id: [u8; 16] = bytes.as_ref().try_into().map_err(|_| {
        let message = format!("request_id has {} bytes; send 16, the same in every attempt", bytes.len());
        Error::definite(Reason::InvalidArgument, message)
    })?;
    Ok(RequestId(id))
}

/// Refuses a caller that takes this cluster for another one. What one cluster knows must never be followed by a node of
/// another: it would give up replicas that it shall keep.
pub(super) fn check_cluster(cluster: ClusterId, asked: &str) -> Result<(), Error> {
    if asked.is_empty() || asked == cluster.to_string() {
        return Ok(());
    }
    let message = format!("this is cluster {cluster}, not {asked}; nothing was changed");
    Err(Error::definite(Reason::WrongCluster, message))
}

/// Who asks, for the audit log.
pub(super) fn actor(named: String) -> String {
    if named.is_empty() { "unnamed".to_owned() } else { named }
}

pub(super) fn misfit(reply: &CatalogReply) -> Error {
    tracing::error!(?reply, "the catalog gave an answer that does not fit the request");
    Error::unknown(Reason::Internal, "the catalog gave an answer that does not fit the request; it may have happened")
}

pub(super) fn deadline(timeout_ms: u32) -> Instant {
    let timeout = if timeout_ms == 0 { DEFAULT_TIMEOUT } else { Duration::from_millis(u64::from(timeout_ms)) };
    Instant::now() + timeout
}

pub(super) fn other_version(wanted: CatalogVersion, map: &RouteMap) -> Error {
    let known = map.version();
    let message = format!(
        "this node knows version {known} of the catalog, not {wanted}; nothing was changed, read the routes anew"
    );
    Error::definite(Reason::VersionMismatch, message)
}

fn ownership(owned: &OwnershipFacts) -> v1::Ownership {
    v1::Ownership {
        start: owned.interval.start().clone(),
        end: owned.interval.end().as_key().cloned(),
        shard_id: owned.shard.0,
        acquired_version: owned.acquired_version.0,
        floor_ts: owned.floor_ts.raw(),
        history_start: owned.history_start.raw(),
        safe_point: owned.safe_point.raw(),
    }
}

/// A route, and who is believed to lead its group.
fn shown(front: &Front, route: &Route) -> v1::Route {
    encode_route(route, front.coordinator().dispatcher().believed_leader(route.group))
}

/// A whole map, in parts.
fn snapshot(front: &Front, map: &RouteMap) -> Vec<v1::RouteEvent> {
    let routes: Vec<v1::Route> = map.routes().map(|route| shown(front, route)).collect();
    let parts = routes.chunks(PAGE);
    let last = parts.len().saturating_sub(1);
    let event = |(at, routes): (usize, &[v1::Route])| v1::RouteEvent {
        event: Some(Event::Snapshot(v1::RouteSnapshotPart {
            version: map.version().0,
            routes: routes.to_vec(),
            more: at < last,
        })),
    };
    parts.enumerate().map(event).collect()
}

/// What leads a watcher that knows `known` to the present, and what it knows then.
fn next_events(front: &Front, known: CatalogVersion) -> (Vec<v1::RouteEvent>, CatalogVersion) {
    let cache = front.coordinator().routes();
    let deltas = if known.0 == 0 { None } else { cache.since(known, DELTAS) };
    match deltas {
        Some(deltas) => {
            let then = deltas.last().map_or(known, |delta| delta.version);
            let event = |delta: &_| v1::RouteEvent { event: Some(Event::Delta(encode_route_delta(delta))) };
            (deltas.iter().map(|delta| event(delta.as_ref())).collect(), then)
        }
        None => {
            let map = cache.current();
            (snapshot(front, &map), map.version())
        }
    }
}

#[tonic::async_trait]
impl Distribution for DistributionService {
    type WatchRoutesStream = Events;
    type WatchSplitJobStream = BoxStream<'static, Result<v1::SplitJobStatus, Status>>;

    async fn list_routes(
        &self,
        request: Request<v1::ListRoutesRequest>,
    ) -> Result<Response<v1::ListRoutesResponse>, Status> {
        self.list(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn watch_routes(&self, request: Request<v1::WatchRoutesRequest>) -> Result<Response<Events>, Status> {
        let front = Arc::clone(&self.front);
        let drained = self.front.drained();
        let request = request.into_inner();
        check_cluster(self.cluster, &request.cluster_id).map_err(|error| error_to_status(&error))?;
        let known = CatalogVersion(request.known_version);
        let start = (known, std::collections::VecDeque::new());
        let events = futures::stream::unfold(start, move |(mut known, mut queue)| {
            let (front, drained) = (Arc::clone(&front), drained.clone());
            async move {
                let cache = front.coordinator().routes();
                let mut versions = cache.versions();
                // Whoever knows nothing yet says nothing, instead of that there is nothing.
                if !cache.is_known() {
                    tokio::select! {
                        () = drained.cancelled() => return None,
                        changed = versions.wait_for(|version| *version >= CatalogVersion::FIRST) => {
                            if changed.is_err() {
                                return None;
                            }
                        }
                    }
                }
                while queue.is_empty() {
                    let (events, then) = next_events(&front, known);
                    known = then;
                    queue.extend(events);
                    if !queue.is_empty() {
                        break;
                    }
                    tokio::select! {
                        () = drained.cancelled() => return None,
                        changed = versions.wait_for(|version| *version > known) => if changed.is_err() { return None },
                    }
                }
                let event = queue.pop_front()?;
                Some((Ok(event), (known, queue)))
            }
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_route_ownership(
        &self,
        request: Request<v1::GetRouteOwnershipRequest>,
    ) -> Result<Response<v1::GetRouteOwnershipResponse>, Status> {
        self.ownership(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn get_intersecting_routes(
        &self,
        request: Request<v1::GetIntersectingRoutesRequest>,
    ) -> Result<Response<v1::GetIntersectingRoutesResponse>, Status> {
        self.intersecting(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn split_range(
        &self,
        request: Request<v1::SplitRangeRequest>,
    ) -> Result<Response<v1::SplitRangeResponse>, Status> {
        self.split(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn start_split_migration(
        &self,
        request: Request<v1::StartSplitMigrationRequest>,
    ) -> Result<Response<v1::StartSplitMigrationResponse>, Status> {
        self.jobs.start(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn get_split_job(
        &self,
        request: Request<v1::GetSplitJobRequest>,
    ) -> Result<Response<v1::SplitJobStatus>, Status> {
        self.jobs.get(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn list_split_jobs(
        &self,
        request: Request<v1::ListSplitJobsRequest>,
    ) -> Result<Response<v1::ListSplitJobsResponse>, Status> {
        self.jobs.list(request.into_inner()).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn abandon_split_job(
        &self,
        request: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        self.jobs
            .change(request.into_inner(), JobEvent::Abandon)
            .await
            .map(Response::new)
            .map_err(|error| error_to_status(&error))
    }

    async fn retry_split_job(
        &self,
        request: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        self.jobs
            .change(request.into_inner(), JobEvent::Retry)
            .await
            .map(Response::new)
            .map_err(|error| error_to_status(&error))
    }

    async fn pause_split_job(
        &self,
        request: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        self.jobs
            .change(request.into_inner(), JobEvent::Pause)
            .await
            .map(Response::new)
            .map_err(|error| error_to_status(&error))
    }

    async fn resume_split_job(
        &self,
        request: Request<v1::ChangeSplitJobRequest>,
    ) -> Result<Response<v1::ChangeSplitJobResponse>, Status> {
        self.jobs
            .change(request.into_inner(), JobEvent::Resume)
            .await
            .map(Response::new)
            .map_err(|error| error_to_status(&error))
    }

    async fn watch_split_job(
        &self,
        request: Request<v1::WatchSplitJobRequest>,
    ) -> Result<Response<Self::WatchSplitJobStream>, Status> {
        let watched = self.jobs.watch(request.into_inner()).await;
        watched.map(Response::new).map_err(|error| error_to_status(&error))
    }
}
