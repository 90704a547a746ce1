//! Switches each guard off and demands that the tests it names notice.
//!
//! The test binaries are built once, with guards that can be switched. Each test is run by itself, as a process of its
//! binary: first with all guards on, where it must pass, then with the guard off, where it must fail by its own verdict.
//! A test that does not exist, a process that is killed and one that hangs prove nothing and are errors.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use drover_guards::{Guard, VARIABLE, Witness};

/// Longest time that one test may take, whether the guard is on or off.
const LIMIT: Duration = Duration::from_secs(60);

/// How one run of one test ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Passed,
    /// It found what it should: what it said.
    Failed(String),
    /// It proves nothing: what happened instead, and what the test wrote.
    Broken(String),
}

/// A test binary, and the folder its tests run in.
#[derive(Debug)]
struct Binary {
    path: PathBuf,
    dir: PathBuf,
}

/// Runs the check for the guards named in `names`, or for all.
pub fn run(names: &[String]) -> Result<ExitCode> {
    let guards = chosen(names)?;
    let witnesses: BTreeSet<Witness> = guards.iter().flat_map(|guard| guard.witnesses()).copied().collect();
    let binaries = build(&witnesses)?;
    check_listed(&binaries, &witnesses)?;
    let run = |witness: &Witness, off| run_test(&binaries[witness.binary], witness.test, off);

    let on: Vec<Witness> = witnesses.into_iter().collect();
    let broken: Vec<String> = in_parallel(&on, |witness| match run(witness, None) {
        Verdict::Passed => None,
        verdict => Some(format!("{} ({}): {verdict:?}", witness.test, witness.binary)),
    })
    .into_iter()
    .flatten()
    .collect();
    ensure!(broken.is_empty(), "tests that must pass with all guards on do not:\n{}", broken.join("\n"));

    let survivors = in_parallel(&guards, |guard| {
        let began = Instant::now();
        let mut lines = Vec::new();
        let mut survived = false;
        for witness in guard.witnesses() {
            let (noticed, how) = match run(witness, Some(*guard)) {
                Verdict::Failed(how) => (true, how),
                Verdict::Passed => (false, "PASSES WITHOUT THE GUARD".to_owned()),
                Verdict::Broken(why) => (false, format!("PROVES NOTHING: {why}")),
            };
            survived |= !noticed;
            lines.push(format!("{}: {how}", witness.test));
        }
        let took_ms = began.elapsed().as_millis();
        let verdict = if survived { "SURVIVED" } else { "caught" };
        eprintln!("{verdict:8} {:22} {took_ms:5} ms  {}", guard.name(), lines.join("; "));
        survived
    });
    let survived = survivors.iter().filter(|survived| **survived).count();
    eprintln!("{} guards, {survived} of them can be taken out without a listed test noticing", guards.len());
    Ok(if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(names: &[String]) -> Result<Vec<Guard>> {
    if names.is_empty() {
        return Ok(Guard::ALL.to_vec());
    }
    names.iter().map(|name| Guard::by_name(name).with_context(|| format!("there is no guard {name}"))).collect()
}

/// Builds the test binaries that `witnesses` name, with guards that can be switched.
fn build(witnesses: &BTreeSet<Witness>) -> Result<BTreeMap<String, Binary>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.args(["test", "--no-run", "--message-format=json-render-diagnostics"]);
    command.args(["--features=drover-guards/switchable", "--package=drover-guards"]);
    let mut wanted = BTreeSet::new();
    for Witness { binary, .. } in witnesses {
        wanted.extend(match binary.split_once("::") {
            Some((package, target)) => [format!("--package={package}"), format!("--test={target}")],
            None => [format!("--package={binary}"), "--lib".to_owned()],
        });
    }
    command.args(wanted);
    let output = command.stderr(Stdio::inherit()).output().context("cargo cannot be started")?;
    ensure!(output.status.success(), "the test binaries cannot be built");
    let messages = output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{"));
    let built = messages.map(|line| built(&serde_json::from_slice(line).context("cargo wrote no JSON")?));
    built.filter_map(Result::transpose).collect()
}

/// The test binary that a message of cargo's is about, if it is about one.
fn built(message: &serde_json::Value) -> Result<Option<(String, Binary)>> {
    let target = &message["target"];
    let (Some(path), Some(manifest), Some(name), Some(kind)) = (
        message["executable"].as_str().filter(|_| message["profile"]["test"] == true),
        message["manifest_path"].as_str(),
        target["name"].as_str(),
        target["kind"][0].as_str(),
    ) else {
        return Ok(None);
    };
    let dir = Path::new(manifest).parent().context("a manifest lies in a folder")?;
    let package = package_name(Path::new(manifest))?;
    let id = if kind == "test" { format!("{package}::{name}") } else { package };
    Ok(Some((id, Binary { path: path.into(), dir: dir.to_owned() })))
}

/// The name in a manifest.
fn package_name(manifest: &Path) -> Result<String> {
    let text = std::fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    let name = text.lines().find_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    Ok(name.with_context(|| format!("{} names no package", manifest.display()))?.to_owned())
}

/// Checks that every test is there.
fn check_listed(binaries: &BTreeMap<String, Binary>, witnesses: &BTreeSet<Witness>) -> Result<()> {
    let mut lists: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for Witness { binary, test } in witnesses {
        if !lists.contains_key(binary) {
            lists.insert(binary, list(binaries.get(*binary).with_context(|| format!("cargo built no {binary}"))?)?);
        }
        ensure!(lists[binary].iter().any(|listed| listed == test), "{binary} has no test that is called {test}");
    }
    Ok(())
}

/// The tests of a binary. One with a harness of its own has none that could be named.
fn list(binary: &Binary) -> Result<Vec<String>> {
    let output = Command::new(&binary.path)
        .current_dir(&binary.dir)
        .args(["--list", "--format", "terse"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| binary.path.display().to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs one test in a process of its own, with one guard off or none.
fn run_test(binary: &Binary, test: &str, off: Option<Guard>) -> Verdict {
    match output_of(binary, test, off) {
        Ok(Some((status, text))) => judge(status.code(), &text),
        Ok(None) => Verdict::Broken(format!("it did not end within {} s", LIMIT.as_secs())),
        Err(error) => Verdict::Broken(format!("{error:#}")),
    }
}

/// What a run of one test came to, by exit code and output.
fn judge(code: Option<i32>, text: &str) -> Verdict {
    let ran_one = text.contains("running 1 test\n");
    match code {
        Some(0) if ran_one && text.contains("test result: ok. 1 passed;") => Verdict::Passed,
        Some(101) if ran_one && text.contains("test result: FAILED. 0 passed; 1 failed;") => {
            Verdict::Failed(what_it_said(text))
        }
        _ => {
            let end: Vec<&str> = text.lines().rev().take(20).collect();
            Verdict::Broken(format!(
                "it ended with {code:?}:\n{}",
                end.into_iter().rev().collect::<Vec<_>>().join("\n")
            ))
        }
    }
}

/// Where a test failed, and the first line of why.
fn what_it_said(text: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.contains(" panicked at "));
    let place = lines.next().and_then(|line| line.split(" panicked at ").nth(1)).unwrap_or("?");
    format!("{place} {}", lines.next().unwrap_or_default().trim())
}

/// Exit status and output of one test; `None` if it had to be killed.
fn output_of(binary: &Binary, test: &str, off: Option<Guard>) -> Result<Option<(std::process::ExitStatus, String)>> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    let log = std::env::temp_dir().join(format!("drover-guards-{}-{number}.log", std::process::id()));
    let file = std::fs::File::create(&log)?;
    let mut command = Command::new(&binary.path);
    command
        .current_dir(&binary.dir)
        .env("CARGO_MANIFEST_DIR", &binary.dir)
        .env_remove(VARIABLE)
        // A property that fails is what is wanted here: its counterexample is not to be remembered.
        .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
        .args([test, "--exact"])
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    if let Some(guard) = off {
        command.env(VARIABLE, guard.name());
    }
    let mut child = command.spawn()?;
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() >= deadline => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let text = std::fs::read(&log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
    std::fs::remove_file(&log)?;
    Ok(status.map(|status| (status, text)))
}

/// Does `work` on each of `items`, on all cores; the results stand in the order of the items.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((place, item)) = take(items, &next) {
                    let result = work(item);
                    done.lock().expect("no worker panics while it holds the lock").push((place, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("no worker panics while it holds the lock");
    done.sort_by_key(|(place, _)| *place);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take<'a, T>(items: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let place = next.fetch_add(1, Ordering::Relaxed);
    items.get(place).map(|item| (place, item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_verdict_of_exactly_one_test_counts() {
        let passed = "running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed;";
        let failed = "running 1 test\ntest a ... FAILED\n\ntest result: FAILED. 0 passed; 1 failed;";
        let none = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed;";
        assert_eq!(judge(Some(0), passed), Verdict::Passed);
        assert!(matches!(judge(Some(101), failed), Verdict::Failed(_)));
        for (code, text) in [(Some(0), none), (Some(101), ""), (None, "running 1 test\n"), (Some(1), failed)] {
            assert!(matches!(judge(code, text), Verdict::Broken(_)), "{code:?} {text}");
        }
    }

    #[test]
    fn a_failed_test_is_quoted_with_its_place_and_its_first_words() {
        let text = "running 1 test\n\nthread 'a' (7) panicked at src/a.rs:3:5:\nassertion failed: no\nnote: more\n";
        assert_eq!(what_it_said(text), "src/a.rs:3:5: assertion failed: no");
    }

    #[test]
    fn results_stand_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(in_parallel(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
    }

    #[test]
    fn the_page_of_the_model_names_the_guards_of_which_it_is_a_witness() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/model.md");
        let document = std::fs::read_to_string(path).unwrap();
        let table = document.split_once("| without | scenario |").unwrap().1.split("\n\n").next().unwrap();
        for guard in Guard::ALL {
            let found = guard.witnesses().iter().filter(|witness| witness.binary == "drover-model::move_model").count();
            let row = table.lines().find(|line| line.starts_with(&format!("| `{}` |", guard.name())));
            let named = row.map_or(0, |row| row.split(" | ").nth(1).unwrap().split(", ").count());
            assert_eq!(named, found, "docs/model.md: {}", guard.name());
        }
    }
}
