use std::collections::BTreeMap;

use drover_fsm::OwnedInterval;
use drover_fsm::moving::Fence;
use drover_keys::GroupId;

use super::{Newest, Property, Tick};

/// No key is served by two groups, and no interval is acquired by two at one version of the catalog.
#[derive(Default)]
pub struct OneOwner {
    newest: Newest,
    /// Who acquired what at which version.
    acquired: BTreeMap<u64, Vec<(GroupId, OwnedInterval)>>,
}

impl OneOwner {
    /// What each group serves reads of.
    fn served(&self) -> Vec<(GroupId, &OwnedInterval)> {
        let mut served = Vec::new();
        for (group, (_, state)) in &self.newest.0 {
            let closed = |owned: &OwnedInterval| {
                state.moves.leaving(&owned.interval).any(|leaving| leaving.fence == Fence::Read)
            };
            served.extend(state.owned.iter().filter(|owned| !closed(owned)).map(|owned| (*group, owned)));
        }
        served
    }
}

impl Property for OneOwner {
    fn name(&self) -> &'static str {
        "one owner per key and version"
    }

    fn after(&mut self, tick: &Tick<'_>) -> Result<(), String> {
        for replica in tick.changed {
            replica.state.validate().map_err(|error| format!("node {}, {}: {error}", replica.node, replica.group))?;
        }
        if !self.newest.note(tick.changed) {
            return Ok(());
        }
        let served = self.served();
        for (at, (group, owned)) in served.iter().enumerate() {
            let rivals = served[at + 1..].iter().filter(|(other, _)| other != group);
            if let Some((other, also)) = rivals.into_iter().find(|(_, also)| also.interval.overlaps(&owned.interval)) {
                return Err(format!("group {group} serves {}, group {other} {}", owned.interval, also.interval));
            }
        }
        let served: Vec<_> = served.into_iter().map(|(group, owned)| (group, owned.clone())).collect();
        for (group, owned) in served {
            let at_version = self.acquired.entry(owned.acquired_version.0).or_default();
            let rival =
                at_version.iter().find(|(other, also)| *other != group && also.interval.overlaps(&owned.interval));
            if let Some((other, also)) = rival {
                let version = owned.acquired_version;
                return Err(format!(
                    "at version {version} groups {group} and {other} acquired {} and {}",
                    owned.interval, also.interval
                ));
            }
            if !at_version.iter().any(|(other, also)| *other == group && also.interval == owned.interval) {
                at_version.push((group, owned));
            }
        }
        Ok(())
    }

    fn at_the_end(&self) -> Result<(), String> {
        if self.acquired.is_empty() { Err("no group owned anything".to_owned()) } else { Ok(()) }
    }
}
