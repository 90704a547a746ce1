//! A TCP proxy that can stop to forward after a number of bytes towards the server, and whose connections can be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Proxy {
    pub address: String,
    /// Bytes that may still pass towards the server.
    allowance: Arc<AtomicU64>,
    /// Connections of earlier generations end.
    generation: Arc<watch::Sender<u64>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let allowance = Arc::new(AtomicU64::new(u64::MAX));
        let generation = Arc::new(watch::Sender::new(0));
        let (bytes, cut) = (Arc::clone(&allowance), Arc::clone(&generation));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&target).await else { continue };
                tokio::spawn(run(client, server, Arc::clone(&bytes), cut.subscribe()));
            }
        });
        Self { address, allowance, generation, task }
    }

    /// Ends all connections. New ones pass.
    pub fn cut(&self) {
        self.allowance.store(u64::MAX, Ordering::SeqCst);
        self.generation.send_modify(|n| *n += 1);
    }

    /// Lets about this many bytes more go to the server, and then nothing until the next cut.
    pub fn hold_after(&self, bytes: u64) {
        self.allowance.store(bytes, Ordering::SeqCst);
    }
}

async fn run(client: TcpStream, server: TcpStream, allowance: Arc<AtomicU64>, mut cut: watch::Receiver<u64>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let n = from_client.read(&mut buffer).await.unwrap_or(0);
            let left = allowance.load(Ordering::SeqCst);
            if left < n as u64 {
                std::future::pending::<()>().await;
            }
            if left != u64::MAX {
                allowance.store(left - n as u64, Ordering::SeqCst);
            }
            if n == 0 || to_server.write_all(&buffer[..n]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = cut.changed() => {}
    }
}
