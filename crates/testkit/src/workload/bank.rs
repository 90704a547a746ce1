//! Accounts between which money is moved, so that the total stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use drover_client::{Client, Transaction};
use drover_keys::Interval;
use drover_kv::{Error, Reason};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Names the accounts among other keys.
const MARK: &str = "/bank/";

/// Accounts spread evenly over keys that begin with the letters `a` to `z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bank {
    /// How many.
    pub accounts: usize,
    /// What each holds at first.
    pub each: i64,
}

/// What has been done so far.
#[derive(Debug, Default)]
pub struct BankReport {
    moved: AtomicUsize,
    looks: AtomicUsize,
}

impl BankReport {
    /// How many transfers were acknowledged.
    pub fn moved(&self) -> usize {
        self.moved.load(Ordering::SeqCst)
    }

    /// How often the total was looked at, and right.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

impl Bank {
    /// What all accounts hold together, always.
    pub fn total(&self) -> i64 {
        self.each * i64::try_from(self.accounts).expect("few accounts")
    }

    fn account(&self, n: usize) -> String {
        let letter = char::from(b'a' + u8::try_from(n * 26 / self.accounts).expect("less than 26"));
        format!("{letter}{MARK}{n}")
    }

    /// Puts the first money into all accounts at once.
    ///
    /// # Errors
    /// As for transactions.
    pub async fn fill(&self, client: &Client) -> Result<(), Error> {
        let fill = |txn: Transaction| async move {
            (0..self.accounts).for_each(|n| txn.put(self.account(n), self.each.to_string()));
            Ok(())
        };
        client.transaction(fill).await
    }

    /// The total, by reading every account at one moment, and by a scan of everything.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn totals(&self, client: &Client) -> Result<[i64; 2], Error> {
        let accounts = (0..self.accounts).map(|n| self.account(n).into()).collect();
        let got = client.batch_get(accounts, None).await?;
        let read = got.versions.iter().flatten().map(|version| number(&version.value)).sum();
        let rows = client.snapshot(None).scan(Interval::all(), false, 0).await?;
        let accounts =
            rows.iter().filter(|(key, _)| key.get(1..).is_some_and(|rest| rest.starts_with(MARK.as_bytes())));
        Ok([read, accounts.map(|(_, value)| number(value)).sum()])
    }

    /// Moves money with one task for each client of `movers`, and looks at the total with one for each of `lookers`, until
    /// `stop`.
    ///
    /// # Panics
    /// If a look shows another total.
    pub async fn run(
        self,
        movers: Vec<Client>,
        lookers: Vec<Client>,
        report: &Arc<BankReport>,
        stop: &CancellationToken,
    ) {
        let mut tasks = JoinSet::new();
        let step = movers.len();
        for (task, client) in movers.into_iter().enumerate() {
            let (report, stop) = (Arc::clone(report), stop.clone());
            tasks.spawn(async move {
                for n in (task..).step_by(step).take_while(|_| !stop.is_cancelled()) {
                    match self.transfer(&client, n * 7 % self.accounts, n * 5 % self.accounts).await {
                        Ok(()) => drop(report.moved.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => assert!(error.is_unknown() || error.reason != Reason::Internal, "{error}"),
                    }
                }
            });
        }
        for client in lookers {
            let (report, stop) = (Arc::clone(report), stop.clone());
            tasks.spawn(async move {
                while !stop.is_cancelled() {
                    // A look that ends without an answer shows nothing.
                    if let Ok(totals) = self.totals(&client).await {
                        assert_eq!(totals, [self.total(); 2], "money was made or lost");
                        report.looks.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        super::join(tasks).await;
    }

    async fn transfer(&self, client: &Client, from: usize, to: usize) -> Result<(), Error> {
        client
            .transaction(|txn| async move {
                let (mine, theirs) = (self.amount(&txn, from).await?, self.amount(&txn, to).await?);
                let moved = 1 + (mine + theirs) % 5;
                if from != to && mine >= moved {
                    txn.put(self.account(from), (mine - moved).to_string());
                    txn.put(self.account(to), (theirs + moved).to_string());
                }
                Ok(())
            })
            .await
    }

    async fn amount(&self, txn: &Transaction, n: usize) -> Result<i64, Error> {
        Ok(txn.get(self.account(n)).await?.map_or(0, |value: Bytes| number(&value)))
    }
}

fn number(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).expect("accounts hold numbers")
}
