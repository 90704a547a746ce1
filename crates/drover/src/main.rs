//! The `drover` binary: server and command line in one. Nothing but the choice of the subcommand lives here.

mod cli;
mod dev;
mod server_cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const _: () = assert!(
    !drover_guards::SWITCHABLE || cfg!(feature = "mutants"),
    "the binary must not be able to switch its guards off, unless it is built to be found wrong"
);

/// A strongly consistent, range-sharded key-value service.
#[derive(Debug, Parser)]
#[command(name = "drover", version, about, after_help = cli::EXIT_CODES)]
struct Drover {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node.
    Server(server_cmd::ServerArgs),
    /// Run a whole cluster on this machine, for trying things out.
    Dev(dev::DevArgs),
    #[command(flatten)]
    Client(cli::Command),
}

fn main() -> ExitCode {
    let drover = match Drover::try_parse() {
        Ok(drover) => drover,
        Err(error) => return cli::without_command(&error),
    };
    match drover.command {
        Command::Server(args) => server_cmd::run(args),
        Command::Dev(args) => dev::run(args),
        Command::Client(command) => cli::run(&drover.global, command),
    }
}
