//! What clients do.

mod count;
mod ends;
mod generate;
mod perform;

use drover_client::Client;

pub use ends::{final_reads, set_up};
pub use generate::{ACCOUNTS, Ask, EACH, Generator};
pub use perform::{Clients, perform};

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Transactions that append to lists and read them.
    Append,
    /// Transactions that write and read registers.
    Wr,
    /// Reads, writes, deletes and compare-and-sets of single keys, by value and by version.
    Register,
    /// Transfers; all accounts are read by a multi-get and by a scan.
    Bank,
    /// Keys that are put once; a scan reads all of them.
    Set,
    /// Counters; what adds is sent again and again under its name, through other nodes.
    Counter,
    /// Writes and snapshots whose timestamps are compared with real time.
    Monotonic,
    /// Mostly deletes and overwrites; old versions are collected after three seconds.
    Delete,
    /// Two writes that everybody must see in one order.
    LongFork,
    /// Two ranges are found empty, and something is put into one of them.
    Predicate,
    /// Registers, through the nodes that may know an old map: those that hold no replica of the default group.
    Stale,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::Append,
        Kind::Wr,
        Kind::Register,
        Kind::Bank,
        Kind::Set,
        Kind::Counter,
        Kind::Monotonic,
        Kind::Delete,
        Kind::LongFork,
        Kind::Predicate,
        Kind::Stale,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Append => "append",
            Kind::Wr => "wr",
            Kind::Register => "register",
            Kind::Bank => "bank",
            Kind::Set => "set",
            Kind::Counter => "counter",
            Kind::Monotonic => "monotonic",
            Kind::Delete => "delete",
            Kind::LongFork => "long-fork",
            Kind::Predicate => "predicate",
            Kind::Stale => "stale",
        }
    }

    /// The workload of this name.
    pub fn by_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Operations of one client after which the keys give way to new ones; `None`: they stay. No key gets more than 200.
    pub fn operations_per_keys(self, clients: u64) -> Option<u64> {
        let all = match self {
            Kind::Append | Kind::Wr => 120,
            Kind::Register | Kind::Delete | Kind::Stale => 200,
            Kind::LongFork => 40,
            Kind::Predicate => 20,
            Kind::Bank | Kind::Set | Kind::Counter | Kind::Monotonic => return None,
        };
        Some((all / clients.max(1)).max(1))
    }
}

/// Which node a client is bound to, of those that there are: every other client chooses for itself.
pub fn bound_to(kind: Kind, client: u64, nodes: u64) -> Option<u64> {
    match kind {
        // The default group lies on the first three.
        Kind::Stale if nodes > 3 => Some(4 + client % (nodes - 3)),
        Kind::Stale => Some(client % nodes + 1),
        _ if client.is_multiple_of(2) => Some(client / 2 % nodes + 1),
        _ => None,
    }
}

/// The clients of all nodes, each of which sends everything to one.
pub type Doors = Vec<Client>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_again_and_no_key_gets_too_many_operations() {
        for kind in Kind::ALL {
            assert_eq!(Kind::by_name(kind.name()), Some(kind));
            for clients in [1, 3, 10] {
                assert!(kind.operations_per_keys(clients).is_none_or(|each| each * clients <= 200));
            }
        }
    }

    #[test]
    fn stale_clients_go_through_nodes_without_the_catalog() {
        let nodes: Vec<_> = (0..4).map(|client| bound_to(Kind::Stale, client, 5)).collect();
        assert_eq!(nodes, [Some(4), Some(5), Some(4), Some(5)]);
        assert_eq!([0, 1, 2].map(|client| bound_to(Kind::Set, client, 3)), [Some(1), None, Some(2)]);
    }
}
