//! Transactions to measure: read-modify-write of one key, of two keys in one group or in two, and transfers of a bank.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use drover_client::{Client, Error, GroupId, Transaction};
use rand::Rng;
use rand::rngs::StdRng;

use super::etcd::Etcd;
use super::key;
use super::report::Kind;
use super::target::Kept;

/// What each account has at first.
const OPENING_BALANCE: u64 = 1_000;
/// The most that one transfer moves.
const LARGEST_TRANSFER: u64 = 10;
/// Accounts opened or read at once.
const ACCOUNTS_AT_ONCE: u64 = 100;

/// Where the numbers of keys lie: runs of them for each group.
#[derive(Debug, Clone)]
pub struct Placement(Vec<(GroupId, Vec<Range<u64>>)>);

impl Placement {
    /// Asks for the routes and cuts `0..keys` by them.
    pub async fn of(client: &Client, keys: u64) -> anyhow::Result<Placement> {
        let routes = client.routes().await?;
        let spans = routes.routes.iter().map(|route| {
            let first = numbers_below(keys, &route.start);
            let end = route.end.as_ref().map_or(keys, |end| numbers_below(keys, end));
            (GroupId(route.group_id), first..end)
        });
        Ok(Placement::from_spans(spans))
    }

    fn from_spans(spans: impl IntoIterator<Item = (GroupId, Range<u64>)>) -> Placement {
        let mut groups: Vec<(GroupId, Vec<Range<u64>>)> = Vec::new();
        for (group, span) in spans.into_iter().filter(|(_, span)| !span.is_empty()) {
            match groups.iter_mut().find(|(known, _)| *known == group) {
                Some((_, spans)) => spans.push(span),
                None => groups.push((group, vec![span])),
            }
        }
        Placement(groups)
    }

    /// Two different numbers whose keys lie in one group.
    fn within_a_group(&self, random: &mut StdRng) -> anyhow::Result<[u64; 2]> {
        let roomy: Vec<&Vec<Range<u64>>> = self.0.iter().map(|(_, spans)| spans).filter(|s| count(s) > 1).collect();
        ensure!(!roomy.is_empty(), "no group has two of the keys; use more --keys");
        let spans = roomy[random.random_range(0..roomy.len())];
        let first = random.random_range(0..count(spans));
        let second = (first + random.random_range(1..count(spans))) % count(spans);
        Ok([nth(spans, first), nth(spans, second)])
    }

    /// Two numbers whose keys lie in different groups.
    fn across_groups(&self, random: &mut StdRng) -> anyhow::Result<[u64; 2]> {
        ensure!(self.0.len() > 1, "all keys lie in one group; two are needed, each with part of the keys");
        let first = random.random_range(0..self.0.len());
        let second = (first + random.random_range(1..self.0.len())) % self.0.len();
        Ok([first, second].map(|group| {
            let spans = &self.0[group].1;
            nth(spans, random.random_range(0..count(spans)))
        }))
    }
}

/// How many of the keys with numbers in `0..keys` lie below a bound.
fn numbers_below(keys: u64, bound: &[u8]) -> u64 {
    let (mut low, mut high) = (0, keys);
    while low < high {
        let middle = low + (high - low) / 2;
        if key(middle)[..] < *bound { low = middle + 1 } else { high = middle }
    }
    low
}

fn count(spans: &[Range<u64>]) -> u64 {
    spans.iter().map(|span| span.end - span.start).sum()
}

/// The number at a place counted over all spans; `place` is below their [`count`].
fn nth(spans: &[Range<u64>], mut place: u64) -> u64 {
    for span in spans {
        let length = span.end - span.start;
        if place < length {
            return span.start + place;
        }
        place -= length;
    }
    unreachable!("a place beyond all spans")
}

/// What a transaction came to, and how often it was run until then.
#[derive(Debug)]
pub struct Ran {
    pub kept: Kept,
    pub runs: u64,
}

/// Runs transactions on Drover.
#[derive(Clone)]
pub struct Transactions {
    client: Client,
    placement: Arc<Placement>,
    keys: u64,
    accounts: u64,
}

impl Transactions {
    pub async fn on(client: Client, keys: u64, accounts: u64) -> anyhow::Result<Transactions> {
        let placement = Arc::new(Placement::of(&client, keys).await?);
        Ok(Transactions { client, placement, keys, accounts })
    }

    /// Draws the keys of a transaction: their numbers, for a bank those of accounts.
    pub fn draw(&self, kind: Kind, random: &mut StdRng) -> anyhow::Result<Vec<u64>> {
        match kind {
            Kind::TxnOne => Ok(self.placement.within_a_group(random)?.to_vec()),
            Kind::TxnTwo => Ok(self.placement.across_groups(random)?.to_vec()),
            Kind::Bank => {
                let from = random.random_range(0..self.accounts);
                Ok(vec![from, (from + random.random_range(1..self.accounts)) % self.accounts])
            }
            Kind::Rmw | Kind::Put | Kind::Get | Kind::Cas => Ok(vec![random.random_range(0..self.keys)]),
        }
    }

    /// Reads keys and writes them again, atomically.
    pub async fn read_modify_write(&self, numbers: &[u64], value: &Bytes) -> anyhow::Result<Ran> {
        let keys: Vec<Bytes> = numbers.iter().copied().map(key).collect();
        let runs = AtomicU64::new(0);
        let work = async |txn: Transaction| {
            runs.fetch_add(1, Ordering::Relaxed);
            let found = txn.batch_get(keys.iter().cloned()).await?;
            for key in &keys {
                txn.put(key.clone(), value.clone());
            }
            Ok::<_, Error>(found.iter().all(Option::is_some))
        };
        let all_found = self.client.transaction(work).await?;
        Ok(Ran { kept: if all_found { Kept::Yes } else { Kept::No }, runs: runs.into_inner() })
    }

    /// Moves money from one account to another; not kept if there is too little.
    pub async fn transfer(&self, from: u64, to: u64, amount: u64) -> anyhow::Result<Ran> {
        let accounts = [self.account(from), self.account(to)];
        let runs = AtomicU64::new(0);
        let work = async |txn: Transaction| {
            runs.fetch_add(1, Ordering::Relaxed);
            let found = txn.batch_get(accounts.iter().cloned()).await?;
            let [Some(have), Some(theirs)] = [balance(&found[0]), balance(&found[1])] else {
                bail!("an account has no balance");
            };
            if have < amount {
                return Ok(Kept::No);
            }
            txn.put(accounts[0].clone(), (have - amount).to_be_bytes().to_vec());
            txn.put(accounts[1].clone(), (theirs + amount).to_be_bytes().to_vec());
            Ok(Kept::Yes)
        };
        let kept = self.client.transaction(work).await?;
        Ok(Ran { kept, runs: runs.into_inner() })
    }

    /// Accounts lie evenly among the keys, so that the groups share them.
    fn account(&self, number: u64) -> Bytes {
        let beside =
            key(u64::try_from(u128::from(number) * u128::from(self.keys) / u128::from(self.accounts)).unwrap_or(0));
        [&beside[..], b"/account/", number.to_string().as_bytes()].concat().into()
    }

    /// Gives every account its opening balance.
    pub async fn open_accounts(&self) -> anyhow::Result<()> {
        for first in (0..self.accounts).step_by(ACCOUNTS_AT_ONCE as usize) {
            let open = async |txn: Transaction| {
                for number in first..(first + ACCOUNTS_AT_ONCE).min(self.accounts) {
                    txn.put(self.account(number), OPENING_BALANCE.to_be_bytes().to_vec());
                }
                Ok::<_, Error>(())
            };
            self.client.transaction(open).await?;
        }
        Ok(())
    }

    /// Adds up all accounts in one snapshot.
    ///
    /// # Errors
    /// If money was made or lost.
    pub async fn audit(&self) -> anyhow::Result<()> {
        let snapshot = self.client.snapshot(None);
        let mut total = 0;
        for first in (0..self.accounts).step_by(ACCOUNTS_AT_ONCE as usize) {
            let numbers = first..(first + ACCOUNTS_AT_ONCE).min(self.accounts);
            let accounts: Vec<Bytes> = numbers.map(|number| self.account(number)).collect();
            for (account, value) in accounts.iter().zip(snapshot.batch_get(accounts.clone()).await?) {
                total += balance(&value).with_context(|| format!("{account:?} has no balance"))?;
            }
        }
        ensure!(
            total == self.accounts * OPENING_BALANCE,
            "the accounts hold {total}, not {}: money was made or lost",
            self.accounts * OPENING_BALANCE
        );
        Ok(())
    }
}

/// How much a transfer moves.
pub fn draw_amount(random: &mut StdRng) -> u64 {
    random.random_range(1..=LARGEST_TRANSFER)
}

fn balance(value: &Option<Bytes>) -> Option<u64> {
    value.as_deref()?.try_into().ok().map(u64::from_be_bytes)
}

/// Read-modify-write as etcd's users do it: a linearizable read, then a transaction that compares the revision that was
/// read and puts; from the start if the comparison fails.
pub async fn read_modify_write_etcd(etcd: &Etcd, client: usize, key: Bytes, value: Bytes) -> anyhow::Result<Ran> {
    for runs in 1.. {
        let revision = etcd.revision(client, key.clone()).await?;
        if etcd.put_if_revision(client, key.clone(), revision, value.clone()).await?.is_some() {
            return Ok(Ran { kept: if revision > 0 { Kept::Yes } else { Kept::No }, runs });
        }
    }
    unreachable!("the runs have no end")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn placement() -> Placement {
        let spans = [(2, 0..10), (3, 10..10), (4, 10..30), (2, 30..40)];
        Placement::from_spans(spans.map(|(group, span)| (GroupId(group), span)))
    }

    fn group_of(number: u64) -> u64 {
        if (10..30).contains(&number) { 4 } else { 2 }
    }

    #[test]
    fn bounds_cut_the_numbers_of_keys() {
        let cases: [(&[u8], u64); 6] = [
            (b"", 0),
            (b"bench/000000000000", 0),
            (b"bench/000000000033", 33),
            (b"bench/000000000033/account", 34),
            (b"bench/000000000100", 100),
            (b"c", 100),
        ];
        for (bound, below) in cases {
            assert_eq!(numbers_below(100, bound), below, "{bound:?}");
        }
    }

    #[test]
    fn pairs_lie_where_they_were_asked_for() {
        let (placement, mut random) = (placement(), StdRng::seed_from_u64(7));
        let mut seen = [false; 40];
        for _ in 0..1_000 {
            let [a, b] = placement.within_a_group(&mut random).unwrap();
            assert!(a != b && group_of(a) == group_of(b), "{a} {b}");
            seen[a as usize] = true;
            let [a, b] = placement.across_groups(&mut random).unwrap();
            assert_ne!(group_of(a), group_of(b), "{a} {b}");
            seen[b as usize] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "every key is drawn");
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let mut random = StdRng::seed_from_u64(7);
        let alone = Placement::from_spans([(GroupId(2), 0..1)]);
        assert!(alone.within_a_group(&mut random).unwrap_err().to_string().contains("--keys"));
        assert!(alone.across_groups(&mut random).unwrap_err().to_string().contains("one group"));
    }
}
