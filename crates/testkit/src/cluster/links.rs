//! Links between nodes that a test can cut: each node is reached through a TCP proxy of its own, which knows who calls.
//!
//! A cut link behaves like a network that loses everything: connections stand, nothing comes through, and what was under way
//! comes when it is mended. Whoever connects meanwhile is accepted and hears nothing. Clients are not cut off.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_keys::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often it is looked who calls, before it is taken for a client.
const LOOKS: u32 = 100;
/// Pause between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

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
            while let Ok((caller, from)) = listener.accept().await {
                let Ok(to) = caller.local_addr() else { continue };
                let pids = pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let (inner, cuts) = (inner.clone(), cuts.subscribe());
                tokio::spawn(async move {
                    let from = who_calls(Call { from, to }, &pids).await;
                    link(caller, inner, from.map(|from| (from, node)), cuts).await;
                });
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

/// A connection, by its two ends: other connections may have either of them.
#[derive(Debug, Clone, Copy)]
struct Call {
    from: SocketAddr,
    to: SocketAddr,
}

/// Which node's process holds the calling end of a connection; `None`: a client's.
async fn who_calls(call: Call, nodes: &[(NodeId, u32)]) -> Option<NodeId> {
    for _ in 0..LOOKS {
        match caller_of(call, nodes) {
            Caller::Node(node) => return Some(node),
            Caller::This => return None,
            Caller::Unseen => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
    None
}

/// Who holds a socket.
#[derive(Debug, PartialEq, Eq)]
enum Caller {
    Node(NodeId),
    /// This process, which is a client.
    This,
    /// Another program, or nobody was seen: while connections come and go, the kernel leaves some out of its table.
    Unseen,
}

fn caller_of(call: Call, nodes: &[(NodeId, u32)]) -> Caller {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let Some(inode) = inode_of(&table, call) else { return Caller::Unseen };
    let name = format!("socket:[{inode}]");
    let holds = |pid: u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file.as_os_str() == name.as_str())
    };
    match nodes.iter().find(|(_, pid)| holds(*pid)) {
        Some((node, _)) => Caller::Node(*node),
        None if holds(std::process::id()) => Caller::This,
        None => Caller::Unseen,
    }
}

/// The number of the socket at the calling end, in a table of the form of `/proc/net/tcp`.
fn inode_of(table: &str, call: Call) -> Option<u64> {
    let (from, to) = (written(call.from)?, written(call.to)?);
    let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = rows.find(|fields| fields.get(1..3).is_some_and(|ends| ends == [from.as_str(), to.as_str()]))?;
    row.get(9)?.parse().ok()
}

/// As the kernel writes an address into that table.
fn written(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    // The kernel prints the four bytes as one number in the order of the machine.
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_calls_is_known_by_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let (_caller, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
        let call = Call { from: accepted.unwrap().1, to };
        let nodes = [(NodeId(1), 1), (NodeId(2), std::process::id())];
        assert_eq!(who_calls(call, &nodes).await, Some(NodeId(2)));
        assert_eq!(caller_of(call, &[]), Caller::This);
    }

    #[test]
    fn a_connection_is_told_from_others_by_both_of_its_ends() {
        // A port serves for as many connections as go to different places, and stays in the table for a while when they are gone.
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                       0: 0100007F:9C40 0100007F:1F91 06 00000000:00000000 03:00000D5C 00000000     0        0 0 3 0\n\
                       1: 0100007F:9C40 0100007F:1F92 01 00000000:00000000 00:00000000 00000000     0        0 77 1 0\n\
                       2: 0100007F:9C40 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 88 1 0\n";
        let from = "127.0.0.1:40000".parse().unwrap();
        let inode = |to: &str| inode_of(table, Call { from, to: to.parse().unwrap() });
        assert_eq!((inode("127.0.0.1:8080"), inode("127.0.0.1:8082")), (Some(88), Some(77)));
        assert_eq!(inode("127.0.0.1:8083"), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_calls_is_known_while_other_connections_come_and_go() {
        let others = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = others.local_addr().unwrap();
        let busy = tokio::spawn(async move {
            let mut held = std::collections::VecDeque::new();
            loop {
                let (calls, called) = tokio::join!(TcpStream::connect(at), others.accept());
                let calls = calls.unwrap();
                // Nothing is left of it when it ends, else there would soon be no ports.
                calls.set_zero_linger().unwrap();
                held.push_back((calls, called.unwrap().0));
                if held.len() > 200 {
                    held.pop_front();
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nodes = [(NodeId(2), std::process::id())];
        let to = listener.local_addr().unwrap();
        for _ in 0..200 {
            let (_caller, accepted) = tokio::join!(TcpStream::connect(to), listener.accept());
            let call = Call { from: accepted.unwrap().1, to };
            assert_eq!(who_calls(call, &nodes).await, Some(NodeId(2)));
        }
        busy.abort();
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
