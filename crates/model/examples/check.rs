//! Goes through the model by hand, within bounds that no test can afford.
//!
//! `cargo run --package drover-model --example check -- --bound large` goes through all scenarios with larger bounds;
//! `--scenario NAME` through one of them.

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use drover_model::MoveModel;
use drover_model::scenario::{HUGE, LARGE, SMALL, Scenario};
use stateright::report::WriteReporter;
use stateright::{Checker, HasDiscoveries, Model};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Bound {
    /// What the tests go through.
    Small,
    /// More of everything.
    Large,
    /// So much more that nobody has seen the end: to be stopped after `--seconds`.
    Huge,
}

/// Goes through the states of the model of the move.
#[derive(Debug, Parser)]
struct Arguments {
    /// How much of everything there is.
    #[arg(long, default_value = "small")]
    bound: Bound,
    /// Only this scenario.
    #[arg(long)]
    scenario: Option<String>,
    /// Stop after this many seconds for each scenario, and say so.
    #[arg(long)]
    seconds: Option<u64>,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let all: &[Scenario] = match arguments.bound {
        Bound::Small => &SMALL,
        Bound::Large => &LARGE,
        Bound::Huge => &HUGE,
    };
    let is_wanted = |scenario: &&Scenario| arguments.scenario.as_ref().is_none_or(|name| name == scenario.name);
    let wanted: Vec<&Scenario> = all.iter().filter(is_wanted).collect();
    if wanted.is_empty() {
        let names: Vec<&str> = all.iter().map(|scenario| scenario.name).collect();
        bail!("there is no such scenario; there are {}", names.join(", "));
    }
    for scenario in wanted {
        go_through(*scenario, &arguments)?;
    }
    Ok(())
}

fn go_through(scenario: Scenario, arguments: &Arguments) -> Result<()> {
    println!("{scenario:?}");
    let began = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    let mut builder =
        MoveModel::new(scenario).checker().threads(arguments.threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(limit) = limit {
        builder = builder.timeout(limit);
    }
    let checker = builder.spawn_bfs().join_and_report(&mut WriteReporter::new(&mut std::io::stdout()));
    let is_whole = limit.is_none_or(|limit| began.elapsed() < limit);
    let failed: Vec<&str> = checker
        .discoveries()
        .into_keys()
        .filter(|name| checker.model().property(name).expectation.discovery_is_failure())
        .collect();
    println!(
        "{}: {} states, {} deep, {} s, {}",
        scenario.name,
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs(),
        if is_whole { "all of them" } else { "NOT ALL OF THEM" },
    );
    if !failed.is_empty() {
        bail!("does not hold: {}", failed.join(", "));
    }
    Ok(())
}
