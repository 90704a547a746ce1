//! Entries of the node registry.

use std::collections::BTreeSet;

use drover_hlc::PhysicalMs;
use drover_keys::{NodeId, StoreId};

use crate::{CatalogRefusal, CatalogSettings, Version};

/// Most capabilities of one node.
pub const MAX_CAPABILITIES: usize = 64;
/// Longest name of a capability.
pub const MAX_CAPABILITY_BYTES: usize = 64;
/// Longest address.
pub const MAX_ADDRESS_BYTES: usize = 256;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its number.
    pub id: NodeId,
    /// Where clients and other nodes reach it.
    pub address: String,
    /// Where its health and metrics are. May be empty.
    pub admin_address: String,
    /// Whether it gets no new replicas.
    pub draining: bool,
    /// What it said of itself. `None` of a node that the cluster was created with and that never registered.
    pub presence: Option<Presence>,
}

/// What a node said of itself when it registered, and since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Its data directory.
    pub store: StoreId,
    /// Of its build.
    pub version: Version,
    /// What its build can do.
    pub capabilities: BTreeSet<String>,
    /// When it was last heard of.
    pub renewed: PhysicalMs,
    /// Since when it has served without interruption in this version.
    pub serving_since: Option<PhysicalMs>,
}

/// What is left of a node that was removed: its number and its data directory are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RemovedNode {
    /// Its number.
    pub id: NodeId,
    /// Its data directory, if it ever registered.
    pub store: Option<StoreId>,
    /// When it was removed.
    pub at: PhysicalMs,
}

impl NodeEntry {
    /// What the node said of itself, if it was heard of within the time to live.
    pub fn live(&self, now: PhysicalMs, settings: &CatalogSettings) -> Option<&Presence> {
        self.presence.as_ref().filter(|presence| now < presence.renewed.saturating_add_ms(settings.node_ttl_ms))
    }

    /// Whether nobody else may have its addresses now: it is live, or is still expected to register.
    pub(crate) fn holds_addresses(&self, now: PhysicalMs, settings: &CatalogSettings) -> bool {
        self.presence.is_none() || self.live(now, settings).is_some()
    }

    /// The first of `addresses` that is an address of this node.
    pub(crate) fn shares_address<'a>(&self, addresses: [&'a str; 2]) -> Option<&'a str> {
        addresses.into_iter().find(|a| !a.is_empty() && (*a == self.address || *a == self.admin_address))
    }
}

/// Refuses more or longer names than a node may have.
pub(crate) fn check_capabilities(capabilities: &BTreeSet<String>) -> Result<(), CatalogRefusal> {
    let refuse = |why| Err(CatalogRefusal::Capabilities { why });
    if capabilities.len() > MAX_CAPABILITIES {
        return refuse(format!("there are {}; at most {MAX_CAPABILITIES} are allowed", capabilities.len()));
    }
    for name in capabilities {
        if name.is_empty() || name.len() > MAX_CAPABILITY_BYTES {
            return refuse(format!("a name has {} bytes; 1 to {MAX_CAPABILITY_BYTES} are allowed", name.len()));
        }
        if !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse(format!("{name:?} holds other characters than printable ASCII without spaces"));
        }
    }
    Ok(())
}

/// Refuses what cannot be an address.
pub(crate) fn check_addresses(address: &str, admin_address: &str) -> Result<(), CatalogRefusal> {
    for (what, text, least) in [("address", address, 1), ("admin address", admin_address, 0)] {
        if !(least..=MAX_ADDRESS_BYTES).contains(&text.len()) {
            let why = format!("the {what} has {} bytes; {least} to {MAX_ADDRESS_BYTES} are allowed", text.len());
            return Err(CatalogRefusal::BadNode { why });
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            let why = format!("the {what} {text:?} holds other characters than printable ASCII without spaces");
            return Err(CatalogRefusal::BadNode { why });
        }
    }
    if address == admin_address {
        return Err(CatalogRefusal::BadNode { why: format!("{address} is both the address and the admin address") });
    }
    Ok(())
}
