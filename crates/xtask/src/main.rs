//! Tasks of this repository that are more than a shell script.

mod guards;
#[cfg(test)]
mod hazards;
#[cfg(test)]
mod purity;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- guards [GUARD...]

guards  switches each safety guard off in turn (or those named) and demands that the tests it names fail";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("guards") => guards::run(&args.collect::<Vec<_>>()).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
