use std::path::{Path, PathBuf};

use super::*;

fn example_with(change: impl FnOnce(String) -> String) -> Result<Config, ConfigError> {
    parse(&change(render::example()), &[], &[])
}

fn parse(text: &str, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Config, ConfigError> {
    let sources = Sources {
        file: None,
        env: env.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        flags: flags.iter().map(|&(k, v)| (k, v.to_owned())).collect(),
    };
    Config::from_text(Some((Path::new("node.toml"), text)), &sources)
}

/// The line, counted from 1, on which `needle` stands first.
fn line_of(text: &str, needle: &str) -> usize {
    text.lines().position(|line| line.contains(needle)).unwrap() + 1
}

#[test]
fn the_example_is_accepted_and_its_commented_values_are_the_defaults() {
    let plain = example_with(|text| text).unwrap();
    let example = render::example();
    let uncommented: Vec<String> = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") && !rest.ends_with("(none)") && !rest.contains(": ") => rest.to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let uncommented = uncommented.join("\n");
    let given = |text: &str| text.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count();
    let defaults = all().filter(|setting| setting.default.is_some()).count();
    assert_eq!(given(&uncommented) - given(&example), defaults);
    assert_eq!(parse(&uncommented, &[], &[]).unwrap(), plain);
}

#[test]
fn the_documents_are_up_to_date() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (name, text) in [("drover.example.toml", render::example()), ("configuration.md", render::reference())] {
        let path = docs.join(name);
        if std::env::var_os("DROVER_UPDATE_DOCS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "docs/{name} is out of date: DROVER_UPDATE_DOCS=1 cargo test -p drover-server");
    }
}

#[test]
fn every_setting_can_be_given_by_file_variable_and_flag_and_the_later_wins() {
    let example = render::example();
    let from_example = parse(&example, &[], &[]).unwrap();
    for setting in all().filter(|setting| setting.kind != Kind::List) {
        let (section, field) = setting.section_and_field();
        let (variable, flag) = (setting.variable(), setting.flag());
        // Wrong values show who is heard: the message names the origin. Empty text is wrong for every setting.
        let header = format!("[{section}]\n");
        let file = without(&example, section, field).replacen(&header, &format!("{header}{field} = false\n"), 1);
        let line = line_of(&file, &format!("{field} = false"));
        let in_file = Origin::File { path: "node.toml".into(), line, column: 1 };
        let in_value = Origin::File { path: "node.toml".into(), line, column: field.len() + 4 };
        type Given<'a> = (&'a [(&'a str, &'a str)], &'a [(&'static str, &'a str)], &'a [Origin]);
        let table: [Given<'_>; 3] = [
            (&[], &[], &[in_file, in_value]),
            (&[(&variable, "")], &[], &[Origin::Variable(variable.clone())]),
            (&[(&variable, "")], &[(setting.path, "")], &[Origin::Flag(flag)]),
        ];
        for (env, flags, expect) in table {
            let error = parse(&file, env, flags).unwrap_err();
            assert_eq!(error.problems().len(), 1, "{error}");
            let problem = &error.problems()[0];
            assert_eq!(problem.field, setting.path);
            assert!(expect.contains(&problem.origin), "{error}");
        }
        if let Some(default) = setting.default {
            let config = parse(&file, &[(&variable, "")], &[(setting.path, default)]);
            assert_eq!(config.as_ref(), Ok(&from_example), "{}", setting.path);
        }
    }
}

/// The example without the line of one field of one section.
fn without(example: &str, section: &str, field: &str) -> String {
    let mut inside = false;
    let lines = example.lines().filter(|line| {
        if line.starts_with('[') {
            inside = *line == format!("[{section}]");
        }
        !(inside && line.starts_with(&format!("{field} = ")))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn lists_are_taken_from_variables_and_flags_as_one_array() {
    let nodes = r#"[{id = 1, grpc = "a:1", admin = "a:2"}]"#;
    let config = parse(
        "node.id = 1\nnode.data_dir = 'd'\ncluster.id = '00000000000000000000000000000001'",
        &[("DROVER_BOOTSTRAP_NODES", nodes), ("DROVER_BOOTSTRAP_GROUPS", "[{id = 1, replicas = [1]}]")],
        &[("bootstrap.routes", "[{start = '', group = 1}]")],
    )
    .unwrap();
    assert_eq!(config.bootstrap.nodes[0].grpc.as_str(), "a:1");
    assert_eq!(config.bootstrap.assigned_routes().len(), 1);
    let error = parse("", &[("DROVER_BOOTSTRAP_GROUPS", "[{id = 1, replicas = [\"x\"]}]")], &[]).unwrap_err();
    assert!(
        error.to_string().contains("variable DROVER_BOOTSTRAP_GROUPS: bootstrap.groups: [0].replicas[0]: "),
        "{error}"
    );
}

#[test]
fn a_missing_setting_says_how_to_give_it() {
    let error = parse("", &[], &[]).unwrap_err().to_string();
    for setting in all().filter(|setting| setting.required) {
        for part in [setting.path.to_owned(), setting.variable(), format!("--{}", setting.flag())] {
            assert!(error.contains(&part), "{part}: {error}");
        }
    }
}

#[test]
fn unknown_names_are_refused_with_their_place_and_the_nearest_name() {
    let example = render::example();
    let table = [
        (
            example.replacen("[raft]\n", "[raft]\nheartbeat = 5\n", 1),
            "raft.heartbeat: there is no setting heartbeat; did you mean heartbeat_ms?",
        ),
        (example.replacen("[raft]\n", "[rafft]\n", 1), "rafft: there is no section rafft; did you mean raft?"),
        (example.replacen("[raft]\n", "[raft.deep]\n", 1), "raft.deep: there is no setting deep"),
        (
            example.replacen("replicas = [1, 2, 3]", "replica = [1]", 1),
            "bootstrap.groups[0].replica: there is no such field",
        ),
        (
            format!("raft = 3\n{}", example.replacen("[raft]\n", "", 1)),
            "raft: expected a section [raft], found integer",
        ),
    ];
    for (text, expect) in table {
        let error = parse(&text, &[], &[]).unwrap_err().to_string();
        assert!(error.contains(expect) && error.contains("node.toml:"), "{expect}: {error}");
    }
    let error = parse(&example, &[("DROVER_RAFT_HEARTBEAT", "1"), ("DROVER_ENDPOINT", "x")], &[]).unwrap_err();
    assert_eq!(error.problems().len(), 1, "{error}");
    assert_eq!(error.problems()[0].origin, Origin::Variable("DROVER_RAFT_HEARTBEAT".into()));
}

#[test]
fn text_that_is_not_toml_is_refused_with_line_and_column() {
    let error = parse("[node]\nid = = 3\n", &[], &[]).unwrap_err();
    assert!(error.to_string().contains("node.toml:2:6: "), "{error}");
    let twice = parse("[log]\nformat = 'text'\nformat = 'json'\n", &[], &[]).unwrap_err();
    assert!(twice.to_string().contains("node.toml:3:1: "), "{twice}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let sources = Sources { file: Some("/nonexistent/node.toml".into()), ..Sources::default() };
    let error = Config::load(&sources).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/node.toml"), "{error}");
}

#[test]
fn values_of_the_wrong_form_or_out_of_range_are_refused_with_line_and_field() {
    let table = [
        ("# heartbeat_ms = \"100ms\"", "heartbeat_ms = \"fast\"", "raft.heartbeat_ms: \"fast\" is not a duration"),
        ("# heartbeat_ms = \"100ms\"", "heartbeat_ms = 1.5", "raft.heartbeat_ms: expected a number of milliseconds"),
        ("# heartbeat_ms = \"100ms\"", "heartbeat_ms = 1", "raft.heartbeat_ms: 1ms is out of range: 10ms to 1m"),
        ("# heartbeat_ms = \"100ms\"", "heartbeat_ms = -5", "raft.heartbeat_ms: \"-5\" is not a duration"),
        ("# key_bytes = \"4KiB\"", "key_bytes = \"1MiB\"", "limits.key_bytes: 1MiB is out of range: 1 bytes to 64KiB"),
        ("# key_bytes = \"4KiB\"", "key_bytes = \"long\"", "limits.key_bytes: \"long\" is not a size"),
        (
            "# background_threads = 2",
            "background_threads = \"2\"",
            "storage.background_threads: expected a whole number",
        ),
        ("# background_threads = 2", "background_threads = 0", "storage.background_threads: 0 is out of range"),
        (
            "# admin_listen = \"127.0.0.1:7401\"",
            "admin_listen = \"here\"",
            "node.admin_listen: \"here\" is not an IP address",
        ),
        (
            "# grpc_advertise = (none)",
            "grpc_advertise = \"0.0.0.0:1\"",
            "node.grpc_advertise: \"0.0.0.0:1\" is not an address",
        ),
        ("# filter = \"info,openraft=error\"", "filter = \"a=b=c\"", "log.filter: \"a=b=c\" is not a log filter"),
        ("# format = \"text\"", "format = \"xml\"", "log.format: \"xml\" is neither"),
        ("data_dir = \"/var/lib/drover\"", "data_dir = 3", "node.data_dir: expected path, in quotes, found integer"),
        ("id = \"6e1f0a5c3b7d4d0f9a2c8e4b71d35f60\"", "id = \"6e1f\"", "cluster.id: \"6e1f\" is not a cluster id"),
        ("id = 1", "id = 0", "node.id: 0 is out of range: at least 1"),
    ];
    for (old, new, expect) in table {
        let text = render::example();
        assert!(text.contains(old), "{old}");
        let line = line_of(&text, old);
        let error = example_with(|text| text.replacen(old, new, 1)).unwrap_err();
        let problem = error.problems().iter().find(|p| p.to_string().contains(expect));
        let problem = problem.unwrap_or_else(|| panic!("{expect}: {error}"));
        assert!(matches!(problem.origin, Origin::File { line: found, .. } if found == line), "{line}: {error}");
    }
}

#[test]
fn relations_between_settings_are_checked_and_name_the_setting_to_change() {
    let table: &[(&[(&'static str, &str)], &str)] = &[
        (
            &[("raft.heartbeat_ms", "200")],
            "default: raft.election_min_ms: 300ms is below twice raft.heartbeat_ms (400ms)",
        ),
        (&[("raft.election_max_ms", "300")], "raft.election_min_ms: 300ms is not below raft.election_max_ms (300ms)"),
        (&[("raft.lease_margin_ms", "500ms")], "flag --raft-lease-margin-ms: raft.lease_margin_ms: 500ms is not below"),
        (&[("limits.value_bytes", "16MiB")], "limits.batch_bytes: 16.0 MiB is below limits.key_bytes plus"),
        (&[("limits.parked_bytes", "1MiB")], "limits.parked_bytes: 1.0 MiB is below limits.batch_bytes"),
        (&[("raft.max_inflight_bytes", "1MiB")], "raft.max_inflight_bytes: 1.0 MiB is below limits.batch_bytes"),
        (&[("storage.raftlog_queue_bytes", "1MiB")], "storage.raftlog_queue_bytes: 1.0 MiB is below"),
        (&[("storage.raftlog_max_bytes", "100MiB")], "storage.raftlog_max_bytes: 100.0 MiB is below two files"),
        (&[("raft.snapshot_entries", "100")], "raft.purge_batch_entries: 256 is above raft.snapshot_entries (100)"),
        (&[("txn.max_reads", "100001")], "txn.max_validated_rows: 100000 is below txn.max_reads (100001)"),
        (
            &[("txn.max_validated_keys", "99999")],
            "txn.max_validated_keys: 99999 is below txn.max_validated_rows (100000)",
        ),
        (&[("server.http2_connection_window_bytes", "1MiB")], "server.http2_connection_window_bytes: 1.0 MiB is below"),
        (
            &[("oracle.ceiling_renew_ms", "2s")],
            "oracle.ceiling_ahead_ms: 3s is below twice oracle.ceiling_renew_ms (4s)",
        ),
        (&[("oracle.max_clock_step_ms", "1s")], "oracle.max_clock_step_ms: 1s is below oracle.ceiling_ahead_ms (3s)"),
        (&[("storage.gc_retention_ms", "1s")], "storage.gc_retention_ms: 1s is below limits.default_deadline_ms (10s)"),
        (&[("migration.bytes_per_second", "63KiB")], "migration.bytes_per_second: the rate is 64512 bytes a second"),
        (&[("node.admin_listen", "127.0.0.1:7400")], "node.admin_listen: 127.0.0.1:7400 is taken by node.grpc_listen"),
        (&[("node.id", "4")], "bootstrap.nodes: node 4, which is this one (node.id), is not listed"),
    ];
    for (flags, expect) in table {
        let error = parse(&render::example(), &[], flags).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{error}");
        assert!(error.to_string().contains(expect), "{expect}: {error}");
    }
}

#[test]
fn what_makes_no_sense_for_a_move_is_refused_with_line_and_field() {
    let table = [
        ("chunk_bytes", "0"),
        ("chunk_bytes", "5MiB"),
        ("bytes_per_second", "1"),
        ("share_percent", "0"),
        ("share_percent", "101"),
        ("jobs_at_once", "0"),
        ("jobs_at_once", "65"),
        ("slowest_writers_bytes_per_second", "fast"),
        ("catch_up_ms", "0"),
        ("failed_copy_kept_ms", "31d"),
    ];
    let example = without(&render::example(), "migration", "none");
    for (field, value) in table {
        let written =
            if value.bytes().all(|byte| byte.is_ascii_digit()) { value.to_owned() } else { format!("{value:?}") };
        let file = example.replacen("[migration]\n", &format!("[migration]\n{field} = {written}\n"), 1);
        let error = parse(&file, &[], &[]).unwrap_err();
        assert_eq!(error.problems().len(), 1, "{field} = {value}: {error}");
        let (line, path) = (line_of(&file, &format!("{field} = {written}")), format!("migration.{field}"));
        assert_eq!(error.problems()[0].field, path);
        assert!(error.to_string().contains(&format!("node.toml:{line}:")), "{field} = {value}: {error}");
    }
    let unlimited = parse(&render::example(), &[], &[("migration.bytes_per_second", "0")]).unwrap();
    assert_eq!(unlimited.job_options().max_bytes_per_second, 0);
}

/// Where each problem is and what it is about.
fn problems(error: &ConfigError) -> Vec<(Option<usize>, &str)> {
    let line = |origin: &Origin| match origin {
        Origin::File { line, .. } => Some(*line),
        _ => None,
    };
    error.problems().iter().map(|problem| (line(&problem.origin), problem.field.as_str())).collect()
}

#[test]
fn every_problem_is_reported_at_once() {
    let error = parse(&render::example(), &[("DROVER_LOG_FORMAT", "xml")], &[("raft.heartbeat_ms", "x")]).unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");

    let text = "\
[node]
id = 1
data_dir = 3
grpc_listen = 'here'
[cluster]
id = '6e1f'
[raft]
heartbeat_ms = 'often'
election_min_ms = '2s'
election_max_ms = '1s'
lease = 5
[limits]
value_bytes = '16MiB'
[[bootstrap.nodes]]
id = 'one'
grpc = 'a'
[[bootstrap.nodes]]
id = 2
grpc = 'b:1'
admin = 'b:2'
port = 7
[[bootstrap.groups]]
id = 2
replicas = [1, 'x', 3, 'y']
[[bootstrap.routes]]
start = 'a'
end = 'c'
group = 9
[[bootstrap.routes]]
start = 'b'
end = 'd'
group = 2
";
    let error = parse(text, &[], &[]).unwrap_err();
    let mut found = problems(&error);
    found.sort();
    let expect = [
        // The relation between the two that could be read.
        (None, "limits.batch_bytes"),
        (Some(3), "node.data_dir"),
        (Some(4), "node.grpc_listen"),
        (Some(6), "cluster.id"),
        (Some(8), "raft.heartbeat_ms"),
        (Some(9), "raft.election_min_ms"),
        (Some(11), "raft.lease"),
        (Some(14), "bootstrap.nodes[0].admin"),
        (Some(15), "bootstrap.nodes[0].id"),
        (Some(16), "bootstrap.nodes[0].grpc"),
        (Some(21), "bootstrap.nodes[1].port"),
        (Some(24), "bootstrap.groups[0].replicas[1]"),
        (Some(24), "bootstrap.groups[0].replicas[3]"),
        // No first key, an overlap, no last key.
        (Some(25), "bootstrap.routes[0]"),
        (Some(29), "bootstrap.routes[1]"),
        (Some(29), "bootstrap.routes[1]"),
    ];
    assert_eq!(found, expect, "{error}");

    // Lists that can be read are compared with each other.
    let text = BOOTSTRAP.replacen("id = 1\nreplicas = [1]", "id = 2\nreplicas = [1, 8]", 1).replacen(
        "group = 1",
        "group = 7",
        1,
    );
    let error = bootstrap(&text).unwrap_err();
    let expect = [
        (Some(7), "bootstrap.groups[0].replicas"),
        (Some(5), "bootstrap.groups"),
        (Some(11), "bootstrap.routes[0].group"),
        (Some(14), "bootstrap.routes[1].group"),
    ];
    assert_eq!(problems(&error), expect, "{error}");
}

/// What follows from another mistake is none of its own.
#[test]
fn a_problem_brings_no_false_ones_with_it() {
    let example = render::example();
    let table: [(String, usize, &[&str]); 13] = [
        (example.replacen("[node]\n", "[node]\nid = = 3\n", 1), 1, &[""]),
        (example.replacen("[node]", "[node", 1), 1, &[""]),
        (example.replacen("[node]", "[nodes]", 1), 1, &["nodes"]),
        (format!("node = 3\n{}", without_section(&example, "node")), 1, &["node"]),
        (example.replacen("data_dir = ", "datadir = ", 1), 1, &["node.datadir"]),
        (example.replace("[[bootstrap.nodes]]", "[[bootstrap.node]]"), 1, &["bootstrap.node"]),
        (example.replacen("id = 1", "id = 'x'", 1), 1, &["node.id"]),
        (example.replacen("grpc = \"10", "grpc = \"@10", 1), 1, &["bootstrap.nodes[0].grpc"]),
        (example.replacen("grpc = \"10", "grcp = \"10", 1), 1, &["bootstrap.nodes[0].grcp"]),
        (example.replacen("replicas = [1, 2, 3]", "replicas = 1", 1), 1, &["bootstrap.groups[0].replicas"]),
        (example.replacen("end = 'm'", "end = 3", 1), 1, &["bootstrap.routes[0].end"]),
        (example.replacen("[raft]\n", "[raft]\nheartbeat_ms = '1h'\n", 1), 1, &["raft.heartbeat_ms"]),
        (
            example
                .replacen("[cluster]\n", "[cluster]\njoin = 'nowhere'\n", 1)
                .replace("[[bootstrap.routes]]", "[[bootstrap.rout]]"),
            2,
            &["bootstrap.rout", "cluster.join"],
        ),
    ];
    for (text, count, fields) in table {
        assert_ne!(text, example, "{fields:?}");
        let error = parse(&text, &[], &[]).unwrap_err();
        assert_eq!(error.problems().len(), count, "{fields:?}: {error}");
        for problem in error.problems() {
            assert!(fields.contains(&problem.field.as_str()), "{fields:?}: {error}");
            assert!(matches!(problem.origin, Origin::File { .. }), "{error}");
        }
    }
    let misspelt = parse(&without(&example, "node", "data_dir"), &[("DROVER_NODE_DATADIR", "d")], &[]).unwrap_err();
    assert_eq!(misspelt.problems().len(), 1, "{misspelt}");
    assert_eq!(misspelt.problems()[0].origin, Origin::Variable("DROVER_NODE_DATADIR".into()));
    // A flag that does not fit what stands in a file that cannot be read.
    let unread = parse("[raft]\nelection_max_ms = = '2s'\n", &[], &[("raft.election_min_ms", "1s")]).unwrap_err();
    assert_eq!(problems(&unread), [(Some(2), "")], "{unread}");
}

/// The example without a section.
fn without_section(example: &str, section: &str) -> String {
    let from = example.find(&format!("[{section}]")).unwrap();
    let length = example[from + 1..].find("\n[").unwrap();
    [&example[..from], &example[from + 1 + length..]].concat()
}

const BOOTSTRAP: &str = "\
[[bootstrap.nodes]]
id = 1
grpc = 'a:1'
admin = 'a:2'
[[bootstrap.groups]]
id = 1
replicas = [1]
[[bootstrap.routes]]
start = ''
end = 'b\\x00'
group = 1
[[bootstrap.routes]]
start_hex = '6200'
group = 1
";

fn bootstrap(text: &str) -> Result<Config, ConfigError> {
    let flags = [("node.id", "1"), ("node.data_dir", "d"), ("cluster.id", "00000000000000000000000000000001")];
    parse(text, &[], &flags)
}

#[test]
fn routes_are_numbered_in_key_order_whatever_the_order_of_the_file() {
    let routes = bootstrap(BOOTSTRAP).unwrap().bootstrap.assigned_routes();
    let numbers: Vec<_> = routes.iter().map(|r| (r.route.0, r.shard.0, r.interval.to_string())).collect();
    assert_eq!(numbers, [(1, 1, "[, b\\x00)".to_owned()), (2, 2, "[b\\x00, ∞)".to_owned())]);
    let at = BOOTSTRAP.find("[[bootstrap.routes]]\nstart_hex").unwrap();
    let first = BOOTSTRAP.find("[[bootstrap.routes]]").unwrap();
    let swapped = [&BOOTSTRAP[..first], &BOOTSTRAP[at..], &BOOTSTRAP[first..at]].concat();
    assert_eq!(bootstrap(&swapped).unwrap().bootstrap.assigned_routes(), routes);
}

#[test]
fn a_bootstrap_that_cannot_be_is_refused_with_line_and_field() {
    let table = [
        ("start = ''", "start = 'a'", 8, "bootstrap.routes[0]: no route covers the keys below 'a'"),
        ("end = 'b\\x00'", "end = 'a'", 12, "bootstrap.routes[1]: no route covers the keys from 'a' to 'b\\x00'"),
        ("end = 'b\\x00'", "end = 'c'", 12, "bootstrap.routes[1]: [b\\x00, ∞) overlaps [, c)"),
        ("end = 'b\\x00'", "", 12, "bootstrap.routes[1]: [b\\x00, ∞) overlaps [, ∞)"),
        ("end = 'b\\x00'", "end = ''", 8, "bootstrap.routes[0].end: the end is empty"),
        ("end = 'b\\x00'", "end = 'b\\q'", 10, "bootstrap.routes[0].end: unknown escape"),
        ("start_hex = '6200'", "start_hex = '620'", 13, "bootstrap.routes[1].start_hex: \"620\" is not an even number"),
        (
            "start_hex = '6200'",
            "start_hex = '6200'\nend = 'z'",
            12,
            "bootstrap.routes[1]: no route covers the keys from 'z' on",
        ),
        (
            "start_hex = '6200'",
            "start_hex = '6200'\nstart = 'b'",
            12,
            "bootstrap.routes[1].start_hex: start and start_hex",
        ),
        ("start_hex = '6200'", "", 12, "bootstrap.routes[1].start: is missing"),
        ("start_hex = '6200'", "start_hex = '6200'\nend = 'a'", 12, "bootstrap.routes[1]: range is reversed"),
        ("group = 1", "group = 7", 11, "bootstrap.routes[0].group: group 7 is not in bootstrap.groups"),
        ("replicas = [1]", "replicas = [1, 2]", 7, "bootstrap.groups[0].replicas: node 2 is not in bootstrap.nodes"),
        ("replicas = [1]", "replicas = [1, 1]", 7, "bootstrap.groups[0].replicas: node 1 is listed twice"),
        ("replicas = [1]", "replicas = []", 7, "bootstrap.groups[0].replicas: the group has no replica"),
        ("replicas = [1]", "replicas = ['1']", 7, "bootstrap.groups[0].replicas[0]: expected a whole number"),
        ("replicas = [1]", "replicas = 1", 7, "bootstrap.groups[0].replicas: expected a list, found integer"),
        ("id = 1\nreplicas", "id = 2\nreplicas", 5, "bootstrap.groups: group 1 is missing"),
        ("id = 1\nreplicas", "id = 0\nreplicas", 6, "bootstrap.groups[0].id: 0 is not a group id"),
        ("admin = 'a:2'", "admin = 'a:1'", 4, "bootstrap.nodes[0].admin: a:1 is already the address of node 1"),
        ("admin = 'a:2'", "admin = 'a'", 4, "bootstrap.nodes[0].admin: \"a\" is not an address"),
        ("admin = 'a:2'", "", 1, "bootstrap.nodes[0].admin: is missing"),
        (
            "[[bootstrap.groups]]",
            "[[bootstrap.nodes]]\nid = 1\ngrpc = 'c:1'\nadmin = 'c:2'\n[[bootstrap.groups]]",
            6,
            "bootstrap.nodes[1].id: node 1 is listed twice",
        ),
        (
            "[[bootstrap.routes]]",
            "[[bootstrap.groups]]\nid = 1\nreplicas = [1]\n[[bootstrap.routes]]",
            9,
            "bootstrap.groups[1].id: group 1 is listed twice",
        ),
    ];
    for (old, new, line, expect) in table {
        assert!(BOOTSTRAP.contains(old), "{old}");
        let error = bootstrap(&BOOTSTRAP.replacen(old, new, 1)).unwrap_err();
        let problem = error.problems().iter().find(|p| p.to_string().contains(expect));
        let problem = problem.unwrap_or_else(|| panic!("{expect}: {error}"));
        assert!(matches!(problem.origin, Origin::File { line: found, .. } if found == line), "{expect}: {error}");
    }
}

/// What stands in single quotes reaches the reader of bounds as it is: one backslash too many would silently be another bound.
#[test]
fn the_escapes_of_bounds_are_told_as_they_have_to_be_written() {
    let routes = all().find(|setting| setting.path == "bootstrap.routes").unwrap();
    let description = routes.description();
    let mut told = description.split('`').skip(1).step_by(2).filter(|text| text.contains('\\'));
    for bound in [&[0xff][..], b"\\"] {
        let notation = told.next().unwrap();
        for document in [render::reference(), render::example()] {
            assert!(document.contains(&format!("`{notation}`")), "{notation}");
        }
        let written = notation.replace("NN", "ff");
        let text = BOOTSTRAP.replace("b\\x00", &written).replace("start_hex = '6200'", &format!("start = '{written}'"));
        let routes = bootstrap(&text).unwrap().bootstrap.assigned_routes();
        assert_eq!(routes[1].interval.start(), bound, "{notation}");
    }
    assert_eq!(told.next(), None);
}

#[test]
fn what_is_read_from_a_client_follows_from_the_limits_and_never_exceeds_what_a_client_sends() {
    const MIB: usize = 1 << 20;
    let table: &[(&[(&'static str, &str)], usize)] = &[
        (&[], 4 * 16 * MIB + 64 * 200_000 + MIB),
        (&[("limits.batch_bytes", "20MiB")], 4 * 20 * MIB + 64 * 200_000 + MIB),
        (&[("txn.max_mutations", "10"), ("txn.max_reads", "20")], 4 * 16 * MIB + 64 * 30 + MIB),
        (&[("limits.batch_bytes", "64MiB")], drover_wire::MAX_MESSAGE_BYTES),
    ];
    for (flags, expect) in table {
        let config = parse(&render::example(), &[], flags).unwrap();
        assert_eq!(config.message_bytes(), *expect, "{flags:?}");
        let limits = config.request_limits();
        assert!(config.message_bytes() >= 2 * limits.batch_bytes, "{flags:?}");
    }
}
