//! What is fixed when a cluster is created, because apply may not read it from a configuration.

/// Settings of the catalog. Part of its state, so every replica decides by the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogSettings {
    /// A node that has not been heard of for so long is not live, in milliseconds.
    pub node_ttl_ms: u64,
    /// Every live node must have served for so long before the cluster version rises, in milliseconds.
    pub settle_ms: u64,
    /// Longest key at which a range may be split.
    pub max_key_bytes: u32,
    /// How many changes of routes are kept for watchers.
    pub delta_log: u32,
    /// How many audit events are kept.
    pub audit_log: u32,
    /// How many answers are kept for retries.
    pub request_log: u32,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self {
            node_ttl_ms: 30_000,
            settle_ms: 10_000,
            max_key_bytes: 4 << 10,
            delta_log: 4_096,
            audit_log: 10_000,
            request_log: 1_024,
        }
    }
}

const DAY_MS: u64 = 24 * 3_600 * 1_000;
const MAX_LOG: u32 = 1_000_000;

impl CatalogSettings {
    /// Which setting is out of its range, if one is.
    pub(crate) fn check(&self) -> Result<(), String> {
        let table = [
            ("node_ttl_ms", self.node_ttl_ms, 1, DAY_MS),
            ("settle_ms", self.settle_ms, 0, DAY_MS),
            ("max_key_bytes", u64::from(self.max_key_bytes), 1, 1 << 20),
            ("delta_log", u64::from(self.delta_log), 1, u64::from(MAX_LOG)),
            ("audit_log", u64::from(self.audit_log), 1, u64::from(MAX_LOG)),
            ("request_log", u64::from(self.request_log), 1, u64::from(MAX_LOG)),
        ];
        match table.into_iter().find(|(_, value, low, high)| !(low..=high).contains(&value)) {
            Some((name, value, low, high)) => Err(format!("{name} is {value}; it must be from {low} to {high}")),
            None => Ok(()),
        }
    }
}
