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
    /// Length of its log when it was last started: what it writes stands behind.
    log_from: u64,
    child: Option<Child>,
}

impl NodeProcess {
    /// Starts a node. Must be called on the main thread: the process ends with the thread that started it.
    pub fn start(spec: NodeSpec, launch: Launch) -> anyhow::Result<Self> {
        let mut node = Self { spec, log_from: 0, child: None };
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
        self.log_from = out.metadata().with_context(|| format!("cannot read {}", log.display()))?.len();
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

    /// The end of what it has written to its log since it was last started, for people.
    pub fn log_tail(&self) -> String {
        let log = self.spec.log.display();
        match tail(&self.spec.log, self.log_from) {
            Ok(text) if text.is_empty() => format!("it wrote nothing to its log {log}"),
            Ok(text) => format!("the end of its log {log}:\n{text}"),
            Err(error) => format!("its log {log} cannot be read: {error}"),
        }
    }
}

/// The last lines that begin at `from` or behind it: whole ones, as many as fit.
fn tail(log: &Path, from: u64) -> std::io::Result<String> {
    let mut file = std::fs::File::open(log)?;
    let cut = file.metadata()?.len().saturating_sub(TAIL_BYTES).max(from);
    // The byte in front tells whether a line begins at the cut.
    let begin = if cut > from { cut - 1 } else { cut };
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let whole = match text.split_once('\n') {
        Some((_, whole)) if begin < cut && !whole.trim().is_empty() => whole,
        _ => &text,
    };
    Ok(whole.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_begins_with_a_line_and_not_before_the_last_start() {
        let old = "old line\n".repeat(1_000);
        let line = format!("{}\n", "x".repeat(99));
        let many = line.repeat(30);
        let endless = "y".repeat(5_000);
        let fits = TAIL_BYTES as usize / line.len();
        let table = [
            (String::new(), String::new()),
            ("first\nsecond\n".to_owned(), "first\nsecond".to_owned()),
            (many.clone(), line.repeat(fits).trim_end().to_owned()),
            (format!("{}\n{many}", "z".repeat(48 + 2)), line.repeat(fits).trim_end().to_owned()),
            (endless.clone(), endless[..=TAIL_BYTES as usize].to_owned()),
        ];
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        for (written, expect) in table {
            std::fs::write(&log, format!("{old}{written}")).unwrap();
            assert_eq!(tail(&log, old.len() as u64).unwrap(), expect, "{written}");
            std::fs::write(&log, &written).unwrap();
            assert_eq!(tail(&log, 0).unwrap(), expect, "{written}");
        }
        // Lines that end exactly where the cut lies.
        let even = format!("{}\n", "e".repeat(TAIL_BYTES as usize / 4 - 1));
        std::fs::write(&log, even.repeat(8)).unwrap();
        assert_eq!(tail(&log, 0).unwrap(), even.repeat(4).trim_end());
    }
}
