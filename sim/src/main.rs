//! Simulation: the whole product on one thread, in simulated time, over a simulated network, with faults drawn from a seed.
//!
//! # Model
//!
//! Three nodes run `drover_server::node` as it is, on simulated machines ([`node`]); clients run the product's client
//! ([`clients`]). [turmoil](https://docs.rs/turmoil) gives each a runtime of its own on the one thread, and moves time and
//! messages. Faults follow a plan that is drawn from the seed ([`plan`]): crashes that lose all that was not durable, cut and
//! slow links, clocks that jump; a client moves ranges meanwhile. After each tick every property is asked ([`properties`]).
//!
//! The same seed gives the same [`trace`]. What that takes, what is real and what is not covered is told in
//! `docs/design/0011-simulation.md`.
//!
//! # Invariants
//!
//! - A process runs one seed: what it leaves behind in statics cannot reach another run.
//! - Nothing of a run depends on anything but the seed and the program, but for what RocksDB draws for its files, none of which
//!   changes their size.

mod clients;
mod history;
mod machine;
mod net;
mod node;
mod plan;
mod properties;
mod steps;
mod trace;
mod world;

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use trace::Trace;

/// Runs the product in a simulation, seed by seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds are run, each in a process of its own.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many run at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Ends with the first seed that goes red, and demands that there is one: for runs without a guard.
    #[arg(long)]
    until_red: bool,
    /// Runs this seed alone, in this process, and shows what happens.
    #[arg(long, conflicts_with_all = ["seeds", "from", "jobs", "until_red"])]
    seed: Option<u64>,
    /// Where the trace of the seed is written.
    #[arg(long, requires = "seed")]
    trace: Option<PathBuf>,
    /// Shows nothing but the result.
    #[arg(long, requires = "seed")]
    quiet: bool,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.seed {
        Some(seed) => run(seed, &arguments),
        None => run_each(&arguments),
    }
}

/// Runs one seed here.
fn run(seed: u64, arguments: &Arguments) -> Result<ExitCode> {
    let filter = EnvFilter::try_from_env("DROVER_SIM_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    let root = tempfile::Builder::new().prefix("drover-sim-").tempdir().context("making a temporary folder")?;
    let trace = Trace::new(arguments.trace.as_deref(), !arguments.quiet).context("creating the trace")?;
    // A task that panics would only be missed by those who wait for it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        report(seed, "panic");
        exit(101);
    }));
    // A thread that has drawn nothing yet: hash maps and random numbers keep what their thread began with.
    let simulate = || world::run(seed, root.path(), &trace);
    let ended = std::thread::scope(|scope| scope.spawn(simulate).join()).expect("who panics ends the process");
    let (lines, hash) = trace.digest();
    let how = match &ended.verdict {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("RED {error:#}"),
    };
    report(seed, &format!("{:.3} s, {lines} lines, trace {hash:016x}, {how}", ended.simulated.as_secs_f64()));
    drop(root);
    exit(i32::from(ended.verdict.is_err()))
}

/// The line of a seed.
#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn report(seed: u64, how: &str) {
    println!("seed {seed}: {how}");
}

/// Ends the process without closing what is open: the stores are gone with their folder, and nobody needs them.
fn exit(code: i32) -> ! {
    use std::io::Write;
    let _ = std::io::stdout().flush();
    // SAFETY: it takes a number and does not come back.
    unsafe { libc::_exit(code) }
}

/// Runs each seed in a process of its own.
#[allow(clippy::print_stdout, reason = "it is what this program is for")]
fn run_each(arguments: &Arguments) -> Result<ExitCode> {
    let program = std::env::current_exe().context("finding this program")?;
    let next = std::sync::atomic::AtomicU64::new(arguments.from);
    let red = std::sync::Mutex::new(Vec::new());
    let end = arguments.from.saturating_add(arguments.seeds);
    let without =
        std::env::var(drover_guards::VARIABLE).map_or_else(|_| String::new(), |off| format!("--without {off} "));
    let began = Instant::now();
    let work = || -> Result<()> {
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let enough = arguments.until_red && !red.lock().expect("nobody panics with it").is_empty();
            if seed >= end || enough {
                return Ok(());
            }
            let mut command = Command::new(&program);
            command.args(["--quiet", "--seed", &seed.to_string()]).stdin(Stdio::null());
            let output = command.stderr(Stdio::piped()).output().context("starting this program again")?;
            print!("{}", String::from_utf8_lossy(&output.stdout));
            if !output.status.success() {
                eprint!("{}", String::from_utf8_lossy(&output.stderr));
                println!("       again: scripts/sim {without}--seed {seed}");
                red.lock().expect("nobody panics with it").push(seed);
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })?;
    let red = red.into_inner().expect("nobody panics with it");
    let ran = next.into_inner().min(end) - arguments.from;
    println!("{ran} seeds in {:.0} s, {} red {red:?}", began.elapsed().as_secs_f64(), red.len());
    Ok(if red.is_empty() != arguments.until_red { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
