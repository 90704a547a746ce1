//! The replicas of a node: opened, started, watched, handed over and stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::CatalogCommand;
use drover_coordinator::{Coordinator, GroupDirectory, Replica};
use drover_fsm::FsmStateMachine;
use drover_keys::{GroupId, NodeId};
use drover_mvcc::{StoreEnv, StoreEnvOptions};
use drover_oracle::{Oracle, OracleClient, OracleOptions};
use drover_raftgroup::{Group, GroupOptions, GroupParts, SharedTimestamps};
use drover_raftlog::{GroupLog, NodeLog};
use drover_rafttypes::Node;
use drover_transport::PeerPool;
use openraft::async_runtime::WatchReceiver;
use tokio_util::sync::CancellationToken;

use super::endpoint::GuardedRaft;
use super::peers::PeerService;
use super::{NodeError, SystemClock, catalog, millis};
use crate::config::{BootstrapGroup, Config};
use crate::datadir::DataDir;
use crate::disk::DiskState;

/// What a replica is opened with.
struct Plan {
    group: GroupId,
    dir: std::path::PathBuf,
    log: GroupLog,
    voters: BTreeMap<u64, Node>,
    /// Whether this node is the one that makes the group exist.
    founder: bool,
}

/// What the replicas of a node share with its other parts.
pub struct ReplicaParts {
    /// Serves the peers of this node.
    pub service: Arc<PeerService>,
    /// Where replicas are made known.
    pub directory: Arc<GroupDirectory>,
    /// The other nodes.
    pub peers: Arc<PeerPool>,
    /// What the node knows of the routes, and how it asks the catalog.
    pub coordinator: Arc<Coordinator>,
    /// Where timestamps come from.
    pub time: TimeParts,
}

/// Where timestamps come from.
pub struct TimeParts {
    /// Is told of the oracle here.
    pub oracle: Arc<OracleClient>,
    /// Is asked by the groups.
    pub timestamps: SharedTimestamps,
}

/// The replicas of a node.
pub struct Replicas {
    node: NodeId,
    env: StoreEnv,
    options: GroupOptions,
    oracle: OracleOptions,
    service: Arc<PeerService>,
    directory: Arc<GroupDirectory>,
    peers: Arc<PeerPool>,
    time: TimeParts,
    coordinator: Arc<Coordinator>,
    creation: CatalogCommand,
    disk: tokio::sync::watch::Receiver<DiskState>,
    plans: parking_lot::Mutex<Vec<Plan>>,
}

impl Replicas {
    /// The replicas that the configuration gives to this node. None is opened yet.
    ///
    /// # Errors
    /// If the memory and threads they share cannot be had.
    pub fn new(config: &Config, data: &DataDir, parts: ReplicaParts, log: &NodeLog) -> Result<Self, NodeError> {
        let ReplicaParts { service, directory, peers, coordinator, time } = parts;
        let storage = &config.storage;
        let env = StoreEnv::new(StoreEnvOptions {
            block_cache_bytes: usize::try_from(storage.block_cache_bytes.0).unwrap_or(usize::MAX),
            write_buffer_bytes: usize::try_from(storage.write_buffer_bytes.0).unwrap_or(usize::MAX),
            background_threads: u32::try_from(storage.background_threads).unwrap_or(u32::MAX),
            max_open_files: u32::try_from(storage.max_open_files).unwrap_or(u32::MAX),
        })?;
        let plans = config.bootstrap.groups_of(config.node.id).map(|group| plan(config, data, group, log)).collect();
        Ok(Self {
            node: config.node.id,
            env,
            options: group_options(config),
            oracle: OracleOptions {
                ceiling_ahead_ms: millis(config.oracle.ceiling_ahead),
                max_clock_step_ms: millis(config.oracle.max_clock_step),
                renew_interval: config.oracle.ceiling_renew,
            },
            disk: service.disk(),
            service,
            directory,
            peers,
            time,
            coordinator,
            creation: catalog::creation(config)?,
            plans: parking_lot::Mutex::new(plans),
        })
    }

    /// Opens every replica and lets it take part in its group. One that cannot be opened is reported and left out; the
    /// others go on.
    pub async fn start(self: &Arc<Self>, stop: &CancellationToken) {
        let plans = std::mem::take(&mut *self.plans.lock());
        let opened = plans.into_iter().map(|plan| {
            let (replicas, stop) = (Arc::clone(self), stop.clone());
            async move {
                let group = plan.group;
                if let Err(why) = replicas.open(plan, stop).await {
                    tracing::error!(%group, %why, "the replica cannot be opened and stays out of its group");
                    replicas.directory.set(group, Replica::Stopped(why));
                }
            }
        });
        futures::future::join_all(opened).await;
    }

    async fn open(self: &Arc<Self>, plan: Plan, stop: CancellationToken) -> Result<(), String> {
        let (env, dir, id) = (self.env.clone(), plan.dir.clone(), plan.group);
        let (state_machine, fsm) = tokio::task::spawn_blocking(move || FsmStateMachine::open(env, &dir, id))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        let group = Group::open(GroupParts {
            group: id,
            node: self.node,
            log: plan.log,
            state_machine,
            fsm,
            network: self.peers.raft_network(id),
            timestamps: Arc::clone(&self.time.timestamps),
            options: self.options.clone(),
        })
        .await
        .map_err(|error| error.to_string())?;
        tokio::spawn(Arc::clone(self).take_part(group, plan.voters, plan.founder, stop));
        Ok(())
    }

    async fn take_part(
        self: Arc<Self>,
        group: Arc<Group>,
        voters: BTreeMap<u64, Node>,
        founder: bool,
        stop: CancellationToken,
    ) {
        let id = group.id();
        if id == GroupId::DEFAULT {
            let (catalog, routes, directory) =
                (group.fsm().catalog(), Arc::clone(self.coordinator.routes()), Arc::clone(&self.directory));
            tokio::spawn(catalog::follow_replica(catalog, routes, directory, stop.clone()));
        }
        group.run().await;
        self.service.deliver(id, Arc::new(GuardedRaft::new(Arc::clone(&group), self.disk.clone())));
        self.directory.set(id, Replica::Running(Arc::clone(&group)));
        if id == GroupId::DEFAULT {
            let oracle = Oracle::new(Arc::clone(&group), Arc::new(SystemClock), self.oracle.clone());
            self.service.attach(Arc::clone(&oracle));
            self.time.oracle.attach(Arc::clone(&oracle));
            tokio::spawn(oracle.run(stop.clone()));
            tokio::spawn(catalog::create(Arc::clone(&group), self.creation.clone(), stop.clone()));
        }
        if founder
            && !group.has_history()
            && let Err(error) = group.initialize(voters).await
        {
            tracing::error!(group = %id, %error, "the group cannot be founded");
        }
        let grants = catalog::founding_grants(id, Arc::clone(&self.coordinator));
        tokio::spawn(Arc::clone(&group).run_duties(grants, stop.clone()));
        self.watch(&group, &stop).await;
    }

    /// Notices when Raft stops by itself because the log or apply failed, and when a read finds the store damaged: the
    /// replica stops, the others go on.
    async fn watch(&self, group: &Arc<Group>, stop: &CancellationToken) {
        let mut metrics = group.raft().metrics();
        let mut store = group.fsm().failure();
        loop {
            let running = metrics.borrow_watched().running_state.clone();
            let why = match running {
                Ok(()) => tokio::select! {
                    () = stop.cancelled() => return,
                    changed = metrics.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => "its Raft task ended".to_owned(),
                    },
                    failed = store.wait_for(Option::is_some) => match failed.as_deref() {
                        Ok(Some(why)) => why.clone(),
                        Ok(None) | Err(_) => "its state machine ended".to_owned(),
                    },
                },
                Err(error) => error.to_string(),
            };
            if !stop.is_cancelled() {
                tracing::error!(group = %group.id(), %why, "the replica has stopped");
                self.service.withdraw(group.id());
                self.directory.set(group.id(), Replica::Stopped(why));
                group.shutdown().await;
            }
            return;
        }
    }

    /// Hands the leadership of every group that this node leads to the follower that is least behind.
    pub async fn hand_over(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let led: Vec<_> = self
            .directory
            .replicas()
            .into_iter()
            .filter_map(|(_, replica)| match replica {
                Replica::Running(group) if group.is_leader() => Some(group),
                Replica::Running(_) | Replica::Starting | Replica::Stopped(_) => None,
            })
            .collect();
        let handed = led.iter().map(|group| async move {
            let Some(to) = self.successor(group) else { return };
            match group.transfer_leader(to, deadline).await {
                Ok(_) => tracing::info!(group = %group.id(), %to, "leadership handed over"),
                Err(error) => tracing::info!(group = %group.id(), %to, %error, "leadership was not handed over"),
            }
        });
        futures::future::join_all(handed).await;
    }

    fn successor(&self, group: &Group) -> Option<NodeId> {
        let metrics = group.raft().metrics().borrow_watched().clone();
        let voters: Vec<u64> = metrics.membership_config.membership().voter_ids().collect();
        let progress = metrics.replication?;
        progress
            .into_iter()
            .filter(|(node, _)| *node != self.node.0 && voters.contains(node) && self.peers.is_connected(NodeId(*node)))
            .max_by_key(|(_, matched)| matched.map(|log_id| log_id.index))
            .map(|(node, _)| NodeId(node))
    }

    /// Stops every replica and makes its state durable, so that the next start replays little.
    pub async fn stop(&self) {
        let stopped = self.directory.replicas().into_iter().map(|(id, replica)| async move {
            if let Replica::Running(group) = replica {
                self.service.withdraw(id);
                group.shutdown().await;
                if let Err(error) = group.fsm().flush().await {
                    tracing::warn!(group = %id, %error, "the replica's state was not flushed; the next start replays the log");
                }
            }
        });
        futures::future::join_all(stopped).await;
    }
}

fn plan(config: &Config, data: &DataDir, group: &BootstrapGroup, log: &NodeLog) -> Plan {
    let address = |node: &NodeId| {
        let known = config.bootstrap.node(*node).map(|node| node.grpc.as_str().to_owned());
        (node.0, Node::new(known.unwrap_or_default()))
    };
    Plan {
        group: group.id,
        dir: data.group(group.id),
        log: log.group(group.id),
        voters: group.replicas.iter().map(address).collect(),
        founder: group.replicas.iter().min() == Some(&config.node.id),
    }
}

fn group_options(config: &Config) -> GroupOptions {
    let raft = &config.raft;
    GroupOptions {
        heartbeat_ms: millis(raft.heartbeat),
        election_min_ms: millis(raft.election_min),
        election_max_ms: millis(raft.election_max),
        lease_margin_ms: millis(raft.lease_margin),
        max_inflight_bytes: u32::try_from(raft.max_inflight_bytes.0).unwrap_or(u32::MAX),
        flush_interval: config.storage.flush_interval,
        flush_entries: raft.snapshot_entries,
        log_keep_entries: raft.log_retention_entries,
        purge_batch_entries: raft.purge_batch_entries,
        retention: config.storage.gc_retention,
        ..GroupOptions::default()
    }
}
