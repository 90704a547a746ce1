//! Who is who: pure checks of both halves of a handshake.

use bytes::Bytes;
use drover_guards::{self as guards, Guard};
use drover_keys::{ClusterId, NodeId, StoreId};
use drover_kv::{Error, Reason};
use drover_wire::proto::v1;

use crate::identities::{Identity, PeerIdentities};
use crate::options::{LeaseTerms, PeerOptions};

/// A peer that has proved to be the one it was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerName {
    pub(crate) node: NodeId,
    pub(crate) store: StoreId,
}

pub(crate) fn request(me: &PeerOptions, to: NodeId, remembered: Option<StoreId>) -> v1::HandshakeRequest {
    v1::HandshakeRequest {
        cluster_id: Bytes::copy_from_slice(&me.cluster_id.0),
        node_id: me.node_id.0,
        store_id: Bytes::copy_from_slice(&me.store_id.0),
        to_node: to.0,
        version: me.version.clone(),
        grpc_address: me.grpc_address.clone(),
        admin_address: me.admin_address.clone(),
        lease_promise_ms: me.lease.promise_ms,
        lease_trust_ms: me.lease.trust_ms,
        to_store_id: remembered.map(|store| Bytes::copy_from_slice(&store.0)).unwrap_or_default(),
    }
}

/// Why this node must not go on, if a peer of its own cluster knows another data directory under its number.
pub(crate) fn replaced(me: &PeerOptions, request: &v1::HandshakeRequest) -> Option<Error> {
    let remembered: [u8; 16] = request.to_store_id.as_ref().try_into().ok()?;
    let meant = request.cluster_id == me.cluster_id.0.as_slice() && request.to_node == me.node_id.0;
    (meant && remembered != me.store_id.0).then(|| {
        wrong_node(format!(
            "node {} knows another data directory of node {} ({}, this one is {}): the disk of this node was wiped or replaced, \
             and it must join under a new id, after node {} was removed",
            request.node_id, me.node_id, StoreId(remembered), me.store_id, me.node_id
        ))
    })
}

pub(crate) fn response(me: &PeerOptions, session: Bytes) -> v1::HandshakeResponse {
    v1::HandshakeResponse {
        cluster_id: Bytes::copy_from_slice(&me.cluster_id.0),
        node_id: me.node_id.0,
        store_id: Bytes::copy_from_slice(&me.store_id.0),
        version: me.version.clone(),
        admin_address: me.admin_address.clone(),
        session,
        lease_promise_ms: me.lease.promise_ms,
        lease_trust_ms: me.lease.trust_ms,
    }
}

/// Judges who calls, before the peer's data directory is compared with what is remembered.
///
/// # Errors
/// `WRONG_CLUSTER`, `WRONG_NODE`, `INVALID_ARGUMENT`; definite.
pub(crate) fn judge_request(me: &PeerOptions, request: &v1::HandshakeRequest) -> Result<PeerName, Error> {
    same_cluster(me, &request.cluster_id)?;
    if request.to_node != me.node_id.0 {
        return Err(wrong_node(format!(
            "node {} was looked for here, this is node {}; correct the address book of node {}",
            request.to_node, me.node_id, request.node_id
        )));
    }
    if request.node_id == me.node_id.0 {
        return Err(wrong_node(format!("two nodes call themselves node {}; give one of them another id", me.node_id)));
    }
    let store = store_id(&request.store_id)?;
    lease_terms(me, request.node_id, request.lease_promise_ms, request.lease_trust_ms)?;
    Ok(PeerName { node: NodeId(request.node_id), store })
}

/// Judges who answered.
///
/// # Errors
/// `WRONG_CLUSTER`, `WRONG_NODE`, `INVALID_ARGUMENT`; definite.
pub(crate) fn judge_response(
    me: &PeerOptions,
    to: NodeId,
    response: &v1::HandshakeResponse,
) -> Result<PeerName, Error> {
    same_cluster(me, &response.cluster_id)?;
    if response.node_id != to.0 {
        return Err(wrong_node(format!(
            "node {to} was called, node {} answered; correct its address",
            response.node_id
        )));
    }
    let store = store_id(&response.store_id)?;
    lease_terms(me, to.0, response.lease_promise_ms, response.lease_trust_ms)?;
    Ok(PeerName { node: to, store })
}

/// Compares the peer's data directory with what is remembered. Blocks on the disk for a new peer.
///
/// # Errors
/// `WRONG_NODE` if it was replaced, `INTERNAL` if it cannot be remembered; definite.
pub(crate) fn judge_store(identities: &PeerIdentities, peer: PeerName) -> Result<(), Error> {
    match identities.meet(peer.node, peer.store) {
        Ok(Identity::Same) => Ok(()),
        Ok(Identity::Replaced { known }) => Err(wrong_node(format!(
            "the data directory of node {} was replaced: it is {}, {known} is remembered; a node that lost its data \
             comes back under a new id",
            peer.node, peer.store
        ))),
        Err(error) => Err(Error::definite(
            Reason::Internal,
            format!("the identity of node {} cannot be remembered: {error}; nothing was changed", peer.node),
        )),
    }
}

fn same_cluster(me: &PeerOptions, theirs: &[u8]) -> Result<(), Error> {
    if theirs == me.cluster_id.0 {
        return Ok(());
    }
    let theirs = <[u8; 16]>::try_from(theirs).map_or_else(|_| "none".to_owned(), |id| ClusterId(id).to_string());
    Err(Error::definite(
        Reason::WrongCluster,
        // The peer reads this as well.
        format!("node {} belongs to cluster {}, its peer to {theirs}; nothing was changed", me.node_id, me.cluster_id),
    ))
}

fn lease_terms(me: &PeerOptions, node: u64, promise_ms: u64, trust_ms: u64) -> Result<(), Error> {
    let (ours, theirs) = (me.lease, LeaseTerms { promise_ms, trust_ms });
    if ours.fit(theirs) || !guards::on(Guard::LeaseTermsFit) {
        return Ok(());
    }
    let message = format!(
        "leaders on one of the nodes {} and {node} would trust a lease for as long as voters on the other keep their promise, or \
         longer ({} and {trust_ms} ms, {} and {promise_ms} ms); nothing was changed. A leader trusts for \
         raft.election_max_ms less raft.lease_margin_ms, a voter promises raft.election_max_ms: change them node by node so \
         that every trust stays below every promise",
        me.node_id, ours.trust_ms, ours.promise_ms
    );
    Err(Error::definite(Reason::FailedPrecondition, message))
}

fn store_id(bytes: &[u8]) -> Result<StoreId, Error> {
    let bytes = bytes.try_into().map_err(|_| {
        Error::definite(Reason::InvalidArgument, "store_id does not have 16 bytes; nothing was changed")
    })?;
    Ok(StoreId(bytes))
}

fn wrong_node(message: String) -> Error {
    Error::definite(Reason::WrongNode, format!("{message}; nothing was changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me(node: u64, cluster: u8) -> PeerOptions {
        PeerOptions {
            lease: LEASE,
            ..PeerOptions::new(ClusterId([cluster; 16]), NodeId(node), StoreId([node as u8; 16]))
        }
    }

    const LEASE: LeaseTerms = LeaseTerms { promise_ms: 600, trust_ms: 500 };

    #[test]
    fn a_leader_on_either_node_trusts_for_less_time_than_voters_on_the_other_promise() {
        let table = [
            ((600, 500), true),
            // Both raised by one node first, then by the other; then the trust.
            ((1_200, 500), true),
            ((1_200, 599), true),
            ((1_200, 600), false),
            ((501, 400), true),
            ((500, 400), false),
            // A peer that says nothing.
            ((0, 0), false),
        ];
        for ((promise_ms, trust_ms), fits) in table {
            let lease = LeaseTerms { promise_ms, trust_ms };
            let peer = PeerOptions { lease, ..me(2, 9) };
            let asked = judge_request(&me(1, 9), &request(&peer, NodeId(1), None)).map_err(|e| e.reason);
            let answered = judge_response(&me(1, 9), NodeId(2), &response(&peer, Bytes::new())).map_err(|e| e.reason);
            assert_eq!((asked.is_ok(), answered.is_ok()), (fits, fits), "{lease:?}");
            assert!(fits || asked == Err(Reason::FailedPrecondition), "{asked:?}");
            assert!(LEASE.fit(lease) == lease.fit(LEASE));
        }
    }

    #[test]
    fn a_caller_must_belong_to_the_cluster_and_mean_this_node() {
        let good = request(&me(2, 9), NodeId(1), None);
        let table = [
            (good.clone(), Ok(PeerName { node: NodeId(2), store: StoreId([2; 16]) })),
            (request(&me(2, 8), NodeId(1), None), Err(Reason::WrongCluster)),
            (v1::HandshakeRequest { cluster_id: Bytes::new(), ..good.clone() }, Err(Reason::WrongCluster)),
            (request(&me(2, 9), NodeId(3), None), Err(Reason::WrongNode)),
            (request(&me(1, 9), NodeId(1), None), Err(Reason::WrongNode)),
            (v1::HandshakeRequest { store_id: Bytes::new(), ..good }, Err(Reason::InvalidArgument)),
        ];
        for (request, expect) in table {
            assert_eq!(judge_request(&me(1, 9), &request).map_err(|e| e.reason), expect, "{request:?}");
        }
    }

    #[test]
    fn a_node_learns_from_a_peer_that_its_data_directory_was_replaced() {
        let store = |n: u8| Some(StoreId([n; 16]));
        let table = [
            (request(&me(2, 9), NodeId(1), None), false),
            (request(&me(2, 9), NodeId(1), store(1)), false),
            (request(&me(2, 9), NodeId(1), store(7)), true),
            // Somebody else was meant.
            (request(&me(2, 9), NodeId(3), store(7)), false),
            (request(&me(2, 8), NodeId(1), store(7)), false),
        ];
        for (request, expect) in table {
            assert_eq!(replaced(&me(1, 9), &request).is_some(), expect, "{request:?}");
        }
    }

    #[test]
    fn who_answers_must_be_who_was_called() {
        let good = response(&me(2, 9), Bytes::new());
        let table = [
            (good.clone(), Ok(PeerName { node: NodeId(2), store: StoreId([2; 16]) })),
            (response(&me(2, 8), Bytes::new()), Err(Reason::WrongCluster)),
            (response(&me(3, 9), Bytes::new()), Err(Reason::WrongNode)),
            (v1::HandshakeResponse { store_id: "short".into(), ..good }, Err(Reason::InvalidArgument)),
        ];
        for (response, expect) in table {
            assert_eq!(judge_response(&me(1, 9), NodeId(2), &response).map_err(|e| e.reason), expect);
        }
    }
}
