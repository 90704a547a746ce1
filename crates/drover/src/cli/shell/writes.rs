//! What writes a key: at once, or when the open transaction is committed.

use bytes::Bytes;
use drover_client::{Error, Expectation, Update, WriteKind, WriteOptions};
use serde_json::json;

use super::super::exit::End;
use super::super::interrupt::unanswered;
use super::super::kv;
use super::super::output::Output;
use super::super::settle::Settle;
use super::interrupt::Interrupted;
use super::session::Session;
use super::transaction::count;

impl Session<'_> {
    /// Puts or deletes.
    pub(super) async fn update(&mut self, key: Bytes, update: Update, output: &mut Output) -> anyhow::Result<End> {
        self.known.key(&key);
        let Some(open) = &self.open else {
            let kind = match update {
                Update::Put { value, ttl_ms } => WriteKind::Put { key, value, ttl_ms },
                Update::Delete => WriteKind::Delete { key },
            };
            return self.write(kind, output).await;
        };
        open.txn.write(key, update);
        self.buffered(output)
    }

    fn buffered(&self, output: &mut Output) -> anyhow::Result<End> {
        let writes = self.open.as_ref().map_or(0, |open| open.txn.contents().writes.len());
        let text = format!("kept until the commit, {} so far", count(writes, "write", "writes"));
        self.say(output, &text, json!({ "kept": true, "writes": writes }))?;
        Ok(End::Done)
    }

    /// Writes if the present value is as expected.
    pub(super) async fn cas(
        &mut self,
        key: Bytes,
        expect: Expectation,
        update: Update,
        output: &mut Output,
    ) -> anyhow::Result<End> {
        self.known.key(&key);
        let Some(open) = &self.open else {
            return self.write(WriteKind::CompareAndSet { key, expect, update }, output).await;
        };
        let compared = async {
            if open.txn.update_if(key.clone(), expect, update).await? {
                return Ok(None);
            }
            open.txn.get(key.clone()).await.map(Some)
        };
        let compared: Result<_, Error> = self.interrupts.unless(compared).await.ok_or(Interrupted)?;
        let Some(current) = compared? else { return self.buffered(output) };
        let text = match &current {
            Some(value) => format!("not as expected: the value is {}", self.format(value)),
            None => "not as expected: the key has no value".to_owned(),
        };
        let row = current.map(|value| {
            let mut row = self.named(&key);
            self.global.notation().add_json(&mut row, "value", &value);
            row
        });
        self.refuse(output, &text, json!({ "succeeded": false, "current": row }))?;
        Ok(End::No)
    }

    /// Sends one write under a name of its own, so that an unknown outcome can be settled.
    async fn write(&mut self, kind: WriteKind, output: &mut Output) -> anyhow::Result<End> {
        let (key, name) = (kind.record_key().clone(), self.client.new_idempotency());
        let options = WriteOptions { idempotency: Some(name.clone()), ..WriteOptions::default() };
        let written = self.interrupts.unless(self.client.write(kind, options)).await;
        let answer = written
            .unwrap_or_else(|| Err(unanswered()))
            .map_err(|error| Settle::Write { key: key.clone(), name }.add_to(error))?;
        output.flush()?;
        kv::print_written(self.global, output, &key, answer)
    }
}
