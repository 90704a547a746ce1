//! The network between the nodes, and what is wrong with it.

mod faults;
mod netns;
mod proxy;
mod queue;

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};

pub use faults::{Faults, Noise, NoiseKind, halves, ring};

/// Where a node listens, and where others find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub listen: String,
    /// What the others are told.
    pub advertise: String,
    /// Health and metrics.
    pub admin: String,
}

/// The network of a run. Dropping it removes everything it made.
#[derive(Debug)]
pub struct Net {
    kind: Kind,
    /// Why it is not the better one.
    why: Option<String>,
    faults: Mutex<Faults>,
}

#[derive(Debug)]
enum Kind {
    Namespaces(netns::Namespaces),
    Loopback(proxy::Proxies),
}

impl Net {
    /// A network for so many nodes: namespaces where they are permitted, otherwise loopback. `wanted` demands one of them.
    ///
    /// # Errors
    /// If neither is to be had.
    pub async fn new(nodes: u64, wanted: Option<&str>) -> Result<Net> {
        netns::clean_up_after_others();
        let (kind, why) = match wanted {
            Some("loopback") => {
                (Kind::Loopback(proxy::Proxies::new(nodes).await?), Some("it was asked for".to_owned()))
            }
            Some("netns") => (Kind::Namespaces(netns::Namespaces::new(nodes)?), None),
            _ => match netns::Namespaces::new(nodes) {
                Ok(namespaces) => (Kind::Namespaces(namespaces), None),
                Err(error) => (Kind::Loopback(proxy::Proxies::new(nodes).await?), Some(format!("{error:#}"))),
            },
        };
        Ok(Net { kind, why, faults: Mutex::default() })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match (&self.kind, &self.why) {
            (Kind::Namespaces(_), _) => "network namespaces".to_owned(),
            (Kind::Loopback(_), why) => {
                format!("loopback with proxies ({})", why.as_deref().unwrap_or("no namespaces"))
            }
        }
    }

    /// Where a node, counted from 1, listens.
    pub fn addresses(&self, node: u64) -> Addresses {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.addresses(node),
            Kind::Loopback(proxies) => proxies.addresses(node),
        }
    }

    /// A command that runs where a node does.
    ///
    /// # Errors
    /// If the node's namespace is not there.
    pub fn command(&self, node: u64, program: &Path) -> Result<Command> {
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.command(node, program),
            Kind::Loopback(_) => Ok(Command::new(program)),
        }
    }

    /// Tells which process a node is now.
    pub fn runs_as(&self, node: u64, pid: Option<u32>) {
        if let Kind::Loopback(proxies) = &self.kind {
            proxies.runs_as(node, pid);
        }
    }

    /// Changes what is wrong, and makes it so.
    ///
    /// # Errors
    /// If it could not be made so everywhere.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) -> Result<()> {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut faults);
        match &self.kind {
            Kind::Namespaces(namespaces) => namespaces.apply(&faults),
            Kind::Loopback(proxies) => {
                proxies.apply(&faults);
                Ok(())
            }
        }
    }
}

/// Runs a command of the operating system.
pub(crate) fn sh(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("{program} cannot be run"))?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), why.trim());
    Ok(())
}
