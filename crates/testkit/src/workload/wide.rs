//! Transactions that write keys of several groups without reading any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use drover_client::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::fate_of;
use crate::check::Spread;
use crate::ledger::Fate;

/// Each transaction writes one key for each of some first letters. Every key is written once.
#[derive(Debug, Clone)]
pub struct Wide {
    /// The first letters. They take turns as the first one, where the primary is.
    pub letters: Vec<char>,
    /// Tells the keys from those of other runs.
    pub name: String,
}

impl Wide {
    /// Runs one task for each client until `stop`: what was written. Counts in `acknowledged`.
    ///
    /// # Panics
    /// If a task does.
    pub async fn run(
        &self,
        clients: Vec<Client>,
        acknowledged: &Arc<AtomicUsize>,
        stop: &CancellationToken,
    ) -> Vec<Spread> {
        let mut tasks = JoinSet::new();
        for (task, client) in clients.into_iter().enumerate() {
            let (this, stop, acknowledged) = (self.clone(), stop.clone(), Arc::clone(acknowledged));
            tasks.spawn(async move {
                let mut written = Vec::new();
                for n in (0..).take_while(|_| !stop.is_cancelled()) {
                    let spread = this.write(&client, task, n).await;
                    if spread.fate == Fate::Acknowledged {
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                    written.push(spread);
                }
                written
            });
        }
        super::join(tasks).await.into_iter().flatten().collect()
    }

    async fn write(&self, client: &Client, task: usize, n: usize) -> Spread {
        let value = format!("{}/{task}/{n}", self.name);
        let letters = self.letters.iter().cycle().skip(n % self.letters.len()).take(self.letters.len());
        let keys: Vec<String> = letters.map(|letter| format!("{letter}/wide/{value}")).collect();
        let txn = client.begin();
        keys.iter().for_each(|key| txn.put(key.clone(), value.clone()));
        let fate = txn.commit().await.map_or_else(|error| fate_of(&error), |_| Fate::Acknowledged);
        Spread { keys, value, fate }
    }
}
