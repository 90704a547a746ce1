//! Transactions that are run until they are committed, and those that their callers commit.

use drover_hlc::Timestamp;
use drover_kv::Error;
use rand::Rng;
use tokio::time::Instant;

use super::commit::Ran;
use super::{Snapshot, Transaction, TransactionOptions};
use crate::Client;

impl Client {
    /// Runs a transaction until it is committed: `work` reads and writes through the handle it is given. If something it has
    /// read was changed before the commit, it is run again with a newer snapshot, up to the limits of
    /// [`TransactionOptions::default`] and the deadline of the client. It may therefore be run several times, and must not have
    /// effects of its own.
    ///
    /// # Errors
    /// What `work` returns, without a commit; `TXN_CONFLICT` if the runs or the time were not enough; as for writes otherwise. After
    /// an unknown error the message names the transaction and its primary, for [`Client::transaction_status`].
    pub async fn transaction<T, E, W, F>(&self, work: W) -> Result<T, E>
    where
        W: Fn(Transaction) -> F,
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        self.transaction_with(TransactionOptions::default(), work).await
    }

    /// As [`Client::transaction`], with other limits.
    ///
    /// # Errors
    /// As [`Client::transaction`].
    pub async fn transaction_with<T, E, W, F>(&self, options: TransactionOptions, work: W) -> Result<T, E>
    where
        W: Fn(Transaction) -> F,
        F: Future<Output = Result<T, E>>,
        E: From<Error>,
    {
        let due = self.due();
        for run in 1.. {
            let transaction = Transaction { due: Some(due), ..Transaction::new(self.clone(), None) };
            let conflict = match work(transaction.clone()).await {
                Ok(done) => match transaction.commit_run().await {
                    Ran::Committed(_) => return Ok(done),
                    Ran::Failed(error) => return Err(error.into()),
                    Ran::Conflict(error) => error,
                },
                Err(error) => match transaction.inner.lock().stale.take() {
                    Some(stale) => stale,
                    None => return Err(error),
                },
            };
            let pause = options.backoff(run, rand::rng().random());
            if run >= options.max_runs || Instant::now() + pause >= due {
                let message = format!("{} (after {run} runs)", conflict.message);
                return Err(Error { message, ..conflict }.into());
            }
            tokio::time::sleep(pause).await;
        }
        unreachable!("the runs have no end")
    }

    /// Begins a transaction that the caller commits. Nothing happens on the servers before that.
    pub fn begin(&self) -> Transaction {
        Transaction::new(self.clone(), None)
    }

    /// As [`Client::begin`], with a snapshot of the past: what was written to the keys that it reads since then is a conflict.
    /// A snapshot in the future, or one that is too old, is refused by the first read or the commit.
    pub fn begin_at(&self, at: Timestamp) -> Transaction {
        Transaction::new(self.clone(), Some(at))
    }

    /// Reads at one timestamp: `at`, or that of the first read. What was read is not remembered.
    pub fn snapshot(&self, at: Option<Timestamp>) -> Snapshot {
        let transaction = Transaction::new(self.clone(), at);
        transaction.inner.lock().reads_only = true;
        Snapshot(transaction)
    }
}
