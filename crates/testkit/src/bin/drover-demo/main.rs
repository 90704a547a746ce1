//! The demonstration behind `scripts/demo`: a real data set goes into a cluster of real processes, the leader of a
//! data group is killed in the middle, and everything is read back and compared.

mod outage;
mod report;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Loads a data set into a cluster of real processes, kills a leader in the middle, and checks every record.
#[derive(Debug, Parser)]
struct Args {
    /// Lines of `key;value`: Debian's UnicodeData.txt, or any other file of the kind.
    #[arg(long)]
    data: PathBuf,
    /// Clients that load at the same time.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Load only this many records.
    #[arg(long)]
    records: Option<usize>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(story::tell(&args)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
