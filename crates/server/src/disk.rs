//! Watches the free space of the data directory's file system, and how much the directory takes.
//!
//! The decision is [`is_full`], a pure function with hysteresis: a disk that hovers at the reserve must not let every other
//! write through. The watch publishes it; whoever accepts writes refuses them while [`DiskState::full`] holds. What a group
//! needs to go on, its replicas take further down: a leader without timestamps and proofs serves no reads either.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drover_seams::{blocking, is_simulated};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is known of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskState {
    /// Bytes that this process can still write.
    pub free_bytes: u64,
    /// Bytes of the files in the directory.
    pub used_bytes: u64,
    /// Whether writes are to be refused.
    pub full: bool,
    /// Whether entries of leaders are to be refused as well: half of the reserve is gone.
    pub exhausted: bool,
}

/// Whether a disk counts as full: below the reserve it does, above five quarters of it it does not, and in between it stays
/// what it was. With a reserve of zero it never does.
pub fn is_full(was_full: bool, free_bytes: u64, reserve_bytes: u64) -> bool {
    let clear_bytes = reserve_bytes.saturating_add(reserve_bytes / 4);
    match () {
        () if reserve_bytes == 0 => false,
        () if free_bytes < reserve_bytes => true,
        () if free_bytes > clear_bytes => false,
        () => was_full,
    }
}

/// Free space of a simulated disk.
const SIMULATED_BYTES: u64 = 1 << 40;

/// How often the files of the directory are counted: each is asked for its size.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Looks once, but for the bytes in use, which stay what they were.
///
/// # Errors
/// If the file system cannot be asked.
pub fn measure(path: &Path, before: Option<DiskState>, reserve_bytes: u64) -> io::Result<DiskState> {
    let free_bytes = match is_simulated() {
        // What others do to this machine's disk is no part of a simulation.
        true => SIMULATED_BYTES,
        false => {
            let stat = rustix::fs::statvfs(path)?;
            stat.f_bavail.saturating_mul(stat.f_frsize)
        }
    };
    let (was_full, was_exhausted) = before.map_or((false, false), |before| (before.full, before.exhausted));
    Ok(DiskState {
        free_bytes,
        used_bytes: before.map_or(0, |before| before.used_bytes),
        full: is_full(was_full, free_bytes, reserve_bytes),
        exhausted: is_full(was_exhausted, free_bytes, reserve_bytes / 2),
    })
}

/// Bytes of all files below a folder, each counted once, by whatever names it has; what cannot be read counts as nothing.
pub fn used_bytes(folder: &Path) -> u64 {
    fn below(folder: &Path, linked: &mut HashSet<u64>) -> u64 {
        let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
        entries
            .flatten()
            .map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => below(&entry.path(), linked),
                Ok(metadata) if metadata.nlink() > 1 && !linked.insert(metadata.ino()) => 0,
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            })
            .sum()
    }
    below(folder, &mut HashSet::new())
}

/// Looks again and again until dropped.
#[derive(Debug)]
pub struct DiskWatch {
    state: watch::Receiver<DiskState>,
    task: JoinHandle<()>,
}

impl DiskWatch {
    /// Looks once, then goes on every `interval`. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the first look fails.
    pub fn start(path: PathBuf, reserve_bytes: u64, interval: Duration) -> io::Result<Self> {
        let (sender, state) = watch::channel(measure(&path, None, reserve_bytes)?);
        report(None, *state.borrow(), reserve_bytes);
        let task = tokio::spawn(run(path, reserve_bytes, interval, sender));
        Ok(Self { state, task })
    }

    /// What was found last, and changes of it.
    pub fn subscribe(&self) -> watch::Receiver<DiskState> {
        self.state.clone()
    }
}

impl Drop for DiskWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(path: PathBuf, reserve_bytes: u64, interval: Duration, sender: watch::Sender<DiskState>) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    let mut counted: Option<Instant> = None;
    loop {
        ticks.tick().await;
        let before = *sender.borrow();
        let mut used = before.used_bytes;
        if !is_simulated() && counted.is_none_or(|counted| counted.elapsed() >= COUNT_INTERVAL) {
            let folder = path.clone();
            used = blocking::aside(move || used_bytes(&folder)).await.unwrap_or(used);
            counted = Some(Instant::now());
        }
        match measure(&path, Some(DiskState { used_bytes: used, ..before }), reserve_bytes) {
            Ok(after) => {
                failing = false;
                report(Some(before), after, reserve_bytes);
                sender.send_if_modified(|state| std::mem::replace(state, after) != after);
            }
            // The last answer stands: a file system that cannot be asked says nothing new about its space.
            Err(error) if !failing => {
                failing = true;
                tracing::error!(path = %path.display(), %error, "cannot ask for the free space of the disk");
            }
            Err(_) => {}
        }
    }
}

fn report(before: Option<DiskState>, after: DiskState, reserve_bytes: u64) {
    let free_bytes = after.free_bytes;
    match (before.is_some_and(|state| state.full), after.full) {
        (false, true) => tracing::warn!(free_bytes, reserve_bytes, "the disk is full: writes are refused"),
        (true, false) => tracing::info!(free_bytes, reserve_bytes, "the disk has space again: writes are taken"),
        (true, true) | (false, false) => {}
    }
    match (before.is_some_and(|state| state.exhausted), after.exhausted) {
        (false, true) => {
            tracing::warn!(free_bytes, reserve_bytes, "half of the reserve is gone: replicas here take no entries");
        }
        (true, false) => tracing::info!(free_bytes, reserve_bytes, "replicas here take entries again"),
        (true, true) | (false, false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_stop_below_the_reserve_and_resume_a_quarter_above_it() {
        let table = [
            (false, 99, 100, true),
            (false, 100, 100, false),
            (false, 125, 100, false),
            (true, 100, 100, true),
            (true, 125, 100, true),
            (true, 126, 100, false),
            (true, 0, 0, false),
            (false, 0, 0, false),
            (true, u64::MAX, u64::MAX, true),
            (false, 1, u64::MAX, true),
        ];
        for (was_full, free, reserve, expect) in table {
            assert_eq!(is_full(was_full, free, reserve), expect, "{was_full} {free} {reserve}");
        }
    }

    #[test]
    fn replicas_go_on_for_half_of_the_reserve() {
        let dir = tempfile::tempdir().unwrap();
        let free = measure(dir.path(), None, 0).unwrap().free_bytes;
        // Others use the disk too, so the figures keep far from the bounds.
        for (reserve, full, exhausted) in
            [(free / 2, false, false), (free / 2 * 3, true, false), (free * 3, true, true)]
        {
            let state = measure(dir.path(), None, reserve).unwrap();
            assert_eq!((state.full, state.exhausted), (full, exhausted), "{reserve} of {free}");
        }
    }

    #[tokio::test]
    async fn the_watch_tells_the_space_of_a_real_file_system_and_the_size_of_the_folder() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("file"), vec![1; 3_000]).unwrap();
        let roomy = DiskWatch::start(temp.path().to_owned(), 0, Duration::from_millis(10)).unwrap();
        let state = *roomy.subscribe().wait_for(|state| state.used_bytes > 0).await.unwrap();
        assert!(state.free_bytes > 0 && state.used_bytes == 3_000 && !state.full, "{state:?}");
        let greedy = DiskWatch::start(temp.path().to_owned(), u64::MAX / 2, Duration::from_millis(10)).unwrap();
        assert!(greedy.subscribe().borrow().full);
    }

    #[tokio::test]
    async fn the_watch_notices_a_change() {
        let temp = tempfile::tempdir().unwrap();
        let watch = DiskWatch::start(temp.path().to_owned(), 0, Duration::from_millis(1)).unwrap();
        let mut states = watch.subscribe();
        let before = states.borrow_and_update().free_bytes;
        std::fs::write(temp.path().join("fill"), vec![1; 1 << 20]).unwrap();
        std::fs::File::open(temp.path().join("fill")).unwrap().sync_all().unwrap();
        // Others use the disk too, so only a change is certain, not its size.
        let after = states.wait_for(|state| state.free_bytes != before).await.unwrap();
        assert_ne!(after.free_bytes, before);
    }

    #[test]
    fn a_file_counts_once_by_whatever_names_and_in_whatever_folder() {
        let temp = tempfile::tempdir().unwrap();
        let (one, folder) = (temp.path().join("one"), temp.path().join("folder"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(&one, vec![1; 5_000]).unwrap();
        std::fs::write(folder.join("two"), vec![1; 70]).unwrap();
        assert_eq!(used_bytes(temp.path()), 5_070);
        std::fs::hard_link(&one, folder.join("one again")).unwrap();
        assert_eq!(used_bytes(temp.path()), 5_070);
        assert_eq!(used_bytes(&temp.path().join("nothing")), 0);
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_asked_is_an_error_at_the_start() {
        assert!(DiskWatch::start("/nonexistent/dir".into(), 0, Duration::from_secs(1)).is_err());
    }
}
