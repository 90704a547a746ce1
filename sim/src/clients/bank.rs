//! Money that moves between accounts in all parts of the keys.

use anyhow::Result;
use drover_client::Error;
use rand::Rng;

use super::{Worker, outcome};
use crate::history::What;
use crate::machine::now;
use crate::properties::TOTAL;

const ACCOUNTS: [&str; 6] = ["account-a", "bank", "cash", "money", "savings", "vault"];

impl Worker {
    /// Moves money between two accounts.
    pub(super) async fn transfer(&mut self) -> Result<()> {
        let share = TOTAL / ACCOUNTS.len() as i64;
        while self.goes_on() {
            self.pause(80).await;
            let from = self.random.random_range(0..ACCOUNTS.len());
            let to = (from + self.random.random_range(1..ACCOUNTS.len())) % ACCOUNTS.len();
            let amount = self.random.random_range(1..30);
            let began = now();
            let txn = self.client.begin();
            let moved: Result<_, Error> = async {
                // Whoever comes first opens all accounts.
                let mut held = Vec::new();
                for value in txn.batch_get(ACCOUNTS).await? {
                    held.push(value.map(|value| String::from_utf8_lossy(&value).parse::<i64>()));
                }
                for (at, name) in ACCOUNTS.iter().enumerate() {
                    let before = match &held[at] {
                        None => share,
                        Some(Ok(before)) => *before,
                        Some(Err(error)) => panic!("an account holds no number: {error}"),
                    };
                    let change = if at == from { -amount } else { amount * i64::from(at == to) };
                    if change != 0 || held[at].is_none() {
                        txn.put(*name, (before + change).to_string());
                    }
                }
                txn.commit().await
            }
            .await;
            self.note(began, What::Transferred(outcome(moved, |ts| ts)));
        }
        Ok(())
    }

    /// Reads all accounts at once.
    pub(super) async fn count(&mut self) -> Result<()> {
        while self.goes_on() {
            self.pause(150).await;
            let began = now();
            if let Ok(total) = self.total().await? {
                self.note(began, What::Counted(total));
            }
        }
        Ok(())
    }

    /// What all accounts hold; the total as well if there are none yet.
    pub(super) async fn total(&self) -> Result<Result<i64, Error>> {
        let found = match self.client.batch_get(ACCOUNTS.map(bytes::Bytes::from).into(), None).await {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        if found.versions.iter().all(Option::is_none) {
            return Ok(Ok(TOTAL));
        }
        let mut total = 0;
        for version in found.versions.into_iter().flatten() {
            total += std::str::from_utf8(&version.value)?.parse::<i64>()?;
        }
        Ok(Ok(total))
    }
}
