//! Whether the nodes of a group have room for the copy of a range. Pure.

use std::sync::Arc;

use bytesize::ByteSize;
use drover_keys::{GroupId, NodeId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1::{NodeRoom, NodeStatus};

/// What a node says of its disk.
pub fn room_of(status: &NodeStatus) -> NodeRoom {
    NodeRoom {
        node_id: status.node_id,
        free_bytes: status.disk_free_bytes,
        reserve_bytes: status.disk_reserve_bytes,
        error: status.error.clone(),
        pending_bytes: 0,
    }
}

/// Takes note of what moves that are under way will still put on these nodes. Of each: the nodes of its target, and the bytes.
pub fn note_pending(rooms: &mut [NodeRoom], moves: &[(Arc<[NodeId]>, u64)]) {
    for room in rooms {
        let there = moves.iter().filter(|(nodes, _)| nodes.contains(&NodeId(room.node_id)));
        room.pending_bytes = there.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes));
    }
}

/// Refuses a copy of so many bytes if a node with a replica of `target` has no room for it above its reserve. A node that
/// says nothing does not stand against it: one that is lost must not keep ranges from moving.
///
/// # Errors
/// [`Reason::FailedPrecondition`], definite; it names the node with the least room.
pub fn check_room(target: GroupId, copy_bytes: u64, rooms: &[NodeRoom]) -> Result<(), Error> {
    let above =
        |room: &NodeRoom| i128::from(room.free_bytes) - i128::from(room.reserve_bytes) - i128::from(room.pending_bytes);
    let known = rooms.iter().filter(|room| room.error.is_empty());
    match known.min_by_key(|room| above(room)) {
        Some(room) if above(room) < i128::from(copy_bytes) => {
            let message = format!(
                "node {} holds a replica of group {target}, and has no room for a copy of about {}: {} are free, {} have to stay \
                 free, and moves that are under way will take {}; nothing was changed. Free space there, or move the range to \
                 another group",
                room.node_id,
                ByteSize(copy_bytes),
                ByteSize(room.free_bytes),
                ByteSize(room.reserve_bytes),
                ByteSize(room.pending_bytes),
            );
            Err(Error::definite(Reason::FailedPrecondition, message))
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(node_id: u64, free_bytes: u64, reserve_bytes: u64) -> NodeRoom {
        NodeRoom { node_id, free_bytes, reserve_bytes, ..NodeRoom::default() }
    }

    #[test]
    fn what_moves_will_still_put_on_a_node_is_added_up() {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Arc<[_]>>();
        let mut rooms = [room(1, 100, 0), room(2, 100, 0), room(3, 100, 0)];
        note_pending(&mut rooms, &[(nodes(&[1, 2]), 5), (nodes(&[2]), 7), (nodes(&[9]), 90), (nodes(&[2]), u64::MAX)]);
        assert_eq!(rooms.map(|room| room.pending_bytes), [5, u64::MAX, 0]);
    }

    #[test]
    fn a_copy_needs_room_above_the_reserve_on_every_node_that_answers() {
        let silent = NodeRoom { error: "no answer".to_owned(), ..room(9, 0, 0) };
        let table = [
            (vec![room(1, 110, 10), room(2, 500, 10)], 100, None),
            (vec![room(1, 109, 10), room(2, 500, 10)], 100, Some(1)),
            (vec![room(1, 109, 10), room(2, 108, 10)], 100, Some(2)),
            (vec![room(1, 110, 10), silent.clone()], 100, None),
            (vec![silent], 100, None),
            (vec![], 100, None),
            // What is on its way takes room as well.
            (vec![NodeRoom { pending_bytes: 40, ..room(1, 150, 10) }], 100, None),
            (vec![NodeRoom { pending_bytes: 41, ..room(1, 150, 10) }, room(2, 120, 10)], 100, Some(1)),
            // Below its reserve, a disk has no room for anything.
            (vec![room(1, 9, 10)], 0, Some(1)),
            (vec![room(1, u64::MAX, 0)], u64::MAX, None),
            (vec![room(1, u64::MAX, 1)], u64::MAX, Some(1)),
            (vec![room(1, 0, u64::MAX)], 0, Some(1)),
        ];
        for (rooms, bytes, refused) in table {
            match (check_room(GroupId(7), bytes, &rooms), refused) {
                (Ok(()), None) => {}
                (Err(error), Some(node)) => {
                    assert_eq!((error.reason, error.is_unknown()), (Reason::FailedPrecondition, false));
                    assert!(error.message.starts_with(&format!("node {node} holds a replica of group 7")), "{error}");
                    assert!(error.message.contains("nothing was changed"), "{error}");
                }
                (got, _) => panic!("{rooms:?} for {bytes}: {got:?}"),
            }
        }
    }
}
