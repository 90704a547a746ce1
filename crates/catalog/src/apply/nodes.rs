//! Commands about the node registry.

use drover_guards::{self as guards, Guard};
use drover_keys::NodeId;

use super::{Answer, Decision, Judge, MAX_ID, Note};
use crate::row::CatalogRow;
use crate::{
    CatalogChange, CatalogRefusal, CatalogReply, Heartbeat, NodeEntry, Presence, RegisterNode, RemovedNode, RowKey,
    Version,
};

impl Judge<'_> {
    pub(super) fn register(&self, asked: &RegisterNode) -> Result<Decision, CatalogRefusal> {
        self.check_version(asked.version)?;
        let id = self.number_of(asked)?;
        self.check_address(id, [&asked.address, &asked.admin_address])?;
        let before = self.contents.nodes.get(&id);
        let presence = Presence {
            store: asked.store,
            version: asked.version,
            capabilities: asked.capabilities.clone(),
            renewed: self.now,
            serving_since: None,
        };
        let entry = NodeEntry {
            id,
            address: asked.address.clone(),
            admin_address: asked.admin_address.clone(),
            draining: before.is_some_and(|entry| entry.draining),
            presence: Some(presence),
        };
        let details = format!("version {} at {}, data directory {}", asked.version, asked.address, asked.store);
        let note = Note { action: "register-node", subject: format!("node {id}"), details };
        let mut plan = self.plan(Answer::Registered(id), Some(note));
        plan.meta.next_node = plan.meta.next_node.max(NodeId(id.0 + 1));
        plan.put(CatalogRow::Node(entry)).decided()
    }

    /// The number of a node that starts: its own, the one its data directory is known by, or the next.
    fn number_of(&self, asked: &RegisterNode) -> Result<NodeId, CatalogRefusal> {
        let contents = self.contents;
        let has_store = |entry: &&NodeEntry| entry.presence.as_ref().is_some_and(|p| p.store == asked.store);
        let owner = contents.nodes.values().find(has_store).map(|entry| entry.id);
        if let Some(gone) = contents.removed.values().find(|node| node.store == Some(asked.store)) {
            return Err(CatalogRefusal::NodeRemoved { node: gone.id });
        }
        let Some(id) = asked.node else { return Ok(owner.unwrap_or(contents.meta.next_node)) };
        if !contents.nodes.contains_key(&id) && !(1..MAX_ID).contains(&id.0) {
            let why = format!("{id} is no node id: they start at 1; leave it out to get one");
            return Err(CatalogRefusal::BadNode { why });
        }
        if contents.removed.contains_key(&id) {
            return Err(CatalogRefusal::NodeRemoved { node: id });
        }
        if let Some(registered) = contents.nodes.get(&id).and_then(|entry| entry.presence.as_ref()) {
            self.check_store(id, registered, asked.store)?;
        }
        match owner {
            Some(node) if node != id => Err(CatalogRefusal::StoreTaken { store: asked.store, node }),
            Some(_) | None => Ok(id),
        }
    }

    pub(super) fn heartbeat(&self, heard: &Heartbeat) -> Result<Decision, CatalogRefusal> {
        let entry = self.node(heard.node)?;
        let before = entry.presence.as_ref().ok_or(CatalogRefusal::NotRegistered { node: heard.node })?;
        self.check_store(heard.node, before, heard.store)?;
        self.check_version(heard.version)?;
        let live = entry.live(self.now, &self.contents.meta.settings).is_some();
        if !live {
            self.check_address(heard.node, [&entry.address, &entry.admin_address])?;
        }
        let goes_on = live && before.version == heard.version;
        let since = before.serving_since.filter(|_| goes_on).unwrap_or(self.now);
        let presence = Presence {
            store: heard.store,
            version: heard.version,
            capabilities: heard.capabilities.clone(),
            renewed: self.now,
            serving_since: heard.serving.then_some(since),
        };
        let same = live && *before == Presence { renewed: before.renewed, ..presence.clone() };
        let entry = NodeEntry { presence: Some(presence), ..entry.clone() };
        let mut plan = self.plan(Answer::Heard, None);
        plan.visible = !same;
        plan.put(CatalogRow::Node(entry)).decided()
    }

    pub(super) fn drain(&self, node: NodeId, on: bool) -> Result<Decision, CatalogRefusal> {
        let entry = self.node(node)?;
        let changed = entry.draining != on;
        let details = match (on, changed) {
            (true, true) => "drains",
            (true, false) => "was draining already",
            (false, true) => "no longer drains",
            (false, false) => "was not draining",
        };
        let note = Note { action: "drain-node", subject: format!("node {node}"), details: details.to_owned() };
        let plan = self.plan(Answer::Ready(CatalogReply::Drain { node, on, changed }), Some(note));
        plan.put(CatalogRow::Node(NodeEntry { draining: on, ..entry.clone() })).decided()
    }

    pub(super) fn remove_node(&self, node: NodeId) -> Result<Decision, CatalogRefusal> {
        let entry = self.node(node)?;
        let holds = self.contents.groups.values().filter(|group| group.replicas.contains_key(&node));
        let groups: std::collections::BTreeSet<_> = holds.map(|group| group.id).collect();
        if !groups.is_empty() {
            return Err(CatalogRefusal::NodeInUse { node, groups });
        }
        let store = entry.presence.as_ref().map(|presence| presence.store);
        let details = store.map_or("never registered".to_owned(), |store| format!("data directory {store}"));
        let note = Note { action: "remove-node", subject: format!("node {node}"), details };
        let mut plan = self.plan(Answer::Ready(CatalogReply::Removed { node }), Some(note));
        plan.rows.push(CatalogChange::Delete(RowKey::Node(node)));
        plan.put(CatalogRow::RemovedNode(RemovedNode { id: node, store, at: self.now })).decided()
    }

    fn check_version(&self, version: Version) -> Result<(), CatalogRefusal> {
        let high_water = self.contents.meta.high_water;
        match version >= high_water || !guards::on(Guard::HighWaterMark) {
            true => Ok(()),
            false => Err(CatalogRefusal::VersionTooLow { version, high_water }),
        }
    }

    fn check_store(
        &self,
        node: NodeId,
        registered: &Presence,
        store: drover_keys::StoreId,
    ) -> Result<(), CatalogRefusal> {
        let registered = registered.store;
        if registered == store { Ok(()) } else { Err(CatalogRefusal::OtherStore { node, registered, store }) }
    }

    /// Refuses addresses at which another node is, or is expected.
    fn check_address(&self, node: NodeId, addresses: [&str; 2]) -> Result<(), CatalogRefusal> {
        let settings = &self.contents.meta.settings;
        let others = self.contents.nodes.values().filter(|other| other.id != node);
        let mut holders = others.filter(|other| other.holds_addresses(self.now, settings));
        match holders.find_map(|other| Some((other.shares_address(addresses)?, other.id))) {
            Some((address, node)) => Err(CatalogRefusal::AddressTaken { address: address.to_owned(), node }),
            None => Ok(()),
        }
    }
}
