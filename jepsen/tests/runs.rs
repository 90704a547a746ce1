//! The harness over a real cluster: a few seconds with faults, judged again from its folder, and nothing left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use drover_testkit::cluster::drover_binary;

fn harness(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_drover-jepsen"));
    command.args(arguments).output().expect("the harness runs")
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    out + &err
}

fn run(store: &Path, more: &[&str]) -> (Output, PathBuf) {
    let (drover, store) = (drover_binary().expect("a server").display().to_string(), store.display().to_string());
    let fixed = ["run", "--drover", &drover, "--store", &store, "--work", &store, "--seed", "3", "--rate", "80"];
    let output = harness(&[&fixed[..], more].concat());
    let dir = String::from_utf8_lossy(&output.stdout).lines().last().map(PathBuf::from);
    (output, dir.expect("the folder stands in the last line"))
}

#[test]
fn a_run_with_faults_leaves_a_folder_that_can_be_judged_again() {
    let store = tempfile::tempdir().unwrap();
    let faults = "kill,partition-halves";
    let (output, dir) = run(
        store.path(),
        &["--workload", "append,set", "--nemesis", faults, "--nodes", "3", "--time", "12", "--target", "one"],
    );
    assert!(output.status.success(), "{}", text(&output));
    let files = [
        "test.json",
        "facts.json",
        "history.jsonl",
        "history.edn",
        "results.json",
        "latency.svg",
        "rate.svg",
        "timeline.html",
        "report.html",
        "explanations.txt",
        "n1.log",
        "n3.toml",
    ];
    for file in files {
        assert!(dir.join(file).is_file(), "{file} is missing in {}", dir.display());
    }
    let results = std::fs::read_to_string(dir.join("results.json")).unwrap();
    let judged: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert!(judged["nemeses"]["kill"]["installed"].as_u64() > Some(0) && judged["acknowledged"].as_u64() > Some(0));
    let again = harness(&["check", &dir.display().to_string()]);
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(
        std::fs::read_to_string(dir.join("results.json")).unwrap(),
        results,
        "another verdict on the same history"
    );

    // A history that cannot have happened is found, and the exit code says so.
    let path = dir.join("history.jsonl");
    let history = std::fs::read_to_string(&path).unwrap();
    let strange = |line: &str| match line.contains("\"f\":\"read\"") && line.contains("\"ok\"") {
        true => line.replace("\"value\":[", "\"value\":[999999999,") + "\n",
        false => line.to_owned() + "\n",
    };
    let forged: String = history.lines().map(strange).collect();
    std::fs::write(&path, forged).unwrap();
    let again = harness(&["check", &dir.display().to_string()]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again));
    assert!(text(&again).contains("never-added"), "{}", text(&again));

    let left: Vec<_> = std::fs::read_dir(store.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["append+set-kill+partition-halves"], "what the nodes stored is still there");
}

#[test]
fn over_loopback_the_proxies_cut_nodes_from_each_other() {
    let store = tempfile::tempdir().unwrap();
    let more = [
        "--workload",
        "register",
        "--nemesis",
        "partition-leader",
        "--nodes",
        "3",
        "--time",
        "10",
        "--net",
        "loopback",
    ];
    let (output, dir) = run(store.path(), &more);
    assert!(output.status.success(), "{}", text(&output));
    let results = std::fs::read_to_string(dir.join("results.json")).unwrap();
    let judged: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert_eq!(judged["network"], "loopback with proxies (it was asked for)");
    // Somebody noticed: with its leader alone a group elects another one.
    let elections = |node: u64| {
        let log = std::fs::read_to_string(dir.join(format!("n{node}.log"))).unwrap();
        log.matches("no longer leads").count()
    };
    assert!((1..=3).map(elections).sum::<usize>() > 0, "no leader was replaced; nothing was cut");
}

/// What of this process's making is there: interfaces and namespaces.
fn made_by(pid: u32) -> String {
    let listed = |arguments: &[&str]| {
        let output = Command::new("ip").args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    let all = listed(&["netns", "list"]) + &listed(&["-o", "link"]);
    let of_it = [format!("dj{pid}n"), format!("djb{pid}"), format!("djv{pid}n")];
    all.lines().filter(|line| of_it.iter().any(|name| line.contains(name))).map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let store = tempfile::tempdir().unwrap();
    let (drover, at) = (drover_binary().unwrap().display().to_string(), store.path().display().to_string());
    let mut killed = Command::new(env!("CARGO_BIN_EXE_drover-jepsen"))
        .args(["run", "--drover", &drover, "--store", &at, "--work", &at, "--workload", "set", "--nodes", "3"])
        .args(["--time", "600"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = killed.id();
    let work = store.path().join(format!("drover-jepsen-{pid}"));
    // Its last node has been started.
    while !work.join("n3.log").is_file() {
        assert!(killed.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert!(work.is_dir());
    let more = ["--workload", "set", "--nodes", "1", "--time", "1"];
    let (output, _) = run(store.path(), &more);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(made_by(pid), "");
    assert!(!work.exists());
    let left = std::fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&work.display().to_string())
    });
    assert_eq!(left.count(), 0, "nodes of the killed run are still there");
}
