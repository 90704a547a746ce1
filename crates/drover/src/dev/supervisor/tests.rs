//! The supervisor as a real process over real nodes' admin ports: each test starts this test binary as the supervisor, which
//! starts it again as nodes. What a node does is told by its configuration file, a single word.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use drover_keys::NodeId;
use drover_server::admin::{AdminServer, Check, Readiness, ReadinessSlot};
use drover_server::datadir::DirLock;
use drover_server::lifecycle::Shutdown;
use drover_server::metrics::Metrics;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal as UnixSignal, kill_process};

use super::*;
use crate::server_cmd::exit_with_parent;

const DIR: &str = "DEV_TEST_DIR";
const RESTART: &str = "DEV_TEST_RESTART";
const READY_MS: &str = "DEV_TEST_READY_MS";
const NODE_HOME: &str = "DEV_TEST_NODE_HOME";
const NODE_PARENT: &str = "DEV_TEST_NODE_PARENT";

fn specs(dir: &Path) -> Vec<NodeSpec> {
    let ids = (1..).take_while(|id| dir.join(id.to_string()).exists());
    ids.map(|id| {
        let home = dir.join(id.to_string());
        let admin = std::fs::read_to_string(home.join("admin")).unwrap().parse().unwrap();
        NodeSpec {
            id: NodeId(id),
            grpc: "127.0.0.1:1".parse().unwrap(),
            admin,
            config: home.join("role"),
            log: home.join("log"),
            drain_timeout: Duration::from_secs(60),
        }
    })
    .collect()
}

fn launch(spec: &NodeSpec) -> anyhow::Result<Command> {
    let mut command = this_test_as("dev::supervisor::tests::node_under_test");
    command.env(NODE_HOME, spec.config.parent().unwrap()).env(NODE_PARENT, std::process::id().to_string());
    Ok(command)
}

fn this_test_as(name: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]);
    command
}

struct Print;

impl Announce for Print {
    fn announce(&self, nodes: &[(&NodeSpec, Option<u32>)], first: bool) -> anyhow::Result<()> {
        let pids: Vec<Option<u32>> = nodes.iter().map(|(_, pid)| *pid).collect();
        println!("\nannounced {first} {}", serde_json::to_string(&pids)?);
        Ok(())
    }
}

/// The supervisor; an ordinary test run passes over it.
#[test]
fn supervisor_under_test() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let options = Options {
        restart: std::env::var_os(RESTART).is_some(),
        ready_timeout: Duration::from_millis(std::env::var(READY_MS).unwrap().parse().unwrap()),
        launch,
    };
    // The harness gives each test a thread of its own, to which the kernel ties the nodes: a runtime on this thread.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(supervise(specs(Path::new(&dir)), &options, &Print)) {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("supervisor: {error:#}");
            std::process::exit(1);
        }
    }
}

/// A node; an ordinary test run passes over it.
#[test]
fn node_under_test() {
    let Some(home) = std::env::var_os(NODE_HOME).map(PathBuf::from) else { return };
    exit_with_parent(std::env::var(NODE_PARENT).unwrap().parse().unwrap()).unwrap();
    let role = std::fs::read_to_string(home.join("role")).unwrap();
    let _lock = DirLock::acquire(&home).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let shutdown = Shutdown::new(Duration::ZERO);
        let admin: String = std::fs::read_to_string(home.join("admin")).unwrap();
        let server = AdminServer::bind(admin.parse().unwrap()).await.unwrap();
        let readiness = Arc::new(ReadinessSlot::new());
        match role.as_str() {
            "serves" | "ignores signals" => readiness.set(Ready),
            "fails" => {
                eprintln!("no storage today");
                std::process::exit(3);
            }
            _ => {}
        }
        let mut signals = StopSignals::listen().unwrap();
        let serving = server.serve(readiness, Arc::new(Metrics::new()), shutdown.requested());
        tokio::pin!(serving);
        loop {
            tokio::select! {
                ended = &mut serving => ended.unwrap(),
                () = signals.recv() => {}
            }
            if role != "ignores signals" {
                eprintln!("stopped in order");
                std::process::exit(0);
            }
        }
    });
}

struct Ready;

impl Readiness for Ready {
    fn checks(&self) -> Vec<Check> {
        vec![Check::new("test", true, "ready")]
    }
}

struct Supervisor {
    dir: tempfile::TempDir,
    process: Child,
    stdout: BufReader<ChildStdout>,
    nodes: usize,
}

/// Starts a supervisor over nodes with these roles.
fn start(roles: &[&str], restart: bool, ready: Duration) -> Supervisor {
    let dir = tempfile::tempdir().unwrap();
    // All held until all are chosen, so that no two are the same.
    let ports: Vec<TcpListener> = roles.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    for (n, (role, port)) in roles.iter().zip(&ports).enumerate() {
        let home = dir.path().join((n + 1).to_string());
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join("role"), role).unwrap();
        std::fs::write(home.join("admin"), port.local_addr().unwrap().to_string()).unwrap();
    }
    drop(ports);
    let mut command = this_test_as("dev::supervisor::tests::supervisor_under_test");
    command.env(DIR, dir.path()).env(READY_MS, ready.as_millis().to_string());
    if restart {
        command.env(RESTART, "1");
    }
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = BufReader::new(process.stdout.take().unwrap());
    Supervisor { dir, process, stdout, nodes: roles.len() }
}

impl Supervisor {
    /// The next announcement of the nodes' processes.
    fn announced(&mut self, first: bool) -> Vec<Option<u32>> {
        let prefix = format!("announced {first} ");
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "ended without announcement");
            if let Some(pids) = line.strip_prefix(&prefix) {
                return serde_json::from_str(pids).unwrap();
            }
        }
    }

    fn signal(&self, signal: UnixSignal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Exit status and standard error.
    fn end(&mut self) -> (std::process::ExitStatus, String) {
        let mut stderr = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.process.wait().unwrap(), stderr)
    }

    /// Waits until no node runs: each holds a lock for as long as it does.
    fn wait_for_nodes_to_be_gone(&self) {
        for n in 1..=self.nodes {
            if let Ok(file) = std::fs::File::open(self.dir.path().join(n.to_string()).join("LOCK")) {
                flock(&file, FlockOperation::LockExclusive).unwrap();
            }
        }
    }

    fn node_log(&self, n: usize) -> String {
        std::fs::read_to_string(self.dir.path().join(n.to_string()).join("log")).unwrap()
    }
}

const LONG: Duration = Duration::from_secs(600);

fn kill(pid: Option<u32>) {
    let pid = Pid::from_raw(i32::try_from(pid.unwrap()).unwrap()).unwrap();
    kill_process(pid, UnixSignal::KILL).unwrap();
}

#[test]
fn nodes_are_announced_when_all_are_ready_and_stopped_in_order() {
    for signal in [UnixSignal::TERM, UnixSignal::INT] {
        let mut supervisor = start(&["serves", "serves"], false, LONG);
        let pids = supervisor.announced(true);
        assert!(pids.len() == 2 && pids.iter().all(Option::is_some), "{pids:?}");
        supervisor.signal(signal);
        let (status, stderr) = supervisor.end();
        assert_eq!(status.code(), Some(0), "{stderr}");
        for n in [1, 2] {
            assert!(supervisor.node_log(n).contains("stopped in order"), "{}", supervisor.node_log(n));
        }
    }
}

#[test]
fn a_node_that_fails_at_the_start_is_reported_with_its_log_and_the_others_are_stopped() {
    let mut supervisor = start(&["serves", "fails"], false, LONG);
    let (status, stderr) = supervisor.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("node 2 ended before it was ready") && stderr.contains("no storage today"), "{stderr}");
    supervisor.wait_for_nodes_to_be_gone();
}

#[test]
fn nodes_that_do_not_become_ready_are_given_up_after_the_bound() {
    let mut supervisor = start(&["serves", "starts forever"], false, Duration::from_millis(300));
    let (status, stderr) = supervisor.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("is not ready after 300ms"), "{stderr}");
    supervisor.wait_for_nodes_to_be_gone();
}

#[test]
fn a_node_that_is_killed_is_reported_and_left_alone() {
    let mut supervisor = start(&["serves", "serves"], false, LONG);
    let before = supervisor.announced(true);
    kill(before[0]);
    assert_eq!(supervisor.announced(false), [None, before[1]]);
    supervisor.signal(UnixSignal::TERM);
    let (status, stderr) = supervisor.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("node 1 ended (signal: 9"), "{stderr}");
}

#[test]
fn the_cluster_ends_when_no_node_is_left() {
    let mut supervisor = start(&["serves"], false, LONG);
    kill(supervisor.announced(true)[0]);
    let (status, stderr) = supervisor.end();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("all nodes have ended"), "{stderr}");
}

#[test]
fn a_node_that_is_killed_is_started_again_if_asked_for() {
    let mut supervisor = start(&["serves", "serves"], true, LONG);
    let before = supervisor.announced(true);
    kill(before[0]);
    assert_eq!(supervisor.announced(false), [None, before[1]]);
    let after = supervisor.announced(false);
    assert!(after[0].is_some() && after[0] != before[0] && after[1] == before[1], "{before:?} {after:?}");
    supervisor.signal(UnixSignal::TERM);
    assert_eq!(supervisor.end().0.code(), Some(0));
}

#[test]
fn nodes_do_not_survive_a_supervisor_that_is_killed() {
    let mut supervisor = start(&["serves", "ignores signals"], false, LONG);
    supervisor.announced(true);
    supervisor.signal(UnixSignal::KILL);
    assert_eq!(supervisor.process.wait().unwrap().signal(), Some(9));
    supervisor.wait_for_nodes_to_be_gone();
}

#[test]
fn a_second_signal_kills_nodes_that_do_not_stop() {
    let mut supervisor = start(&["ignores signals", "serves"], false, LONG);
    supervisor.announced(true);
    supervisor.signal(UnixSignal::TERM);
    // Different signals, so that neither is lost in the other.
    supervisor.signal(UnixSignal::INT);
    let (status, stderr) = supervisor.end();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("node 1 is killed"), "{stderr}");
    supervisor.wait_for_nodes_to_be_gone();
}
