use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::IntGauge;

use super::{Families, gauge_value};

/// The process as the kernel sees it.
pub(super) struct ProcessMetrics {
    resident_bytes: IntGauge,
    open_files: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn register(families: &Families<'_>) -> Self {
        let start = families.gauge("drover_process_start_time_seconds", "When the process started, Unix time");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        start.set(gauge_value(now));
        families
            .gauges("drover_build_info", "1; the label tells the version", &["version"])
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Self {
            resident_bytes: families.gauge("drover_process_resident_bytes", "Memory of the process that is in RAM"),
            open_files: families.gauge("drover_process_open_files", "Open file descriptors"),
        }
    }

    pub(super) fn sample(&self) {
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(gauge_value(bytes));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.open_files.set(gauge_value(entries.count() as u64));
        }
    }
}

/// Memory of this process that is in RAM, in bytes. `None` where the kernel does not tell.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_grows_with_what_is_touched() {
        let before = resident_bytes().unwrap();
        let held = vec![1u8; 64 << 20];
        let after = resident_bytes().unwrap();
        assert!(after >= before + (32 << 20), "{before} {after} {}", held.len());
    }
}
