use std::collections::BTreeSet;

use drover_keys::{Interval, escape};

use crate::{Error, Expectation, Mutation, ReadSet, Reason, Update, WriteKind};

/// Sizes above which requests are refused. In bytes, unless it is said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A key.
    pub key_bytes: usize,
    /// A value.
    pub value_bytes: usize,
    /// A request as a whole, and one page of an answer.
    pub batch_bytes: usize,
    /// An idempotency key.
    pub idempotency_key_bytes: usize,
    /// How many keys a transaction may write. A number, not bytes.
    pub txn_mutations: usize,
    /// How many keys and intervals a transaction may have read. A number, not bytes.
    pub txn_reads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 4 << 10,
            value_bytes: 8 << 20,
            batch_bytes: 16 << 20,
            idempotency_key_bytes: 64,
            txn_mutations: 100_000,
            txn_reads: 100_000,
        }
    }
}

impl Limits {
    /// Refuses empty and oversized keys.
    ///
    /// # Errors
    /// [`Reason::KeyEmpty`], [`Reason::KeyTooLarge`]; definite.
    pub fn check_key(&self, key: &[u8]) -> Result<(), Error> {
        match key.len() {
            0 => Err(Error::definite(Reason::KeyEmpty, "the key is empty; keys have at least 1 byte")),
            n if n > self.key_bytes => Err(too_large(Reason::KeyTooLarge, "the key", n, self.key_bytes)),
            _ => Ok(()),
        }
    }

    /// Refuses oversized values.
    ///
    /// # Errors
    /// [`Reason::ValueTooLarge`]; definite.
    pub fn check_value(&self, value: &[u8]) -> Result<(), Error> {
        match value.len() {
            n if n > self.value_bytes => Err(too_large(Reason::ValueTooLarge, "the value", n, self.value_bytes)),
            _ => Ok(()),
        }
    }

    /// Refuses requests that are too large as a whole.
    ///
    /// # Errors
    /// [`Reason::BatchTooLarge`]; definite.
    pub fn check_batch(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.batch_bytes {
            return Err(too_large(Reason::BatchTooLarge, "the request", bytes, self.batch_bytes));
        }
        Ok(())
    }

    /// Refuses to answer with more than fits into one message.
    ///
    /// # Errors
    /// [`Reason::BatchTooLarge`]; definite.
    pub fn check_answer(&self, bytes: usize) -> Result<(), Error> {
        if bytes > self.batch_bytes {
            let error = too_large(Reason::BatchTooLarge, "the answer", bytes, self.batch_bytes);
            return Err(Error { message: format!("{}; ask for fewer keys at a time", error.message), ..error });
        }
        Ok(())
    }

    /// Refuses oversized bounds. Empty bounds are legal: the start of the key space.
    ///
    /// # Errors
    /// [`Reason::KeyTooLarge`]; definite.
    pub fn check_interval(&self, interval: &Interval) -> Result<(), Error> {
        // The least key above a legal key is one byte longer.
        let limit = self.key_bytes + 1;
        let longest = interval.start().len().max(interval.end().as_key().map_or(0, |k| k.len()));
        if longest > limit {
            return Err(too_large(Reason::KeyTooLarge, "a range bound", longest, limit));
        }
        Ok(())
    }

    /// Checks everything about one write.
    ///
    /// # Errors
    /// The first limit it exceeds; definite.
    pub fn check_write(&self, kind: &WriteKind) -> Result<(), Error> {
        match kind {
            WriteKind::Put { key, value, .. } => {
                self.check_key(key)?;
                self.check_value(value)?;
            }
            WriteKind::Delete { key } | WriteKind::Settle { key } => self.check_key(key)?,
            WriteKind::CompareAndSet { key, expect, update } => {
                self.check_key(key)?;
                if let Expectation::Value(value) = expect {
                    self.check_value(value)?;
                }
                if let Update::Put { value, .. } = update {
                    self.check_value(value)?;
                }
            }
            WriteKind::DeleteRange { interval, .. } => self.check_interval(interval)?,
            WriteKind::Txn(step) => step.keys().try_for_each(|key| self.check_key(key))?,
        }
        self.check_batch(kind.payload_bytes())
    }

    /// Checks what a transaction wants to commit.
    ///
    /// # Errors
    /// The first limit it exceeds, a key that is written twice, or bounds that are reversed; definite.
    pub fn check_txn(&self, mutations: &[Mutation], reads: &ReadSet) -> Result<(), Error> {
        let count = |what: &str, count: usize, limit: usize| match count > limit {
            true => Err(Error::definite(
                Reason::BatchTooLarge,
                format!("the transaction {what} {count} keys, the limit is {limit}; nothing was changed"),
            )),
            false => Ok(()),
        };
        count("writes", mutations.len(), self.txn_mutations)?;
        count("has read", reads.keys.len() + reads.intervals.len(), self.txn_reads)?;
        for mutation in mutations {
            self.check_key(&mutation.key)?;
            if let Update::Put { value, .. } = &mutation.update {
                self.check_value(value)?;
            }
        }
        reads.keys.iter().try_for_each(|key| self.check_key(key))?;
        reads.intervals.iter().try_for_each(|interval| self.check_interval(interval))?;
        let bytes = mutations.iter().map(Mutation::payload_bytes).sum::<usize>() + reads.payload_bytes();
        self.check_batch(bytes)?;
        let mut seen = BTreeSet::new();
        match mutations.iter().find(|mutation| !seen.insert(&mutation.key)) {
            Some(twice) => {
                let message =
                    format!("the transaction writes {} more than once; nothing was changed", escape(&twice.key));
                Err(Error::definite(Reason::InvalidArgument, message))
            }
            None => Ok(()),
        }
    }
}

fn too_large(reason: Reason, what: &str, size: usize, limit: usize) -> Error {
    Error::definite(reason, format!("{what} has {size} bytes, the limit is {limit} bytes; nothing was changed"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(key: usize, value: usize) -> WriteKind {
        WriteKind::Put { key: vec![1; key].into(), value: vec![2; value].into(), ttl_ms: None }
    }

    #[test]
    fn an_answer_that_does_not_fit_into_a_message_is_refused_with_advice() {
        let limits = Limits { batch_bytes: 10, ..Limits::default() };
        assert_eq!(limits.check_answer(10), Ok(()));
        let error = limits.check_answer(11).unwrap_err();
        assert_eq!((error.reason, error.is_unknown()), (Reason::BatchTooLarge, false));
        assert!(error.message.contains("the limit is 10 bytes") && error.message.contains("fewer keys"), "{error}");
    }

    #[test]
    fn a_transaction_is_checked_as_a_whole_and_key_by_key() {
        let limits = Limits {
            key_bytes: 4,
            value_bytes: 8,
            batch_bytes: 20,
            txn_mutations: 3,
            txn_reads: 2,
            ..Limits::default()
        };
        let put = |key: &'static str, value: &'static str| Mutation {
            key: key.into(),
            update: Update::Put { value: value.into(), ttl_ms: None },
        };
        let delete = |key: &'static str| Mutation { key: key.into(), update: Update::Delete };
        let reads = |keys: &[&'static str]| ReadSet {
            keys: keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect(),
            intervals: Vec::new(),
        };
        let long = || ReadSet { intervals: vec![Interval::point("abcdef")], ..ReadSet::default() };
        let table = [
            (vec![], ReadSet::default(), Ok(())),
            (vec![put("a", "v"), delete("b"), delete("c")], reads(&["a", "b"]), Ok(())),
            (vec![delete("a"), delete("b"), delete("c"), delete("d")], reads(&[]), Err(Reason::BatchTooLarge)),
            (vec![], reads(&["a", "b", "c"]), Err(Reason::BatchTooLarge)),
            (vec![delete("")], reads(&[]), Err(Reason::KeyEmpty)),
            (vec![delete("abcde")], reads(&[]), Err(Reason::KeyTooLarge)),
            (vec![put("a", "123456789")], reads(&[]), Err(Reason::ValueTooLarge)),
            (vec![put("a", "12345678"), put("b", "12345678")], reads(&["abc"]), Err(Reason::BatchTooLarge)),
            (vec![], reads(&[""]), Err(Reason::KeyEmpty)),
            (vec![], long(), Err(Reason::KeyTooLarge)),
            (vec![put("a", "1"), delete("a")], reads(&[]), Err(Reason::InvalidArgument)),
        ];
        for (mutations, reads, expect) in table {
            let got = limits.check_txn(&mutations, &reads).map_err(|error| error.reason);
            assert_eq!(got, expect, "{mutations:?} {reads:?}");
        }
    }

    #[test]
    fn each_limit_refuses_one_byte_more_and_names_itself() {
        let limits = Limits { key_bytes: 4, value_bytes: 8, batch_bytes: 10, ..Limits::default() };
        let table = [
            (put(0, 0), Err(Reason::KeyEmpty)),
            (put(1, 0), Ok(())),
            (put(4, 6), Ok(())),
            (put(5, 0), Err(Reason::KeyTooLarge)),
            (put(1, 9), Err(Reason::ValueTooLarge)),
            (put(4, 7), Err(Reason::BatchTooLarge)),
            (WriteKind::Delete { key: Bytes::new() }, Err(Reason::KeyEmpty)),
        ];
        for (kind, expect) in table {
            let got = limits.check_write(&kind);
            assert_eq!(got.clone().map_err(|e| e.reason), expect, "{kind:?}");
            if let Err(error) = got
                && error.reason != Reason::KeyEmpty
            {
                assert!(error.message.contains("limit is"), "{error}");
            }
        }
    }
}
