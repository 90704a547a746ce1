//! How to find out what became of something with an unknown outcome.

use bytes::Bytes;
use drover_client::{Error, Idempotency, TxnId};
use serde_json::{Map, Value, json};

use super::notation::{Notation, format_hex};
use super::shell::words::word;

/// What to do about an unknown outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settle {
    /// Ask for a write to `key` by its name, which also makes sure that it never happens later.
    Write { key: Bytes, name: Idempotency },
    /// Ask for a transaction by its id and the key of its first write.
    Txn { id: TxnId, primary: Bytes },
    /// Look with this command of `drover` whether it is there.
    Look(String),
    /// Nothing: to do it again does no harm.
    Again,
}

/// An error with an unknown outcome, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unsettled {
    #[source]
    pub error: Error,
    pub settle: Settle,
}

impl Settle {
    /// The error with this as advice, if its outcome is unknown.
    pub fn add_to(self, error: Error) -> anyhow::Error {
        if error.is_unknown() { Unsettled { error, settle: self }.into() } else { error.into() }
    }

    /// The command that tells, as `drover` takes it from a script. Bytes are hexadecimal, so that nothing needs quotes.
    pub fn command(&self, endpoints: &[String]) -> Option<String> {
        let words = match self {
            Settle::Write { key, name } => format!("kv settle --hex {} {}", format_hex(key), name_flags(name)),
            Settle::Txn { id, primary } => format!("txn status --hex {id} {}", format_hex(primary)),
            Settle::Look(words) => words.clone(),
            Settle::Again => return None,
        };
        Some(format!("drover {words} --endpoints {}", endpoints.join(",")))
    }

    /// The command that tells, as the shell takes it.
    pub fn shell_command(&self, notation: Notation) -> Option<String> {
        match self {
            Settle::Write { key, name } => Some(format!("settle {} {}", word(notation, key), name_flags(name))),
            Settle::Txn { id, primary } => Some(format!("txn status {id} {}", word(notation, primary))),
            Settle::Look(_) | Settle::Again => None,
        }
    }

    /// The arguments one by one, with the command that takes them.
    pub fn json(&self, command: Option<String>) -> Option<Value> {
        let mut object: Map<String, Value> = match self {
            Settle::Write { key, name } => [
                ("key_hex", format_hex(key)),
                ("idempotency_key", format_hex(&name.key)),
                ("not_after", name.not_after.to_string()),
            ]
            .map(|(name, text)| (name.to_owned(), text.into()))
            .into_iter()
            .collect(),
            Settle::Txn { id, primary } => [("transaction", id.to_string()), ("primary_hex", format_hex(primary))]
                .map(|(name, text)| (name.to_owned(), text.into()))
                .into_iter()
                .collect(),
            Settle::Look(_) => Map::new(),
            Settle::Again => return None,
        };
        object.insert("command".to_owned(), json!(command?));
        Some(object.into())
    }

    /// What to do, for people; `command` is how it is asked here.
    pub fn advice(&self, command: Option<&str>) -> String {
        match (self, command) {
            (Settle::Write { .. } | Settle::Txn { .. }, Some(command)) => {
                format!("to find out what became of it: {command}")
            }
            (Settle::Look(_), Some(command)) => {
                format!("to find out what became of it: {command}; repeat it if it is not there")
            }
            (Settle::Again, _) | (_, None) => "to make sure of it: do the same again, which does no harm".to_owned(),
        }
    }
}

/// The flags of `settle` that tell the name of a write.
fn name_flags(name: &Idempotency) -> String {
    format!("--idempotency-key {} --not-after {}", format_hex(&name.key), name.not_after)
}
