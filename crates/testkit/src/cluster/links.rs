//! Links between nodes that a test can cut: each node is reached through a TCP proxy of its own, which knows who calls.
//!
//! A cut link behaves like a network that loses everything: connections stand, nothing comes through, and what was under way
//! comes when it is mended. Whoever connects meanwhile is accepted and hears nothing. Clients are not cut off.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use drover_keys::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Which links are cut: who calls, and who is called.
type Cuts = BTreeSet<(NodeId, NodeId)>;

/// The links of a cluster.
#[derive(Debug)]
pub(super) struct Links {
    cuts: watch::Sender<Cuts>,
    /// The running processes.
    pids: Arc<Mutex<Vec<(NodeId, u32)>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Links {
    pub fn new() -> Self {
        Self { cuts: watch::Sender::new(Cuts::new()), pids: Arc::default(), tasks: Mutex::default() }
    }

    /// From now on whoever connects to `outer` is connected to the node, which listens at `inner`.
    pub async fn serve(&self, node: NodeId, outer: &str, inner: String) -> io::Result<()> {
        let listener = TcpListener::bind(outer).await?;
        let (cuts, pids) = (self.cuts.clone(), Arc::clone(&self.pids));
        let task = tokio::spawn(async move {
            while let Ok((caller, address)) = listener.accept().await {
                let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let from = caller_of(address, &pids);
                tokio::spawn(link(caller, inner.clone(), from.map(|from| (from, node)), cuts.subscribe()));
            }
        });
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(())
    }

    /// A node runs as this process now.
    pub fn started(&self, node: NodeId, pid: u32) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        pids.retain(|(known, _)| *known != node);
        pids.push((node, pid));
    }

    /// Cuts the links between a node and others, in both directions.
    pub fn cut(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        self.cuts.send_modify(|cuts| cuts.extend(others.into_iter().flat_map(|other| [(node, other), (other, node)])));
    }

    /// Mends all links.
    pub fn mend(&self) {
        self.cuts.send_modify(Cuts::clear);
    }
}

/// One connection. `link` is unknown of clients.
async fn link(caller: TcpStream, inner: String, link: Option<(NodeId, NodeId)>, cuts: watch::Receiver<Cuts>) {
    let mut open = cuts.clone();
    if let Some(link) = link {
        // Without a sender the cluster is gone, and all of its connections with it.
        let _ = open.wait_for(|cuts| !cuts.contains(&link)).await;
    }
    let Ok(called) = TcpStream::connect(inner).await else { return };
    let _ = (caller.set_nodelay(true), called.set_nodelay(true));
    let ((from_caller, to_caller), (from_called, to_called)) = (caller.into_split(), called.into_split());
    tokio::select! {
        () = pass(from_caller, to_called, link, cuts.clone()) => {}
        () = pass(from_called, to_caller, link.map(|(from, to)| (to, from)), cuts) => {}
    }
}

/// Passes bytes on until either end closes.
async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    link: Option<(NodeId, NodeId)>,
    mut cuts: watch::Receiver<Cuts>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else { return };
        if let Some(link) = link
            && cuts.wait_for(|cuts| !cuts.contains(&link)).await.is_err()
        {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Which of these processes holds the socket that is bound to `address`.
fn caller_of(address: SocketAddr, pids: &[(NodeId, u32)]) -> Option<NodeId> {
    let inode = inode_of(&std::fs::read_to_string("/proc/net/tcp").ok()?, address)?;
    let name = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file.as_os_str() == name.as_str())
    };
    pids.iter().find(|(_, pid)| holds(pid)).map(|(node, _)| *node)
}

/// The number of the socket whose local address this is, in the form of `/proc/net/tcp`.
fn inode_of(table: &str, address: SocketAddr) -> Option<u64> {
    let SocketAddr::V4(address) = address else { return None };
    // The kernel prints the four bytes as one number in the order of the machine.
    let local = format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port());
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|fields| fields.get(1).is_some_and(|field| *field == local))?;
    row.get(9)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_calls_is_known_by_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_caller, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async {
            listener.accept().await.unwrap()
        });
        let pids = [(NodeId(1), 1), (NodeId(2), std::process::id())];
        assert_eq!(caller_of(accepted.1, &pids), Some(NodeId(2)));
        assert_eq!(caller_of(accepted.1, &[]), None);
    }

    #[tokio::test]
    async fn nothing_passes_a_link_that_is_cut_and_all_of_it_when_it_is_mended() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let links = Links::new();
        let outer = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        links.serve(NodeId(1), &outer, server.local_addr().unwrap().to_string()).await.unwrap();
        links.started(NodeId(2), std::process::id());
        let mut caller = TcpStream::connect(&outer).await.unwrap();
        let mut called = server.accept().await.unwrap().0;
        let mut got = [0; 3];
        caller.write_all(b"one").await.unwrap();
        called.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"one");

        links.cut(NodeId(2), [NodeId(1)]);
        caller.write_all(b"two").await.unwrap();
        let quiet = std::time::Duration::from_millis(100);
        assert!(tokio::time::timeout(quiet, called.read_exact(&mut got)).await.is_err(), "the link is cut");
        let later = TcpStream::connect(&outer).await.unwrap();
        assert!(tokio::time::timeout(quiet, server.accept()).await.is_err(), "the link is cut");
        links.mend();
        called.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"two");
        server.accept().await.unwrap();
        drop(later);
    }
}
