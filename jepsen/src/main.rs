//! The command line of the harness.

#![allow(clippy::print_stdout, reason = "a program for people at a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, Parser, Subcommand};
use drover_jepsen::check::Valid;
use drover_jepsen::judge::{self, Results};
use drover_jepsen::matrix::{self, Tier};
use drover_jepsen::nemesis::{Fault, Target};
use drover_jepsen::run::{self, Places, Test};
use drover_jepsen::{selftest, serve};

/// Hammers a real cluster and checks that it keeps its promises.
#[derive(Debug, Parser)]
#[command(name = "drover-jepsen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run. Ends with 0 only if it is valid.
    Run(RunArgs),
    /// Judges the folder of a run again.
    Check {
        /// The folder, `store/TEST/TIME`.
        dir: PathBuf,
    },
    /// A table of runs, one line each.
    Matrix {
        #[command(flatten)]
        places: PlacesArgs,
        /// Which.
        #[arg(long, value_enum, default_value = "ci")]
        tier: Tier,
        /// Only cells whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Only every third cell, from the first on.
        #[arg(long)]
        third: bool,
        /// Seconds for each run, instead of the tier's.
        #[arg(long)]
        time: Option<u64>,
        /// Of everything that is drawn.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Runs servers without some of their guards; each must be found wrong. Needs a server built with `--features mutants`.
    SelfTest {
        #[command(flatten)]
        places: PlacesArgs,
        /// Only mutants whose guards contain this.
        #[arg(long)]
        only: Option<String>,
        /// Of everything that is drawn.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Lets a browser look at the store.
    Serve {
        /// The store.
        #[arg(long, default_value = "jepsen/store")]
        store: PathBuf,
        /// Where.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: String,
    },
}

#[derive(Debug, Args)]
struct PlacesArgs {
    /// The server; without it, the one beside this program.
    #[arg(long, env = "DROVER_BIN")]
    drover: Option<PathBuf>,
    /// Where results go.
    #[arg(long, default_value = "jepsen/store")]
    store: PathBuf,
    /// Where the nodes store while they run.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    work: PathBuf,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    places: PlacesArgs,
    /// What clients do, with commas between: append, wr, register, bank, set, counter, monotonic, delete, long-fork, predicate,
    /// stale.
    #[arg(long, value_delimiter = ',', required = true)]
    workload: Vec<String>,
    /// What breaks, with commas between, or none.
    #[arg(long, default_value = "none")]
    nemesis: String,
    /// Whom kills and pauses may meet, with commas between: one, minority, majority, all, leader, default-leader, coordinator,
    /// source, target. Without it, any of them.
    #[arg(long, value_delimiter = ',')]
    target: Vec<String>,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 60)]
    time: u64,
    /// Operations a second in all.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Nodes.
    #[arg(long, default_value_t = 5)]
    nodes: u64,
    /// Clients of each workload.
    #[arg(long, default_value_t = 10)]
    clients: u64,
    /// Of everything that is drawn; what processes and the network make of it differs from run to run.
    #[arg(long)]
    seed: Option<u64>,
    /// `netns` or `loopback`; without it, namespaces if they are permitted.
    #[arg(long)]
    net: Option<String>,
    /// A setting of the nodes, as section.name=value; may be given several times.
    #[arg(long)]
    set: Vec<String>,
    /// A variable of the nodes' processes, as NAME=value; may be given several times.
    #[arg(long)]
    env: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.context("a runtime").and_then(|runtime| runtime.block_on(execute(cli.command)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            drover_jepsen::say(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

async fn execute(command: Command) -> Result<bool> {
    match command {
        Command::Run(args) => {
            let test = args.test()?;
            let places = args.places.places()?;
            let stop = run::stop_by_signal()?;
            let began = std::time::Instant::now();
            let (dir, results) = run::run(&test, &places, &stop).await?;
            tell(&results);
            println!("{}", matrix::line(&test, &results, began.elapsed().as_secs(), &dir));
            println!("{}", dir.display());
            Ok(results.valid == Valid::True)
        }
        Command::Check { dir } => {
            let results = judge::again(&dir)?;
            tell(&results);
            println!("{}", serde_json::to_value(results.valid)?.as_str().unwrap_or_default());
            Ok(results.valid == Valid::True)
        }
        Command::Matrix { places, tier, only, third, time, seed } => {
            let (places, stop) = (places.places()?, run::stop_by_signal()?);
            let mut cells = matrix::cells(tier, seed, time);
            cells.retain(|test| only.as_ref().is_none_or(|only| test.name().contains(only)));
            if third {
                cells = cells.into_iter().step_by(3).collect();
            }
            Ok(matrix::run_all(&cells, &places, &stop).await? == 0)
        }
        Command::SelfTest { places, only, seed } => {
            let (places, stop) = (places.places()?, run::stop_by_signal()?);
            selftest::check_binary(&places.drover)?;
            Ok(selftest::run_all(&places, only.as_deref(), seed, &stop).await? == 0)
        }
        Command::Serve { store, listen } => serve::serve(&store, &listen).await.map(|()| true),
    }
}

fn tell(results: &Results) {
    for problem in &results.problems {
        println!("problem: {problem}");
    }
    for (name, verdict) in &results.workloads {
        if let Some(why) = &verdict.unknown {
            println!("{name}: unknown: {why}");
        }
        for finding in &verdict.findings {
            println!("{name}: {}: {}", finding.name, finding.explanation);
        }
    }
    for finding in &results.timestamps {
        println!("{}: {}", finding.name, finding.explanation);
    }
}

impl PlacesArgs {
    fn places(self) -> Result<Places> {
        let beside = || {
            let own = std::env::current_exe().context("this program has a path")?;
            Ok::<_, anyhow::Error>(own.with_file_name("drover"))
        };
        let drover = self.drover.map_or_else(beside, Ok)?;
        ensure!(drover.is_file(), "there is no server at {}; name one with --drover", drover.display());
        let absolute = |path: PathBuf| std::path::absolute(&path).with_context(|| path.display().to_string());
        Ok(Places { drover: absolute(drover)?, store: absolute(self.store)?, work: absolute(self.work)? })
    }
}

impl RunArgs {
    fn test(&self) -> Result<Test> {
        for name in &self.target {
            Target::by_name(name).ok_or_else(|| anyhow!("there is no target {name}"))?;
        }
        ensure!((1..=100).contains(&self.nodes), "--nodes is a number from 1 to 100");
        Ok(Test {
            workloads: self.workload.clone(),
            nemeses: Fault::parse_all(&self.nemesis)?,
            time_s: self.time,
            rate: self.rate,
            nodes: self.nodes,
            clients: self.clients.max(1),
            seed: self.seed.unwrap_or_else(run::any_seed),
            targets: self.target.clone(),
            net: self.net.clone(),
            settings: self.set.clone(),
            environment: self.env.clone(),
        })
    }
}
