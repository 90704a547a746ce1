//! Real Rafts that reach each other through nothing but this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_rafttypes::Node;
use drover_rafttypes::{CommandBytes, TypeConfig};
use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::VoteRequest;
use openraft::{Config, Raft, SnapshotPolicy};

use crate::endpoint::leader_vote;
use crate::memory::{MemoryLog, MemoryMachine};
use crate::node::{GROUP, REPLICA, TestNode, eventually};

struct Replica {
    node: TestNode,
    raft: Raft<TypeConfig, MemoryMachine>,
    machine: MemoryMachine,
}

impl Replica {
    async fn start(id: u64) -> Self {
        let node = TestNode::start(id).await;
        let config = Config {
            heartbeat_interval: 100,
            election_timeout_min: 500,
            election_timeout_max: 1_000,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: 0,
            replication_lag_threshold: 10,
            ..Config::default()
        };
        let config = Arc::new(config.validate().unwrap());
        let machine = MemoryMachine::new(node.dir.path().to_owned());
        let network = node.pool.raft_network(GROUP);
        let raft = Raft::new(id, config, network, MemoryLog::default(), machine.clone()).await.unwrap();
        node.set_group(GROUP, Arc::new(raft.clone()));
        Self { node, raft, machine }
    }

    fn leader(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().current_leader
    }

    /// Whether a quorum has answered it as leader. Until then openraft takes no writes: it has no lease yet.
    fn is_acknowledged(&self) -> bool {
        self.raft.metrics().borrow_watched().last_quorum_acked.is_some()
    }

    fn term(&self) -> u64 {
        self.raft.metrics().borrow_watched().current_term
    }

    async fn write(&self, command: String) {
        self.raft.client_write(CommandBytes(command.into())).await.unwrap();
    }
}

/// A group of three; the first one leads.
async fn group() -> Vec<Replica> {
    let replicas = vec![Replica::start(1).await, Replica::start(2).await, Replica::start(3).await];
    for replica in &replicas {
        for other in &replicas {
            replica.node.pool.set_address(other.node.id, &other.node.address);
        }
    }
    let member = |replica: &Replica| (replica.node.id.0, Node::new(&replica.node.address, REPLICA));
    let members: BTreeMap<u64, Node> = replicas.iter().map(member).collect();
    replicas[0].raft.initialize(members).await.unwrap();
    eventually("all follow one leader", || {
        let leader = replicas[0].leader();
        leader.is_some() && replicas.iter().all(|replica| replica.leader() == leader)
    })
    .await;
    eventually("it may write", || leader_of(&replicas).is_acknowledged()).await;
    replicas
}

fn leader_of(replicas: &[Replica]) -> &Replica {
    let leader = replicas.iter().find_map(Replica::leader).unwrap();
    replicas.iter().find(|replica| replica.node.id.0 == leader).unwrap()
}

fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("command {n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_elect_a_leader_and_apply_the_same_commands() {
    let replicas = group().await;
    let leader = leader_of(&replicas);
    join_all(numbered(0..2_000).into_iter().map(|command| leader.write(command))).await;
    eventually("all have applied all", || replicas.iter().all(|r| r.machine.commands().len() == 2_000)).await;
    let applied = leader.machine.commands();
    assert!(replicas.iter().all(|replica| replica.machine.commands() == applied));
    let mut sorted: Vec<Bytes> = applied;
    sorted.sort();
    let mut expect: Vec<Bytes> = numbered(0..2_000).into_iter().map(Bytes::from).collect();
    expect.sort();
    assert_eq!(sorted, expect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_to_the_node_it_is_handed_to() {
    let replicas = group().await;
    for _ in 0..3 {
        let from = leader_of(&replicas);
        let to = replicas.iter().find(|replica| replica.node.id != from.node.id).unwrap().node.id.0;
        let term = from.term();
        from.raft.trigger().transfer_leader(to).await.unwrap();
        eventually("all follow the new leader", || replicas.iter().all(|replica| replica.leader() == Some(to))).await;
        assert_eq!(leader_of(&replicas).term(), term + 1, "it was handed over, not lost and won");
        eventually("it may write", || leader_of(&replicas).is_acknowledged()).await;
        leader_of(&replicas).write("after".into()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_a_living_leader_grants_no_pre_vote_and_keeps_its_term() {
    let replicas = group().await;
    let leader = leader_of(&replicas);
    leader.write("one".into()).await;
    let follower = replicas.iter().find(|replica| replica.node.id != leader.node.id).unwrap();
    let term = follower.term();
    let to = Node::new(&follower.node.address, REPLICA);
    let mut network = leader.node.pool.raft_network(GROUP).new_client(follower.node.id.0, &to).await;
    let mut candidate = leader_vote(term + 1);
    candidate.committed = false;
    let option = RPCOption::new(Duration::from_secs(30));
    let answer = network.pre_vote(VoteRequest::new(candidate, None), option).await.unwrap();
    assert!(!answer.vote_granted);
    assert_eq!(follower.term(), term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_keeps_its_term_and_catches_up_when_it_is_back() {
    let replicas = group().await;
    let leader = leader_of(&replicas);
    let lonely = replicas.iter().find(|replica| replica.node.id != leader.node.id).unwrap();
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let others = || replicas.iter().filter(|replica| replica.node.id != lonely.node.id);
    for other in others() {
        other.node.pool.set_address(lonely.node.id, &nowhere);
        lonely.node.pool.set_address(other.node.id, &nowhere);
    }
    let failures = || others().map(|other| lonely.node.stats_of(other.node.id).calls_not_sent).sum::<u64>();
    let before = failures();
    eventually("it has asked for votes several times", || failures() >= before + 6).await;
    assert_eq!(lonely.term(), leader.term(), "pre-votes that reach nobody raise no term");
    join_all(numbered(0..100).into_iter().map(|command| leader.write(command))).await;
    for other in others() {
        other.node.pool.set_address(lonely.node.id, &lonely.node.address);
        lonely.node.pool.set_address(other.node.id, &other.node.address);
    }
    eventually("it has caught up", || lonely.machine.commands() == leader.machine.commands()).await;
    assert_eq!(leader.leader(), Some(leader.node.id.0), "and has not disturbed the leader");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_gets_a_snapshot_when_the_log_is_gone() {
    let replicas = group().await;
    let leader = leader_of(&replicas);
    join_all(numbered(0..200).into_iter().map(|command| leader.write(command))).await;
    leader.raft.trigger().snapshot().await.unwrap();
    let purged = || leader.raft.metrics().borrow_watched().purged;
    eventually("the log is purged", || purged().is_some_and(|purged| purged.index >= 200)).await;

    let late = Replica::start(4).await;
    late.node.pool.set_address(leader.node.id, &leader.node.address);
    leader.raft.add_learner(4, Node::new(&late.node.address, REPLICA), true).await.unwrap();
    eventually("it has it all", || late.machine.commands() == leader.machine.commands()).await;
    assert!(leader.node.stats_of(late.node.id).snapshots_sent >= 1);
    leader.write("after".into()).await;
    eventually("and goes on", || late.machine.commands().len() == 201).await;
}
