//! `drover.v1.Compat`: which version of the software the cluster understands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::{CatalogCommandKind, CatalogReply, CatalogRow, CompatOutcome, CompatState, Version};
use drover_keys::NodeId;
use drover_kv::{Certainty, Error, Reason};
use drover_wire::proto::v1;
use drover_wire::proto::v1::compat_response::Outcome;
use drover_wire::proto::v1::compat_server::Compat;
use drover_wire::{CatalogPart, error_to_status};
use tonic::{Request, Response, Status};

use super::Front;
use super::distribution::{actor, misfit, request_id};

/// How long a call may take if the caller does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// `drover.v1.Compat`.
pub struct CompatService {
    front: Arc<Front>,
}

impl CompatService {
    /// The service of a node.
    pub fn new(front: Arc<Front>) -> Self {
        Self { front }
    }

    /// Runs one command, and answers with the state that it left. The command is one entry of the log, so it happened
    /// as a whole or not at all; what the nodes can do is added by a read.
    async fn run(
        &self,
        request: Request<v1::CompatRequest>,
        kind: CatalogCommandKind,
    ) -> Result<Response<v1::CompatResponse>, Status> {
        let request = request.into_inner();
        self.answer(request, kind).await.map(Response::new).map_err(|error| error_to_status(&error))
    }

    async fn answer(&self, request: v1::CompatRequest, kind: CatalogCommandKind) -> Result<v1::CompatResponse, Error> {
        let timeout = match request.timeout_ms {
            0 => DEFAULT_TIMEOUT,
            timeout_ms => Duration::from_millis(u64::from(timeout_ms)),
        };
        let deadline = Instant::now() + timeout;
        let id = request_id(&request.request_id)?;
        let coordinator = self.front.coordinator();
        let (outcome, state) = match self.front.change_catalog(id, actor(request.actor), kind, deadline).await? {
            CatalogReply::Compat { outcome, state } => (outcome, state),
            other => return Err(misfit(&other)),
        };
        answered(outcome, &state, coordinator.read_catalog(CatalogPart::Nodes, u32::MAX, deadline).await)
    }
}

/// The command was carried out, and what the nodes can do could not be read. An answer without it would look like nodes that
/// can do nothing; asking again, under the same request id, gets the outcome and the rest.
fn after_the_command(error: Error) -> Error {
    let reason = if error.reason == Reason::Timeout { Reason::TimeoutIndefinite } else { error.reason };
    let message =
        format!("it was carried out, but what the nodes can do could not be read ({}); ask again", error.message);
    Error { reason, certainty: Certainty::Unknown, message, ..error }
}

/// The state that a command left, and what the nodes can do by the rows of the catalog that were read after it.
fn answered(
    outcome: CompatOutcome,
    state: &CompatState,
    rows: Result<Vec<CatalogRow>, Error>,
) -> Result<v1::CompatResponse, Error> {
    let mut capabilities: BTreeMap<NodeId, Vec<String>> = rows
        .map_err(after_the_command)?
        .into_iter()
        .filter_map(|row| match row {
            CatalogRow::Node(node) => Some((node.id, node.presence?.capabilities.into_iter().collect())),
            _ => None,
        })
        .collect();
    let nodes = state.nodes.iter().map(|node| v1::CompatNode {
        node_id: node.node.0,
        version: node.version.map(software_version),
        live: node.live,
        serving_since_unix_ms: node.serving_since.map_or(0, |since| since.unix_ms()),
        capabilities: capabilities.remove(&node.node).unwrap_or_default(),
    });
    Ok(v1::CompatResponse {
        outcome: encode_outcome(outcome).into(),
        cluster_version: state.cluster_version.map(software_version),
        high_water: Some(software_version(state.high_water)),
        freeze: state.freeze.as_ref().map(|freeze| v1::CompatFreeze {
            version: Some(software_version(freeze.version)),
            by: freeze.by.clone(),
            at_unix_ms: freeze.at.unix_ms(),
        }),
        nodes: nodes.collect(),
    })
}

/// A version as a message.
pub(super) fn software_version(version: Version) -> v1::SoftwareVersion {
    v1::SoftwareVersion { major: u32::from(version.major), minor: u32::from(version.minor) }
}

fn encode_outcome(outcome: CompatOutcome) -> Outcome {
    match outcome {
        CompatOutcome::Read => Outcome::Read,
        CompatOutcome::Frozen => Outcome::Frozen,
        CompatOutcome::AlreadyFrozen => Outcome::AlreadyFrozen,
        CompatOutcome::Unfrozen => Outcome::Unfrozen,
        CompatOutcome::NothingFrozen => Outcome::NothingFrozen,
    }
}

#[tonic::async_trait]
impl Compat for CompatService {
    async fn get_compat(&self, request: Request<v1::CompatRequest>) -> Result<Response<v1::CompatResponse>, Status> {
        self.run(request, CatalogCommandKind::ReadCompat).await
    }

    async fn freeze(&self, request: Request<v1::CompatRequest>) -> Result<Response<v1::CompatResponse>, Status> {
        self.run(request, CatalogCommandKind::Freeze).await
    }

    async fn unfreeze(&self, request: Request<v1::CompatRequest>) -> Result<Response<v1::CompatResponse>, Status> {
        self.run(request, CatalogCommandKind::Unfreeze).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_read_after_the_command_leaves_an_error_that_says_so() {
        let table = [
            (Error::definite(Reason::Timeout, "late"), Reason::TimeoutIndefinite),
            (Error::definite(Reason::Unavailable, "no leader"), Reason::Unavailable),
        ];
        let state =
            CompatState { cluster_version: None, high_water: Version::default(), freeze: None, nodes: Vec::new() };
        assert_eq!(answered(CompatOutcome::Frozen, &state, Ok(Vec::new())).unwrap().outcome(), Outcome::Frozen);
        for (error, reason) in table {
            let error = answered(CompatOutcome::Frozen, &state, Err(error)).unwrap_err();
            assert_eq!((error.reason, error.certainty), (reason, Certainty::Unknown), "{error}");
            assert!(error.message.contains("it was carried out"), "{error}");
        }
    }
}
