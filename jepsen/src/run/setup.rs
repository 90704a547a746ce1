//! What a run makes before it begins: settings, variables, folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, anyhow, bail};

use super::Test;
use crate::nemesis::Fault;
use crate::preload;
use crate::workload::Kind;

/// Longest run of which the nodes tell every key that is written, in seconds.
const KEYS_FOR_S: u64 = 600;

/// Settings of the nodes.
///
/// # Errors
/// For one that is none.
pub(super) fn settings(test: &Test) -> Result<BTreeMap<String, toml::Value>> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: toml::Value| drop(all.insert(name.to_owned(), value));
    // So that what the nodes say of who owns what can be read; of an hour it would be too much to tell of every key.
    set("log.format", "json".into());
    if test.time_s <= KEYS_FOR_S {
        set("log.filter", "info,openraft=error,drover_fsm::writes=trace".into());
    }
    if test.workloads.iter().any(|name| name == Kind::Delete.name()) {
        set("storage.gc_retention_ms", "3s".into());
        set("storage.flush_interval_ms", "500ms".into());
        set("limits.default_deadline_ms", "3s".into());
    }
    if test.nemeses.iter().any(|fault| fault.needs_disks()) {
        set("disk.reserve_bytes", "64MiB".into());
        set("disk.check_interval_ms", "100ms".into());
    }
    if test.nemeses.contains(&Fault::Snapshot) {
        set("raft.snapshot_entries", 100.into());
        set("raft.log_retention_entries", 0.into());
        set("raft.purge_batch_entries", 1.into());
        set("storage.flush_interval_ms", "300ms".into());
    }
    if test.nemeses.iter().any(|fault| matches!(fault, Fault::SlowDisk | Fault::WriteError | Fault::SyncError)) {
        // So that more than the log is written.
        set("storage.flush_interval_ms", "300ms".into());
        set("storage.raftlog_file_bytes", "1MiB".into());
    }
    if test.nemeses.contains(&Fault::Damage) {
        // So that there are files to be damaged.
        set("storage.flush_interval_ms", "200ms".into());
        set("storage.raftlog_file_bytes", "1MiB".into());
    }
    for setting in &test.settings {
        let (name, value) = setting.split_once('=').ok_or_else(|| anyhow!("{setting} is no section.name=value"))?;
        let value = value.parse::<i64>().map_or_else(|_| toml::Value::from(value), toml::Value::from);
        set(name, value);
    }
    Ok(all)
}

/// Variables of the nodes' processes. What they load lies in `work`.
///
/// # Errors
/// For one that is none, or if a library is missing.
pub(super) fn environment(test: &Test, work: &Path) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let all = test.environment.iter().map(|text| pair(text).ok_or_else(|| anyhow!("{text} is no NAME=value")));
    let mut all = all.collect::<Result<Vec<_>>>()?;
    let mut loaded = Vec::new();
    if test.nemeses.iter().any(|fault| fault.needs_preload()) {
        loaded.push(preload::build(work)?.display().to_string());
    }
    if test.nemeses.contains(&Fault::Clock) {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketimeMT.so.1", std::env::consts::ARCH);
        if !Path::new(&library).exists() {
            bail!("the clock cannot be changed without {library} (package libfaketime)");
        }
        // Only the time of day is wrong: leases and timers run by the clock that goes on.
        let fixed = [("FAKETIME_DONT_FAKE_MONOTONIC", "1"), ("DONT_FAKE_MONOTONIC", "1")];
        all.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        all.push(("FAKETIME_CACHE_DURATION".to_owned(), "1".to_owned()));
        loaded.push(library);
    }
    if !loaded.is_empty() {
        all.push(("LD_PRELOAD".to_owned(), loaded.join(":")));
    }
    Ok(all)
}

/// The time of day in UTC, as a name of a folder.
pub(super) fn stamp(now: SystemTime) -> String {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    // Days since 0000-03-01, by the calendar's cycles of 400 years.
    let days = seconds / 86_400 + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{millis:03}Z")
}

/// Removes what runs left whose process is gone.
pub(super) fn clean_work(work: &Path) {
    for entry in std::fs::read_dir(work).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("drover-jepsen-").and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let alive = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        if !alive.is_ok_and(|name| name.trim().starts_with("drover-jepsen")) {
            crate::disk::unmount_below(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes a folder when it is dropped, and unmounts what is mounted there.
pub(super) struct RemoveDir(pub PathBuf);

impl Drop for RemoveDir {
    fn drop(&mut self) {
        crate::disk::unmount_below(&self.0);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn folders_are_called_after_the_time_of_day() {
        let at = |seconds, ms| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms);
        assert_eq!(stamp(at(0, 0)), "19700101T000000.000Z");
        assert_eq!(stamp(at(1_709_210_096, 7)), "20240229T123456.007Z");
        assert_eq!(stamp(at(1_735_689_599, 0)), "20241231T235959.000Z");
    }
}
