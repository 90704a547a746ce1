//! What the commands do; those that read and write keys stand in `reads.rs` and `writes.rs`.

use bytes::Bytes;
use drover_client::{Client, Error, Timestamp, TransactionStatus, TxnId};
use serde_json::{Map, Value, json};

use super::super::exit::{End, UsageError};
use super::super::interrupt::unanswered;
use super::super::output::Output;
use super::super::settle::Settle;
use super::super::{Global, kv, notice, status, txn};
use super::action::Action;
use super::interrupt::{Interrupted, Interrupts};
use super::known::Known;
use super::state::State;
use super::transaction::{Open, count};
use super::watch::Watch;

/// One connection to a cluster, and perhaps an open transaction.
pub struct Session<'a> {
    pub(super) client: Client,
    pub(super) global: &'a Global,
    pub(super) open: Option<Open>,
    /// What was come across.
    pub known: Known,
    /// Ctrl-C.
    pub interrupts: Interrupts,
    /// Whether somebody sits at the terminal.
    attended: bool,
}

impl<'a> Session<'a> {
    /// A session without transaction.
    pub fn new(client: Client, global: &'a Global, interrupts: Interrupts, attended: bool) -> Self {
        Self { client, global, open: None, known: Known::default(), interrupts, attended }
    }

    /// Whether a transaction is open.
    pub fn state(&self) -> State {
        self.open.as_ref().map_or(State::Outside, Open::state)
    }

    /// What to ask for the next line with.
    pub fn prompt(&self) -> String {
        match &self.open {
            None => "drover> ".to_owned(),
            Some(open) => format!("drover txn {:.4}…> ", open.txn.id().to_string()),
        }
    }

    /// Drops the open transaction; what to say about that.
    pub fn abandon(&mut self) -> Option<String> {
        let open = self.open.take()?;
        let writes = open.txn.contents().writes.len();
        Some(format!("transaction {} was aborted; {} of it dropped", open.txn.id(), count(writes, "write", "writes")))
    }

    /// Does what a line asks for. [`Action::Quit`] is the caller's.
    ///
    /// # Errors
    /// What it ended in, if that is no answer.
    pub async fn perform(&mut self, action: Action, output: &mut Output) -> anyhow::Result<End> {
        let after = self.state().after(&action).map_err(|refusal| UsageError(refusal.to_string()))?;
        let end = match action {
            Action::Get { key, at } => self.get(key, at, output).await,
            Action::Update { key, update } => self.update(key, update, output).await,
            Action::Cas { key, expect, update } => self.cas(key, expect, update, output).await,
            Action::Scan(scan) => self.scan(scan, output).await,
            Action::Count { interval, at } => self.count(interval, at, output).await,
            Action::Settle { key, name } => {
                let settled = self.interrupts.unless(self.client.settle(key, &name)).await;
                let settled = settled.unwrap_or_else(|| Err(unanswered())).map_err(again)?;
                kv::print_settled(self.global, output, settled)
            }
            Action::Begin { read_only, at } => self.begin(read_only, at, output),
            Action::Show => self.show(output),
            Action::Commit => self.commit(output).await,
            Action::Abort => self.abort(output),
            Action::Status => {
                let seen = self.interrupts.unless(self.client.status()).await.ok_or(Interrupted)??;
                status::show(self.global.json, output, &seen)?;
                Ok(End::Done)
            }
            Action::WatchStatus { every, times } => {
                let watch = Watch { every, times, attended: self.attended };
                watch.run(&self.client, self.global, output, &mut self.interrupts).await
            }
            Action::TxnList => self.txn_list(output).await,
            Action::TxnStatus { id, primary } => self.txn_status(id, primary, output).await,
            Action::TxnResolve { id, force } => {
                let resolved = self.interrupts.unless(self.client.resolve_transaction(id, force)).await;
                let resolved = resolved.unwrap_or_else(|| Err(unanswered())).map_err(again)?;
                txn::show_status(self.global.json, output, id, resolved)?;
                Ok(End::Done)
            }
            Action::Explain(text) => {
                self.say(output, text.trim_end(), json!({ "help": text }))?;
                Ok(End::Done)
            }
            Action::Quit => return Ok(End::Done),
        };
        debug_assert_eq!(self.state(), after, "the state machine knows better");
        end
    }

    /// The answer of a command: a text for people, or an object.
    pub(super) fn say(&self, output: &mut Output, text: &str, object: Value) -> std::io::Result<()> {
        match self.global.json {
            true => output.json(&object),
            false => output.line(text),
        }
    }

    /// Bytes as people read them.
    pub(super) fn format(&self, raw: &[u8]) -> String {
        self.global.notation().format(raw)
    }

    /// An object with a key.
    pub(super) fn named(&self, key: &[u8]) -> Map<String, Value> {
        let mut object = Map::new();
        self.global.notation().add_json(&mut object, "key", key);
        object
    }

    /// A no: for people on standard error, as the other commands do.
    pub(super) fn refuse(&self, output: &mut Output, text: &str, object: Value) -> std::io::Result<()> {
        if self.global.json {
            return output.json(&object);
        }
        output.flush()?;
        notice(text);
        Ok(())
    }

    fn begin(&mut self, read_only: bool, at: Option<Timestamp>, output: &mut Output) -> anyhow::Result<End> {
        let txn = at.map_or_else(|| self.client.begin(), |at| self.client.begin_at(at));
        let id = txn.id();
        self.open = Some(Open::now(txn, read_only));
        let at = at.map(|at| at.to_string());
        let text = format!("transaction {id}{}", if read_only { ", read only" } else { "" });
        self.say(output, &text, json!({ "transaction": id.to_string(), "read_only": read_only, "snapshot": at }))?;
        Ok(End::Done)
    }

    fn show(&self, output: &mut Output) -> anyhow::Result<End> {
        if let Some(open) = &self.open {
            open.show(self.global.json, self.global.notation(), output)?;
        }
        Ok(End::Done)
    }

    fn abort(&mut self, output: &mut Output) -> anyhow::Result<End> {
        let dropped = self.open.as_ref().map(|open| (open.txn.id(), open.txn.contents().writes.len()));
        if let (Some((id, writes)), Some(text)) = (dropped, self.abandon()) {
            self.say(output, &text, json!({ "aborted": id.to_string(), "writes_dropped": writes }))?;
        }
        Ok(End::Done)
    }

    /// The transaction is over afterwards, whatever becomes of it: a commit that was refused cannot be sent again.
    async fn commit(&mut self, output: &mut Output) -> anyhow::Result<End> {
        let Some(open) = self.open.take() else { return Ok(End::Done) };
        let (id, contents) = (open.txn.id(), open.txn.contents());
        let primary = contents.writes.first().map(|(key, _)| key.clone());
        if let Some(primary) = &primary {
            self.known.txn(id, primary.clone());
        }
        let committed = self.interrupts.unless(open.txn.commit()).await;
        let committed = match (committed, &primary) {
            (Some(committed), _) => committed,
            // Nothing is sent that changes anything.
            (None, None) => return Err(Interrupted.into()),
            (None, Some(_)) => Err(unanswered()),
        };
        let commit_ts = committed.map_err(|error| Self::after_commit(id, primary, error))?;
        let at = Some(commit_ts).filter(|at| *at != Timestamp::default()).map(|at| at.to_string());
        let text = match &at {
            Some(at) => format!("committed at {at}"),
            None => "nothing was read or written".to_owned(),
        };
        self.say(output, &text, json!({ "transaction": id.to_string(), "commit_ts": at }))?;
        Ok(End::Done)
    }

    /// Adds to the failure of a commit what there is to do.
    fn after_commit(id: TxnId, primary: Option<Bytes>, error: Error) -> anyhow::Error {
        match (error.is_unknown(), primary) {
            (true, Some(primary)) => Settle::Txn { id, primary }.add_to(error),
            _ => {
                let advice = "the transaction is over and nothing of it was written; begin another one";
                Error { message: format!("{}\n{advice}", error.message), ..error }.into()
            }
        }
    }

    async fn txn_list(&mut self, output: &mut Output) -> anyhow::Result<End> {
        let found = self.interrupts.unless(txn::prepared(&self.client)).await.ok_or(Interrupted)??;
        for txn in &found {
            self.known.txn(txn.id, txn.primary.clone());
        }
        let notation = self.global.notation();
        if self.global.json {
            let all: Vec<Value> = found.iter().map(|txn| txn::prepared_json(notation, txn)).collect();
            output.json(&json!({ "transactions": all }))?;
        } else if found.is_empty() {
            output.line("no transaction holds a lock")?;
        } else {
            txn::prepared_table(notation, output, &found)?;
        }
        Ok(End::Done)
    }

    async fn txn_status(&mut self, id: TxnId, primary: Option<Bytes>, output: &mut Output) -> anyhow::Result<End> {
        let Some(primary) = primary.or_else(|| self.known.primary(id)) else {
            let message = "give the key of its first write as well: this shell has neither committed nor listed it";
            return Err(UsageError(message.to_owned()).into());
        };
        let asked = self.interrupts.unless(self.client.transaction_status(id, primary)).await;
        let status = asked.ok_or(Interrupted)??;
        txn::show_status(self.global.json, output, id, status)?;
        Ok(if status == TransactionStatus::Nothing { End::No } else { End::Done })
    }
}

/// The failure of something that may be asked again.
fn again(error: Error) -> anyhow::Error {
    Settle::Again.add_to(error)
}
