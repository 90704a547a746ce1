//! Loopback: each node is found at a proxy of its own. Who connects is told by the process that holds the other end, so that the
//! proxy knows whose packets it passes on; what comes from no node, it passes on always.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::faults::NoiseKind;
use super::{Addresses, Faults};

/// Between two looks at whether a cut is healed.
const LOOK: Duration = Duration::from_millis(10);
/// How late what was lost comes, as if it were sent again.
const SENT_AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Default)]
struct Shared {
    faults: RwLock<Faults>,
    pids: Mutex<BTreeMap<u64, u32>>,
}

#[derive(Debug)]
pub struct Proxies {
    nodes: Vec<Addresses>,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Proxies {
    pub async fn new(nodes: u64) -> Result<Self> {
        let (shared, stop) = (Arc::new(Shared::default()), CancellationToken::new());
        let mut addresses = Vec::new();
        for node in 1..=nodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for a proxy")?;
            let (listen, admin) = (free_port()?, free_port()?);
            let advertise = listener.local_addr()?.to_string();
            addresses.push(Addresses { listen: listen.clone(), advertise, admin });
            let (shared, stop) = (Arc::clone(&shared), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(accept(node, listener, listen, shared)).await });
        }
        Ok(Self { nodes: addresses, shared, _stop: stop.drop_guard() })
    }

    pub fn addresses(&self, node: u64) -> Addresses {
        let at = usize::try_from(node - 1).expect("nodes are few");
        self.nodes[at].clone()
    }

    pub fn runs_as(&self, node: u64, pid: Option<u32>) {
        let mut pids = self.shared.pids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match pid {
            Some(pid) => drop(pids.insert(node, pid)),
            None => drop(pids.remove(&node)),
        }
    }

    pub fn apply(&self, faults: &Faults) {
        *self.shared.faults.write().unwrap_or_else(std::sync::PoisonError::into_inner) = faults.clone();
    }
}

fn free_port() -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr()?.to_string())
}

async fn accept(node: u64, listener: TcpListener, target: String, shared: Arc<Shared>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let (target, shared) = (target.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let from = whose(peer, &shared);
            // Nobody answers through a cut.
            hold(&shared, from, Some(node)).await;
            // Dropping the stream tells the other side that nobody is there.
            let Ok(inner) = TcpStream::connect(&target).await else { return };
            let _ = (stream.set_nodelay(true), inner.set_nodelay(true));
            let ((outer_read, outer_write), (inner_read, inner_write)) = (stream.into_split(), inner.into_split());
            tokio::select! {
                () = pump(outer_read, inner_write, from, Some(node), &shared) => {}
                () = pump(inner_read, outer_write, Some(node), from, &shared) => {}
            }
        });
    }
}

/// Waits while nothing comes through.
async fn hold(shared: &Shared, from: Option<u64>, to: Option<u64>) {
    let (Some(from), Some(to)) = (from, to) else { return };
    let is_cut = || shared.faults.read().unwrap_or_else(std::sync::PoisonError::into_inner).is_cut(from, to);
    while is_cut() {
        tokio::time::sleep(LOOK).await;
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    source: Option<u64>,
    sink: Option<u64>,
    shared: &Shared,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(read) = from.read(&mut buffer).await else { return };
        if read == 0 {
            return;
        }
        hold(shared, source, sink).await;
        match noise(shared, source, sink) {
            None => {}
            Some(NoiseKind::Loss) => tokio::time::sleep(SENT_AGAIN).await,
            Some(NoiseKind::Reset) => return,
            Some(NoiseKind::Delay { most_ms }) => {
                let late = rand::rng().random_range(0..=most_ms);
                tokio::time::sleep(Duration::from_millis(late.into())).await;
            }
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

fn noise(shared: &Shared, source: Option<u64>, sink: Option<u64>) -> Option<NoiseKind> {
    let (Some(_), Some(node)) = (source, sink) else { return None };
    let all = shared.faults.read().unwrap_or_else(std::sync::PoisonError::into_inner).noise_at(node);
    all.into_iter().find(|noise| rand::rng().random_range(0..1000) < noise.permille).map(|noise| noise.kind)
}

/// The node whose process holds the other end of a connection.
fn whose(peer: SocketAddr, shared: &Shared) -> Option<u64> {
    let socket = format!("socket:[{}]", inode(&std::fs::read_to_string("/proc/net/tcp").ok()?, peer)?);
    let pids = shared.pids.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let holds = |pid: u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|link| link.as_os_str() == socket.as_str())
    };
    pids.into_iter().find(|(_, pid)| holds(*pid)).map(|(node, _)| node)
}

/// The number of the socket with this local address, in the kernel's table.
fn inode(table: &str, local: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(local) = local else { return None };
    let wanted = format!("{:08X}:{:04X}", u32::from_le_bytes(local.ip().octets()), local.port());
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()))?;
    line.split_whitespace().nth(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:1CE8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0\n";
        assert_eq!(inode(table, "127.0.0.1:7400".parse().unwrap()), Some(4711));
        assert_eq!(inode(table, "127.0.0.1:7401".parse().unwrap()), None);
    }
}
