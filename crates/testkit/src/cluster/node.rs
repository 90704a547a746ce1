use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_guards::{CRASH_AT, CRASH_FILE, CrashPoint, HELD_WORDS, HOLD, LAST_WORDS};
use drover_keys::NodeId;
use rustix::process::{Pid, Signal, kill_process};

use super::links::Links;
use super::{ClusterError, Port, drover_binary, http, logs, spawn};
use crate::wait::wait_until;

/// What a node's process is doing, as far as this harness made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It was started.
    Running,
    /// It was stopped with SIGSTOP and goes on with SIGCONT.
    Stopped,
    /// There is no process.
    Down,
}

/// One node: its files, its ports, and its process if it has one.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    grpc: Port,
    /// Where others reach it, if that is not where it listens.
    through: Option<(Port, Arc<Links>)>,
    admin: Port,
    config_path: PathBuf,
    data_dir: PathBuf,
    log_path: PathBuf,
    /// The build to start; `None`: the one that the tests were built with.
    binary: Mutex<Option<PathBuf>>,
    /// By how much its clock is wrong from the next start on, in milliseconds.
    clock_shift: AtomicI64,
    /// Where it is to crash from the next start on.
    crash_point: Mutex<Option<String>>,
    /// Names the points that the running process shall crash or wait at.
    points_path: PathBuf,
    process: Mutex<Process>,
}

#[derive(Debug)]
struct Process {
    state: NodeState,
    child: Option<Child>,
    starts: u32,
    /// How much of the log was written before this start, in bytes.
    log_before: usize,
    /// How much of it was written before points were armed last, in bytes.
    log_before_arming: usize,
}

impl Node {
    pub(super) fn new(id: NodeId, dir: &Path, grpc: Port, admin: Port) -> Self {
        Self {
            id,
            grpc,
            through: None,
            admin,
            config_path: dir.join(format!("node-{id}.toml")),
            data_dir: dir.join(format!("node-{id}")),
            log_path: dir.join(format!("node-{id}.log")),
            binary: Mutex::new(None),
            clock_shift: AtomicI64::new(0),
            crash_point: Mutex::default(),
            points_path: dir.join(format!("node-{id}.points")),
            process: Mutex::new(Process {
                state: NodeState::Down,
                child: None,
                starts: 0,
                log_before: 0,
                log_before_arming: 0,
            }),
        }
    }

    /// Its number.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Others reach it at this port, by these links.
    pub(super) fn reach_through(&mut self, port: Port, links: Arc<Links>) {
        self.through = Some((port, links));
    }

    /// `host:port` of its gRPC service, for others.
    pub fn grpc_address(&self) -> String {
        self.through.as_ref().map_or(&self.grpc, |(port, _)| port).address()
    }

    /// Where it listens itself.
    pub(super) fn grpc_listen(&self) -> String {
        self.grpc.address()
    }

    /// `host:port` of its admin service.
    pub fn admin_address(&self) -> String {
        self.admin.address()
    }

    /// Its configuration file.
    pub fn config_path(&self) -> &Path {
        &self.config_path
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it wrote to its standard output and standard error, over all its starts.
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// What its process is doing. A process that ended by itself counts as down.
    pub fn state(&self) -> NodeState {
        let mut process = self.lock();
        let ended = process.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
        if ended {
            process.state = NodeState::Down;
        }
        process.state
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.lock().starts
    }

    /// From the next start on the node runs this build; without one, the build that the tests were built with.
    pub fn set_binary(&self, path: Option<PathBuf>) {
        *self.binary.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = path;
    }

    /// From the next start on the node's clock is wrong by this many milliseconds.
    pub fn shift_clock(&self, ms: i64) {
        self.clock_shift.store(ms, Ordering::Relaxed);
    }

    /// From the next start on the process ends itself without warning when it comes to this point (the notation is that of
    /// `drover_guards::CRASH_AT`); without one it does not.
    pub fn crash_at(&self, point: Option<&str>) {
        *self.crash_point.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = point.map(str::to_owned);
    }

    /// From now on the process ends itself when it comes to `crash`, and whoever comes to `hold` waits there; `None`: nowhere. Takes
    /// the place of what was armed before.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn arm(&self, crash: Option<CrashPoint>, hold: Option<CrashPoint>) -> Result<(), ClusterError> {
        let failed = || ClusterError::io(format!("writing {}", self.points_path.display()));
        let log = self.log().len();
        self.lock().log_before_arming = log;
        let hold = hold.map(|point| format!("{HOLD}{point}\n"));
        let text: String = crash.map(|point| format!("{point}\n")).into_iter().chain(hold).collect();
        // As a whole: half a name would be none.
        let whole = self.points_path.with_extension("points-new");
        std::fs::write(&whole, text).map_err(failed())?;
        std::fs::rename(&whole, &self.points_path).map_err(failed())
    }

    /// Starts the process. Returns before it is ready.
    ///
    /// # Errors
    /// If there is one already, or it cannot be started.
    pub fn start(&self) -> Result<(), ClusterError> {
        self.expect_state(NodeState::Down)?;
        let log = OpenOptions::new().create(true).append(true).open(&self.log_path);
        let log = log.map_err(ClusterError::io(format!("opening {}", self.log_path.display())))?;
        let log_before = self.log().len();
        let copy = log.try_clone().map_err(ClusterError::io("sharing the log file"))?;
        let chosen = self.binary.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut command = Command::new(chosen.map_or_else(drover_binary, Ok)?);
        command.arg("server").arg("--config").arg(&self.config_path);
        match self.clock_shift.load(Ordering::Relaxed) {
            0 => {}
            ms => drop(command.arg(format!("--shift-clock-ms={ms}"))),
        }
        // Settings that the environment of the test happens to hold are not for the nodes.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DROVER_")) {
            command.env_remove(name);
        }
        if let Some(point) = &*self.crash_point.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            command.env(CRASH_AT, point);
        }
        command.env(CRASH_FILE, &self.points_path);
        command.stdin(Stdio::null()).stdout(log).stderr(copy);
        let child = spawn::spawn(command).map_err(ClusterError::io(format!("starting node {}", self.id)))?;
        if let Some((_, links)) = &self.through {
            links.started(self.id, child.id());
        }
        let mut process = self.lock();
        let starts = process.starts + 1;
        *process = Process {
            state: NodeState::Running,
            child: Some(child),
            starts,
            log_before,
            log_before_arming: log_before,
        };
        Ok(())
    }

    /// Kills the process with SIGKILL, stopped or not.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill(&self) -> Result<(), ClusterError> {
        let mut process = self.lock();
        let state = process.state;
        let child = process.child.as_mut().ok_or(ClusterError::State { node: self.id, state })?;
        child.kill().map_err(ClusterError::io(format!("killing node {}", self.id)))?;
        child.wait().map_err(ClusterError::io(format!("waiting for node {}", self.id)))?;
        process.child = None;
        process.state = NodeState::Down;
        Ok(())
    }

    /// Stops the process with SIGSTOP: it holds its connections and answers nothing.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop(&self) -> Result<(), ClusterError> {
        self.expect_state(NodeState::Running)?;
        self.signal(Signal::STOP)?;
        self.lock().state = NodeState::Stopped;
        Ok(())
    }

    /// Lets a stopped process go on.
    ///
    /// # Errors
    /// If it is not stopped.
    pub fn resume(&self) -> Result<(), ClusterError> {
        self.expect_state(NodeState::Stopped)?;
        self.signal(Signal::CONT)?;
        self.lock().state = NodeState::Running;
        Ok(())
    }

    /// Asks the process with SIGTERM to drain and end, and waits until it has.
    ///
    /// # Errors
    /// If it has not ended within the bound.
    pub async fn terminate(&self, bound: Duration) -> Result<ExitStatus, ClusterError> {
        self.expect_state(NodeState::Running)?;
        self.signal(Signal::TERM)?;
        self.wait_exit(bound).await
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// If it has not within the bound.
    pub async fn wait_exit(&self, bound: Duration) -> Result<ExitStatus, ClusterError> {
        let what = format!("node {} to end", self.id);
        let status = wait_until(&what, bound, async || self.exit_status().ok_or("it runs")).await?;
        self.lock().child = None;
        Ok(status)
    }

    /// Waits until the process has ended itself at this crash point, and at no other.
    ///
    /// # Errors
    /// If it has not within the bound.
    ///
    /// # Panics
    /// If it ended in another way.
    pub async fn wait_crash(&self, point: CrashPoint, bound: Duration) -> Result<(), ClusterError> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.wait_exit(bound).await?;
        let log = self.log();
        let words = log[self.lock().log_before..].lines().filter_map(|line| line.strip_prefix(LAST_WORDS));
        let said: Vec<&str> = words.collect();
        assert_eq!(said, [point.to_string()], "node {} ended with {status}", self.id);
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "node {} ended with {status}", self.id);
        Ok(())
    }

    /// Waits until so many wait at this point, or have waited there, since points were armed last.
    ///
    /// # Errors
    /// If they do not within the bound.
    pub async fn wait_held(&self, point: CrashPoint, many: usize, bound: Duration) -> Result<(), ClusterError> {
        let (what, words) = (format!("{many} on node {} to wait at {point}", self.id), format!("{HELD_WORDS}{point}"));
        let since = self.lock().log_before_arming;
        let held = || match self.log()[since..].lines().filter(|line| **line == words).count() {
            count if count >= many => Ok(()),
            count => Err(format!("{count} do")),
        };
        Ok(wait_until(&what, bound, async || held()).await?)
    }

    /// Kills the process if there is one, and starts it again. Returns before it is ready.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&self) -> Result<(), ClusterError> {
        if self.lock().child.is_some() {
            self.kill()?;
        }
        self.start()
    }

    /// Waits until the node says that it is ready.
    ///
    /// # Errors
    /// If its process ends or the bound passes.
    pub async fn wait_ready(&self, bound: Duration) -> Result<(), ClusterError> {
        let what = format!("node {} to be ready", self.id);
        let ready = wait_until(&what, bound, async || {
            if let Some(status) = self.exit_status() {
                return Ok(Err(status));
            }
            match http::get(&self.admin_address(), "/readyz").await {
                Ok(answer) if answer.status == 200 => Ok(Ok(())),
                Ok(answer) => Err(format!("{} {}", answer.status, answer.body)),
                Err(error) => Err(error.to_string()),
            }
        })
        .await?;
        ready.map_err(|status| ClusterError::Exited { node: self.id, status, log: logs::tail(&self.log_path) })
    }

    /// The log so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log_path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        let mut process = self.lock();
        let status = process.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if status.is_some() {
            process.state = NodeState::Down;
        }
        status
    }

    fn signal(&self, signal: Signal) -> Result<(), ClusterError> {
        let process = self.lock();
        let child = process.child.as_ref().ok_or(ClusterError::State { node: self.id, state: process.state })?;
        let failed = |e: rustix::io::Errno| ClusterError::Io {
            what: format!("sending {signal:?} to node {}", self.id),
            source: e.into(),
        };
        kill_process(Pid::from_child(child), signal).map_err(failed)
    }

    fn expect_state(&self, state: NodeState) -> Result<(), ClusterError> {
        let found = self.state();
        if found == state { Ok(()) } else { Err(ClusterError::State { node: self.id, state: found }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Process> {
        self.process.lock().expect("nothing panics while it holds the lock")
    }
}
