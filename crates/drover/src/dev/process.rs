//! One node of a development cluster as a process.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use drover_keys::NodeId;
use drover_server::config::Address;
use rustix::process::{Pid, Signal, kill_process};

/// Bytes at the end of a log that are shown when a node fails.
const TAIL_BYTES: u64 = 2048;

/// A node that can be started.
#[derive(Debug, Clone)]
pub struct NodeSpec {
    pub id: NodeId,
    pub grpc: Address,
    pub admin: Address,
    pub config: PathBuf,
    pub log: PathBuf,
    pub drain_timeout: Duration,
}

/// How a node is started.
pub type Launch = fn(&NodeSpec) -> anyhow::Result<Command>;

/// A node that runs, or has run.
#[derive(Debug)]
pub struct NodeProcess {
    pub spec: NodeSpec,
    child: Option<Child>,
}

impl NodeProcess {
    /// Starts a node. Must be called on the main thread: the process ends with the thread that started it.
    pub fn start(spec: NodeSpec, launch: Launch) -> anyhow::Result<Self> {
        let mut node = Self { spec, child: None };
        node.restart(launch)?;
        Ok(node)
    }

    /// Starts it again.
    pub fn restart(&mut self, launch: Launch) -> anyhow::Result<()> {
        let log = &self.spec.log;
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let err = out.try_clone().with_context(|| format!("cannot open {}", log.display()))?;
        let mut command = launch(&self.spec)?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        self.child = Some(command.spawn().with_context(|| format!("cannot start node {}", self.spec.id))?);
        Ok(())
    }

    /// Its process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// How it ended, if it has ended since it was last asked.
    pub fn reap(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let status = child.try_wait().with_context(|| format!("cannot look after node {}", self.spec.id))?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        if let Some(child) = &self.child
            && let Err(error) = kill_process(Pid::from_child(child), Signal::TERM)
        {
            eprintln!("drover dev: cannot ask node {} to stop: {error}", self.spec.id);
        }
    }

    /// Ends it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take()
            && let Err(error) = child.kill().and_then(|()| child.wait())
        {
            eprintln!("drover dev: cannot kill node {}: {error}", self.spec.id);
        }
    }

    /// The end of its log, for people.
    pub fn log_tail(&self) -> String {
        let log = self.spec.log.display();
        match tail(&self.spec.log) {
            Ok(text) if text.is_empty() => format!("its log {log} is empty"),
            Ok(text) => format!("the end of its log {log}:\n{text}"),
            Err(error) => format!("its log {log} cannot be read: {error}"),
        }
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}
