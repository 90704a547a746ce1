//! A library that is loaded in front of the C library into the nodes: their disks are slow or fail, their monotonic clocks run at
//! another rate. Each node is steered by a page in a file of its own, while it runs and across its restarts.
//!
//! The library is compiled from `preload.c` into the folder of a run that needs it, and goes with that folder.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use crate::net::sh;

/// The variable that names the file that steers a node.
pub const STEER: &str = "JEPSEN_STEER";
/// The variable that names the folder below which files are disturbed.
pub const BELOW: &str = "JEPSEN_BELOW";

const SOURCE: &str = include_str!("preload/preload.c");
/// The rate of a clock that is right, in millionths.
pub const RIGHT: u64 = 1_000_000;
/// A change of a clock begins so much later, so that everybody knows of it by then.
const AHEAD: Duration = Duration::from_millis(20);

// Places in the page, in units of eight bytes, as in preload.c.
const DELAY_US: u64 = 0;
const FAIL: u64 = 3;
const DELAYED: u64 = 6;
const FAILED: u64 = 7;
const FAILED_CALL: u64 = 8;
const CLOCK_SEQUENCE: u64 = 9;
const CLOCK_BEFORE: u64 = 10;
const CLOCK_NOW: u64 = 13;
const FAILED_PATH: u64 = 64;
const ONLY: u64 = 128;
const PAGE_LEN: u64 = 512;
const TEXT_LEN: usize = 512;

/// Compiles the library into a folder.
///
/// # Errors
/// If there is no C compiler.
pub fn build(dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let (source, library) = (dir.join("preload.c"), dir.join("preload.so"));
    std::fs::write(&source, SOURCE).with_context(|| source.display().to_string())?;
    let paths = [&source, &library].map(|path| path.display().to_string());
    sh(
        "cc",
        &["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", &paths[1], &paths[0], "-ldl", "-lpthread"],
    )
    .context("slow and failing disks and clocks that drift need a C compiler")?;
    Ok(library)
}

/// What can be disturbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Bytes are written. Of a write that fails, half reaches the file.
    Write,
    /// A file is synced. When that fails, what was written before counts as clean, and no later sync of it does anything.
    Sync,
    /// Room is set aside.
    Room,
}

impl Call {
    /// All of them, in the order of the page.
    pub const ALL: [Call; 3] = [Call::Write, Call::Sync, Call::Room];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Call::Write => "write",
            Call::Sync => "sync",
            Call::Room => "fallocate",
        }
    }
}

/// The first call that has failed as it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Which.
    pub call: Call,
    /// Of which file.
    pub file: PathBuf,
}

/// The page that steers one node.
#[derive(Debug)]
pub struct Steer {
    file: File,
}

impl Steer {
    /// Makes a page by which nothing is wrong.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.with_context(|| path.display().to_string())?;
        file.set_len(PAGE_LEN * 8)?;
        let steer = Steer { file };
        steer.put(CLOCK_BEFORE, &[0, 0, RIGHT, 0, 0, RIGHT])?;
        Ok(steer)
    }

    fn put(&self, place: u64, values: &[u64]) -> Result<()> {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        self.file.write_all_at(&bytes, place * 8).context("the page that steers a node")
    }

    fn put_text(&self, place: u64, text: &str) -> Result<()> {
        ensure!(text.len() < TEXT_LEN, "{text} is too long to be told to a node");
        let mut bytes = [0; TEXT_LEN];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        self.file.write_all_at(&bytes, place * 8).context("the page that steers a node")
    }

    fn get<const N: usize>(&self, place: u64) -> Result<[u64; N]> {
        let mut values = [0; N];
        for (value, place) in values.iter_mut().zip(place..) {
            let mut bytes = [0; 8];
            self.file.read_exact_at(&mut bytes, place * 8).context("the page that steers a node")?;
            *value = u64::from_ne_bytes(bytes);
        }
        Ok(values)
    }

    /// From now on each of these calls takes so much longer. What was counted before is forgotten.
    ///
    /// # Errors
    /// If the page cannot be written.
    pub fn delay(&self, calls: &[Call], by: Duration) -> Result<()> {
        let delays = Call::ALL.map(|call| if calls.contains(&call) { micros(by) } else { 0 });
        self.put(DELAYED, &[0])?;
        self.put(DELAY_US, &delays)
    }

    /// The next so many calls fail, of files whose path contains `only`. What was counted before is forgotten.
    ///
    /// # Errors
    /// If the page cannot be written.
    pub fn fail(&self, call: Call, times: u64, only: &str) -> Result<()> {
        self.put(FAIL, &[0; Call::ALL.len()])?;
        self.put(FAILED, &[0, 0])?;
        self.put_text(FAILED_PATH, "")?;
        self.put_text(ONLY, only)?;
        self.put(FAIL, &Call::ALL.map(|other| if other == call { times } else { 0 }))
    }

    /// Nothing is delayed or fails any more. What was counted stays.
    ///
    /// # Errors
    /// If the page cannot be written.
    pub fn calm(&self) -> Result<()> {
        self.put(DELAY_US, &[0; Call::ALL.len()])?;
        self.put(FAIL, &[0; Call::ALL.len()])
    }

    /// How many calls were delayed.
    ///
    /// # Errors
    /// If the page cannot be read.
    pub fn delayed(&self) -> Result<u64> {
        Ok(self.get::<1>(DELAYED)?[0])
    }

    /// The first call that has failed.
    ///
    /// # Errors
    /// If the page cannot be read.
    pub fn failed(&self) -> Result<Option<Failed>> {
        let [call] = self.get::<1>(FAILED_CALL)?;
        let Some(call) = call.checked_sub(1).and_then(|at| Call::ALL.get(usize::try_from(at).ok()?)) else {
            return Ok(None);
        };
        let mut path = [0; TEXT_LEN];
        self.file.read_exact_at(&mut path, FAILED_PATH * 8)?;
        let text = path.split(|byte| *byte == 0).next().unwrap_or_default();
        Ok(Some(Failed { call: *call, file: PathBuf::from(String::from_utf8_lossy(text).into_owned()) }))
    }

    /// From now on the monotonic clock runs at this rate, in millionths, without a step; and then jumps ahead.
    ///
    /// # Errors
    /// If the page cannot be written.
    pub fn run_clock(&self, rate: u64, ahead: Duration) -> Result<()> {
        let now = clock_gettime(ClockId::Monotonic);
        let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)) + AHEAD;
        let current = self.get::<3>(CLOCK_NOW)?;
        let next = [nanos(now), own(current, nanos(now)) + nanos(ahead), rate];
        let [sequence] = self.get::<1>(CLOCK_SEQUENCE)?;
        self.put(CLOCK_SEQUENCE, &[sequence + 1])?;
        self.put(CLOCK_BEFORE, &[current, next].concat())?;
        self.put(CLOCK_SEQUENCE, &[sequence + 2])
    }
}

/// What a clock shows at a time, by a segment of the page: since when, what it showed then, its rate.
fn own([real_from, own_from, rate]: [u64; 3], real: u64) -> u64 {
    let passed = u128::from(real.saturating_sub(real_from)) * u128::from(rate) / u128::from(RIGHT);
    own_from.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    /// Does what its arguments say and tells what came of it: of `write` and `sync` zero or the error, of `clock` how many
    /// milliseconds a nap of 200 ms was, of `wait` how long it took until a time 200 ms ahead by the process's own clock.
    const PROBE: &str = r#"
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <linux/futex.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>
        static long ms(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000 + t.tv_nsec / 1000000; }
        int main(int count, char **of) {
            int fd = open(of[1], O_RDWR | O_CREAT | O_TRUNC, 0600), word = 0;
            for (int at = 2; at < count; at++) {
                long begin = ms(), back = 0, last = begin;
                if (!strcmp(of[at], "write")) printf("%d ", write(fd, "0123456789", 10) < 0 ? errno : 0);
                if (!strcmp(of[at], "sync")) printf("%d ", fdatasync(fd) < 0 ? errno : 0);
                if (!strcmp(of[at], "room")) printf("%d ", fallocate(fd, 0, 0, 4096) < 0 ? errno : 0);
                if (!strcmp(of[at], "clock")) { usleep(200000); printf("%ld ", ms() - begin); }
                if (!strcmp(of[at], "wait")) {
                    struct timespec until;
                    clock_gettime(CLOCK_MONOTONIC, &until);
                    until.tv_nsec += 200000000;
                    if (until.tv_nsec >= 1000000000) { until.tv_nsec -= 1000000000; until.tv_sec++; }
                    syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 0, &until, NULL, ~0U);
                    printf("%ld ", ms() - begin);
                }
                if (!strcmp(of[at], "order")) {
                    while (last < begin + 300) { long now = ms(); if (now < last) back++; last = now; }
                    printf("%ld ", back);
                }
            }
            return 0;
        }
    "#;

    struct Rig {
        dir: tempfile::TempDir,
        library: PathBuf,
        steer: Steer,
    }

    impl Rig {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let library = build(dir.path()).unwrap();
            std::fs::create_dir(dir.path().join("data")).unwrap();
            std::fs::write(dir.path().join("probe.c"), PROBE).unwrap();
            let paths = ["probe", "probe.c"].map(|name| dir.path().join(name).display().to_string());
            sh("cc", &["-o", &paths[0], &paths[1]]).unwrap();
            let steer = Steer::create(&dir.path().join("steer")).unwrap();
            Self { dir, library, steer }
        }

        fn command(&self, file: &str, steps: &[&str]) -> Command {
            let mut command = Command::new(self.dir.path().join("probe"));
            command.arg(self.dir.path().join(file)).args(steps).env("LD_PRELOAD", &self.library);
            command.env(STEER, self.dir.path().join("steer")).env(BELOW, self.dir.path().join("data"));
            command
        }

        fn probe(&self, file: &str, steps: &[&str]) -> Vec<i64> {
            let output = self.command(file, steps).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect()
        }

        fn length(&self, file: &str) -> u64 {
            std::fs::metadata(self.dir.path().join(file)).unwrap().len()
        }
    }

    const EIO: i64 = 5;

    #[test]
    fn only_what_is_asked_for_fails_and_only_below_the_folder() {
        let rig = Rig::new();
        assert_eq!(rig.probe("data/a", &["write", "sync", "room"]), [0, 0, 0]);
        rig.steer.fail(Call::Write, 1, "").unwrap();
        assert_eq!(rig.probe("beside", &["write"]), [0]);
        assert_eq!(rig.probe("data/LOG", &["write"]), [0], "it is for people alone");
        assert_eq!(rig.steer.failed().unwrap(), None);
        assert_eq!(rig.probe("data/a", &["sync", "write", "write"]), [0, EIO, 0]);
        assert_eq!(rig.length("data/a"), 15, "half of the one that failed");
        let file = rig.dir.path().join("data/a");
        assert_eq!(rig.steer.failed().unwrap(), Some(Failed { call: Call::Write, file }));
        rig.steer.fail(Call::Room, 2, "b.raftlog").unwrap();
        assert_eq!(rig.steer.failed().unwrap(), None);
        assert_eq!(rig.probe("data/a", &["room"]), [0]);
        assert_eq!(rig.probe("data/b.raftlog", &["room", "write"]), [EIO, 0]);
        rig.steer.calm().unwrap();
        assert_eq!(rig.probe("data/b.raftlog", &["room"]), [0]);
    }

    #[test]
    fn a_file_whose_sync_has_failed_is_not_synced_by_a_later_one() {
        let rig = Rig::new();
        rig.steer.fail(Call::Sync, 1, "").unwrap();
        let steps = ["write", "sync", "sync"];
        let trace = rig.dir.path().join("trace");
        assert_eq!(rig.probe("data/a", &steps), [0, EIO, 0]);
        // What came to the kernel, where something can tell.
        let mut traced = Command::new("strace");
        traced.args(["-f", "-e", "trace=fdatasync", "-o"]).arg(&trace);
        rig.steer.fail(Call::Sync, 1, "").unwrap();
        let own = rig.command("data/a", &["write", "sync", "sync", "sync"]);
        traced.arg(own.get_program()).args(own.get_args());
        traced.envs(own.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))));
        match traced.output() {
            Ok(output) if output.status.success() => {
                assert!(!std::fs::read_to_string(&trace).unwrap().contains("fdatasync("));
            }
            other => eprintln!("SKIPPED: strace cannot tell what came to the kernel: {other:?}"),
        }
    }

    #[test]
    fn what_is_slow_is_counted() {
        let rig = Rig::new();
        rig.steer.delay(&[Call::Sync], Duration::from_millis(150)).unwrap();
        let began = Instant::now();
        rig.probe("data/a", &["write"]);
        assert_eq!(rig.steer.delayed().unwrap(), 0);
        rig.probe("data/a", &["sync", "sync"]);
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert_eq!(rig.steer.delayed().unwrap(), 2);
    }

    #[test]
    fn a_clock_runs_at_its_rate_and_whoever_waits_goes_by_it() {
        let rig = Rig::new();
        rig.steer.run_clock(RIGHT / 2, Duration::ZERO).unwrap();
        std::thread::sleep(AHEAD);
        let began = Instant::now();
        let seen = rig.probe("data/a", &["clock", "wait"]);
        let real = i64::try_from(began.elapsed().as_millis()).unwrap();
        assert!(seen[0] >= 98, "200 ms are half as many: {seen:?}");
        assert!(seen[1] >= 199, "{seen:?}");
        assert!((seen[0] + seen[1] - 2) * 2 <= real, "{seen:?} in {real} ms by a clock that is right");
    }

    #[test]
    fn a_clock_does_not_go_back_when_its_rate_changes() {
        let rig = Rig::new();
        rig.steer.run_clock(5 * RIGHT, Duration::from_secs(3)).unwrap();
        let child = rig.command("data/a", &["order"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        for rate in [RIGHT / 5, RIGHT, RIGHT * 2, RIGHT / 2] {
            rig.steer.run_clock(rate, Duration::ZERO).unwrap();
            std::thread::sleep(AHEAD * 2);
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "0 ");
    }

    #[test]
    fn what_a_clock_shows_goes_on_from_what_it_showed() {
        let table = [([0, 0, RIGHT], 7, 7), ([100, 50, RIGHT / 2], 300, 150), ([100, 50, 2 * RIGHT], 300, 450)];
        for (segment, real, shows) in table {
            assert_eq!(own(segment, real), shows, "{segment:?}");
        }
    }
}
