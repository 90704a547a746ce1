//! The command line for people and scripts.

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub const EXIT_CODES: &str = "";

#[derive(Debug, Args)]
pub struct Global {}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// What the cluster looks like.
    Status,
}

pub fn run(_global: &Global, command: Command) -> ExitCode {
    match command {
        Command::Status => ExitCode::SUCCESS,
    }
}
