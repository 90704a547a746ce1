//! Versions of the software.
//!
//! The cluster version is the lowest version of the live nodes, and rises only when all of them have served for the
//! settle time. A new cluster has no older build to go back to: its first version is known as soon as all its nodes are there.
//! The high-water mark follows; nodes below the mark are refused, so neither ever falls: what the cluster version allowed may
//! stand in a log.

use super::{Answer, Decision, Judge, Note};
use crate::catalog::Contents;
use crate::{CatalogRefusal, CompatOutcome, Freeze, NodeEntry, Version};

impl Contents {
    /// Raises cluster version and high-water mark as far as the nodes allow. Whether they rose.
    pub(super) fn advance_cluster_version(&mut self) -> bool {
        let reached = self.settled_version().or_else(|| self.first_version()).filter(|_| self.meta.freeze.is_none());
        let Some(reached) = reached.filter(|reached| Some(*reached) > self.meta.cluster_version) else { return false };
        self.meta.cluster_version = Some(reached);
        self.meta.high_water = reached.max(self.meta.high_water);
        true
    }

    /// The lowest version of all nodes, if there is no cluster version yet and each of them is live.
    fn first_version(&self) -> Option<Version> {
        if self.meta.cluster_version.is_some() {
            return None;
        }
        let version = |node: &NodeEntry| Some(node.live(self.meta.clock, &self.meta.settings)?.version);
        let versions: Option<Vec<Version>> = self.nodes.values().map(version).collect();
        versions?.into_iter().min()
    }

    /// The lowest version of the live nodes, if all of them have served for the settle time.
    fn settled_version(&self) -> Option<Version> {
        let (now, settle_ms) = (self.meta.clock, self.meta.settings.settle_ms);
        let settled = |since: drover_hlc::PhysicalMs| since.saturating_add_ms(settle_ms) <= now;
        if !self.live(now).all(|(_, presence)| presence.serving_since.is_some_and(settled)) {
            return None;
        }
        self.live(now).map(|(_, presence)| presence.version).min()
    }
}

impl Judge<'_> {
    pub(super) fn freeze(&self) -> Result<Decision, CatalogRefusal> {
        let meta = &self.contents.meta;
        let version = meta.cluster_version.ok_or(CatalogRefusal::NoClusterVersion)?;
        match &meta.freeze {
            Some(Freeze { version, by, .. }) => {
                let details = format!("was frozen at {version} by {by} already");
                self.compat("freeze", CompatOutcome::AlreadyFrozen, meta.freeze.clone(), details)
            }
            None => {
                let freeze = Freeze { version, by: self.actor.to_owned(), at: self.now };
                self.compat("freeze", CompatOutcome::Frozen, Some(freeze), format!("frozen at {version}"))
            }
        }
    }

    pub(super) fn unfreeze(&self) -> Result<Decision, CatalogRefusal> {
        match &self.contents.meta.freeze {
            Some(freeze) => {
                let details = format!("was frozen at {} by {}", freeze.version, freeze.by);
                self.compat("unfreeze", CompatOutcome::Unfrozen, None, details)
            }
            None => self.compat("unfreeze", CompatOutcome::NothingFrozen, None, "nothing was frozen".to_owned()),
        }
    }

    pub(super) fn read_compat(&self) -> Result<Decision, CatalogRefusal> {
        let freeze = self.contents.meta.freeze.clone();
        let details = match self.contents.meta.cluster_version {
            Some(version) => format!("cluster version {version}"),
            None => "cluster version not known".to_owned(),
        };
        self.compat("read-compat", CompatOutcome::Read, freeze, details)
    }

    fn compat(
        &self,
        action: &'static str,
        outcome: CompatOutcome,
        freeze: Option<Freeze>,
        details: String,
    ) -> Result<Decision, CatalogRefusal> {
        let note = Note { action, subject: "compatibility".to_owned(), details };
        let mut plan = self.plan(Answer::Compat(outcome), Some(note));
        plan.meta.freeze = freeze;
        plan.decided()
    }
}
