//! openraft's own conformance suite, over the real log store and the real state machine.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use drover_fsm::FsmStateMachine;
use drover_keys::GroupId;
use drover_mvcc::StoreEnv;
use drover_raftlog::{GroupLog, LogOptions, NodeLog};
use drover_rafttypes::TypeConfig;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

struct Builder {
    env: StoreEnv,
}

/// Dropped after the stores: the log first, then the folder.
struct Guard(#[allow(dead_code, reason = "held for its drop")] (NodeLog, tempfile::TempDir));

impl StoreBuilder<TypeConfig, GroupLog, FsmStateMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, GroupLog, FsmStateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let log = NodeLog::open(&dir.path().join("log"), LogOptions::default()).unwrap();
        let (machine, _) = FsmStateMachine::open(self.env.clone(), &dir.path().join("group"), GroupId(3)).unwrap();
        let group = log.group(GroupId(3));
        Ok((Guard((log, dir)), group, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_store_and_state_machine_pass_openrafts_suite() {
    Suite::test_all(Builder { env: support::env() }).await.unwrap();
}
