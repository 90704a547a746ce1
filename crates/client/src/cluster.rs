use std::sync::Arc;
use std::time::Duration;

use drover_keys::{GroupId, NodeId};
use drover_kv::{Certainty, Error, Reason};
use drover_wire::proto::v1::{
    CompareDigestsRequest, GetStatusRequest, GetStatusResponse, ReplicaDigest, TransferLeaderRequest,
};
use drover_wire::status_to_error;
use tokio::time::Instant;
use tonic::{Response, Status};

use crate::Client;
use crate::node::Node;
use crate::retry::sticky;
use crate::session::describe;

/// Who leads a group after a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// The leader.
    pub leader: NodeId,
    /// Its term.
    pub term: u64,
}

/// What the replicas of a group computed at one log index.
#[derive(Debug, Clone, PartialEq)]
pub struct DigestComparison {
    /// The log index.
    pub index: u64,
    /// One item for each voter.
    pub digests: Vec<ReplicaDigest>,
    /// Whether every voter answered and all digests are equal.
    pub equal: bool,
}

impl Client {
    /// What the cluster looks like from a node that answers.
    ///
    /// # Errors
    /// Definite; nothing is changed.
    pub async fn status(&self) -> Result<GetStatusResponse, Error> {
        self.read_nodes(|node, _| {
            let mut cluster = node.cluster();
            async move { cluster.get_status(GetStatusRequest {}).await }
        })
        .await
    }

    /// Hands the leadership of a group over, and returns when the target leads.
    ///
    /// # Errors
    /// `UNKNOWN_GROUP`, `UNKNOWN_NODE`, `FAILED_PRECONDITION` if the node is no voter. Unknown if the hand-over may still
    /// happen; asking again does no harm.
    pub async fn transfer_leader(&self, group: GroupId, to: NodeId) -> Result<Leadership, Error> {
        let response = self
            .ask_nodes(|node, timeout_ms| {
                let request = TransferLeaderRequest { group_id: group.0, to_node: to.0, timeout_ms };
                let mut cluster = node.cluster();
                async move { cluster.transfer_leader(request).await }
            })
            .await?;
        self.inner.refresh.notify_one();
        Ok(Leadership { leader: NodeId(response.leader), term: response.term })
    }

    /// Lets every replica of a group compute a digest of its state at one log index, and compares them.
    ///
    /// # Errors
    /// Nothing is changed but the group's log, which gets one more entry.
    pub async fn compare_digests(&self, group: GroupId) -> Result<DigestComparison, Error> {
        let response = self
            .ask_nodes(|node, timeout_ms| {
                let request = CompareDigestsRequest { group_id: group.0, timeout_ms };
                let mut cluster = node.cluster();
                async move { cluster.compare_digests(request).await }
            })
            .await?;
        Ok(DigestComparison { index: response.index, digests: response.digests, equal: response.equal })
    }

    /// Asks the nodes one after the other for something that may change the cluster, until one gives an answer that does
    /// not just say it is unavailable. Every attempt asks for the same under the same request id.
    ///
    /// # Errors
    /// Definite only if every attempt was: a node whose answer was lost may still pass the request on.
    pub(crate) async fn ask_nodes<T, F>(&self, call: impl Fn(&Arc<Node>, u32) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(sticky, Error::is_transient, call).await
    }

    /// As [`Client::ask_nodes`], for what changes nothing.
    ///
    /// # Errors
    /// Definite.
    pub(crate) async fn read_nodes<T, F>(&self, call: impl Fn(&Arc<Node>, u32) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        // What changes nothing may be asked of the next node also if the answer was lost.
        self.ask(|_, error| of_a_read(error), |error| error.is_transient() || error.is_unknown(), call).await
    }

    /// `after` tells what an error means behind the one before, `passes` whether the next node is asked behind it.
    async fn ask<T, F>(
        &self,
        after: impl Fn(&Error, Error) -> Error,
        passes: impl Fn(&Error) -> bool,
        call: impl Fn(&Arc<Node>, u32) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let due = self.due();
        let mut last = Error::definite(Reason::Unavailable, "no node is known; nothing was sent or changed");
        for node in self.nodes_in_order() {
            let remaining = due.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                break;
            }
            let timeout_ms = u32::try_from(remaining.as_millis()).unwrap_or(u32::MAX).max(1);
            let error = match tokio::time::timeout(remaining, call(&node, timeout_ms)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => explain(&node, &status),
                Err(_) => return Err(after(&last, too_late(&node, self.deadline()))),
            };
            let passing = passes(&error);
            last = after(&last, error);
            if !passing {
                return Err(last);
            }
            node.rest();
        }
        Err(last)
    }

    pub(crate) fn nodes_in_order(&self) -> Vec<Arc<Node>> {
        let topology = self.inner.topology.load();
        let mut nodes = topology.nodes().to_vec();
        nodes.sort_by_key(|node| node.is_resting());
        nodes
    }
}

pub(crate) fn explain(node: &Node, status: &Status) -> Error {
    let (at, why) = (node.address(), describe(status));
    if was_not_sent(status) {
        let message = format!("{at} cannot be reached ({why}); it was sent nothing");
        return Error::definite(Reason::Unavailable, message);
    }
    Error { message: format!("{at}: {why}"), ..status_to_error(status) }
}

/// Whether there was no connection on which the request could have left.
fn was_not_sent(status: &Status) -> bool {
    let mut causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    causes.any(|cause| cause.is::<tonic::ConnectError>())
}

/// A read changes nothing, whether it was answered or not.
pub(crate) fn of_a_read(error: Error) -> Error {
    let reason = if error.reason == Reason::TimeoutIndefinite { Reason::Timeout } else { error.reason };
    Error { reason, certainty: Certainty::Definite, ..error }
}

fn too_late(node: &Node, deadline: Duration) -> Error {
    let message = format!("{} did not answer within {} ms", node.address(), deadline.as_millis());
    Error::unknown(Reason::TimeoutIndefinite, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_read_that_gets_no_answer_is_definite_all_the_same() {
        let lost = status_to_error(&Status::unavailable("connection reset"));
        let late = Error::unknown(Reason::TimeoutIndefinite, "late");
        for (error, reason) in [(lost, Reason::Unavailable), (late, Reason::Timeout)] {
            assert!(error.is_unknown());
            let error = of_a_read(error);
            assert_eq!((error.reason, error.certainty), (reason, Certainty::Definite));
        }
    }
}
