//! Tells a retry from another use of the same idempotency key.
//!
//! The hash covers what the client asked for and `not_after`: a later `not_after` under the same key could outlive the
//! record of the first attempt. It covers neither commit timestamp nor observed catalog version, which each attempt
//! takes anew, and of a range delete only the start: where the batch ends is the leader's choice at each attempt.
//!
//! ```text
//! xxh3-64 of: not_after (8, BE) | tag (1) | field | field | …        field = length (8, BE) | bytes
//! ```
//!
//! The bytes are persisted (as their hash): tags are never reused.

use drover_hlc::Timestamp;
use drover_kv::{Expectation, Idempotency, Mutation, Update, WriteKind};
use xxhash_rust::xxh3::xxh3_64;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const COMPARE_AND_SET: u8 = 3;
const DELETE_RANGE: u8 = 4;
const SETTLE: u8 = 5;

/// The fingerprint of an operation.
pub fn fingerprint(kind: &WriteKind, idempotency: &Idempotency) -> u64 {
    let mut out = Canonical(Vec::with_capacity(64 + kind.payload_bytes()));
    out.number(idempotency.not_after.raw());
    match kind {
        WriteKind::Put { key, value, ttl_ms } => {
            out.tag(PUT);
            out.field(key);
            out.put(value, *ttl_ms);
        }
        WriteKind::Delete { key } => {
            out.tag(DELETE);
            out.field(key);
        }
        WriteKind::CompareAndSet { key, expect, update } => {
            out.tag(COMPARE_AND_SET);
            out.field(key);
            out.expectation(expect);
            out.update(update);
        }
        WriteKind::DeleteRange { interval, .. } => {
            out.tag(DELETE_RANGE);
            out.field(interval.start());
        }
        WriteKind::Settle { key } => {
            out.tag(SETTLE);
            out.field(key);
        }
        WriteKind::Txn(_) => unreachable!("transactions carry no idempotency key"),
    }
    xxh3_64(&out.0)
}

/// The fingerprint of a transaction: the snapshot that it reads and all that it writes, in its order.
pub fn txn_fingerprint(start_ts: Timestamp, mutations: &[Mutation]) -> u64 {
    let bytes: usize = mutations.iter().map(|mutation| mutation.payload_bytes() + 32).sum();
    let mut out = Canonical(Vec::with_capacity(16 + bytes));
    out.number(start_ts.raw());
    for Mutation { key, update } in mutations {
        out.field(key);
        out.update(update);
    }
    xxh3_64(&out.0)
}

/// Bytes that differ if the operations do.
struct Canonical(Vec<u8>);

impl Canonical {
    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn number(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_be_bytes());
    }

    fn field(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn put(&mut self, value: &[u8], ttl_ms: Option<u64>) {
        self.field(value);
        match ttl_ms {
            None => self.tag(0),
            Some(ttl_ms) => {
                self.tag(1);
                self.number(ttl_ms);
            }
        }
    }

    fn update(&mut self, update: &Update) {
        match update {
            Update::Put { value, ttl_ms } => {
                self.tag(PUT);
                self.put(value, *ttl_ms);
            }
            Update::Delete => self.tag(DELETE),
        }
    }

    fn expectation(&mut self, expect: &Expectation) {
        match expect {
            Expectation::Absent => self.tag(1),
            Expectation::Present => self.tag(2),
            Expectation::Value(value) => {
                self.tag(3);
                self.field(value);
            }
            Expectation::Version(commit_ts) => {
                self.tag(4);
                self.number(commit_ts.raw());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::state::tests::{interval, ts};

    fn idempotency(not_after: u64) -> Idempotency {
        Idempotency { key: "id".into(), not_after: ts(not_after) }
    }

    fn different() -> Vec<WriteKind> {
        let put = |key: &'static str, value: &'static str, ttl_ms| WriteKind::Put {
            key: key.into(),
            value: value.into(),
            ttl_ms,
        };
        let cas = |expect, update| WriteKind::CompareAndSet { key: "k".into(), expect, update };
        let update = || Update::Put { value: "v".into(), ttl_ms: None };
        vec![
            put("k", "v", None),
            put("kv", "", None),
            put("", "kv", None),
            put("k", "v", Some(0)),
            put("k", "v", Some(1)),
            WriteKind::Delete { key: "k".into() },
            WriteKind::Settle { key: "k".into() },
            cas(Expectation::Absent, update()),
            cas(Expectation::Present, update()),
            cas(Expectation::Value("".into()), update()),
            cas(Expectation::Version(ts(0)), update()),
            cas(Expectation::Version(ts(1)), update()),
            cas(Expectation::Present, Update::Delete),
            cas(Expectation::Present, Update::Put { value: "v".into(), ttl_ms: Some(1) }),
            WriteKind::DeleteRange { interval: interval("k", "z"), resume: None },
        ]
    }

    #[test]
    fn different_operations_and_deadlines_have_different_fingerprints() {
        let kinds = different();
        let all: BTreeSet<u64> =
            (1..3).flat_map(|n| kinds.iter().map(move |k| fingerprint(k, &idempotency(n)))).collect();
        assert_eq!(all.len(), 2 * kinds.len());
    }

    #[test]
    fn where_a_batch_of_a_range_delete_ends_is_not_part_of_it() {
        let short = WriteKind::DeleteRange { interval: interval("k", "m"), resume: Some("m".into()) };
        let long = WriteKind::DeleteRange { interval: interval("k", ""), resume: None };
        assert_eq!(fingerprint(&short, &idempotency(1)), fingerprint(&long, &idempotency(1)));
    }

    #[test]
    fn golden_fingerprints() {
        let got: Vec<String> =
            different().iter().map(|k| format!("{:016x}", fingerprint(k, &idempotency(7)))).collect();
        assert_eq!(got, GOLDEN);
    }

    /// Of [`different`], computed once; stored records depend on them.
    const GOLDEN: [&str; 15] = [
        "418334872c4ddbdc",
        "8dfb72ccdc8098fa",
        "af4fd606e4d17ed1",
        "c186aaac8b2b33d9",
        "2b2c38c041789cef",
        "2f236cbfe6f42421",
        "c1914071ccb72337",
        "aae37468430662c6",
        "a8287026767aeaac",
        "c2b2836ee9d49968",
        "5f53d27de5d34c3e",
        "2a4b83095d695fa0",
        "25f26bcc249052e9",
        "1599d20668fb0fd9",
        "764effebcd87dfd0",
    ];
}
