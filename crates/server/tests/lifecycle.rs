//! Signals and panics in real processes: each test starts this test binary again as the process under test.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use drover_server::config::{Config, Sources};
use drover_server::lifecycle::{Drain, Ended, FORCED_EXIT_STATUS, Shutdown, abort_on_panic, init_logging};
use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "LIFECYCLE_TEST_ROLE";

/// What the started process does; an ordinary test run passes over it.
#[test]
fn process_under_test() {
    match std::env::var(ROLE).as_deref() {
        Ok("drains") => serve(Duration::ZERO),
        Ok("is_stuck") => serve(Duration::from_secs(3600)),
        Ok("blocks_its_threads") => serve_blocked(),
        Ok("panics") => panic_in_a_task(),
        _ => {}
    }
}

struct Slow(Duration);

impl Drain for Slow {
    fn drain(&self) -> BoxFuture<'_, ()> {
        eprintln!("drain has begun");
        tokio::time::sleep(self.0).boxed()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn serve(drain: Duration) {
    let ended = runtime().block_on(async {
        let shutdown = Shutdown::on_signals(Duration::from_secs(3600)).unwrap();
        eprintln!("serving");
        shutdown.run(&Slow(drain), std::future::pending::<()>()).await
    });
    std::process::exit(if ended == Ended::Drained { 0 } else { 1 });
}

fn serve_blocked() {
    runtime().block_on(async {
        let _shutdown = Shutdown::on_signals(Duration::from_secs(3600)).unwrap();
        eprintln!("serving");
        loop {
            std::thread::park();
        }
    });
}

fn panic_in_a_task() {
    abort_on_panic();
    runtime().block_on(async {
        let task = tokio::spawn(async { panic!("the task fell over") });
        let _ = task.await;
        eprintln!("still here");
    });
}

struct Started {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

fn start(role: &str) -> Started {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process_under_test", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    Started { child, stderr }
}

impl Started {
    fn wait_for_line(&mut self, wanted: &str) {
        let mut line = String::new();
        while !line.contains(wanted) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "ended before it said {wanted:?}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> (std::process::ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

#[test]
fn a_signal_drains_the_process() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = start("drains");
        process.wait_for_line("serving");
        process.signal(signal);
        process.wait_for_line("drain has begun");
        assert_eq!(process.end().0.code(), Some(0), "{signal:?}");
    }
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut process = start("is_stuck");
    process.wait_for_line("serving");
    process.signal(Signal::TERM);
    process.wait_for_line("drain has begun");
    process.signal(Signal::INT);
    assert_eq!(process.end().0.code(), Some(FORCED_EXIT_STATUS));
}

#[test]
fn a_second_signal_ends_a_process_whose_threads_are_all_stuck() {
    let mut process = start("blocks_its_threads");
    process.wait_for_line("serving");
    process.signal(Signal::TERM);
    // Different signals, so that the kernel cannot merge them into one.
    process.signal(Signal::INT);
    assert_eq!(process.end().0.code(), Some(FORCED_EXIT_STATUS));
}

#[test]
fn a_panic_of_a_task_is_reported_and_aborts_the_process() {
    let (status, stderr) = start("panics").end();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{stderr}");
    assert!(stderr.contains("the task fell over") && stderr.contains("lifecycle.rs"), "{stderr}");
    assert!(!stderr.contains("still here"), "{stderr}");
}

#[test]
fn the_log_is_set_up_once() {
    let sources = Sources {
        flags: vec![
            ("node.id", "1".to_owned()),
            ("node.data_dir", "d".to_owned()),
            ("cluster.id", "00000000000000000000000000000001".to_owned()),
            ("bootstrap.nodes", "[{id = 1, grpc = 'a:1', admin = 'a:2'}]".to_owned()),
            ("bootstrap.groups", "[{id = 1, replicas = [1]}]".to_owned()),
            ("bootstrap.routes", "[{start = '', group = 1}]".to_owned()),
        ],
        ..Sources::default()
    };
    let config = Config::load(&sources).unwrap();
    init_logging(&config.log).unwrap();
    assert!(init_logging(&config.log).is_err());
}
