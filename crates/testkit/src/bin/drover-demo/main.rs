//! The demonstration behind `scripts/demo`: a real data set goes into a cluster of real processes, the leader of a
//! data group is killed in the middle, and everything is read back and compared. Then half of a group's data moves to another group
//! while clients use it, the leader of the default group is killed in the middle of that, and everything is compared again.

mod histogram;
mod moving;
mod outage;
mod report;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Loads a data set into a cluster of real processes, kills a leader in the middle, checks every record, and moves a range under
/// traffic while another leader is killed.
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
    /// Size of the pages that lie beside the records of the range that moves, in megabytes (1,000,000 bytes).
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(8..))]
    page_megabytes: u64,
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
