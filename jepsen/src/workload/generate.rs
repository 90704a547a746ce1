//! What a client asks next. Everything is drawn from a seed; two things come from outside: how far the keys have been
//! replaced, and what the client saw last, so that comparisons have a chance.

use drover_testkit::history::{Action, Answer, Expect, Seen};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::Kind;
use crate::cluster::RANGES;

/// Accounts of the bank.
pub const ACCOUNTS: u64 = 8;
/// What each holds at first.
pub const EACH: i64 = 100;
/// Keys of the workload that compares timestamps.
const STAMPED: usize = 6;

/// One operation that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Which.
    pub f: &'static str,
    /// With what.
    pub value: Value,
}

/// Draws the operations of one client.
#[derive(Debug)]
pub struct Generator {
    kind: Kind,
    client: u64,
    per_keys: Option<u64>,
    rng: StdRng,
    drawn: u64,
    keys: u64,
    in_keys: u64,
    last: Option<Seen>,
}

impl Generator {
    /// For one of so many clients.
    pub fn new(kind: Kind, seed: u64, client: u64, clients: u64) -> Self {
        let salt = Kind::ALL.iter().position(|other| *other == kind).map_or(0, |at| at as u64);
        Self {
            kind,
            client,
            per_keys: kind.operations_per_keys(clients),
            rng: StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(salt * 1000 + client)),
            drawn: 0,
            keys: 0,
            in_keys: 0,
            last: None,
        }
    }

    /// The set of keys that it is at.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// Whether a random number in `0..1` for pauses is below `share`.
    pub fn pause(&mut self) -> f64 {
        self.rng.random()
    }

    /// What the client saw.
    pub fn saw(&mut self, value: &Value) {
        let answer = value.get("answer").and_then(|answer| serde_json::from_value(answer.clone()).ok());
        if let Some(Answer::Read(seen) | Answer::CompareFailed(seen)) = answer {
            self.last = seen;
        }
    }

    /// The next operation, when others are at the set of keys `others` already.
    pub fn next(&mut self, others: u64) -> Ask {
        self.drawn += 1;
        self.in_keys += 1;
        if self.per_keys.is_some_and(|most| self.in_keys > most) {
            self.keys += 1;
            self.in_keys = 1;
        }
        if others > self.keys {
            (self.keys, self.in_keys) = (others, 1);
        }
        match self.kind {
            Kind::Append => self.transaction("append", "append"),
            Kind::Wr => self.transaction("wr", "w"),
            Kind::Register => self.register("reg", [5, 3, 1, 4]),
            Kind::Delete => self.register("del", [5, 3, 4, 1]),
            Kind::Stale => self.register("stale", [5, 4, 1, 2]),
            Kind::Bank => self.bank(),
            Kind::Set => match self.rng.random_ratio(1, 8) {
                true => Ask { f: "read", value: Value::Null },
                false => Ask { f: "add", value: self.unique().into() },
            },
            Kind::Counter => match self.rng.random_ratio(1, 4) {
                true => Ask { f: "again", value: json!({"key": self.range("again", self.unique())}) },
                false => Ask { f: "add", value: json!({"key": self.range("count", 0)}) },
            },
            Kind::Monotonic => match self.rng.random_ratio(1, 3) {
                true => Ask { f: "stamp", value: Value::Null },
                false => {
                    let n = self.rng.random_range(0..STAMPED) as u64;
                    Ask { f: "write", value: json!({"key": self.range("mono", n), "value": self.unique()}) }
                }
            },
            Kind::LongFork => match self.rng.random_ratio(1, 4) {
                true => Ask { f: "write", value: json!({"pair": self.keys, "which": self.rng.random_range(0..2)}) },
                false => Ask { f: "look", value: json!({"pair": self.keys}) },
            },
            Kind::Predicate => {
                let which = self.rng.random_range(0..2);
                Ask { f: "insert", value: json!({"pair": self.keys, "which": which, "row": self.unique()}) }
            }
        }
    }

    /// Unique over all clients of the workload.
    fn unique(&self) -> u64 {
        self.client * 1_000_000 + self.drawn
    }

    /// A key in one of the ranges.
    fn range(&mut self, name: &str, n: u64) -> String {
        format!("{}/{name}/{n:06}", RANGES[self.rng.random_range(0..RANGES.len())])
    }

    fn transaction(&mut self, name: &str, write: &str) -> Ask {
        let operations = (0..self.rng.random_range(1..=4u64)).map(|place| {
            let key = self.range(name, self.keys);
            match self.rng.random_bool(0.5) {
                true => json!(["r", key, null]),
                false => json!([write, key, self.unique() * 4 + place]),
            }
        });
        Ask { f: "txn", value: operations.collect() }
    }

    fn register(&mut self, name: &str, [read, write, delete, cas]: [u32; 4]) -> Ask {
        let key = self.range(name, self.keys);
        let dice = self.rng.random_range(0..read + write + delete + cas);
        let value = self.unique();
        let (f, action) = match dice {
            n if n < read => ("read", Action::Read),
            n if n < read + write => ("write", Action::Write { value }),
            n if n < read + write + delete => ("delete", Action::Delete),
            _ => {
                let expect = match (self.last, self.rng.random_range(0..6)) {
                    (Some(seen), 0..=2) => Expect::Version(seen.commit_ts),
                    (Some(Seen { value: Some(value), .. }), 3) => Expect::Value(value),
                    (_, 4) => Expect::Present,
                    _ => Expect::Absent,
                };
                let update = (!self.rng.random_ratio(1, 8)).then_some(value);
                ("cas", Action::Cas { expect, update })
            }
        };
        Ask { f, value: json!({"key": key, "action": action}) }
    }

    fn bank(&mut self) -> Ask {
        match self.rng.random_range(0..10) {
            0..=1 => Ask { f: "read", value: Value::Null },
            2..=3 => Ask { f: "scan", value: Value::Null },
            _ => {
                let from = self.rng.random_range(0..ACCOUNTS);
                let to = (from + self.rng.random_range(1..ACCOUNTS)) % ACCOUNTS;
                let amount = self.rng.random_range(1..=5);
                Ask { f: "transfer", value: json!({"from": from, "to": to, "amount": amount}) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn draw(kind: Kind, seed: u64, client: u64, count: usize) -> Vec<Ask> {
        let mut generator = Generator::new(kind, seed, client, 4);
        (0..count).map(|_| generator.next(0)).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_client_or_seed_something_else() {
        for kind in Kind::ALL {
            assert_eq!(draw(kind, 7, 1, 200), draw(kind, 7, 1, 200), "{}", kind.name());
            assert_ne!(draw(kind, 7, 1, 200), draw(kind, 8, 1, 200), "{}", kind.name());
            assert_ne!(draw(kind, 7, 1, 200), draw(kind, 7, 2, 200), "{}", kind.name());
        }
    }

    #[test]
    fn what_is_written_is_unique() {
        for (kind, place) in [(Kind::Append, "append"), (Kind::Wr, "w")] {
            let drawn: Vec<Ask> = (0..4).flat_map(|client| draw(kind, 1, client, 500)).collect();
            let operations = drawn.iter().flat_map(|ask| ask.value.as_array().unwrap());
            let written: Vec<u64> = operations.filter(|op| op[0] == place).map(|op| op[2].as_u64().unwrap()).collect();
            assert_eq!(written.len(), written.iter().collect::<BTreeSet<_>>().len());
        }
        let added: Vec<u64> =
            (0..4).flat_map(|client| draw(Kind::Set, 1, client, 500)).filter_map(|ask| ask.value.as_u64()).collect();
        assert_eq!(added.len(), added.iter().collect::<BTreeSet<_>>().len());
    }

    #[test]
    fn keys_give_way_to_new_ones_and_all_three_ranges_are_used() {
        let mut of_key: BTreeMap<String, usize> = BTreeMap::new();
        for client in 0..4 {
            for ask in draw(Kind::Register, 3, client, 1000) {
                *of_key.entry(ask.value["key"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        assert!(of_key.values().all(|count| *count <= 200), "{of_key:?}");
        let ranges: BTreeSet<&str> = of_key.keys().map(|key| &key[..1]).collect();
        assert_eq!(ranges, BTreeSet::from(RANGES));
        let mut generator = Generator::new(Kind::Append, 1, 0, 4);
        generator.next(9);
        assert_eq!(generator.keys(), 9, "who was held up goes on with the keys of the others");
    }
}
