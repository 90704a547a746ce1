use std::time::Duration;

/// Settings of a migrator.
#[derive(Debug, Clone)]
pub struct MigratorOptions {
    /// Bytes of rows in one portion of a copy, and so in one entry of the target's log.
    pub chunk_bytes: usize,
    /// Bytes of rows that a replica of the source looks at for one portion.
    pub scanned_bytes: usize,
    /// A transaction that reads an older snapshot than this is resolved before writes are held back.
    pub old_lock: Duration,
    /// How long a job that has failed keeps its copy, for another attempt.
    pub failed_copy_kept: Duration,
    /// How long a copy may try to catch up with the writers before the job fails.
    pub catch_up: Duration,
}

impl Default for MigratorOptions {
    fn default() -> Self {
        Self {
            chunk_bytes: 1 << 20,
            scanned_bytes: 8 << 20,
            old_lock: Duration::from_secs(1),
            failed_copy_kept: Duration::from_secs(3_600),
            catch_up: Duration::from_secs(600),
        }
    }
}
