//! What the client believes about the cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use drover_keys::NodeId;
use drover_wire::proto::v1::Route;

use crate::node::Node;

#[derive(Debug, Clone)]
struct RouteEntry {
    start: Bytes,
    /// Index into `leaders`.
    group: usize,
}

/// An immutable snapshot of routes and nodes. Believed leaders change in place.
#[derive(Debug, Default)]
pub(crate) struct Topology {
    /// Sorted by start; they tile the key space.
    routes: Vec<RouteEntry>,
    /// Believed leader of each group; zero: none.
    leaders: Vec<AtomicU64>,
    nodes: Vec<Arc<Node>>,
    by_id: HashMap<NodeId, Arc<Node>>,
    next: AtomicUsize,
}

impl Topology {
    /// A snapshot of these nodes and routes. Routes that do not start at the lowest key leave what is below them
    /// without a believed leader.
    pub(crate) fn new(nodes: Vec<Arc<Node>>, routes: &[Route]) -> Self {
        let mut slots: HashMap<u64, usize> = HashMap::new();
        let mut leaders = Vec::new();
        let mut entries: Vec<RouteEntry> = routes
            .iter()
            .map(|route| {
                let group = *slots.entry(route.group_id).or_insert_with(|| {
                    leaders.push(AtomicU64::new(route.leader));
                    leaders.len() - 1
                });
                RouteEntry { start: route.start.clone(), group }
            })
            .collect();
        entries.sort_by(|a, b| a.start.cmp(&b.start));
        let by_id = nodes.iter().filter_map(|node| Some((node.id()?, node.clone()))).collect();
        Self { routes: entries, leaders, nodes, by_id, next: AtomicUsize::new(0) }
    }

    /// The same routes and believed leaders, and these nodes.
    pub(crate) fn with_nodes(&self, nodes: Vec<Arc<Node>>) -> Self {
        let leaders = self.leaders.iter().map(|leader| AtomicU64::new(leader.load(Ordering::Relaxed))).collect();
        let by_id = nodes.iter().filter_map(|node| Some((node.id()?, node.clone()))).collect();
        Self { routes: self.routes.clone(), leaders, nodes, by_id, next: AtomicUsize::new(0) }
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The believed leader of the group that owns `key`.
    fn leader_slot(&self, key: &[u8]) -> Option<&AtomicU64> {
        let after = self.routes.partition_point(|route| route.start.as_ref() <= key);
        self.routes.get(after.checked_sub(1)?).map(|route| &self.leaders[route.group])
    }

    /// The node to ask about `key`: the believed leader unless it has just failed, else the nodes in turn.
    pub(crate) fn pick(&self, key: &[u8], avoid: Option<&Arc<Node>>) -> Option<Arc<Node>> {
        let usable = |node: &Arc<Node>| !avoid.is_some_and(|avoid| Arc::ptr_eq(avoid, node)) && !node.is_resting();
        let leader = self.leader_slot(key).map(|slot| NodeId(slot.load(Ordering::Relaxed)));
        if let Some(node) = leader.and_then(|id| self.by_id.get(&id)).filter(|node| usable(node)) {
            return Some(node.clone());
        }
        self.in_turn(usable).or_else(|| self.in_turn(|_| true)).cloned()
    }

    fn in_turn(&self, usable: impl Fn(&Arc<Node>) -> bool) -> Option<&Arc<Node>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        (0..self.nodes.len()).map(|i| &self.nodes[(first.wrapping_add(i)) % self.nodes.len()]).find(|node| usable(node))
    }

    /// Takes note of who leads the group of `key`. False if that node is not known.
    pub(crate) fn learn_leader(&self, key: &[u8], leader: NodeId) -> bool {
        if let Some(slot) = self.leader_slot(key)
            && slot.load(Ordering::Relaxed) != leader.0
        {
            slot.store(leader.0, Ordering::Relaxed);
        }
        self.knows(leader)
    }

    /// Takes note that a node has not answered for `key` in time. If it is believed to lead the group, it may do so no longer, and
    /// not know it: others are asked until one of them says who does.
    pub(crate) fn doubt_leader(&self, key: &[u8], node: NodeId) {
        if let Some(slot) = self.leader_slot(key) {
            // Another one is believed to lead by now, or nobody is.
            let _ = slot.compare_exchange(node.0, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether the node's address is known.
    pub(crate) fn knows(&self, node: NodeId) -> bool {
        self.by_id.contains_key(&node)
    }

    /// Whether every believed leader is a node whose address is known.
    pub(crate) fn knows_all_leaders(&self) -> bool {
        let known = |slot: &AtomicU64| match slot.load(Ordering::Relaxed) {
            0 => true,
            id => self.knows(NodeId(id)),
        };
        self.leaders.iter().all(known)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(id: u64) -> Arc<Node> {
        Node::new(&format!("host{id}:1"), Some(NodeId(id)), Duration::from_secs(1)).unwrap()
    }

    fn route(start: &str, group_id: u64, leader: u64) -> Route {
        Route { start: Bytes::copy_from_slice(start.as_bytes()), group_id, leader, ..Route::default() }
    }

    fn three_groups() -> Topology {
        let nodes = (1..=3).map(node).collect();
        // Unsorted on purpose; group 7 has two routes.
        Topology::new(nodes, &[route("m", 8, 2), route("", 7, 1), route("t", 7, 1), route("p", 9, 0)])
    }

    fn picked(topology: &Topology, key: &str) -> u64 {
        topology.pick(key.as_bytes(), None).unwrap().id().unwrap().0
    }

    #[tokio::test]
    async fn a_key_goes_to_the_believed_leader_of_its_route() {
        let topology = three_groups();
        for (key, leader) in [("", 1), ("a", 1), ("lzz", 1), ("m", 2), ("o", 2), ("t", 1), ("zz", 1)] {
            assert_eq!(picked(&topology, key), leader, "{key}");
        }
    }

    #[tokio::test]
    async fn without_a_believed_leader_the_nodes_take_turns() {
        let topology = three_groups();
        let mut seen: Vec<u64> = (0..3).map(|_| picked(&topology, "p")).collect();
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_hint_moves_all_routes_of_the_group_and_no_other() {
        let topology = three_groups();
        assert!(topology.learn_leader(b"a", NodeId(3)));
        assert_eq!(picked(&topology, "a"), 3);
        assert_eq!(picked(&topology, "z"), 3);
        assert_eq!(picked(&topology, "m"), 2);
        assert!(topology.knows_all_leaders());
        assert!(!topology.learn_leader(b"m", NodeId(99)));
        assert!(!topology.knows_all_leaders());
    }

    #[tokio::test]
    async fn a_leader_that_is_doubted_is_one_among_others_until_somebody_names_one() {
        let topology = three_groups();
        topology.doubt_leader(b"a", NodeId(2));
        assert_eq!(picked(&topology, "a"), 1, "another one is believed to lead");
        topology.doubt_leader(b"a", NodeId(1));
        let mut seen: Vec<u64> = (0..3).map(|_| picked(&topology, "a")).collect();
        seen.sort_unstable();
        assert_eq!((seen, picked(&topology, "m")), (vec![1, 2, 3], 2));
        assert!(topology.learn_leader(b"a", NodeId(3)));
        assert_eq!(picked(&topology, "a"), 3);
    }

    #[tokio::test]
    async fn a_node_that_failed_is_passed_over_while_there_is_another() {
        let topology = three_groups();
        let leader = topology.pick(b"m", None).unwrap();
        for _ in 0..6 {
            assert_ne!(topology.pick(b"m", Some(&leader)).unwrap().id(), leader.id());
        }
        leader.rest();
        assert_ne!(topology.pick(b"m", None).unwrap().id(), leader.id());
        let alone = Topology::new(vec![leader.clone()], &[]);
        assert_eq!(alone.pick(b"m", Some(&leader)).unwrap().id(), leader.id());
    }
}
