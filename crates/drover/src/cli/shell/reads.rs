//! What reads: at the latest moment, at a timestamp, or in the open transaction.

use bytes::Bytes;
use drover_client::{Entry, Interval, ScanQuery, Timestamp};
use serde_json::{Value, json};

use super::super::exit::End;
use super::super::kv;
use super::super::output::Output;
use super::action::Scan;
use super::interrupt::Interrupted;
use super::session::Session;

/// Rows of a scan that is to be one object.
struct Rows {
    keys_only: bool,
    json: Vec<Value>,
}

impl Session<'_> {
    /// Prints the value of a key.
    pub(super) async fn get(&mut self, key: Bytes, at: Option<Timestamp>, output: &mut Output) -> anyhow::Result<End> {
        self.known.key(&key);
        let notation = self.global.notation();
        let (value, object) = match &self.open {
            Some(open) => {
                let value = self.interrupts.unless(open.txn.get(key.clone())).await.ok_or(Interrupted)??;
                let mut object = self.named(&key);
                value.iter().for_each(|value| notation.add_json(&mut object, "value", value));
                (value, Value::from(object))
            }
            None => {
                let got = async {
                    match at {
                        Some(at) => self.client.get_at(key.clone(), at).await,
                        None => self.client.get(key.clone()).await,
                    }
                };
                let found = self.interrupts.unless(got).await.ok_or(Interrupted)??;
                let object = found.as_ref().map(|version| kv::row_json(notation, &key, version, false));
                (found.map(|version| version.value), object.unwrap_or_default())
            }
        };
        let Some(value) = value else {
            let object = kv::no_value_json(notation, &key);
            self.refuse(output, &format!("{} has no value", notation.format(&key)), object)?;
            return Ok(End::No);
        };
        self.say(output, &notation.format(&value), object)?;
        Ok(End::Done)
    }

    /// Prints the rows of a range, page by page.
    pub(super) async fn scan(&mut self, scan: Scan, output: &mut Output) -> anyhow::Result<End> {
        let Scan { interval, reverse, limit, keys_only, at } = scan;
        let mut rows = Rows { keys_only, json: Vec::new() };
        if let Some(open) = &self.open {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let found = self.interrupts.unless(open.txn.scan(interval, reverse, limit)).await.ok_or(Interrupted)??;
            for (key, value) in found {
                let mut object = self.named(&key);
                if !keys_only {
                    self.global.notation().add_json(&mut object, "value", &value);
                }
                self.row(&mut rows, &key, &value, object.into(), output)?;
            }
        } else {
            let query = ScanQuery { at, reverse, keys_only, limit, ..ScanQuery::new(interval) };
            let mut scan = self.client.scan(query);
            while let Some(page) = self.interrupts.unless(scan.next_page()).await.ok_or(Interrupted)?? {
                for Entry { key, version } in page.entries {
                    let object = kv::row_json(self.global.notation(), &key, &version, keys_only);
                    self.row(&mut rows, &key, &version.value, object, output)?;
                }
                output.flush()?;
            }
        }
        if self.global.json {
            output.json(&json!({ "rows": rows.json }))?;
        }
        Ok(End::Done)
    }

    /// One row of a scan: printed at once for people, kept for the one object.
    fn row(
        &mut self,
        rows: &mut Rows,
        key: &Bytes,
        value: &[u8],
        object: Value,
        output: &mut Output,
    ) -> std::io::Result<()> {
        self.known.key(key);
        match (self.global.json, rows.keys_only) {
            (true, _) => rows.json.push(object),
            (false, true) => output.line(&self.format(key))?,
            (false, false) => output.line(&kv::row_line(self.global.notation(), key, value))?,
        }
        Ok(())
    }

    /// Prints how many keys a range has.
    pub(super) async fn count(
        &mut self,
        interval: Interval,
        at: Option<Timestamp>,
        output: &mut Output,
    ) -> anyhow::Result<End> {
        let counted = async {
            match &self.open {
                Some(open) => open.txn.scan(interval, false, 0).await.map(|rows| rows.len() as u64),
                None => self.client.count(interval, at).await,
            }
        };
        let rows = self.interrupts.unless(counted).await.ok_or(Interrupted)??;
        kv::print_count(self.global, output, rows)
    }
}
