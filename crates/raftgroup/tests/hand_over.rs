//! Whoever hands a leadership over may give up at any moment, and nothing loud comes of it.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use drover_keys::NodeId;
use futures::FutureExt;
use parking_lot::Mutex;
use support::cluster::{Cluster, patient};
use support::soon;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// On one thread: what is polled once has asked Raft's task, which has not answered.
#[tokio::test]
async fn a_hand_over_that_is_given_up_before_raft_has_answered_logs_no_error() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::ERROR).with_writer(move || writer.clone());
    let _captured = tracing::subscriber::set_default(subscriber.finish());
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::found(dir.path(), 3, patient()).await;
    let [leader, other, _] = cluster.roles();
    assert!(cluster.group(leader).transfer_leader(NodeId(other), soon()).now_or_never().is_none());
    // Raft's task takes what it is asked in turn.
    cluster.group(leader).raft().with_raft_state(|_| ()).await.unwrap();
    let loud = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(loud.is_empty(), "{loud}");
    assert_eq!(cluster.roles()[0], leader);
    tracing::error!("captured");
    assert!(!log.0.lock().is_empty());
    cluster.close().await;
}
