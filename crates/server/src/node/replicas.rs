//! The replicas of a node: opened, started, watched, handed over, stopped and removed.
//!
//! Which ones there are is said by the file of replicas, written first of all from the configuration, and changed since as
//! the catalog says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::{CatalogCommand, Holding, HostingStep, Topology, hosting_steps};
use drover_coordinator::{Coordinator, GroupDirectory, Replica};
use drover_fsm::{FsmStateMachine, ValidationLimits};
use drover_guards::{Place, crash_point};
use drover_hlc::WallClock;
use drover_keys::{GroupId, NodeId, ReplicaId};
use drover_migrator::{Cluster, ClusterParts, Migrator, MigratorOptions};
use drover_mvcc::{StoreEnv, StoreEnvOptions};
use drover_oracle::{Oracle, OracleClient, OracleOptions};
use drover_raftgroup::{ClockLead, Group, GroupOptions, GroupParts, ReplicaPlan, SharedTimestamps};
use drover_raftlog::NodeLog;
use drover_rafttypes::Node;
use drover_seams::blocking;
use drover_transport::{NodeService, PeerPool};
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::catalog::Followed;
use super::endpoint::{Door, GuardedRaft};
use super::membership::CatalogPlan;
use super::peers::PeerService;
use super::{NodeError, catalog, millis};
use crate::config::{BootstrapGroup, Config};
use crate::datadir::{DataDir, RecordState, ReplicaRecord, ReplicaRecords};
use crate::disk::DiskState;

/// What the replicas of a node share with its other parts.
pub struct ReplicaParts {
    /// Where they are stored.
    pub data: Arc<DataDir>,
    /// Which there are.
    pub records: Arc<ReplicaRecords>,
    /// The Raft log of all of them.
    pub log: Arc<NodeLog>,
    /// Serves the peers of this node.
    pub service: Arc<PeerService>,
    /// Where replicas are made known.
    pub directory: Arc<GroupDirectory>,
    /// The other nodes.
    pub peers: Arc<PeerPool>,
    /// How the node asks the catalog.
    pub coordinator: Arc<Coordinator>,
    /// What the node knows of the catalog.
    pub followed: Followed,
    /// Whether the catalog has taken this directory for the node's.
    pub registered: tokio::sync::watch::Receiver<bool>,
    /// Where timestamps come from.
    pub time: TimeParts,
    /// Whether the stores do nothing by themselves.
    pub stores_in_step: bool,
}

/// Where timestamps come from.
pub struct TimeParts {
    /// Is told of the oracle here.
    pub oracle: Arc<OracleClient>,
    /// Is asked by the groups.
    pub timestamps: SharedTimestamps,
    /// The wall clock.
    pub wall: Arc<dyn WallClock>,
    /// Tells suspensions of the machine.
    pub clock_lead: ClockLead,
}

/// A replica that was opened, and how to end it.
struct Opened {
    stop: CancellationToken,
    door: Door,
    tasks: JoinHandle<()>,
}

/// The replicas of a node.
pub struct Replicas {
    node: NodeId,
    env: StoreEnv,
    options: GroupOptions,
    oracle: OracleOptions,
    migrator: MigratorOptions,
    parts: ReplicaParts,
    /// What creates the catalog, on a node that the cluster is created with.
    creation: Option<CatalogCommand>,
    /// The voters of groups that the cluster is created with.
    founders: BTreeMap<GroupId, BTreeMap<u64, Node>>,
    /// Where other nodes may be.
    seeds: Vec<String>,
    disk: tokio::sync::watch::Receiver<DiskState>,
    opened: Mutex<BTreeMap<GroupId, Opened>>,
}

/// To whom a leadership may be handed over.
#[derive(Debug, Clone, Copy)]
pub enum Successors<'a> {
    /// To these nodes, which are not being stopped.
    Staying(&'a BTreeSet<NodeId>),
    /// To these nodes, which have space, if they are a majority: otherwise the new leader would take writes until the
    /// others take no entries any more, and then could not even serve reads.
    WithSpace(&'a BTreeSet<NodeId>),
}

impl Successors<'_> {
    fn among(self, me: NodeId, voters: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let others = voters.iter().copied().filter(|node| *node != me);
        match self {
            Successors::Staying(staying) => others.filter(|node| staying.contains(node)).collect(),
            Successors::WithSpace(roomy) => {
                let roomy: BTreeSet<NodeId> = others.filter(|node| roomy.contains(node)).collect();
                if roomy.len() > voters.len() / 2 { roomy } else { BTreeSet::new() }
            }
        }
    }
}

/// How long a replica that is removed may take to let go of its store, before the next attempt. Other changes wait meanwhile.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is looked whether it has.
const CLOSE_POLL: Duration = Duration::from_millis(10);
/// How long the sole voter of a new group waits for peers that know its node by another directory. They try to connect at
/// least every second.
const OBJECTIONS: Duration = Duration::from_millis(1_500);
/// Pause after something that could not be done about a replica.
const PAUSE: Duration = Duration::from_secs(1);

/// The replicas that a new cluster has on this node.
pub fn founding(config: &Config) -> impl Iterator<Item = (GroupId, ReplicaId)> {
    let node = config.node.id;
    config.bootstrap.groups.iter().filter_map(move |group| {
        let voters = group.replicas.iter().copied().collect();
        let created = drover_catalog::GroupDescriptor::new(group.id, &voters);
        created.replicas.get(&node).map(|replica| (group.id, replica.id))
    })
}

impl Replicas {
    /// The replicas of this node. None is opened yet.
    ///
    /// # Errors
    /// If the memory and threads they share cannot be had.
    pub fn new(config: &Config, seeds: Vec<String>, parts: ReplicaParts) -> Result<Self, NodeError> {
        let storage = &config.storage;
        let env = StoreEnv::new(StoreEnvOptions {
            block_cache_bytes: usize::try_from(storage.block_cache_bytes.0).unwrap_or(usize::MAX),
            write_buffer_bytes: usize::try_from(storage.write_buffer_bytes.0).unwrap_or(usize::MAX),
            background_threads: u32::try_from(storage.background_threads).unwrap_or(u32::MAX),
            max_open_files: u32::try_from(storage.max_open_files).unwrap_or(u32::MAX),
            in_step: parts.stores_in_step,
        })?;
        let joins = config.bootstrap.groups.is_empty();
        Ok(Self {
            node: config.node.id,
            env,
            options: group_options(config),
            oracle: OracleOptions {
                ceiling_ahead_ms: millis(config.oracle.ceiling_ahead),
                max_clock_step_ms: millis(config.oracle.max_clock_step),
                renew_interval: config.oracle.ceiling_renew,
            },
            migrator: config.migrator_options(),
            disk: parts.service.disk(),
            parts,
            creation: if joins { None } else { Some(catalog::creation(config)?) },
            founders: config.bootstrap.groups.iter().map(|group| (group.id, voters(config, group))).collect(),
            seeds,
            opened: Mutex::default(),
        })
    }

    /// Opens every replica and lets it take part in its group. One that cannot be opened is reported and left out; the
    /// others go on. What an interrupted removal has left is removed first.
    pub async fn start(self: &Arc<Self>, stop: &CancellationToken) {
        let opened = self.parts.records.all().into_iter().map(|(group, record)| async move {
            match record.state {
                RecordState::Removing => {
                    if let Err(why) = self.remove(group, record.id).await {
                        tracing::error!(%group, %why, "what is left of a replica was not removed yet");
                    }
                }
                // What went wrong was said, and is shown.
                RecordState::Founding | RecordState::Held => drop(self.open(group, record, stop).await),
                RecordState::Gone => {}
            }
        });
        futures::future::join_all(opened).await;
    }

    async fn open(
        self: &Arc<Self>,
        group: GroupId,
        record: ReplicaRecord,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        self.parts.directory.set(group, Replica::Starting);
        let stop = stop.child_token();
        match self.try_open(group).await {
            Ok(running) => {
                let door = Door::new(stop.clone());
                let tasks = tokio::spawn(Arc::clone(self).take_part(running, record, stop.clone(), door.clone()));
                self.opened.lock().insert(group, Opened { stop, door, tasks });
                Ok(())
            }
            Err(why) => {
                tracing::error!(%group, %why, "the replica cannot be opened and stays out of its group");
                self.parts.directory.set(group, Replica::Stopped(why.clone()));
                Err(why)
            }
        }
    }

    async fn try_open(&self, id: GroupId) -> Result<Arc<Group>, String> {
        let (env, dir) = (self.env.clone(), self.parts.data.group(id));
        let (state_machine, fsm) = blocking::aside(move || FsmStateMachine::open(env, &dir, id))
            .await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())?;
        Group::open(GroupParts {
            group: id,
            node: self.node,
            log: self.parts.log.group(id),
            state_machine,
            fsm,
            network: self.parts.peers.raft_network(id),
            timestamps: Arc::clone(&self.parts.time.timestamps),
            clock_lead: Arc::clone(&self.parts.time.clock_lead),
            options: self.options.clone(),
        })
        .await
        .map_err(|error| error.to_string())
    }

    /// Lets a replica take part in its group until `stop`, or until it fails.
    async fn take_part(self: Arc<Self>, group: Arc<Group>, record: ReplicaRecord, stop: CancellationToken, door: Door) {
        let id = group.id();
        let mut tasks = tokio::task::JoinSet::new();
        if id == GroupId::DEFAULT {
            let followed = self.parts.followed.clone();
            tasks.spawn(catalog::follow_replica(Arc::clone(&group), self.node, followed, stop.clone()));
        }
        group.run().await;
        if stop.is_cancelled() {
            group.shutdown().await;
            drop(group);
            while tasks.join_next().await.is_some() {}
            return;
        }
        let endpoint = Arc::new(GuardedRaft::new(Arc::clone(&group), self.disk.clone(), door));
        self.parts.service.deliver(id, record.id, endpoint);
        self.parts.directory.set(id, Replica::Running(Arc::clone(&group)));
        if id == GroupId::DEFAULT {
            let oracle = Oracle::new(Arc::clone(&group), Arc::clone(&self.parts.time.wall), self.oracle.clone());
            self.parts.service.set_oracle(Some(Arc::clone(&oracle)));
            self.parts.time.oracle.attach(&oracle);
            tasks.spawn(oracle.run(stop.clone()));
            let cluster = Cluster::new(ClusterParts {
                node: self.node,
                coordinator: Arc::clone(&self.parts.coordinator),
                peers: Arc::clone(&self.parts.peers),
                here: Arc::clone(&self.parts.service) as Arc<dyn NodeService>,
            });
            let migrator = Migrator::new(cluster, self.migrator.clone());
            tasks.spawn(migrator.run(Arc::clone(&group), stop.clone()));
            if let Some(creation) = &self.creation {
                tasks.spawn(catalog::create(Arc::clone(&group), creation.clone(), stop.clone()));
            }
        }
        if let Some(voters) = self.founders.get(&id)
            && record.state == RecordState::Founding
            && voters.keys().next() == Some(&self.node.0)
            && !group.has_history()
        {
            tasks.spawn(Arc::clone(&self).found(Arc::clone(&group), record.id, voters.clone(), stop.clone()));
        }
        let grants = catalog::founding_grants(id, Arc::clone(&self.parts.coordinator));
        tasks.spawn(Arc::clone(&group).run_duties(grants, stop.clone()));
        let plan = CatalogPlan::new(id, self.node, Arc::clone(&self.parts.coordinator), &self.parts.followed.topology);
        let plan: Arc<dyn ReplicaPlan> = Arc::new(plan);
        tasks.spawn(Arc::clone(&group).drive_membership(plan, stop.clone()));
        self.watch(&group, &stop).await;
        drop(group);
        while tasks.join_next().await.is_some() {}
    }

    /// Makes a group exist. If the cluster exists already, this node may only be late, or its directory may be an empty one in
    /// the place of another: then the catalog has to take the directory for the node's, and to list the replica.
    async fn found(
        self: Arc<Self>,
        group: Arc<Group>,
        replica: ReplicaId,
        voters: BTreeMap<u64, Node>,
        stop: CancellationToken,
    ) {
        let id = group.id();
        let may_found = async {
            if voters.len() == 1 {
                // Nobody has to agree, so nobody would object: peers that know another directory get the time to say so.
                tokio::time::sleep(OBJECTIONS).await;
            }
            let followed = &self.parts.followed;
            if !catalog::exists_elsewhere(&self.seeds, followed.cluster).await {
                return true;
            }
            let (mut registered, mut topology) = (self.parts.registered.clone(), followed.topology.subscribe());
            if registered.wait_for(|registered| *registered).await.is_err() {
                return false;
            }
            let listed = |topology: &Topology| {
                let mine = topology.groups.get(&id).and_then(|group| group.replicas.get(&self.node));
                mine.is_some_and(|mine| mine.id == replica)
            };
            topology.wait_for(|topology| topology.revision > 0).await.is_ok_and(|topology| listed(&topology))
        };
        tokio::select! {
            () = stop.cancelled() => {}
            may = may_found => match may {
                true => {
                    if let Err(error) = group.initialize(voters).await {
                        tracing::error!(group = %id, %error, "the group cannot be founded");
                    }
                }
                false => tracing::error!(group = %id, "the catalog does not know this group here; it is not founded"),
            }
        }
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
                // Of a state machine that has stopped, Raft may know no more than that it has.
                Err(error) => store.borrow().clone().unwrap_or_else(|| error.to_string()),
            };
            if !stop.is_cancelled() {
                tracing::error!(group = %group.id(), %why, "the replica has stopped");
                self.parts.service.withdraw(group.id());
                self.parts.directory.set(group.id(), Replica::Stopped(why));
                group.shutdown().await;
                // Its helpers have nothing left to do.
                stop.cancel();
            }
            return;
        }
    }

    /// Does what the catalog says about the replicas of this node, as it changes, until `stop`.
    pub async fn host(self: Arc<Self>, stop: CancellationToken) {
        let mut topology = self.parts.followed.topology.subscribe();
        loop {
            let seen = Arc::clone(&topology.borrow_and_update());
            let done = self.follow(&seen, &stop).await;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = topology.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PAUSE), if !done => {}
            }
        }
    }

    /// Whether nothing is left to be done.
    async fn follow(self: &Arc<Self>, topology: &Topology, stop: &CancellationToken) -> bool {
        let holding = |(group, record): (GroupId, ReplicaRecord)| match record.state {
            RecordState::Gone => (group, Holding::Gone(record.id)),
            RecordState::Founding | RecordState::Held | RecordState::Removing => (group, Holding::Held(record.id)),
        };
        let have = self.parts.records.all().into_iter().map(holding).collect();
        // Each is about a group of its own.
        let steps = hosting_steps(self.node, &have, topology);
        let taken = futures::future::join_all(steps.into_iter().map(|step| self.take(step, stop))).await;
        self.forget_stopped(topology);
        taken.into_iter().all(|done| done)
    }

    /// Takes one step. Whether nothing is left to be done about the group.
    async fn take(self: &Arc<Self>, step: HostingStep, stop: &CancellationToken) -> bool {
        match step {
            HostingStep::Open { group, replica } => {
                tracing::info!(%group, %replica, "a replica of a group comes here");
                let opened = self.add(group, replica, stop).await;
                opened.inspect_err(|why| tracing::error!(%group, %why, "it did not come; this is tried again")).is_ok()
            }
            HostingStep::Destroy { group, replica } => {
                tracing::info!(%group, %replica, "the group goes on without the replica here, which is removed");
                let removed = self.remove(group, replica).await;
                if let Err(why) = removed {
                    tracing::warn!(%group, %why, "it is not removed yet");
                }
                // Another one may be wanted in its place.
                false
            }
            HostingStep::Lost { group, replica } => {
                let why = format!(
                    "replica {replica} of group {group} shall be here and its data is gone; remove it \
                     (drover group remove-replica {group} {}) and add it again",
                    self.node
                );
                if self.parts.directory.replica(group).is_none() {
                    tracing::error!(%group, %why, "a replica is lost");
                    self.parts.directory.set(group, Replica::Stopped(why));
                }
                true
            }
        }
    }

    /// A replica of which there is neither data nor record is no longer told of once the catalog does not want it here.
    fn forget_stopped(&self, topology: &Topology) {
        let records = self.parts.records.here();
        for (id, replica) in self.parts.directory.replicas() {
            let listed = topology.groups.get(&id).is_some_and(|group| group.replicas.contains_key(&self.node));
            if matches!(replica, Replica::Stopped(_)) && !records.contains_key(&id) && !listed {
                self.parts.directory.remove(id);
            }
        }
    }

    /// Opens a new replica, with nothing in it.
    async fn add(self: &Arc<Self>, group: GroupId, id: ReplicaId, stop: &CancellationToken) -> Result<(), String> {
        let before = self.parts.records.all().get(&group).copied();
        // Nothing without a record was ever part of a group.
        self.clear(group).await?;
        crash_point(Place::ReplicaAddCleared);
        let record = ReplicaRecord { id, state: RecordState::Held };
        self.parts.records.set(group, record).map_err(|error| error.to_string())?;
        crash_point(Place::ReplicaAddRecorded);
        if let Err(why) = self.open(group, record, stop).await {
            // It has taken part in nothing, so it may come again as if for the first time.
            return Err(match self.parts.records.put(group, before) {
                Ok(()) => why,
                Err(error) => format!("{why}; it stays out until the node starts again: {error}"),
            });
        }
        crash_point(Place::ReplicaAddOpened);
        Ok(())
    }

    /// Stops a replica, if it runs, and removes everything that is left of it. May be repeated after a crash at any point.
    async fn remove(&self, group: GroupId, id: ReplicaId) -> Result<(), String> {
        let record = ReplicaRecord { id, state: RecordState::Removing };
        self.parts.records.set(group, record).map_err(|error| error.to_string())?;
        crash_point(Place::ReplicaRemoveRecorded);
        self.parts.service.withdraw(group);
        if group == GroupId::DEFAULT {
            self.parts.service.set_oracle(None);
            self.parts.time.oracle.detach();
        }
        let opened = self.opened.lock().remove(&group);
        if let Some(opened) = &opened {
            opened.stop.cancel();
            opened.door.shut().await;
        }
        if let Some(Replica::Running(running)) = self.parts.directory.remove(group) {
            running.shutdown().await;
        }
        if let Some(opened) = opened
            && opened.tasks.await.is_err()
        {
            return Err("its tasks ended badly".to_owned());
        }
        self.clear(group).await?;
        crash_point(Place::ReplicaRemoveCleared);
        let record = ReplicaRecord { id, state: RecordState::Gone };
        self.parts.records.set(group, record).map_err(|error| error.to_string())
    }

    /// Removes store and log of a group of which nothing is open, or will be soon.
    async fn clear(&self, group: GroupId) -> Result<(), String> {
        let data = Arc::clone(&self.parts.data);
        let closed = async {
            // Those who still read from it may run on this thread.
            while !self.env.wait_closed(&data.group(group), Duration::ZERO) {
                tokio::time::sleep(CLOSE_POLL).await;
            }
        };
        let closed = tokio::time::timeout(CLOSE_TIMEOUT, closed).await;
        closed.map_err(|_| "somebody still reads from its store".to_owned())?;
        let cleared = blocking::aside(move || data.remove_group(group).map_err(|error| error.to_string()));
        cleared.await.map_err(|error| error.to_string())??;
        crash_point(Place::ReplicaClearStore);
        self.parts.log.remove_group(group).await.map_err(|error| error.to_string())
    }

    /// The groups that this node leads.
    fn led(&self) -> impl Iterator<Item = Arc<Group>> {
        self.parts.directory.replicas().into_iter().filter_map(|(_, replica)| match replica {
            Replica::Running(group) if group.is_leader() => Some(group),
            Replica::Running(_) | Replica::Starting | Replica::Stopped(_) => None,
        })
    }

    /// Whether this node leads a group.
    pub fn leads(&self) -> bool {
        self.led().next().is_some()
    }

    /// What this node knows of the catalog.
    pub fn followed(&self) -> &Followed {
        &self.parts.followed
    }

    /// Hands the leadership of every group that this node leads to the follower that is least behind, of those that are
    /// wanted and not being stopped themselves. One that goes meanwhile is not waited for; the next one is asked. Returns at once where
    /// there is none: then the voters elect a leader, or the group stands still, once this node is gone.
    pub async fn hand_over(&self, wanted: Successors<'_>, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        futures::future::join_all(self.led().map(|group| self.hand_over_group(group, wanted, deadline))).await;
    }

    async fn hand_over_group(&self, group: Arc<Group>, wanted: Successors<'_>, deadline: Instant) {
        let id = group.id();
        let mut asked = BTreeSet::new();
        while group.is_leader() {
            let Some(to) = self.successor(&group, wanted, &asked) else {
                tracing::info!(group = %id, "nobody is there to take the leadership over");
                return;
            };
            asked.insert(to);
            tokio::select! {
                biased;
                handed = group.transfer_leader(to, deadline) => match handed {
                    Ok(_) => return tracing::info!(group = %id, %to, "leadership handed over"),
                    Err(error) => tracing::info!(group = %id, %to, %error, "leadership was not handed over"),
                },
                () = self.parts.peers.gone(to) => {
                    tracing::info!(group = %id, %to, "leadership was not handed over: that node is going, too");
                }
            }
        }
    }

    fn successor(&self, group: &Group, wanted: Successors<'_>, asked: &BTreeSet<NodeId>) -> Option<NodeId> {
        let metrics = group.raft().metrics().borrow_watched().clone();
        let voters: BTreeSet<NodeId> = metrics.membership_config.membership().voter_ids().map(NodeId).collect();
        let (peers, mut candidates) = (&self.parts.peers, wanted.among(self.node, &voters));
        candidates.retain(|node| !asked.contains(node) && peers.is_connected(*node) && !peers.is_leaving(*node));
        let progress = metrics.replication?;
        progress
            .into_iter()
            .filter(|(node, _)| candidates.contains(&NodeId(*node)))
            .max_by_key(|(_, matched)| matched.map(|log_id| log_id.index))
            .map(|(node, _)| NodeId(node))
    }

    /// Stops every replica and makes its state durable, so that the next start replays little.
    pub async fn stop(&self) {
        // Nothing is asked of others any more, and what they answer would come to a Raft that has ended.
        self.parts.peers.close();
        let doors: BTreeMap<GroupId, Door> =
            self.opened.lock().iter().map(|(group, opened)| (*group, opened.door.clone())).collect();
        let doors = &doors;
        let stopped = self.parts.directory.replicas().into_iter().map(|(id, replica)| async move {
            if let Replica::Running(group) = replica {
                self.parts.service.withdraw(id);
                if let Some(door) = doors.get(&id) {
                    door.shut().await;
                }
                group.shutdown().await;
                if let Err(error) = group.fsm().flush().await {
                    tracing::warn!(group = %id, %error, "the replica's state was not flushed; the next start replays the log");
                }
            }
        });
        futures::future::join_all(stopped).await;
    }
}

/// The voters of a group that the cluster is created with, and where they are.
fn voters(config: &Config, group: &BootstrapGroup) -> BTreeMap<u64, Node> {
    let created = drover_catalog::GroupDescriptor::new(group.id, &group.replicas.iter().copied().collect());
    let member = |(node, replica): (&NodeId, &drover_catalog::Replica)| {
        let known = config.bootstrap.node(*node).map(|node| node.grpc.as_str().to_owned());
        (node.0, Node::new(known.unwrap_or_default(), replica.id))
    };
    created.replicas.iter().map(member).collect()
}

fn group_options(config: &Config) -> GroupOptions {
    let raft = &config.raft;
    GroupOptions {
        heartbeat_ms: millis(raft.heartbeat),
        election_min_ms: millis(raft.election_min),
        election_max_ms: millis(raft.election_max),
        lease_margin_ms: millis(raft.lease_margin),
        limits: config.request_limits(),
        max_inflight_bytes: u32::try_from(raft.max_inflight_bytes.0).unwrap_or(u32::MAX),
        flush_interval: config.storage.flush_interval,
        flush_entries: raft.snapshot_entries,
        log_keep_entries: raft.log_retention_entries,
        purge_batch_entries: raft.purge_batch_entries,
        learner_max_lag: raft.learner_max_lag_entries,
        retention: config.storage.gc_retention,
        validation: ValidationLimits {
            max_rows: config.txn.max_validated_rows,
            max_keys: config.txn.max_validated_keys,
        },
        txn_max_age: config.txn.max_age,
        ..GroupOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leadership_goes_to_a_node_with_space_only_if_a_majority_has_space() {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let me = NodeId(1);
        // voters, those with space, candidates
        let table: &[(&[u64], &[u64], &[u64])] = &[
            (&[1, 2, 3], &[2, 3], &[2, 3]),
            (&[1, 2, 3], &[3], &[]),
            (&[1, 2, 3], &[], &[]),
            (&[1, 2, 3], &[3, 4, 5], &[]),
            (&[1, 2, 3, 4, 5], &[2, 3, 5], &[2, 3, 5]),
            (&[1, 2], &[2], &[]),
            (&[2, 3, 4], &[2, 3], &[2, 3]),
        ];
        for (voters, roomy, expect) in table {
            let among = Successors::WithSpace(&nodes(roomy)).among(me, &nodes(voters));
            assert_eq!(among, nodes(expect), "{voters:?} {roomy:?}");
        }
    }

    #[test]
    fn a_leadership_goes_to_any_other_voter_that_stays_and_to_nobody_where_none_does() {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        // voters, those that stay, candidates
        let table: &[(&[u64], &[u64], &[u64])] = &[
            (&[1, 2, 3], &[2, 3], &[2, 3]),
            (&[1, 2, 3], &[3], &[3]),
            (&[1, 2, 3], &[], &[]),
            (&[1, 2, 3], &[1, 4, 5], &[]),
            (&[1], &[2, 3], &[]),
        ];
        for (voters, staying, expect) in table {
            let among = Successors::Staying(&nodes(staying)).among(NodeId(1), &nodes(voters));
            assert_eq!(among, nodes(expect), "{voters:?} {staying:?}");
        }
    }
}
