//! `drover route`: which group serves which keys.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Subcommand;
use drover_client::{
    CatalogVersion, Client, End as KeyEnd, Error, GetRouteOwnershipResponse, GroupId, Interval, MoveRequest, MoveWhat,
    Ownership, Reason, Route, RouteEvent, RouteEventKind, RouteId, RouteState, Timestamp,
};
use serde_json::{Map, Value, json};

use super::exit::{End, UsageError};
use super::interrupt::unless_interrupted;
use super::notation::{Notation, parse_duration};
use super::output::Output;
use super::settle::Settle;
use super::{Global, job};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists all routes, with their sizes, and the catalog version since which their groups have owned them
    List,
    /// Shows the route of a key, and what the log of its group says
    Show {
        /// A key
        key: String,
    },
    /// Divides a route inside its group: no data moves, and traffic goes on. With --to-group, the right half moves there
    Split {
        /// Which route; see `route list`
        route: RouteId,
        /// Becomes the first key of the right half
        key: String,
        /// Fail unless the catalog is at this version; left out: whatever it is
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<CatalogVersion>,
        /// Move the right half to this group
        #[arg(long, value_name = "GROUP")]
        to_group: Option<GroupId>,
        #[command(flatten)]
        how: MoveArgs,
    },
    /// Begins to move a route, or some of it, to another group, while it is served; see `drover job`
    Move {
        /// Which route; see `route list`
        route: RouteId,
        /// First key; left out: that of the route
        #[arg(long, value_name = "KEY")]
        from: Option<String>,
        /// The key behind the last one; left out: the end of the route
        #[arg(long, value_name = "KEY")]
        to_key: Option<String>,
        /// The group that is to serve it
        #[arg(long, value_name = "GROUP")]
        to_group: GroupId,
        /// Fail unless the catalog is at this version; left out: whatever it is
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<CatalogVersion>,
        #[command(flatten)]
        how: MoveArgs,
    },
    /// Prints the routes, and then every change, until interrupted
    Watch {
        /// Go on from a version that is known; left out: from the present routes
        #[arg(long, value_name = "VERSION")]
        from: Option<CatalogVersion>,
    },
}

/// How a range is to be moved.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct MoveArgs {
    /// How long writes may be held back; left out: 100ms
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    max_pause: Option<Duration>,
    /// How fast the range may be copied, each second; 0: as fast as it goes; left out: what the node says, 50MiB
    #[arg(long, value_name = "BYTES")]
    max_rate: Option<ByteSize>,
    /// Create nothing, and tell what it would come to; exit code 1 if it would be refused
    #[arg(long)]
    dry_run: bool,
}

impl MoveArgs {
    fn is_empty(&self) -> bool {
        self.max_pause.is_none() && self.max_rate.is_none() && !self.dry_run
    }
}

/// Attempts of a split or a move against other changes of the catalog, if the version does not matter.
const SPLIT_ATTEMPTS: usize = 20;

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    let shown = Shown { notation: global.notation(), json: global.json };
    match command {
        Command::List => {
            let routes = global.connect().await?.list_routes(true).await?;
            shown.list(output, routes.version, &routes.routes)?;
        }
        Command::Show { key } => {
            let key = shown.notation.parse(&key)?;
            shown.ownership(output, &global.connect().await?.route_ownership(key).await?)?;
        }
        Command::Split { route, key, expect_version, to_group: Some(group), how } => {
            let key = shown.notation.parse(&key)?;
            let what = |_: &[Route]| Ok(MoveWhat::From(key.clone()));
            return moved(global, Asked { route, expect_version, group, how }, what, output).await;
        }
        Command::Move { route, from, to_key, to_group: group, expect_version, how } => {
            let key = |text: Option<String>| text.map(|text| shown.notation.parse(&text)).transpose();
            let (from, to) = (key(from)?, key(to_key)?);
            let what =
                |routes: &[Route]| within(routes, route, from.clone(), to.clone(), shown.notation).map(MoveWhat::Range);
            return moved(global, Asked { route, expect_version, group, how }, what, output).await;
        }
        Command::Split { how, .. } if !how.is_empty() => {
            let why = "--max-pause, --max-rate and --dry-run are about a move: say --to-group as well";
            return Err(UsageError(why.to_owned()).into());
        }
        Command::Split { route, key, expect_version, .. } => {
            let key = shown.notation.parse(&key)?;
            let split = split(&global.connect().await?, route, key, expect_version, &global.actor()).await?;
            let halves: Vec<Route> = split.left.into_iter().chain(split.right).collect();
            shown.list(output, CatalogVersion(split.version), &halves)?;
        }
        Command::Watch { from } => watch(&global.connect().await?, &shown, from, output).await?,
    }
    Ok(End::Done)
}

async fn split(
    client: &Client,
    route: RouteId,
    key: bytes::Bytes,
    expect: Option<CatalogVersion>,
    actor: &str,
) -> anyhow::Result<drover_client::SplitRangeResponse> {
    let mut last = None;
    for _ in 0..SPLIT_ATTEMPTS {
        let version = match expect {
            Some(version) => version,
            None => client.route_ownership(key.clone()).await.map(|found| CatalogVersion(found.version))?,
        };
        match unless_interrupted(client.split_route(version, route, key.clone(), actor)).await? {
            Err(error) if expect.is_none() && is_overtaken(&error) => last = Some(error),
            done => return done.map_err(|error| Settle::Look("route list".to_owned()).add_to(error)),
        }
    }
    Err(last.expect("there was an attempt").into())
}

/// Whether the catalog has changed meanwhile, and certainly not by this request.
fn is_overtaken(error: &Error) -> bool {
    error.reason == Reason::VersionMismatch && !error.is_unknown()
}

/// A move, but for the range.
struct Asked {
    route: RouteId,
    expect_version: Option<CatalogVersion>,
    group: GroupId,
    how: MoveArgs,
}

/// Part of a route: what is not given is that of the route. An unknown route is for the cluster to refuse.
fn within(
    routes: &[Route],
    route: RouteId,
    from: Option<bytes::Bytes>,
    to: Option<bytes::Bytes>,
    notation: Notation,
) -> Result<Interval, UsageError> {
    let route = routes.iter().find(|found| found.route_id == route.0);
    if let Some(route) = route {
        let above = |key: &[u8]| *key < *route.start;
        let below = |key: &[u8]| route.end.as_ref().is_some_and(|end| *key > **end);
        let (starts, ends) = (from.as_deref().unwrap_or(&route.start), to.as_deref().unwrap_or(&route.start));
        let at_end = route.end.as_deref() == Some(starts);
        if above(starts) || below(starts) || at_end {
            return Err(outside(routes, route, starts, notation));
        }
        if above(ends) || below(ends) {
            return Err(outside(routes, route, ends, notation));
        }
    }
    let start = from.or_else(|| route.map(|route| route.start.clone())).unwrap_or_default();
    let end = to.or_else(|| route.and_then(|route| route.end.clone()));
    Interval::new(start, end.map_or(KeyEnd::Unbounded, KeyEnd::Key)).map_err(|error| UsageError(error.to_string()))
}

/// A bound that does not lie in the route that is to move.
fn outside(routes: &[Route], route: &Route, key: &[u8], notation: Notation) -> UsageError {
    let bounds = |route: &Route| {
        let end = route.end.as_ref().map_or("the end".to_owned(), |end| format!("before {:?}", notation.format(end)));
        format!("{:?} to {end}", notation.format(&route.start))
    };
    let (id, holds, key_text) = (route.route_id, bounds(route), notation.format(key));
    let holder = routes.iter().rev().find(|holder| *holder.start <= *key).filter(|holder| holder.route_id != id);
    let holder = holder.map_or(String::new(), |holder| {
        format!(
            "; {key_text:?} is in route {}, {}, which group {} serves",
            holder.route_id,
            bounds(holder),
            holder.group_id
        )
    });
    UsageError(format!("{key_text:?} is outside route {id}, which holds {holds}{holder}; nothing was changed"))
}

/// Begins a move, or tells what it would come to. `what` names the range by the routes as they are.
async fn moved(
    global: &Global,
    asked: Asked,
    what: impl Fn(&[Route]) -> Result<MoveWhat, UsageError>,
    output: &mut Output,
) -> anyhow::Result<End> {
    let client = global.connect().await?;
    let shown = job::Shown { notation: global.notation(), json: global.json };
    let mut last = None;
    for _ in 0..SPLIT_ATTEMPTS {
        let routes = client.routes().await?;
        let request = MoveRequest {
            expected: asked.expect_version.unwrap_or(routes.version),
            route: asked.route,
            what: what(&routes.routes)?,
            target: asked.group,
            max_pause: asked.how.max_pause,
            max_bytes_per_second: asked.how.max_rate.map(|rate| rate.as_u64()),
        };
        if asked.how.dry_run {
            let plan = client.plan_move(&request, &global.actor()).await?;
            shown.plan(output, &plan)?;
            return Ok(if plan.refusal.is_none() { End::Done } else { End::No });
        }
        match unless_interrupted(client.start_move(&request, &global.actor())).await? {
            Err(error) if asked.expect_version.is_none() && is_overtaken(&error) => last = Some(error),
            Err(error) => return Err(Settle::Look("job list".to_owned()).add_to(error)),
            Ok(job) => {
                shown.job(output, job)?;
                return Ok(End::Done);
            }
        }
    }
    Err(last.expect("there was an attempt").into())
}

async fn watch(
    client: &Client,
    shown: &Shown,
    from: Option<CatalogVersion>,
    output: &mut Output,
) -> anyhow::Result<()> {
    let mut known = from;
    loop {
        let mut events = client.watch_routes(known).await?;
        // A node that stops ends the stream; another one goes on from the version known.
        while let Ok(Some(event)) = events.next().await {
            known = shown.event(output, &event)?.or(known);
            output.flush()?;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

struct Shown {
    notation: Notation,
    json: bool,
}

impl Shown {
    fn key(&self, key: &[u8]) -> String {
        self.notation.format(key)
    }

    fn json_route(&self, route: &Route) -> Value {
        let mut object = Map::new();
        object.insert("route".to_owned(), route.route_id.into());
        self.notation.add_json(&mut object, "start", &route.start);
        if let Some(end) = &route.end {
            self.notation.add_json(&mut object, "end", end);
        }
        object.insert("group".to_owned(), route.group_id.into());
        object.insert("shard".to_owned(), route.shard_id.into());
        object.insert("state".to_owned(), state(route).into());
        if route.leader != 0 {
            object.insert("leader".to_owned(), route.leader.into());
        }
        if let Some(version) = route.acquired_version {
            object.insert("acquired_version".to_owned(), version.into());
        }
        if let Some(bytes) = route.approximate_bytes {
            object.insert("approximate_bytes".to_owned(), bytes.into());
        }
        Value::Object(object)
    }

    fn list(&self, output: &mut Output, version: CatalogVersion, routes: &[Route]) -> std::io::Result<()> {
        if self.json {
            let routes: Vec<Value> = routes.iter().map(|route| self.json_route(route)).collect();
            return output.json(&json!({ "version": version.0, "routes": routes }));
        }
        output.line(&format!("catalog version {version}"))?;
        let rows = routes.iter().map(|route| {
            vec![
                route.route_id.to_string(),
                self.key(&route.start),
                route.end.as_ref().map_or_else(|| "-".to_owned(), |end| self.key(end)),
                route.group_id.to_string(),
                route.shard_id.to_string(),
                state(route),
                route.acquired_version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
                if route.leader == 0 { "?".to_owned() } else { route.leader.to_string() },
                route.approximate_bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string()),
            ]
        });
        output.table(&["route", "start", "end", "group", "shard", "state", "version", "leader", "size"], rows.collect())
    }

    fn ownership(&self, output: &mut Output, found: &GetRouteOwnershipResponse) -> std::io::Result<()> {
        let routes: Vec<Route> = found.route.iter().cloned().collect();
        if self.json {
            let route = found.route.as_ref().map(|route| self.json_route(route));
            let ownership = found.ownership.as_ref().map(|owned| self.json_ownership(owned));
            return output.json(&json!({ "version": found.version, "route": route, "ownership": ownership }));
        }
        self.list(output, CatalogVersion(found.version), &routes)?;
        match &found.ownership {
            None => output.line("the group does not own the key now"),
            Some(owned) => output.line(&format!(
                "the group owns [{}, {}) since version {}; floor {}, history from {}, safe point {}",
                self.key(&owned.start),
                owned.end.as_ref().map_or_else(|| "-".to_owned(), |end| self.key(end)),
                owned.acquired_version,
                Timestamp::from_raw(owned.floor_ts),
                Timestamp::from_raw(owned.history_start),
                Timestamp::from_raw(owned.safe_point),
            )),
        }
    }

    fn json_ownership(&self, owned: &Ownership) -> Value {
        let mut object = Map::new();
        self.notation.add_json(&mut object, "start", &owned.start);
        if let Some(end) = &owned.end {
            self.notation.add_json(&mut object, "end", end);
        }
        let numbers = [
            ("shard", owned.shard_id),
            ("acquired_version", owned.acquired_version),
            ("floor_ts", owned.floor_ts),
            ("history_start", owned.history_start),
            ("safe_point", owned.safe_point),
        ];
        object.extend(numbers.map(|(name, number)| (name.to_owned(), number.into())));
        Value::Object(object)
    }

    /// Prints an event, and returns the version that is known with it.
    fn event(&self, output: &mut Output, event: &RouteEvent) -> std::io::Result<Option<CatalogVersion>> {
        match &event.event {
            None => Ok(None),
            Some(RouteEventKind::Snapshot(part)) => {
                self.list(output, CatalogVersion(part.version), &part.routes)?;
                Ok((!part.more).then_some(CatalogVersion(part.version)))
            }
            Some(RouteEventKind::Delta(delta)) => {
                let version = CatalogVersion(delta.version);
                if self.json {
                    let changed: Vec<Value> = delta.upserted.iter().map(|route| self.json_route(route)).collect();
                    output.json(&json!({ "version": version.0, "removed": delta.removed, "changed": changed }))?;
                } else {
                    if !delta.removed.is_empty() {
                        output.line(&format!("removed: {:?}", delta.removed))?;
                    }
                    self.list(output, version, &delta.upserted)?;
                }
                Ok(Some(version))
            }
        }
    }
}

fn state(route: &Route) -> String {
    match route.state() {
        RouteState::Active => "active".to_owned(),
        RouteState::WriteFenced => format!("write-fenced by job {}", route.job_id),
        RouteState::Unspecified => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Captured;
    use super::*;

    fn shown(json: bool) -> String {
        let route = Route {
            route_id: 4,
            start: "a".into(),
            end: Some("m\0".into()),
            group_id: 2,
            shard_id: 3,
            leader: 1,
            state: RouteState::Active.into(),
            job_id: 0,
            approximate_bytes: Some(2_048),
            acquired_version: Some(3),
        };
        let last = Route {
            route_id: 5,
            start: "m\0".into(),
            end: None,
            leader: 0,
            approximate_bytes: None,
            acquired_version: None,
            ..route.clone()
        };
        let captured = Captured::default();
        let mut output = Output::to(captured.clone());
        Shown { notation: Notation::Escaped, json }.list(&mut output, CatalogVersion(7), &[route, last]).unwrap();
        output.flush().unwrap();
        captured.text()
    }

    #[test]
    fn bounds_of_a_move_that_are_left_out_are_those_of_the_route() {
        let route = |route_id, start: &'static str, end: Option<&'static str>| Route {
            route_id,
            start: start.into(),
            end: end.map(Into::into),
            group_id: 7,
            ..Route::default()
        };
        let routes = [route(1, "", Some("m")), route(2, "m", None)];
        let range = |id, from: Option<&'static str>, to: Option<&'static str>| {
            let interval =
                within(&routes, RouteId(id), from.map(Into::into), to.map(Into::into), Notation::Escaped).ok()?;
            Some((interval.start().clone(), interval.end().as_key().cloned()))
        };
        assert_eq!(range(1, None, None), Some(("".into(), Some("m".into()))));
        assert_eq!(range(1, Some("c"), None), Some(("c".into(), Some("m".into()))));
        assert_eq!(range(2, None, Some("p")), Some(("m".into(), Some("p".into()))));
        assert_eq!(range(2, None, None), Some(("m".into(), None)));
        assert_eq!(range(9, Some("c"), None), Some(("c".into(), None)), "the cluster will not know it");
        assert_eq!(range(2, Some("p"), Some("n")), None);
        assert_eq!(range(1, None, Some("m")), Some(("".into(), Some("m".into()))));
        let refused = |id, from: Option<&'static str>, to: Option<&'static str>| {
            within(&routes, RouteId(id), from.map(Into::into), to.map(Into::into), Notation::Escaped).unwrap_err().0
        };
        // Whichever bound lies outside is told, with the route that holds it.
        for (id, from, to, holder) in [
            (1, Some("m"), None, "\"m\" is in route 2, \"m\" to the end, which group 7 serves"),
            (1, Some("p"), Some("q"), "\"p\" is in route 2, \"m\" to the end, which group 7 serves"),
            (1, None, Some("n"), "\"n\" is in route 2"),
            (2, Some("c"), None, "\"c\" is in route 1, \"\" to before \"m\", which group 7 serves"),
            (2, None, Some("c"), "\"c\" is in route 1"),
        ] {
            let text = refused(id, from, to);
            assert!(text.contains(&format!("is outside route {id}")) && text.contains(holder), "{text}");
        }
    }

    /// Another attempt has another name: beside one that may have been carried out it would divide or move once more.
    #[test]
    fn only_what_was_certainly_not_carried_out_is_tried_again_with_a_newer_version() {
        assert!(is_overtaken(&Error::definite(Reason::VersionMismatch, "")));
        assert!(!is_overtaken(&Error::unknown(Reason::VersionMismatch, "")));
        assert!(!is_overtaken(&Error::definite(Reason::FailedPrecondition, "")));
    }

    #[test]
    fn routes_are_listed_for_people_and_for_machines() {
        let text = shown(false);
        assert!(text.starts_with("catalog version 7\n") && text.contains("2.0 KiB") && text.contains('?'), "{text}");
        let json: Value = serde_json::from_str(&shown(true)).unwrap();
        assert_eq!(json["version"], 7);
        assert_eq!((&json["routes"][0]["leader"], &json["routes"][0]["acquired_version"]), (&1.into(), &3.into()));
        assert_eq!(json["routes"][1].get("end"), None);
        assert_eq!(json["routes"][1].get("leader"), None);
    }
}
