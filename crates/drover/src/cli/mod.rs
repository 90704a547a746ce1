//! The command line for people and scripts.
//!
//! # Model
//!
//! A command connects a [`drover_client::Client`], does its work and ends as one of [`exit::End`], each with an exit
//! code. Answers go to standard output: text or tables for people, JSON with `--json`. Everything else (progress, complaints)
//! goes to standard error, progress only if that is a terminal.
//!
//! # Invariants
//!
//! - Nothing panics when the reader of standard output or error goes away.
//! - A definite failure and an unknown outcome never share an exit code.
//! - Whatever ends a command while something is under way that changes the cluster, an error or a signal: it says that the outcome is
//!   unknown, and how to find it out ([`interrupt`], [`settle`]).
//! - With `--json` a failure is an object like every answer ([`failure`]).
//! - Whatever one command prints of keys and values, another can read back ([`notation`]).

mod bench;
mod compat;
mod dump;
mod exit;
mod failure;
mod group;
mod interrupt;
mod job;
mod join;
mod kv;
mod load;
mod node;
mod notation;
mod output;
mod records;
mod route;
mod settle;
mod shell;
mod status;
mod txn;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use drover_client::{Client, ClientBuilder, Reason};
pub use exit::{EXIT_CODES, UsageError};
use exit::{End, end_of, misread};
pub use failure::told;
use failure::{Asked, complain, print_failure};
use notation::Notation;
use output::Output;

/// What every command understands.
#[derive(Debug, Args)]
pub struct Global {
    /// Nodes to start from, separated by commas; one that answers is enough
    #[arg(
        long,
        global = true,
        env = "DROVER_ENDPOINTS",
        value_delimiter = ',',
        default_value = "127.0.0.1:7400",
        value_name = "HOST:PORT,..."
    )]
    pub endpoints: Vec<String>,
    /// Print JSON, also of failures
    #[arg(long, global = true)]
    pub json: bool,
    /// Keys and values are hexadecimal digits, in arguments, in what is printed, and in files of rows
    #[arg(long, global = true)]
    pub hex: bool,
    /// Name that stands in the audit log beside what is changed; the user's name if left out
    #[arg(long, global = true, env = "DROVER_ACTOR", value_name = "NAME")]
    pub actor: Option<String>,
    /// How long one request may take, retries included: 500ms, 10s, 2m
    #[arg(long, global = true, default_value = "10s", value_parser = notation::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}

impl Global {
    fn notation(&self) -> Notation {
        if self.hex { Notation::Hex } else { Notation::Escaped }
    }

    /// Who asks, for the audit log: what the caller says, otherwise the user of this machine.
    fn actor(&self) -> String {
        let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.actor.clone().or_else(user).unwrap_or_else(|| "unnamed".to_owned())
    }

    async fn connect(&self) -> anyhow::Result<Client> {
        let builder = Client::builder().endpoints(&self.endpoints).deadline(self.timeout);
        connect(builder.connect_timeout(self.timeout)).await
    }
}

/// Connects. An endpoint that is no address is wrong usage: nothing was sent to anybody.
async fn connect(builder: ClientBuilder) -> anyhow::Result<Client> {
    builder.connect().await.map_err(|error| match error.reason {
        Reason::InvalidArgument => UsageError(error.message).into(),
        _ => error.into(),
    })
}

/// The commands that talk to a cluster.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reads and writes keys
    #[command(subcommand)]
    Kv(kv::Command),
    /// Writes the rows of a file (TSV, CSV or JSON lines), or checks that they are there
    Load(load::Args),
    /// Writes all rows of a range to a file or to standard output, as of one moment
    Dump(dump::Args),
    /// Shows nodes, groups and leaders
    Status,
    /// Looks after one group
    #[command(subcommand)]
    Group(group::Command),
    /// Looks after the nodes of the cluster
    #[command(subcommand)]
    Node(node::Command),
    /// Shows or holds back the version of the software that the cluster as a whole understands
    #[command(subcommand)]
    Compat(compat::Command),
    /// Lists who changed what, when
    Audit(node::AuditArgs),
    /// Shows and changes which group serves which keys
    #[command(subcommand)]
    Route(route::Command),
    /// Follows and steers jobs that move ranges to another group
    #[command(subcommand)]
    Job(job::Command),
    /// Runs several operations as one transaction, and settles what transactions left behind
    #[command(subcommand)]
    Txn(txn::Command),
    /// Reads commands from a prompt, or from standard input: keys, transactions, the status of the cluster
    Shell(shell::Args),
    /// Measures throughput and latency with a closed loop of clients
    Bench(bench::Args),
}

/// Runs a command to its end.
pub fn run(global: &Global, command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(global, &error.into()).into(),
    };
    let done = runtime.block_on(dispatch(global, command));
    // A thread that reads standard input may never come back.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| failed(global, &error)).into()
}

async fn dispatch(global: &Global, command: Command) -> anyhow::Result<End> {
    let mut output = Output::stdout();
    let end = match command {
        Command::Kv(command) => kv::run(global, command, &mut output).await,
        Command::Load(args) => load::run(global, args, &mut output).await,
        Command::Dump(args) => dump::run(global, args, &mut output).await,
        Command::Status => status::run(global, &mut output).await,
        Command::Group(command) => group::run(global, command, &mut output).await,
        Command::Node(command) => node::run(global, command, &mut output).await,
        Command::Compat(command) => compat::run(global, command, &mut output).await,
        Command::Audit(args) => node::audit(global, args, &mut output).await,
        Command::Route(command) => route::run(global, command, &mut output).await,
        Command::Job(command) => job::run(global, command, &mut output).await,
        Command::Txn(command) => txn::run(global, command, &mut output).await,
        Command::Shell(args) => shell::run(global, args, &mut output).await,
        Command::Bench(args) => bench::run(global, args, &mut output).await,
    }?;
    output.flush()?;
    Ok(end)
}

/// Ends without a command: the arguments cannot be read, or ask for help.
pub fn without_command(error: &clap::Error) -> ExitCode {
    // Whoever closed an output does not want to hear it.
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let _ = print_failure(Asked::OfNodes(&[]), &mut Output::stdout(), &misread(error).into(), End::Usage);
    }
    let _ = error.print();
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn failed(global: &Global, error: &anyhow::Error) -> End {
    let end = end_of(error);
    if end != End::Done {
        // Whoever closed standard output does not want to hear it.
        let _ = complain(global, Asked::OfNodes(&global.endpoints), &mut Output::stdout(), error, end);
    }
    end
}

/// A line for people. Whoever closed standard error does not want to hear it.
fn notice(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
