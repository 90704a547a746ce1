use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::Serialize;

/// Tells whether the node can serve. Implemented by the node.
pub trait Readiness: Send + Sync {
    /// What was looked at just now: that the storage is open, and for each local replica that it has a leader and has caught
    /// up. Must not block.
    fn checks(&self) -> Vec<Check>;
}

/// One thing that must hold for the node to be ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What, as in `group 2`.
    pub what: String,
    /// Whether it holds.
    pub ok: bool,
    /// How it stands, for people.
    pub detail: String,
}

impl Check {
    /// Something that holds, or not.
    pub fn new(what: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self { what: what.into(), ok, detail: detail.into() }
    }
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadinessReport {
    ready: bool,
    checks: Vec<Check>,
}

impl ReadinessReport {
    /// Ready if every check holds; nothing checked is not ready.
    pub fn new(checks: Vec<Check>) -> Self {
        Self { ready: !checks.is_empty() && checks.iter().all(|check| check.ok), checks }
    }

    /// Whether the node can serve.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What was looked at.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }
}

/// Where the node puts its [`Readiness`] once there is one.
#[derive(Default)]
pub struct ReadinessSlot {
    source: ArcSwapOption<Box<dyn Readiness>>,
}

impl ReadinessSlot {
    /// A node that is still starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on `source` is asked.
    pub fn set(&self, source: impl Readiness + 'static) {
        self.source.store(Some(Arc::new(Box::new(source))));
    }

    /// How the node stands now.
    pub fn report(&self) -> ReadinessReport {
        ReadinessReport::new(match &*self.source.load() {
            Some(source) => source.checks(),
            None => vec![Check::new("start", false, "the node is starting")],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_something_was_checked_and_all_of_it_holds() {
        let (good, bad) = (Check::new("a", true, ""), Check::new("b", false, ""));
        let table = [(vec![], false), (vec![good.clone()], true), (vec![good, bad.clone()], false), (vec![bad], false)];
        for (checks, expect) in table {
            assert_eq!(ReadinessReport::new(checks.clone()).is_ready(), expect, "{checks:?}");
        }
    }
}
