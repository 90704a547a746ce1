//! `drover route`: which group serves which keys.

use bytesize::ByteSize;
use clap::Subcommand;
use drover_client::{
    CatalogVersion, Client, Error, GetRouteOwnershipResponse, Ownership, Reason, Route, RouteEvent, RouteEventKind,
    RouteId, RouteState,
};
use serde_json::{Map, Value, json};

use super::Global;
use super::exit::End;
use super::notation::Notation;
use super::output::Output;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists all routes, with their sizes, and the catalog version since which their groups have owned them
    List,
    /// Shows the route of a key, and what the log of its group says
    Show {
        /// A key
        key: String,
    },
    /// Divides a route inside its group; no data moves, and traffic goes on
    Split {
        /// Which route; see `route list`
        route: RouteId,
        /// Becomes the first key of the right half
        key: String,
        /// Fail unless the catalog is at this version; left out: whatever it is
        #[arg(long, value_name = "VERSION")]
        expect_version: Option<CatalogVersion>,
    },
    /// Prints the routes, and then every change, until interrupted
    Watch {
        /// Go on from a version that is known; left out: from the present routes
        #[arg(long, value_name = "VERSION")]
        from: Option<CatalogVersion>,
    },
}

/// Attempts of a split against other changes of the catalog, if the version does not matter.
const SPLIT_ATTEMPTS: usize = 20;

pub async fn run(global: &Global, command: Command, output: &mut Output) -> anyhow::Result<End> {
    let client = global.connect().await?;
    let shown = Shown { notation: global.notation(), json: global.json };
    match command {
        Command::List => {
            let routes = client.list_routes(true).await?;
            shown.list(output, routes.version, &routes.routes)?;
        }
        Command::Show { key } => {
            let key = shown.notation.parse(&key)?;
            shown.ownership(output, &client.route_ownership(key).await?)?;
        }
        Command::Split { route, key, expect_version } => {
            let key = shown.notation.parse(&key)?;
            let split = split(&client, route, key, expect_version, &global.actor()).await?;
            let halves: Vec<Route> = split.left.into_iter().chain(split.right).collect();
            shown.list(output, CatalogVersion(split.version), &halves)?;
        }
        Command::Watch { from } => watch(&client, &shown, from, output).await?,
    }
    Ok(End::Done)
}

async fn split(
    client: &Client,
    route: RouteId,
    key: bytes::Bytes,
    expect: Option<CatalogVersion>,
    actor: &str,
) -> Result<drover_client::SplitRangeResponse, Error> {
    let mut last = None;
    for _ in 0..SPLIT_ATTEMPTS {
        let version = match expect {
            Some(version) => version,
            None => client.route_ownership(key.clone()).await.map(|found| CatalogVersion(found.version))?,
        };
        match client.split_route(version, route, key.clone(), actor).await {
            Err(error) if expect.is_none() && error.reason == Reason::VersionMismatch => last = Some(error),
            done => return done,
        }
    }
    Err(last.expect("there was an attempt"))
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
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
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
                owned.floor_ts,
                owned.history_start,
                owned.safe_point,
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
