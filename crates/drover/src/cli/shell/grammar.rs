//! The words that commands are made of, as clap reads, explains and completes them.

use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use drover_client::{Timestamp, TxnId};

use super::super::kv::SettleArgs;
use super::super::notation::parse_duration;

/// Shown at the end of `help`.
const NOTES: &str = "\
Keys and values are written as on the command line: \\xNN, \\\\, \\n, \\r, \\t and \\0 are escapes. Quotes, \" or ',
hold together what has blanks; \\\" and \\' are quotes that are meant as they are. A line that begins with # is skipped.
Within a transaction get, scan, count, put, delete and cas belong to it. `help COMMAND` tells more.";

/// One line.
#[derive(Debug, Parser)]
#[command(name = "", multicall = true, disable_help_subcommand = true, after_help = NOTES)]
pub struct Line {
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Their names are those of `drover kv` where they do the same.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the value of a key
    Get {
        key: String,
        /// As of this timestamp; not within a transaction
        #[arg(long, value_name = "TIMESTAMP")]
        at: Option<Timestamp>,
    },
    /// Writes a key
    Put {
        key: String,
        value: String,
        /// Let the value expire: 500ms, 10s, 2m, 1h
        #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
        ttl: Option<Duration>,
    },
    /// Deletes a key; deleting an absent one succeeds
    Delete { key: String },
    /// Writes or deletes a key if its value is as expected
    Cas(CasArgs),
    /// Prints the keys and values of a range, one row on a line
    Scan(ScanArgs),
    /// Counts the keys of a range
    Count {
        #[command(flatten)]
        range: RangeArgs,
        /// As of this timestamp; not within a transaction
        #[arg(long, value_name = "TIMESTAMP")]
        at: Option<Timestamp>,
    },
    /// Tells what became of a write with an unknown outcome, or makes sure that it never happens
    Settle(SettleArgs),
    /// Begins a transaction
    Begin {
        /// It cannot write
        #[arg(long)]
        read_only: bool,
        /// Reads at this snapshot; without it, at that of its first read
        #[arg(long, value_name = "TIMESTAMP")]
        at: Option<Timestamp>,
    },
    /// Shows what the open transaction has written and read, and for how long it is open
    Show,
    /// Commits the open transaction
    Commit,
    /// Drops the open transaction: nothing of it is written
    Abort,
    /// Shows nodes, groups and leaders
    Status,
    /// Shows something again and again
    #[command(subcommand)]
    Watch(Watch),
    /// Lists and settles transactions that were left behind
    #[command(subcommand)]
    Txn(Txn),
    /// Explains a command, or lists all
    Help { command: Vec<String> },
    /// Leaves; an open transaction is dropped
    #[command(visible_alias = "exit")]
    Quit,
}

#[derive(Debug, Args)]
pub struct CasArgs {
    pub key: String,
    /// The value that the key must have; left out with one of --expect-...
    #[arg(value_name = "EXPECTED")]
    pub first: Option<String>,
    /// The value to write; left out with --delete
    #[arg(value_name = "NEW")]
    pub second: Option<String>,
    /// The key must have no value
    #[arg(long, group = "expect")]
    pub expect_absent: bool,
    /// The key must have a value, whatever it is
    #[arg(long, group = "expect")]
    pub expect_present: bool,
    /// The key's value must have been committed at this timestamp
    #[arg(long, group = "expect", value_name = "TIMESTAMP")]
    pub expect_version: Option<Timestamp>,
    /// Delete the key instead of writing it
    #[arg(long, conflicts_with = "ttl")]
    pub delete: bool,
    /// Let the value expire: 500ms, 10s, 2m, 1h
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub ttl: Option<Duration>,
}

/// Which keys a command is about.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// Lowest key; - for no bound
    pub from: Option<String>,
    /// Key below which the range ends; - for no bound
    pub to: Option<String>,
    /// All keys that start so
    #[arg(long, value_name = "KEY", conflicts_with_all = ["from", "to"])]
    pub prefix: Option<String>,
}

#[derive(Debug, Args)]
pub struct ScanArgs {
    #[command(flatten)]
    pub range: RangeArgs,
    /// From the highest key down
    #[arg(long)]
    pub reverse: bool,
    /// At most so many rows; 0: no limit
    #[arg(long, default_value_t = 0, value_name = "ROWS")]
    pub limit: u64,
    /// Leave the values out
    #[arg(long)]
    pub keys_only: bool,
    /// As of this timestamp; not within a transaction
    #[arg(long, value_name = "TIMESTAMP")]
    pub at: Option<Timestamp>,
}

/// What can be watched.
#[derive(Debug, Subcommand)]
pub enum Watch {
    /// The nodes, groups and leaders, until Enter or Ctrl-C
    Status {
        /// Time from one look to the next
        #[arg(long, default_value = "2s", value_parser = parse_duration, value_name = "DURATION")]
        every: Duration,
        /// Ends after so many looks
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "LOOKS")]
        times: Option<u64>,
    },
}

/// What there is to do with transactions of others.
#[derive(Debug, Subcommand)]
pub enum Txn {
    /// Lists transactions that hold locks, and what they wait for
    List,
    /// Tells what became of a transaction
    Status {
        /// 32 hexadecimal digits
        id: TxnId,
        /// The key of its first write; not needed for transactions that this shell has committed or listed
        primary: Option<String>,
    },
    /// Settles a transaction that holds locks: resolves them if it is decided, rolls it back if its time is over
    Resolve {
        /// 32 hexadecimal digits
        id: TxnId,
        /// Rolls it back although it may still be at work
        #[arg(long)]
        force: bool,
    },
}

/// The commands as a tree that can be asked for names and flags.
pub fn tree() -> clap::Command {
    let mut tree = Line::command();
    tree.build();
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        Line::command().debug_assert();
    }
}
