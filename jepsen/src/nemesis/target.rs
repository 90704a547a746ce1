//! Whom it meets.

use drover_client::{GroupId, JobFilter};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::Nemesis;
use crate::cluster::DATA_GROUPS;

/// Nodes by what they are at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any.
    One,
    /// Less than half of them.
    Minority,
    /// More than half.
    Majority,
    /// All at once.
    All,
    /// Who leads some data group.
    Leader,
    /// Who leads the default group.
    DefaultLeader,
    /// A node through which clients commit transactions.
    Coordinator,
    /// Who leads the group that a range moves out of.
    Source,
    /// Who leads the group that it moves into.
    Target,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 9] = [
        Target::One,
        Target::Minority,
        Target::Majority,
        Target::All,
        Target::Leader,
        Target::DefaultLeader,
        Target::Coordinator,
        Target::Source,
        Target::Target,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Target::One => "one",
            Target::Minority => "minority",
            Target::Majority => "majority",
            Target::All => "all",
            Target::Leader => "leader",
            Target::DefaultLeader => "default-leader",
            Target::Coordinator => "coordinator",
            Target::Source => "source",
            Target::Target => "target",
        }
    }

    /// The target of this name.
    pub fn by_name(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|target| target.name() == name)
    }
}

impl Nemesis {
    /// One of the targets that are allowed, and the nodes that it means now; `None`: there are none.
    pub(super) async fn choose(&self, rng: &mut StdRng) -> Option<(Target, Vec<u64>)> {
        let allowed = if self.targets.is_empty() { &Target::ALL[..] } else { &self.targets };
        let target = allowed[rng.random_range(0..allowed.len())];
        let mut nodes = self.cluster.nodes();
        nodes.shuffle(rng);
        let count = nodes.len();
        let group = GroupId(2 + rng.random_range(0..DATA_GROUPS));
        let chosen = match target {
            Target::One | Target::Coordinator => Some(nodes[..1].to_vec()),
            Target::Minority => Some(nodes[..(count - 1) / 2].to_vec()),
            Target::Majority => Some(nodes[..count / 2 + 1].to_vec()),
            Target::All => Some(nodes),
            Target::Leader => self.cluster.leader(&self.client, group).await.map(|node| vec![node]),
            Target::DefaultLeader => self.cluster.leader(&self.client, GroupId::DEFAULT).await.map(|node| vec![node]),
            // Without a move, whoever leads.
            Target::Source => self.ends_of_a_move(group).await.map(|(source, _)| vec![source]),
            Target::Target => self.ends_of_a_move(group).await.map(|(_, target)| vec![target]),
        };
        Some((target, chosen.filter(|nodes| !nodes.is_empty())?))
    }

    /// The leaders of the source and of the target of a move under way; without one, those of two groups.
    pub(super) async fn ends_of_a_move(&self, otherwise: GroupId) -> Option<(u64, u64)> {
        let filter = JobFilter { ended: Some(false), ..JobFilter::default() };
        let jobs = self.client.jobs(&filter).await.ok().unwrap_or_default();
        let groups = jobs.iter().find_map(|status| status.job.as_ref().map(|job| (job.source_group, job.target_group)));
        let next = 2 + (otherwise.0 - 2 + 1) % DATA_GROUPS;
        let (source, target) = groups.unwrap_or((otherwise.0, next));
        let source = self.cluster.leader(&self.client, GroupId(source)).await?;
        Some((source, self.cluster.leader(&self.client, GroupId(target)).await?))
    }
}
