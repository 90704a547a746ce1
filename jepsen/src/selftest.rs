//! Runs that must be found wrong: servers with a guard taken out.

use std::collections::BTreeSet;
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
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// The guards that are taken out, with commas between them.
    pub guards: &'static str,
    /// What clients do.
    pub workload: Kind,
    /// What breaks.
    pub nemeses: &'static [Fault],
    /// Whom it meets; empty: anybody.
    pub targets: &'static [&'static str],
    /// Settings of the nodes.
    pub settings: &'static [&'static str],
    /// Seconds of a run.
    pub time_s: u64,
    /// Runs with other seeds before it counts as not found.
    pub tries: u64,
}

/// Without faults, for 15 seconds, twice.
const QUIET: Mutant =
    Mutant { guards: "", workload: Kind::Set, nemeses: &[], targets: &[], settings: &[], time_s: 15, tries: 2 };

/// The mutants that are found.
pub const MUTANTS: &[Mutant] = &[
    Mutant { guards: "TxnReadsValidated,TxnRefresh,TxnRefreshAtCommitTimestamp", workload: Kind::Append, ..QUIET },
    Mutant { guards: "TxnReadsValidated", workload: Kind::Append, ..QUIET },
    Mutant { guards: "TxnTimestampAfterPrepares", workload: Kind::Append, ..QUIET },
    Mutant { guards: "LockGate", workload: Kind::Bank, ..QUIET },
    Mutant { guards: "ReadsWait", workload: Kind::Bank, ..QUIET },
    Mutant { guards: "AboveLast", workload: Kind::Monotonic, ..QUIET },
    Mutant { guards: "TimestampsNotKept", workload: Kind::Monotonic, ..QUIET },
    Mutant { guards: "CompareGate", workload: Kind::Register, ..QUIET },
    Mutant { guards: "IdempotencyGate", workload: Kind::Counter, ..QUIET },
    Mutant { guards: "TrackWrites,CopyIsEqual", nemeses: &[Fault::Move], tries: 3, ..QUIET },
];

/// Runs every mutant, or those whose guards contain `only`; how many were not found.
///
/// # Errors
/// If one cannot be run, or the binary is none whose guards can be taken out.
pub async fn run_all(places: &Places, only: Option<&str>, seed: u64, stop: &CancellationToken) -> Result<usize> {
    let mut missed = 0;
    let mut valid_with_all = BTreeSet::new();
    for mutant in MUTANTS.iter().filter(|mutant| only.is_none_or(|only| mutant.guards.contains(only))) {
        let began = Instant::now();
        // Once for all mutants of a cell.
        let whole = test(mutant, seed, false);
        if valid_with_all.insert(serde_json::to_string(&whole)?) {
            let (dir, results) = run(&whole, places, stop).await?;
            let name = whole.name();
            ensure!(results.valid == Valid::True, "with all guards on, {name} is not valid: {}", dir.display());
        }
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

fn texts(of: &[&str]) -> Vec<String> {
    of.iter().map(|text| (*text).to_owned()).collect()
}

fn test(mutant: &Mutant, seed: u64, is_out: bool) -> Test {
    Test {
        workloads: vec![mutant.workload.name().to_owned()],
        nemeses: mutant.nemeses.to_vec(),
        time_s: mutant.time_s,
        rate: 300,
        nodes: 3,
        clients: 12,
        seed,
        targets: texts(mutant.targets),
        net: None,
        settings: texts(mutant.settings),
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

#[cfg(test)]
mod tests {
    use drover_guards::Guard;

    use super::*;
    use crate::nemesis::Target;

    #[test]
    fn mutants_name_guards_and_targets_that_there_are_and_take_their_time() {
        let mut seen = BTreeSet::new();
        for mutant in MUTANTS {
            assert!(seen.insert(mutant.guards), "{} is there twice", mutant.guards);
            for guard in mutant.guards.split(',') {
                assert!(Guard::by_name(guard).is_some(), "{guard} is no guard");
            }
            assert!(mutant.targets.iter().all(|target| Target::by_name(target).is_some()), "{}", mutant.guards);
            assert!(mutant.time_s <= 60 && mutant.tries > 0);
        }
    }
}
