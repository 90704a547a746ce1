//! A node of the simulation: the whole product on a simulated machine, which outlives the process.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use drover_coordinator::GroupDirectory;
use drover_hlc::{PhysicalMs, WallClock};
use drover_keys::{GroupId, NodeId};
use drover_raftlog::{Delay, MemoryDisk, NodeLog};
use drover_server::config::{Config, Sources};
use drover_server::datadir::DataDir;
use drover_server::lifecycle::{Shutdown, ShutdownTrigger};
use drover_server::node::{Stopped, Surroundings, run_in};
use parking_lot::Mutex;
use rand::Rng;

/// The port of every node.
pub const PORT: u16 = 7400;
/// Nodes of a simulation.
pub const NODES: u64 = 4;
/// Nodes that have a replica of a group, unless one is being replaced.
pub const REPLICAS: usize = 3;
/// Groups besides the default one.
pub const DATA_GROUPS: u64 = 2;
/// Where the first route ends.
const BORDER: &str = "m";
/// How long a node that is asked to stop may take to finish what it has begun.
const DRAIN: Duration = Duration::from_secs(3);

/// What the network calls a node.
pub fn name(node: NodeId) -> String {
    format!("n{}", node.0)
}

/// The wall clock of a machine, which may be wrong.
#[derive(Debug, Default)]
pub struct Clock {
    ahead_ms: AtomicI64,
}

impl Clock {
    /// Sets by how much it is ahead of the right time.
    pub fn set_ahead(&self, ms: i64) {
        self.ahead_ms.store(ms, Ordering::Relaxed);
    }
}

impl WallClock for Clock {
    fn now(&self) -> PhysicalMs {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
        let shown = unix_ms.saturating_add_signed(self.ahead_ms.load(Ordering::Relaxed));
        PhysicalMs::new(shown).unwrap_or(PhysicalMs::MAX)
    }
}

/// What is left of a node when its process is gone, and what can be seen of the process while there is one.
pub struct Machine {
    /// The node that lives here.
    pub node: NodeId,
    /// Its wall clock.
    pub clock: Arc<Clock>,
    /// The disk of its Raft log. The other files lie in `dir`; what RocksDB has not flushed is lost with the process.
    disk: MemoryDisk,
    dir: PathBuf,
    replicas: Mutex<Weak<GroupDirectory>>,
    stop: Mutex<Option<ShutdownTrigger>>,
    ended: Mutex<Option<Stopped>>,
}

impl Machine {
    /// A machine whose files lie below `root`.
    pub fn new(node: NodeId, root: &std::path::Path) -> Arc<Self> {
        let dir = root.join(name(node));
        Arc::new(Self {
            node,
            clock: Arc::default(),
            disk: MemoryDisk::default(),
            dir,
            replicas: Mutex::default(),
            stop: Mutex::default(),
            ended: Mutex::default(),
        })
    }

    /// Asks the process to stop, as SIGTERM does.
    pub fn ask_to_stop(&self) {
        if let Some(stop) = &*self.stop.lock() {
            stop.request();
        }
    }

    /// How the process has ended that was asked to stop, once: what is left of it has to be taken off the machine.
    pub fn take_ended(&self) -> Option<Stopped> {
        self.ended.lock().take()
    }

    /// The replicas of the process, if there is one.
    pub fn replicas(&self) -> Option<Arc<GroupDirectory>> {
        self.replicas.lock().upgrade()
    }

    /// The leader of a group, as this node knows it.
    pub fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.replicas()?.running(group)?.known_leader()
    }

    /// Is the process. Ends only if the node fails; one that was asked to stop waits to be taken off the machine.
    ///
    /// # Errors
    /// Whatever the node ends with.
    pub async fn run(self: Arc<Self>) -> Result<()> {
        let config = self.config()?;
        let data = DataDir::open(&config.node.data_dir, config.cluster.id, config.node.id)?;
        let machine = Arc::clone(&self);
        let shown = Arc::clone(&self);
        let surroundings = Surroundings {
            wall: Arc::clone(&self.clock) as Arc<dyn WallClock>,
            clock_lead: Arc::new(|| Duration::ZERO),
            open_log: Box::new(move |_, options| NodeLog::in_memory(&machine.disk, options, Box::new(pace))),
            stores_in_step: true,
            observe: Box::new(move |view| *shown.replicas.lock() = Arc::downgrade(&view.directory)),
        };
        let shutdown = Shutdown::new(DRAIN);
        *self.stop.lock() = Some(shutdown.trigger());
        let stopped = run_in(config, data, shutdown, surroundings).await;
        let stopped = stopped.with_context(|| format!("node {} ended", self.node))?;
        *self.ended.lock() = Some(stopped);
        std::future::pending().await
    }

    fn config(&self) -> Result<Config> {
        let nodes: String = (1..=NODES)
            .map(|id| format!("[[bootstrap.nodes]]\nid = {id}\ngrpc = \"n{id}:{PORT}\"\nadmin = \"n{id}:7401\"\n"))
            .collect();
        // Each group leaves out another node, so that some coordinate without a replica of the catalog.
        let group = |id: u64| {
            let replicas: Vec<u64> = (1..=NODES).filter(|node| node % NODES != id - 1).collect();
            format!("[[bootstrap.groups]]\nid = {id}\nreplicas = {replicas:?}\n")
        };
        let groups: String = (1..=1 + DATA_GROUPS).map(group).collect();
        let text = format!(
            "[node]\nid = {}\ndata_dir = {:?}\ngrpc_listen = \"0.0.0.0:{PORT}\"\nadmin_listen = \"0.0.0.0:7401\"\n\
             [cluster]\nid = \"6e1f0a5c3b7d4d0f9a2c8e4b71d35f60\"\n\
             {nodes}{groups}\
             [[bootstrap.routes]]\nstart = ''\nend = '{BORDER}'\ngroup = 2\n\
             [[bootstrap.routes]]\nstart = '{BORDER}'\ngroup = 3\n\
             [raft]\nlog_retention_entries = 200\n\
             [limits]\ndefault_deadline_ms = \"4s\"\n\
             [txn]\nmax_age_ms = \"4s\"\nlock_ttl_ms = \"2s\"\n\
             [storage]\nflush_interval_ms = \"1s\"\nblock_cache_bytes = \"8MiB\"\nbackground_threads = 1\ngc_retention_ms = \"4s\"\n\
             [disk]\nreserve_bytes = 0\ncheck_interval_ms = \"10m\"\n",
            self.node.0,
            self.dir.join("data"),
        );
        std::fs::create_dir_all(&self.dir)?;
        let file = self.dir.join("drover.toml");
        std::fs::write(&file, text)?;
        Ok(Config::load(&Sources { file: Some(file), ..Sources::default() })?)
    }
}

/// Most batches are durable soon, some take long.
fn pace() -> Delay {
    let mut random = rand::rng();
    let durable_ms = if random.random_bool(0.02) { random.random_range(5..60) } else { random.random_range(0..3) };
    Delay { durable: Duration::from_millis(durable_ms), reported: Duration::from_millis(random.random_range(0..2)) }
}
