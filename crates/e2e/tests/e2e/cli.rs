//! What operators type, against a running cluster: for people and for scripts, and how refusals end.

use std::process::Stdio;
use std::time::Duration;

use drover_client::{Client, NodeId, TransactionStatus};
use drover_guards::{CrashPoint, Place};
use drover_testkit::Cluster;
use drover_testkit::cluster::{PATIENCE, Split, drover_binary};
use drover_testkit::wait::wait_until;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

/// A command line that talks to these nodes.
struct Cli {
    endpoints: String,
}

impl Cli {
    fn of(cluster: &Cluster) -> Self {
        Self { endpoints: cluster.endpoints().join(",") }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(drover_binary().unwrap());
        command.args(line.split_whitespace()).env("DROVER_ENDPOINTS", &self.endpoints).env("DROVER_ACTOR", "operator");
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> Ended {
        let output = self.command(line).output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What a command prints that succeeds.
    async fn text(&self, line: &str) -> String {
        let ended = self.run(line).await;
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{line}: {}", ended.out);
        ended.out
    }

    /// The objects that it prints.
    async fn objects(&self, line: &str) -> Vec<Value> {
        let text = self.text(&format!("{line} --json")).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn json(&self, line: &str) -> Value {
        let mut objects = self.objects(line).await;
        assert_eq!(objects.len(), 1, "{line}: {objects:?}");
        objects.remove(0)
    }

    /// The cluster says no, and that nothing was changed.
    async fn refused(&self, line: &str, reason: &str) {
        for (line, as_json) in [(line.to_owned(), false), (format!("{line} --json"), true)] {
            let ended = self.run(&line).await;
            assert_eq!(ended.code, 4, "{line}: {}", ended.err);
            let named = ended.err.starts_with(&format!("error: {reason}: "));
            assert!(named && ended.err.contains("nothing was changed"), "{line}: {}", ended.err);
            if !as_json {
                assert_eq!(ended.out, "", "{line}");
                continue;
            }
            let failure: Value = serde_json::from_str(&ended.out).unwrap();
            let error = &failure["error"];
            let told = (&error["reason"], &error["certainty"], &failure["exit_code"]);
            assert_eq!(told, (&reason.into(), &"definite".into(), &4.into()), "{line}: {failure}");
        }
    }
}

/// The words of each line of a table, without its head.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

fn numbers(value: &Value, name: &str) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|item| item[name].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_are_listed_shown_and_divided() {
    let mut cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let cli = Cli::of(&cluster);
    let listed = cli.json("route list").await;
    let (version, routes) = (listed["version"].as_u64().unwrap(), &listed["routes"]);
    assert_eq!(numbers(routes, "group"), [2, 3]);
    assert_eq!((&routes[0]["end"], routes[1].get("end")), (&"n".into(), None));
    let text = cli.text("route list").await;
    assert!(text.starts_with(&format!("catalog version {version}\n")), "{text}");
    let head: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(head, ["route", "start", "end", "group", "shard", "state", "version", "leader", "size"]);

    let route = routes[0]["route"].as_u64().unwrap();
    let halves = cli.json(&format!("route split {route} d")).await;
    assert_eq!((&halves["version"], &halves["routes"][1]["start"]), (&(version + 1).into(), &"d".into()));
    let text = cli.text(&format!("route split {route} b --expect-version {}", version + 1)).await;
    assert!(text.starts_with(&format!("catalog version {}\n", version + 2)), "{text}");
    let right = &rows(text.split_once('\n').unwrap().1)[1][1..4];
    assert_eq!(right, ["b", "d", "2"]);

    cli.refused(&format!("route split {route} b"), "INVALID_ARGUMENT").await;
    cli.refused(&format!("route split {route} z"), "INVALID_ARGUMENT").await;
    cli.refused("route split 999 x", "UNKNOWN_ROUTE").await;
    cli.refused(&format!("route split {route} a --expect-version {version}"), "VERSION_MISMATCH").await;
    assert_eq!(cli.run("route split x y").await.code, 2);

    let shown = cli.json("route show c").await;
    assert_eq!((&shown["route"]["start"], &shown["version"]), (&"b".into(), &(version + 2).into()));
    assert_eq!(shown["ownership"]["acquired_version"], 1, "a split leaves ownership alone");
    let text = cli.text("route show c").await;
    assert!(text.contains("the group owns [, n) since version 1;"), "{text}");

    // A node that holds nothing has heard of no leader yet: those that tell the sizes are the leaders.
    let fourth = cluster.join().await.unwrap();
    let cli = Cli { endpoints: cluster.node(fourth).grpc_address() };
    let listed = wait_until("the node to know the newest routes", PATIENCE, async || {
        let text = cli.text("route list").await;
        if text.starts_with(&format!("catalog version {}\n", version + 2)) { Ok(text) } else { Err(text) }
    });
    let listed = listed.await.unwrap();
    let routes = rows(listed.split_once('\n').unwrap().1);
    assert_eq!(routes.len(), 4, "{listed}");
    for route in &routes {
        let [.., state, acquired, leader, _, unit] = route[..] else { panic!("{listed}") };
        assert_eq!((state, acquired, unit), ("active", "1", "B"), "{listed}");
        assert!(["1", "2", "3"].contains(&leader), "{listed}");
    }
    let listed = cli.json("route list").await;
    assert_eq!(numbers(&listed["routes"], "acquired_version"), [1; 4]);
    assert_eq!(numbers(&listed["routes"], "approximate_bytes").len(), 4);
    assert_eq!(numbers(&listed["routes"], "leader").len(), 4);
}

/// A `route watch` that runs.
struct Watch {
    lines: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Watch {
    fn start(cli: &Cli, line: &str) -> Self {
        let mut child = cli.command(line).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, _child: child }
    }

    async fn line(&mut self) -> String {
        tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a line").unwrap().expect("it goes on")
    }

    /// The version of the next event, as people read it.
    async fn version(&mut self) -> u64 {
        loop {
            if let Some(version) = self.line().await.strip_prefix("catalog version ") {
                return version.parse().unwrap();
            }
        }
    }

    async fn object(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_routes_goes_on_without_a_gap_when_its_node_restarts() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let cli = Cli::of(&cluster);
    let first = cli.json("route list").await["version"].as_u64().unwrap();
    let route = cli.json("route list").await["routes"][0]["route"].as_u64().unwrap();
    let mut people = Watch::start(&cli, "route watch");
    let mut script = Watch::start(&cli, "route watch --json");
    let snapshot = script.object().await;
    assert_eq!((&snapshot["version"], numbers(&snapshot["routes"], "route")), (&first.into(), vec![route]));
    assert_eq!(people.version().await, first);

    // They follow the first of the nodes. It stops in order, then without, and comes back; each time routes change while it
    // is away and after it has come back.
    let watched = cluster.node(NodeId(1));
    let mut version = first;
    for (down, keys) in [("terminated", ["y", "x"]), ("killed", ["w", "v"])] {
        match down {
            "killed" => watched.kill().unwrap(),
            _ => assert!(watched.terminate(PATIENCE).await.unwrap().success()),
        }
        for (at, key) in keys.into_iter().enumerate() {
            cli.json(&format!("route split {route} {key}")).await;
            version += 1;
            let change = script.object().await;
            assert_eq!(
                (&change["version"], &change["removed"]),
                (&version.into(), &Value::Array(Vec::new())),
                "{change}"
            );
            let starts: Vec<_> = change["changed"].as_array().unwrap().iter().map(|route| &route["start"]).collect();
            assert_eq!(starts, ["", key], "{change}");
            assert_eq!(people.version().await, version, "{down}");
            if at == 0 {
                watched.start().unwrap();
                cluster.wait_ready(PATIENCE).await.unwrap();
            }
        }
    }
    // From a version that is known, without the routes of before. A node that was away may tell all of them instead.
    let cli = Cli { endpoints: cluster.node(NodeId(2)).grpc_address() };
    let mut later = Watch::start(&cli, &format!("route watch --json --from {}", first + 2));
    assert_eq!(later.object().await["version"], first + 3);
    assert_eq!(later.object().await["version"], first + 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_and_replicas_come_and_go() {
    let mut cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    assert_eq!(cluster.join().await.unwrap(), NodeId(4));
    let cli = Cli::of(&cluster);
    let listed = cli.json("node list").await;
    assert_eq!(numbers(&listed["nodes"], "node"), [1, 2, 3, 4]);
    for node in listed["nodes"].as_array().unwrap() {
        assert_eq!((&node["live"], &node["draining"]), (&true.into(), &false.into()), "{node}");
        assert!(node["capabilities"].as_array().unwrap().contains(&"replicas".into()), "{node}");
    }
    let text = cli.text("node list").await;
    assert!(text.starts_with(" node"), "{text}");
    assert_eq!(rows(&text)[2][1..3], [&cluster.node(NodeId(3)).grpc_address(), "live"]);

    assert_eq!(cli.text("node drain 4").await, "node 4 gets no new replicas\n");
    assert_eq!(cli.text("node drain 4").await, "node 4 gets no new replicas, as before\n");
    assert_eq!(rows(&cli.text("node list").await)[3][2], "draining");
    cli.refused("group add-replica 2 4", "FAILED_PRECONDITION").await;
    let drained = cli.json("node drain 4 --undo").await;
    assert_eq!((&drained["draining"], &drained["changed"]), (&false.into(), &true.into()));

    let text = cli.text("group add-replica 2 4").await;
    assert!(rows(&text)[0].ends_with(&["1,", "2,", "3,", "4"]), "{text}");
    cli.refused("group add-replica 2 4", "FAILED_PRECONDITION").await;
    cli.refused("group add-replica 99 4", "UNKNOWN_GROUP").await;
    cli.refused("group add-replica 2 99", "UNKNOWN_NODE").await;
    cli.refused("group remove-replica 2 1 2 3 4", "FAILED_PRECONDITION").await;
    assert_eq!(cli.run("group remove-replica 2").await.code, 2);
    let groups = cli.json("group list").await;
    assert_eq!(numbers(&groups["groups"], "group"), [1, 2]);
    let replicas = groups["groups"][1]["replicas"].as_array().unwrap();
    assert!(replicas.iter().all(|replica| replica["votes"] == true && replica["state"] == "active"), "{groups}");
    assert_eq!(rows(&cli.text("group list").await).len(), 2);

    cli.refused("node remove 4", "FAILED_PRECONDITION").await;
    let left = cli.json("group remove-replica 2 4").await;
    assert_eq!(numbers(&left["groups"][0]["replicas"], "node"), [1, 2, 3]);
    cli.refused("group remove-replica 2 4", "FAILED_PRECONDITION").await;
    assert_eq!(cli.text("node remove 4").await, "node 4 was removed\n");
    cli.refused("node remove 4", "UNKNOWN_NODE").await;
    cli.refused("node drain 99", "UNKNOWN_NODE").await;
    assert_eq!(numbers(&cli.json("node list").await["nodes"], "node"), [1, 2, 3]);
    assert!(!cluster.node(NodeId(4)).wait_exit(PATIENCE).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_is_held_back_and_the_audit_log_tells_who_did_what() {
    let cluster = Cluster::builder().data_groups(1).start().await.unwrap();
    let cli = Cli::of(&cluster);
    let shown = wait_until("the version of the cluster to be known", PATIENCE, async || {
        let shown = cli.json("compat show").await;
        if shown["cluster_version"].is_null() { Err(shown) } else { Ok(shown) }
    });
    let shown = shown.await.unwrap();
    assert_eq!((&shown["outcome"], &shown["freeze"]), (&"read".into(), &Value::Null));
    assert_eq!(numbers(&shown["nodes"], "node"), [1, 2, 3]);
    for node in shown["nodes"].as_array().unwrap() {
        assert!(node["live"] == true && node["capabilities"].as_array().unwrap().contains(&"split".into()), "{node}");
    }
    let version = shown["cluster_version"].as_str().unwrap();
    let text = cli.text("compat show").await;
    assert!(text.starts_with(&format!("cluster version: {version}\n")) && text.contains("split"), "{text}");

    for outcome in ["frozen", "already frozen"] {
        let text = cli.text("compat freeze").await;
        assert!(text.starts_with(&format!("{outcome}\n")), "{text}");
        assert!(text.contains(&format!("frozen at {version} by operator")), "{text}");
    }
    assert_eq!(cli.json("compat freeze").await["freeze"]["by"], "operator");
    for outcome in ["unfrozen", "nothing was frozen"] {
        let unfrozen = cli.json("compat unfreeze").await;
        assert_eq!((unfrozen["outcome"].as_str(), &unfrozen["freeze"]), (Some(outcome), &Value::Null));
    }
    assert_eq!(cli.run("compat thaw").await.code, 2);

    cli.text("node drain 3 --actor ada").await;
    let events = cli.objects("audit --limit 3").await;
    let told: Vec<_> = events.iter().map(|event| (event["actor"].as_str(), event["action"].as_str())).collect();
    let by = |who, what| (Some(who), Some(what));
    assert_eq!(told, [by("operator", "unfreeze"), by("operator", "unfreeze"), by("ada", "drain-node")]);
    assert_eq!(events[2]["details"], "drains");
    let text = cli.text("audit --limit 1").await;
    assert!(text.starts_with(" seq") && text.ends_with("drains\n") && text.lines().count() == 2, "{text}");
    let all = cli.objects("audit").await;
    assert!(all.windows(2).all(|pair| pair[0]["seq"].as_u64().unwrap() + 1 == pair[1]["seq"].as_u64().unwrap()));
}

/// What the operators of a transaction type.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_run_from_scripts_and_asked_about() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let cli = Cli::of(&cluster);
    let dir = tempfile::tempdir().unwrap();
    let script = |text: &str| {
        let path = dir.path().join("script");
        std::fs::write(&path, text).unwrap();
        format!("txn run {}", path.display())
    };
    let first = script("# two groups\nexpect-absent a\nput a 1\nput z 2\nget a\nget gone\n");
    assert_eq!(cli.text(&first).await, "a\t1\ngone\n");
    let ended = cli.run(&first).await;
    assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{}", ended.err);
    assert!(ended.err.contains("a is not as expected; nothing was changed"), "{}", ended.err);
    let second = script("expect z 2\nput m 3\ndelete a\nscan - - 2\n");
    assert_eq!(cli.text(&second).await, "m\t3\nz\t2\n");
    let shown = cli.objects(&script("get a\nget m\n")).await;
    assert_eq!(shown[0]["value"], Value::Null);
    assert_eq!((shown[1]["key"].as_str(), shown[1]["value"].as_str()), (Some("m"), Some("3")));
    let wrong = cli.run(&script("put a 1\nfrobnicate\n")).await;
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    assert!(wrong.err.contains("line 2"), "{}", wrong.err);
    assert_eq!(cli.run("kv get a").await.code, 1, "nothing was written");

    assert_eq!(rows(&cli.text("txn list").await), Vec::<Vec<&str>>::new());
    let id = "0123456789abcdef0123456789abcdef";
    let unknown = cli.run(&format!("txn status {id} a")).await;
    assert_eq!(unknown.code, 1);
    assert!(unknown.out.starts_with("nothing is known"), "{}", unknown.out);
    cli.refused(&format!("txn resolve {id} --force"), "FAILED_PRECONDITION").await;
    assert_eq!(cli.run("txn status short a").await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_measured_and_the_bank_is_audited() {
    let split = Split::At(vec![b"bench/000000000100".to_vec()]);
    let cluster = Cluster::builder().data_groups(2).split(split).start().await.unwrap();
    let cli = Cli::of(&cluster);
    let options = "--clients 4 --keys 200 --accounts 5 --seconds 1 --warm-up 1ms";
    for mix in ["cas", "rmw", "txn-one-group", "txn-two-groups", "bank"] {
        let ended = cli.run(&format!("bench --mix {mix} {options} --json")).await;
        assert_eq!(ended.code, 0, "{mix}: {}", ended.err);
        let report: Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!((&report["failed"], report["missed"].is_u64()), (&0.into(), true), "{report}");
        assert!(report["by_request"][mix]["count"].as_u64().unwrap() > 0, "{report}");
        if mix == "cas" {
            let [kept, missed] = [&report["by_request"][mix]["count"], &report["missed"]].map(|n| n.as_u64().unwrap());
            assert!(missed < kept, "most versions are as they were known: {report}");
        } else {
            assert!((0.0..1.0).contains(&report["abort_share"].as_f64().unwrap()), "{report}");
        }
    }
    // Of the first half of the keys there is only one group.
    let ended = cli.run("bench --mix txn-two-groups --keys 100 --seconds 1 --no-prefill").await;
    assert!(ended.code == 5 && ended.err.contains("all keys lie in one group"), "{} {}", ended.code, ended.err);
}

/// A transaction whose coordinator is gone, with locks that live for a while.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_coordinator_has_locked_is_listed_kept_alive_and_settled_by_hand() {
    let builder = Cluster::builder().data_groups(2).set("txn.lock_ttl_ms", 60_000);
    let cluster = builder.start().await.unwrap();
    let node = cluster.node(NodeId(3));
    let point = CrashPoint::At(Place::TxnPrepared);
    node.crash_at(Some(&point.to_string()));
    node.restart().unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();
    let through = Client::builder().endpoints([node.grpc_address()]).only_these_endpoints();
    let through = through.deadline(Duration::from_secs(2)).connect().await.unwrap();
    let txn = through.begin();
    let id = txn.id();
    txn.put("a", "1");
    txn.put("z", "1");
    assert!(txn.commit().await.unwrap_err().is_unknown());
    node.wait_crash(point, PATIENCE).await.unwrap();
    node.crash_at(None);
    node.start().unwrap();
    cluster.wait_ready(PATIENCE).await.unwrap();

    let (cli, client) = (Cli::of(&cluster), cluster.client().await.unwrap());
    let listed = cli.json("txn list").await;
    assert_eq!((listed["id"].as_str(), listed["primary"].as_str()), (Some(&*id.to_string()), Some("a")), "{listed}");
    assert_eq!(listed["keys"].as_array().unwrap().len(), 2, "{listed}");
    assert!(listed["waits_for"].as_str().unwrap().starts_with("its coordinator to decide"), "{listed}");
    let text = cli.text("txn list").await;
    assert!(text.contains(&id.to_string()) && text.contains("its coordinator to decide"), "{text}");
    let expires = |status| match status {
        TransactionStatus::Prepared { expire_at } => expire_at,
        other => panic!("{other:?}"),
    };
    let before = expires(client.transaction_status(id, "a").await.unwrap());
    let after = expires(client.keep_transaction_alive(id, "a").await.unwrap());
    assert!(after > before, "{before} {after}");
    // Its coordinator might still be at work; only who knows better may end it.
    cli.refused(&format!("txn resolve {id}"), "FAILED_PRECONDITION").await;
    cli.text(&format!("txn resolve {id} --force")).await;
    assert_eq!(rows(&cli.text("txn list").await), Vec::<Vec<&str>>::new());
    assert_eq!(client.get("a").await.unwrap(), None);
    assert!(matches!(
        client.transaction_status(id, "a").await.unwrap(),
        TransactionStatus::RolledBack { .. } | TransactionStatus::Nothing
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_moved_by_command_and_jobs_are_followed_and_steered() {
    let cluster = Cluster::builder().data_groups(2).start().await.unwrap();
    let cli = Cli::of(&cluster);
    let client = cluster.client().await.unwrap().with_deadline(PATIENCE);
    wait_until("all nodes to have registered", PATIENCE, || async {
        let nodes = client.nodes().await.map_err(|error| error.to_string())?;
        let able = |node: &drover_client::RegisteredNode| node.capabilities.iter().any(|name| name == "moves");
        if nodes.iter().all(able) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await
    .unwrap();
    // So much that a job at the lowest rate stays under way.
    let noise: Vec<u8> = (0..2u32 << 20).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for key in ["d", "e", "f"] {
        client.put(key, noise.clone()).await.unwrap();
    }
    let listed = cli.json("route list").await;
    let route = listed["routes"][0]["route"].as_u64().unwrap();

    let plan = cli.json(&format!("route move {route} --from c --to-group 3 --dry-run")).await;
    assert_eq!((&plan["start"], &plan["end"], &plan["keys"]), (&"c".into(), &"n".into(), &3.into()));
    assert_eq!((&plan["source_group"], &plan["refusal"]), (&2.into(), &Value::Null));
    assert_eq!(numbers(&plan["nodes"], "node"), [1, 2, 3]);
    let text = cli.text(&format!("route move {route} --to-group 3 --dry-run")).await;
    assert!(text.starts_with("would move [, n) from group 2 to group 3\n"), "{text}");
    assert!(text.ends_with("nothing stands against it\n"), "{text}");
    let ended = cli.run(&format!("route move {route} --to-group 9 --dry-run")).await;
    assert_eq!((ended.code, ended.err.as_str()), (1, ""), "{}", ended.out);
    assert!(ended.out.contains("would be refused: UNKNOWN_GROUP: "), "{}", ended.out);

    cli.refused(&format!("route move {route} --to-group 9"), "UNKNOWN_GROUP").await;
    cli.refused(&format!("route move {route} --to-group 2"), "FAILED_PRECONDITION").await;
    cli.refused("route move 999 --to-group 3", "UNKNOWN_ROUTE").await;
    cli.refused(&format!("route move {route} --to-group 3 --max-rate 1KiB"), "INVALID_ARGUMENT").await;
    cli.refused(&format!("route move {route} --to-group 3 --max-pause 1ms"), "INVALID_ARGUMENT").await;
    cli.refused(&format!("route split {route} z --to-group 3"), "INVALID_ARGUMENT").await;
    cli.refused("job pause 1", "UNKNOWN_JOB").await;
    for usage in ["route split 2 c --dry-run", "route move 2", "route move 2 --to-group 3 --from d --to-key c"] {
        assert_eq!(cli.run(usage).await.code, 2, "{usage}");
    }

    let job = cli.json(&format!("route split {route} c --to-group 3 --max-rate 64KiB --max-pause 250ms")).await;
    let id = job["job"].as_u64().unwrap();
    assert_eq!((&job["start"], &job["end"], &job["actor"]), (&"c".into(), &"n".into(), &"operator".into()));
    assert_eq!((&job["max_pause_ms"], &job["max_bytes_per_second"]), (&250.into(), &65_536.into()));
    let mut watched = Watch::start(&cli, &format!("job watch {id} --json"));
    assert_eq!(watched.object().await["job"], id);
    assert_eq!(cli.json(&format!("job pause {id}")).await["paused"], true);
    while watched.object().await["paused"] != true {}
    let text = cli.text("job list --live").await;
    let row = &rows(&text)[0];
    assert_eq!((row[0], row[2]), (&*id.to_string(), "(paused)"), "{text}");
    let mut lines = Watch::start(&cli, &format!("job watch {id}"));
    let line = lines.line().await;
    assert!(line.starts_with(&format!("job {id} from group 2 to group 3: ")) && line.contains(", paused"), "{line}");
    let shown = cli.text(&format!("job show {id}")).await;
    assert!(shown.contains(&format!("range [c, n) of route {route}\n")), "{shown}");
    assert_eq!(cli.json(&format!("job resume {id}")).await["paused"], false);
    cli.refused(&format!("job retry {id}"), "FAILED_PRECONDITION").await;

    let abandoned = cli.json(&format!("job abandon {id}")).await;
    assert!(abandoned["phase"].as_str().unwrap().starts_with("abandon"), "{abandoned}");
    while !watched.object().await["phase"].as_str().unwrap().starts_with("abandon") {}
    let phases = "job list --phase abandoning,abandoned --source 2 --target 3";
    assert_eq!(numbers(&cli.json(phases).await["jobs"], "job"), [id]);
    assert_eq!(numbers(&cli.json("job list --source 3").await["jobs"], "job"), [0u64; 0]);
    let audit = cli.text("audit").await;
    assert!(audit.contains("start-job") && audit.contains(&format!("job {id}")), "{audit}");
}
