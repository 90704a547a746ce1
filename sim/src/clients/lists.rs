//! Two lists, one in each half of the keys, to which transactions append the same.

use anyhow::Result;
use drover_client::Error;
use rand::Rng;

use super::{Worker, outcome};
use crate::history::{Outcome, What};
use crate::machine::now;

/// Where the lists are.
const LISTS: [&str; 2] = ["early-list", "some-list"];

fn elements(value: Option<&[u8]>) -> Result<Vec<String>> {
    let text = std::str::from_utf8(value.unwrap_or_default())?;
    Ok(text.split(',').filter(|element| !element.is_empty()).map(str::to_owned).collect())
}

impl Worker {
    /// Appends to both lists in one transaction, or reads them at one moment.
    pub(super) async fn append(&mut self) -> Result<()> {
        for number in 0_u64.. {
            self.pause(160).await;
            if !self.goes_on() {
                break;
            }
            if self.random.random_bool(0.3) {
                self.read_lists().await?;
                continue;
            }
            let element = format!("{}{number}", &self.name[self.name.len() - 1..]);
            self.note(now(), What::Appends { element: element.clone() });
            let began = now();
            let txn = self.client.begin();
            let mut before = Vec::new();
            let appended: Result<_, Error> = async {
                for value in txn.batch_get(LISTS).await? {
                    before.push(value);
                }
                for (list, value) in LISTS.iter().zip(&before) {
                    let mut value = value.as_ref().map(|value| value.to_vec()).unwrap_or_default();
                    value.extend_from_slice(format!("{element},").as_bytes());
                    txn.put(*list, value);
                }
                txn.commit().await
            }
            .await;
            let outcome = outcome(appended, |ts| ts);
            let mut lists = Vec::new();
            if matches!(outcome, Outcome::Done(_)) {
                for value in &before {
                    let mut list = elements(value.as_deref())?;
                    list.push(element.clone());
                    lists.push(list);
                }
            }
            self.note(began, What::Appended { element, lists, outcome });
        }
        Ok(())
    }

    /// Reads both lists at one moment.
    pub(super) async fn read_lists(&mut self) -> Result<()> {
        let began = now();
        let Ok(found) = self.client.batch_get(LISTS.map(bytes::Bytes::from).into(), None).await else { return Ok(()) };
        let read =
            |version: &Option<drover_client::Versioned>| elements(version.as_ref().map(|version| &version.value[..]));
        let lists = found.versions.iter().map(read).collect::<Result<_>>()?;
        self.note(began, What::Listed { lists });
        Ok(())
    }
}
