//! Starts the nodes, watches them, stops them.

use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::process::{Launch, NodeProcess, NodeSpec};
use super::ready;

/// Time between the end of a node and its next start.
const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Time beyond its own drain that a node gets before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How the nodes are looked after.
pub struct Options {
    /// Whether a node that ended is started again.
    pub restart: bool,
    /// Bound on the time until all nodes are ready.
    pub ready_timeout: Duration,
    /// How a node is started.
    pub launch: Launch,
}

/// Tells others about the nodes.
pub trait Announce {
    /// All nodes are ready (`first`), or a process has changed.
    fn announce(&self, nodes: &[(&NodeSpec, Option<u32>)], first: bool) -> anyhow::Result<()>;
}

struct Signals {
    stop: StopSignals,
    child: Signal,
}

struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

enum Event {
    Stop,
    ChildChanged,
    RestartDue,
    Ready(anyhow::Result<()>),
}

/// Runs the nodes until a signal says to stop. Nothing runs when it returns.
///
/// # Errors
/// If a node does not become ready, or all nodes have ended.
pub async fn supervise(specs: Vec<NodeSpec>, options: &Options, announce: &dyn Announce) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let mut nodes = Vec::new();
    let mut ended = Ok(());
    for spec in specs {
        match NodeProcess::start(spec, options.launch) {
            Ok(node) => nodes.push(node),
            Err(error) => ended = Err(error),
        }
    }
    if ended.is_ok() {
        ended = watch(&mut nodes, &mut signals, options, announce).await;
    }
    stop(&mut nodes, &mut signals).await;
    ended
}

async fn watch(
    nodes: &mut [NodeProcess],
    signals: &mut Signals,
    options: &Options,
    announce: &dyn Announce,
) -> anyhow::Result<()> {
    let addresses = nodes.iter().map(|node| (node.spec.id, node.spec.admin.clone())).collect();
    let mut readiness = std::pin::pin!(ready::wait_all(addresses, options.ready_timeout));
    let (mut all_ready, mut restart_at) = (false, None);
    loop {
        let event = tokio::select! {
            biased;
            () = signals.stop.recv() => Event::Stop,
            _ = signals.child.recv() => Event::ChildChanged,
            () = sleep_until(restart_at) => Event::RestartDue,
            ready = &mut readiness, if !all_ready => Event::Ready(ready),
        };
        match event {
            Event::Stop => return Ok(()),
            Event::Ready(ready) => {
                ready?;
                all_ready = true;
                announce.announce(&running(nodes), true)?;
            }
            Event::ChildChanged => {
                if reap(nodes, all_ready, options.restart)? {
                    restart_at = options.restart.then(|| Instant::now() + RESTART_DELAY);
                    if all_ready {
                        announce.announce(&running(nodes), false)?;
                    }
                }
            }
            Event::RestartDue => {
                restart_at = None;
                for node in nodes.iter_mut().filter(|node| node.pid().is_none()) {
                    node.restart(options.launch)?;
                    eprintln!("drover dev: node {} is started again", node.spec.id);
                }
                if all_ready {
                    announce.announce(&running(nodes), false)?;
                }
            }
        }
    }
}

/// Reports the nodes that have ended; whether there were any.
fn reap(nodes: &mut [NodeProcess], all_ready: bool, restart: bool) -> anyhow::Result<bool> {
    let mut any = false;
    for node in nodes.iter_mut() {
        let Some(status) = node.reap()? else { continue };
        any = true;
        let id = node.spec.id;
        if !all_ready && !restart {
            bail!("node {id} ended before it was ready ({status}); {}", node.log_tail());
        }
        eprintln!("drover dev: node {id} ended ({status}); {}", node.log_tail());
    }
    if any && !restart && nodes.iter().all(|node| node.pid().is_none()) {
        bail!("all nodes have ended");
    }
    Ok(any)
}

/// Asks all nodes to stop, and kills those that do not, or all of them at the second signal.
async fn stop(nodes: &mut [NodeProcess], signals: &mut Signals) {
    for node in nodes.iter() {
        node.terminate();
    }
    let longest = nodes.iter().map(|node| node.spec.drain_timeout).max().unwrap_or_default();
    let deadline = Instant::now() + longest + STOP_GRACE;
    loop {
        for node in nodes.iter_mut() {
            if let Err(error) = node.reap() {
                eprintln!("drover dev: {error:#}");
            }
        }
        if nodes.iter().all(|node| node.pid().is_none()) {
            return;
        }
        tokio::select! {
            _ = signals.child.recv() => {}
            () = signals.stop.recv() => break,
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    for node in nodes.iter_mut().filter(|node| node.pid().is_some()) {
        eprintln!("drover dev: node {} is killed; its log is {}", node.spec.id, node.spec.log.display());
        node.kill();
    }
}

fn running(nodes: &[NodeProcess]) -> Vec<(&NodeSpec, Option<u32>)> {
    nodes.iter().map(|node| (&node.spec, node.pid())).collect()
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { stop: StopSignals::listen()?, child: signal(SignalKind::child())? })
    }
}

impl StopSignals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests;
