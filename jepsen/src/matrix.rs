//! Tables of runs, one line each.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use crate::check::Valid;
use crate::judge::Results;
use crate::nemesis::Fault;
use crate::run::{Places, Test, run};
use crate::workload::Kind;

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// Four workloads and five sets of faults; within 25 minutes.
    Ci,
    /// All workloads and all faults under which the promises hold.
    Nightly,
    /// Everything at once, for an hour.
    Soak,
}

/// The runs of a tier.
pub fn cells(tier: Tier, seed: u64, time_s: Option<u64>) -> Vec<Test> {
    let cell = |workloads: &[Kind], nemeses: &[Fault], seconds: u64| Test {
        workloads: workloads.iter().map(|kind| kind.name().to_owned()).collect(),
        nemeses: nemeses.to_vec(),
        time_s: time_s.unwrap_or(seconds),
        rate: 100 * workloads.len().min(4) as u64,
        nodes: 5,
        clients: 8,
        seed,
        targets: Vec::new(),
        net: None,
        settings: Vec::new(),
        environment: Vec::new(),
    };
    let covered = || Fault::ALL.iter().copied().filter(|fault| fault.is_covered());
    use Fault::{Kill, Move, Partition};
    match tier {
        Tier::Ci => {
            let faults: [&[Fault]; 5] = [&[], &[Kill], &[Partition], &[Move], &[Move, Kill]];
            let kinds = [Kind::Append, Kind::Register, Kind::Bank, Kind::Set];
            kinds.iter().flat_map(|kind| faults.iter().map(|faults| cell(&[*kind], faults, 20))).collect()
        }
        Tier::Nightly => {
            let with_none = Kind::ALL.map(|kind| cell(&[kind], &[], 60));
            let with_each = Kind::ALL.iter().flat_map(|kind| covered().map(|fault| cell(&[*kind], &[fault], 60)));
            let composed = Kind::ALL.map(|kind| cell(&[kind], &[Move, Kill, Partition], 60));
            with_none.into_iter().chain(with_each).chain(composed).collect()
        }
        Tier::Soak => {
            let faults: Vec<Fault> = covered().filter(|fault| *fault != Fault::Snapshot).collect();
            vec![cell(&Kind::ALL, &faults, 3600)]
        }
    }
}

/// Runs cells one after the other; how many did not pass.
///
/// # Errors
/// If one cannot be run at all.
pub async fn run_all(cells: &[Test], places: &Places, stop: &CancellationToken) -> Result<usize> {
    let mut bad = 0;
    for test in cells {
        let began = Instant::now();
        let line = match run(test, places, stop).await {
            Ok((dir, results)) => {
                bad += usize::from(results.valid != Valid::True);
                self::line(test, &results, began.elapsed().as_secs(), &dir)
            }
            Err(error) => {
                bad += 1;
                format!("{:34} COULD NOT BE RUN: {error:#}", test.name())
            }
        };
        println!("{line}");
        if stop.is_cancelled() {
            break;
        }
    }
    println!("{} cells, {bad} of them not valid", cells.len());
    Ok(bad)
}

/// What came of a run, in one line.
pub fn line(test: &Test, results: &Results, took_s: u64, dir: &Path) -> String {
    let word = match results.valid {
        Valid::True => "ok",
        Valid::Unknown => "UNKNOWN",
        Valid::False => "INVALID",
    };
    let [p50, p99, _] = results.latency_us.map(|us| us as f64 / 1000.0);
    let broken: u64 = results.nemeses.values().map(|actions| actions.installed).sum();
    let found: usize = results.workloads.values().map(|verdict| verdict.findings.len()).sum();
    let found = found + results.timestamps.len() + results.problems.len();
    let found = if found > 0 { format!("  {found} findings, {}", dir.display()) } else { String::new() };
    let acknowledged = results.acknowledged;
    format!(
        "{:34} {word:7} {took_s:4} s  {acknowledged:6} ok  p50 {p50:6.1} ms  p99 {p99:7.1} ms  {broken:3} faults{found}",
        test.name()
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_tiers_hold_what_they_promise() {
        let ci = cells(Tier::Ci, 1, None);
        assert_eq!(ci.len(), 20);
        assert!(ci.iter().map(|test| test.time_s).sum::<u64>() <= 25 * 60 / 3 * 2);
        let nightly: BTreeSet<String> = cells(Tier::Nightly, 1, None).iter().map(Test::name).collect();
        for kind in Kind::ALL {
            for fault in Fault::ALL {
                let is_there = nightly.contains(&format!("{}-{}", kind.name(), fault.name()));
                assert_eq!(is_there, fault.is_covered(), "{}", fault.name());
            }
        }
        let soak = cells(Tier::Soak, 1, Some(5));
        assert_eq!((soak.len(), soak[0].time_s, soak[0].workloads.len()), (1, 5, Kind::ALL.len()));
    }
}
