//! The driver of a group's members: it does what the catalog says now, and whoever leads goes on.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use drover_catalog::{
    CatalogCommandKind, GroupDescriptor, NodeAddresses, Replica, ReplicaRole, ReplicaState, Topology,
};
use drover_keys::{GroupId, NodeId, ReplicaId};
use drover_kv::Error;
use drover_raftgroup::ReplicaPlan;
use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use support::cluster::{Cluster, patient};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const GROUP: GroupId = GroupId(2);

/// A catalog of one group, and what this node knows of it.
struct Plan {
    known: watch::Sender<Arc<Topology>>,
    wanted: watch::Sender<GroupDescriptor>,
    /// Whether what is known follows what is wanted.
    fresh: bool,
    asked: AtomicUsize,
}

impl Plan {
    fn new(wanted: GroupDescriptor, known: &GroupDescriptor, fresh: bool) -> Arc<Self> {
        let known = watch::Sender::new(Arc::new(topology(known)));
        Arc::new(Self { known, wanted: watch::Sender::new(wanted), fresh, asked: AtomicUsize::new(0) })
    }

    fn change(&self, change: impl FnOnce(&mut GroupDescriptor)) {
        self.wanted.send_modify(change);
        if self.fresh {
            self.known.send_replace(Arc::new(topology(&self.wanted.borrow())));
        }
    }

    /// Waits until the group has these replicas, all of them active.
    async fn settled(&self, nodes: &[u64]) {
        let nodes: BTreeSet<NodeId> = nodes.iter().copied().map(NodeId).collect();
        let is_so = |wanted: &GroupDescriptor| wanted.active() == nodes && wanted.replicas.len() == nodes.len();
        self.wanted.subscribe().wait_for(is_so).await.unwrap();
    }

    fn add(&self, node: u64) {
        self.change(|wanted| {
            let id = wanted.next_replica;
            wanted.next_replica = ReplicaId(id.0 + 1);
            let joining = Replica { id, role: ReplicaRole::Learner, state: ReplicaState::Joining };
            wanted.replicas.insert(NodeId(node), joining);
        });
    }

    fn remove(&self, node: u64) {
        self.change(|wanted| wanted.replicas.get_mut(&NodeId(node)).unwrap().state = ReplicaState::Leaving);
    }
}

impl ReplicaPlan for Plan {
    fn known(&self) -> watch::Receiver<Arc<Topology>> {
        self.known.subscribe()
    }

    fn wanted(&self, _deadline: Instant) -> BoxFuture<'_, Result<Option<GroupDescriptor>, Error>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let wanted = self.wanted.borrow().clone();
        async move { Ok(Some(wanted)) }.boxed()
    }

    fn tell(&self, kind: CatalogCommandKind, _deadline: Instant) -> BoxFuture<'_, Result<(), Error>> {
        match kind {
            CatalogCommandKind::PromoteReplica { node, replica: id, .. } => self.change(|wanted| {
                let active = Replica { id, role: ReplicaRole::Voter, state: ReplicaState::Active };
                wanted.replicas.insert(node, active);
            }),
            CatalogCommandKind::DropReplica { node, .. } => {
                self.change(|wanted| {
                    wanted.replicas.remove(&node);
                });
            }
            other => panic!("the driver said {other:?}"),
        }
        async { Ok(()) }.boxed()
    }
}

fn topology(group: &GroupDescriptor) -> Topology {
    let addresses = |n: u64| NodeAddresses { address: format!("127.0.0.1:{n}"), admin_address: String::new() };
    Topology {
        revision: 1,
        nodes: (1..=6).map(|n| (NodeId(n), addresses(n))).collect(),
        groups: [(GROUP, group.clone())].into(),
    }
}

fn descriptor<const N: usize>(nodes: [u64; N]) -> GroupDescriptor {
    GroupDescriptor::new(GROUP, &nodes.map(NodeId).into())
}

fn drive(
    cluster: &Cluster,
    ids: &[u64],
    plan: &Arc<Plan>,
    stop: &CancellationToken,
) -> Vec<tokio::task::JoinHandle<()>> {
    let drive = |id: &u64| {
        let plan: Arc<dyn ReplicaPlan> = Arc::<Plan>::clone(plan);
        tokio::spawn(Arc::clone(cluster.group(*id)).drive_membership(plan, stop.clone()))
    };
    ids.iter().map(drive).collect()
}

fn voters(cluster: &Cluster, id: u64) -> Vec<u64> {
    cluster.group(id).raft().metrics().borrow_watched().membership_config.membership().voter_ids().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_become_what_the_catalog_wants_and_a_leader_that_leaves_hands_over_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::found(dir.path(), 3, patient()).await;
    let [leader, other, third] = cluster.roles();
    cluster.put(leader, "k", "v").await.unwrap();
    let mut ids = vec![leader, other, third];
    for id in [4, 5] {
        cluster.start(id).await;
        ids.push(id);
    }
    let plan = Plan::new(descriptor([1, 2, 3]), &descriptor([1, 2, 3]), true);
    let stop = CancellationToken::new();
    let drivers = drive(&cluster, &ids, &plan, &stop);
    plan.add(4);
    plan.settled(&[1, 2, 3, 4]).await;
    plan.add(5);
    plan.settled(&[1, 2, 3, 4, 5]).await;
    assert_eq!(voters(&cluster, leader), [1, 2, 3, 4, 5]);
    assert!(cluster.snapshots() >= 2, "a new replica does not replay the log from its beginning");
    cluster.caught_up(leader).await;

    plan.remove(leader);
    let mut left: Vec<u64> = ids.iter().copied().filter(|id| *id != leader).collect();
    left.sort_unstable();
    plan.settled(&left).await;
    let next = cluster.written_by_leader(&left, "k", "w").await;
    assert_eq!(voters(&cluster, next), left);
    assert_eq!(cluster.get(next, "k", Duration::from_secs(5)).await.unwrap().as_deref(), Some("w"));
    // One that was dropped takes no part: it neither leads nor disturbs those that go on.
    assert!(!cluster.group(leader).is_leader());
    stop.cancel();
    futures::future::join_all(drivers).await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h25_a_leader_that_knows_an_old_catalog_does_what_the_present_one_says() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::found(dir.path(), 3, patient()).await;
    let [leader, ..] = cluster.roles();
    // From before replica 3 came: to whoever believes it, that is a stray.
    let plan = Plan::new(descriptor([1, 2, 3]), &descriptor([1, 2]), false);
    let stop = CancellationToken::new();
    let drivers = drive(&cluster, &[1, 2, 3], &plan, &stop);
    while plan.asked.load(Ordering::Relaxed) < 3 && voters(&cluster, leader).len() == 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(voters(&cluster, leader), [1, 2, 3]);
    stop.cancel();
    futures::future::join_all(drivers).await;
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_that_hears_nothing_does_not_vote_and_one_that_is_called_off_goes() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::found(dir.path(), 3, patient()).await;
    let [leader, ..] = cluster.roles();
    let plan = Plan::new(descriptor([1, 2, 3]), &descriptor([1, 2, 3]), true);
    let stop = CancellationToken::new();
    let drivers = drive(&cluster, &[1, 2, 3], &plan, &stop);
    // There is nobody at node 4.
    plan.add(4);
    let learners = |cluster: &Cluster| -> Vec<u64> {
        let metrics = cluster.group(leader).raft().metrics().borrow_watched().clone();
        metrics.membership_config.membership().learner_ids().collect()
    };
    while learners(&cluster) != [4] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It has looked at the learner a few times, and the group goes on.
    let asked = plan.asked.load(Ordering::Relaxed);
    while plan.asked.load(Ordering::Relaxed) < asked + 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    cluster.put(leader, "k", "v").await.unwrap();
    assert_eq!(voters(&cluster, leader), [1, 2, 3]);
    plan.remove(4);
    plan.settled(&[1, 2, 3]).await;
    assert_eq!(learners(&cluster), [0; 0]);
    stop.cancel();
    futures::future::join_all(drivers).await;
    cluster.close().await;
}
