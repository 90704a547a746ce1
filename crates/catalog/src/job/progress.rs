use drover_keys::JobId;

/// How far a job is, as whoever drives it last said. It is kept nowhere: a new driver looks, and says so anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobProgress {
    /// Which job.
    pub job: JobId,
    /// What it waits for, for people; empty: for nothing.
    pub waits_for: String,
    /// Of the range, in bytes of its rows.
    pub bytes_copied: u64,
    /// What there is to be copied; an estimate.
    pub bytes_total: u64,
    /// How fast it is copied at present.
    pub bytes_per_second: u64,
    /// Rows that were written since the tracker was armed, and are not copied yet.
    pub tracked_left: u64,
    /// How long writes would be held back, if they were from now on.
    pub projected_pause_ms: u64,
    /// How long until the range has moved, if that can be told.
    pub eta_ms: Option<u64>,
    /// How long writes were held back when they last were, in milliseconds.
    pub write_pause_ms: Option<u64>,
    /// How long reads were, in milliseconds.
    pub read_pause_ms: Option<u64>,
}
