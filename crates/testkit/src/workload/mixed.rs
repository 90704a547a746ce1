//! All kinds of clients at once, in and around one range, and all that is checked of what they saw.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use drover_client::{Client, End, Interval};
use tokio_util::sync::CancellationToken;

use super::{Bank, BankReport, Kind, Mix, Registers, Sessions, Transactions, TxnRecorder, Wide};
use crate::Recorder;
use crate::check::{
    SessionEvent, Spread, linearizable, own_writes_are_read, strictly_serializable, timestamps_follow_real_time,
    whole_or_absent,
};
use crate::cluster::{Cluster, ClusterError, PATIENCE};
use crate::wait::{WaitError, wait_until};

/// How long one check may take.
const CHECK_BUDGET: Duration = Duration::from_secs(60);
/// How long clients of one node wait for it, and others for whoever is there.
const PATIENT: Duration = Duration::from_secs(2);
const HASTY: Duration = Duration::from_millis(500);

/// Appends to lists, writes of registers in transactions, writes and deletes of single keys, transfers, wide transactions, and
/// sessions that read what they wrote, by scans as well. Each kind touches [`Mixed::range`] and what lies outside.
pub struct Mixed {
    lists: Transactions,
    registers: Transactions,
    singles: Registers,
    bank: Bank,
    wide: Wide,
    sessions: Sessions,
    seen: Seen,
}

/// What is taken down while they run.
#[derive(Default)]
struct Seen {
    lists: Arc<TxnRecorder>,
    registers: Arc<TxnRecorder>,
    singles: Arc<Recorder>,
    bank: Arc<BankReport>,
    wide: Arc<AtomicUsize>,
    session_reads: Arc<AtomicUsize>,
}

/// What the clients came to when they were stopped.
pub struct CameTo {
    wide: Vec<Spread>,
    sessions: Vec<Vec<SessionEvent>>,
}

impl Mixed {
    /// All choices come from `seed`.
    pub fn new(seed: u64) -> Self {
        let named = |keys: [&str; 4], what: &str| keys.map(|key| format!("{key}/{what}/")).to_vec();
        let txns = |keys, kind| Transactions { keys, kind, txns_per_key_set: 60, seed };
        Self {
            lists: txns(named(["b", "d", "h", "t"], "list"), Kind::List),
            registers: txns(named(["a", "e", "i", "u"], "register"), Kind::Register),
            singles: Registers { keys: named(["b", "f", "j", "v"], "single"), mix: Mix::default(), seed },
            bank: Bank { accounts: 9, each: 100 },
            wide: Wide { letters: vec!['c', 'g', 'w'], name: seed.to_string() },
            sessions: Sessions { sessions: 1, seed },
            seen: Seen::default(),
        }
    }

    /// The range in and around which all happens.
    pub fn range() -> Interval {
        Interval::new("c", End::Key("k".into())).expect("c is below k")
    }

    /// Puts the first money into the accounts.
    ///
    /// # Errors
    /// As for transactions.
    pub async fn fill(&self, client: &Client) -> Result<(), drover_client::Error> {
        self.bank.fill(client).await
    }

    /// Runs all of them until `stop`.
    ///
    /// # Errors
    /// If a node cannot be reached at first.
    ///
    /// # Panics
    /// If a client sees what cannot be.
    pub async fn run(&self, cluster: &Cluster, stop: &CancellationToken) -> Result<CameTo, ClusterError> {
        let (mut doors, mut hasty) = (Vec::new(), Vec::new());
        for node in cluster.nodes() {
            let only = Client::builder().endpoints([node.grpc_address()]).only_these_endpoints();
            doors.push((node.id(), only.deadline(PATIENT).connect().await?));
            let anywhere = Client::builder().endpoints(cluster.endpoints()).deadline(HASTY);
            hasty.push(anywhere.connect().await?);
        }
        let patient: Vec<Client> = doors.iter().map(|(_, client)| client.clone()).collect();
        let of = |clients: &[Client], some: &[usize]| some.iter().map(|at| clients[*at].clone()).collect::<Vec<_>>();
        let (_, _, _, (), wide, sessions) = tokio::join!(
            self.lists.run(of(&patient, &[0, 1]), &self.seen.lists, stop),
            self.registers.run(vec![patient[2].clone(), hasty[0].clone()], &self.seen.registers, stop),
            self.singles.run(vec![patient[1].clone(), hasty[1].clone()], &self.seen.singles, stop),
            self.bank.run(of(&patient, &[0, 1]), of(&hasty, &[2]), &self.seen.bank, stop),
            self.wide.run(of(&patient, &[2, 0]), &self.seen.wide, stop),
            self.sessions.run(doors, &self.seen.session_reads, stop),
        );
        Ok(CameTo { wide, sessions })
    }

    fn done(&self) -> [usize; 6] {
        let seen = &self.seen;
        [
            seen.lists.committed(),
            seen.registers.committed(),
            seen.singles.answered(),
            seen.bank.moved(),
            seen.wide.load(Ordering::SeqCst),
            seen.session_reads.load(Ordering::SeqCst),
        ]
    }

    /// Waits until so much more of each kind was acknowledged.
    ///
    /// # Errors
    /// If it is not.
    pub async fn advance(&self, more: usize) -> Result<(), WaitError> {
        self.advance_of(6, more).await
    }

    /// As [`Mixed::advance`] while clients cannot do anything through one node. Sessions read through all of them, so they wait.
    ///
    /// # Errors
    /// If it is not.
    pub async fn advance_elsewhere(&self, more: usize) -> Result<(), WaitError> {
        self.advance_of(5, more).await
    }

    /// Of the first so many kinds.
    async fn advance_of(&self, kinds: usize, more: usize) -> Result<(), WaitError> {
        let before = self.done();
        wait_until("work of every kind to be done", PATIENCE, async || {
            let now = self.done();
            match now.iter().zip(before).take(kinds).all(|(now, before)| *now >= before + more) {
                true => Ok(()),
                false => Err(format!("{now:?} after {before:?}")),
            }
        })
        .await
    }

    /// Reads everything once more, through each node, and checks all that was seen.
    ///
    /// # Errors
    /// If something cannot be read.
    ///
    /// # Panics
    /// With what is wrong.
    pub async fn check(&self, cluster: &Cluster, came_to: CameTo) -> Result<(), ClusterError> {
        let CameTo { wide, mut sessions } = came_to;
        let client = cluster.client().await?;
        cluster.wait_unlocked(PATIENCE).await?;
        self.lists.final_read(&client, &self.seen.lists).await?;
        self.registers.final_read(&client, &self.seen.registers).await?;
        self.singles.final_read(&client, &self.seen.singles).await?;
        self.sessions.final_read(&client, &mut sessions).await?;
        for (kind, recorder) in [(Kind::List, &self.seen.lists), (Kind::Register, &self.seen.registers)] {
            let history = recorder.history();
            let path = cluster.dir().join(format!("{kind:?}.jsonl"));
            std::fs::write(&path, &history).map_err(ClusterError::io(format!("writing {}", path.display())))?;
            strictly_serializable(&history, kind, CHECK_BUDGET).unwrap_or_else(|found| panic!("{kind:?}: {found}"));
        }
        let singles = self.seen.singles.history();
        linearizable(&singles, CHECK_BUDGET).assert_correct();
        timestamps_follow_real_time(&singles).assert_correct();
        for session in &sessions {
            own_writes_are_read(session).unwrap_or_else(|found| panic!("{found}"));
        }
        let mut seen: Option<BTreeMap<Bytes, Bytes>> = None;
        for node in cluster.node_ids() {
            let totals = self.bank.totals(&cluster.client_of(node).await?).await?;
            assert_eq!(totals, [self.bank.total(); 2], "through node {node}");
            let rows = cluster.all_rows(node).await?;
            whole_or_absent(&wide, &rows).unwrap_or_else(|found| panic!("{found}"));
            assert!(seen.is_none_or(|seen| seen == rows), "node {node} shows something else than the one before it");
            seen = Some(rows);
        }
        Ok(())
    }
}

impl fmt::Display for Mixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lists, registers, singles, moved, wide, reads] = self.done();
        write!(f, "{lists} list and {registers} register transactions, {singles} single operations, ")?;
        write!(f, "{moved} transfers, {wide} wide transactions, {reads} reads of sessions")
    }
}
