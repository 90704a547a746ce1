//! Runs that must be found wrong: servers with a guard taken out.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio_util::sync::CancellationToken;

use crate::check::Valid;
use crate::judge::Results;
use crate::nemesis::Fault;
use crate::run::{Places, Test, run};
use crate::workload::Kind;

/// A guard, and the run that must notice that it is missing.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// The guards that are taken out, with commas between them.
    pub guards: &'static str,
    /// What clients do.
    pub workload: Kind,
    /// What breaks.
    pub nemeses: &'static [Fault],
    /// Runs with other seeds before it counts as not found.
    pub tries: u64,
}

/// The mutants that are found.
pub const MUTANTS: [Mutant; 4] = [
    Mutant {
        guards: "TxnReadsValidated,TxnRefresh,TxnRefreshAtCommitTimestamp",
        workload: Kind::Append,
        nemeses: &[],
        tries: 2,
    },
    Mutant { guards: "LockGate,ReadsWait", workload: Kind::Bank, nemeses: &[], tries: 2 },
    Mutant { guards: "AboveLast", workload: Kind::Monotonic, nemeses: &[], tries: 2 },
    Mutant { guards: "TrackWrites,CopyIsEqual", workload: Kind::Set, nemeses: &[Fault::Move], tries: 3 },
];

/// Runs every mutant, or those whose guards contain `only`; how many were not found.
///
/// # Errors
/// If one cannot be run, or the binary is none whose guards can be taken out.
pub async fn run_all(places: &Places, only: Option<&str>, seed: u64, stop: &CancellationToken) -> Result<usize> {
    let mut missed = 0;
    for mutant in MUTANTS.iter().filter(|mutant| only.is_none_or(|only| mutant.guards.contains(only))) {
        let began = Instant::now();
        let whole = run(&test(mutant, seed, false), places, stop).await?;
        ensure!(
            whole.1.valid == Valid::True,
            "with all guards on, {} is not valid: {}",
            test(mutant, seed, false).name(),
            whole.0.display()
        );
        let mut found = None;
        for attempt in 0..mutant.tries {
            let (dir, results) = run(&test(mutant, seed + attempt, true), places, stop).await?;
            if let Some(how) = noticed(&results) {
                found = Some((how, dir));
                break;
            }
        }
        let took = began.elapsed().as_secs();
        let cell = test(mutant, seed, true).name();
        match found {
            Some((how, dir)) => {
                println!("caught  {:58} by {cell} in {took} s: {how}; {}", mutant.guards, dir.display());
            }
            None => {
                missed += 1;
                println!("MISSED  {:58} by {cell} in {took} s", mutant.guards);
            }
        }
    }
    Ok(missed)
}

/// The kinds of what was found in the history; `None`: nothing. That the cluster did not come back, or said something in its logs,
/// does not count: the checkers must see it.
fn noticed(results: &Results) -> Option<String> {
    let of_workloads = results.workloads.values().flat_map(|verdict| &verdict.findings);
    let mut names: Vec<&str> = of_workloads.chain(&results.timestamps).map(|finding| finding.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    (!names.is_empty()).then(|| names.join(", "))
}

fn test(mutant: &Mutant, seed: u64, is_out: bool) -> Test {
    Test {
        workloads: vec![mutant.workload.name().to_owned()],
        nemeses: mutant.nemeses.to_vec(),
        time_s: 15,
        rate: 300,
        nodes: 3,
        clients: 12,
        seed,
        targets: Vec::new(),
        net: None,
        settings: Vec::new(),
        environment: if is_out { vec![format!("DROVER_GUARDS_OFF={}", mutant.guards)] } else { Vec::new() },
    }
}

/// Demands a binary that was built with the switch.
///
/// # Errors
/// If it is none.
pub fn check_binary(path: &Path) -> Result<()> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let name = b"DROVER_GUARDS_OFF";
    ensure!(
        bytes.windows(name.len()).any(|window| window == name),
        "{} takes no guards out: build it with --features mutants",
        path.display()
    );
    Ok(())
}
