//! How a node tells the catalog that it is there: it registers when it starts, and again and again says that it serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use drover_catalog::{CHANGES_REPLICAS, CatalogCommandKind, Heartbeat, MOVES_RANGES, RegisterNode, RequestId, Version};
use drover_coordinator::Coordinator;
use drover_keys::{ClusterId, NodeId, StoreId};
use drover_kv::{Error, Reason};
use drover_seams::net;
use drover_wire::proto::v1;
use drover_wire::proto::v1::cluster_client::ClusterClient;
use drover_wire::status_to_error;
use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;

/// What this build can do, for commands that need all nodes to be able to.
pub const CAPABILITIES: &[&str] = &["catalog", "split", CHANGES_REPLICAS, MOVES_RANGES];

/// How often a node says that it is there; a tenth of the time after which it counts as gone.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long one node may take that is asked as by a client.
const SEED: Duration = Duration::from_secs(3);
/// Pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// What a node says of itself.
#[derive(Debug, Clone)]
pub struct Announcement {
    /// Its number.
    pub node: NodeId,
    /// Its data directory.
    pub store: StoreId,
    /// Where clients and other nodes reach it.
    pub address: String,
    /// Where its health and metrics are.
    pub admin_address: String,
    /// Of its build.
    pub version: Version,
    /// Of its configuration.
    pub cluster: ClusterId,
    /// Where other nodes are by its configuration. They are asked as a client asks while the cluster cannot be reached
    /// otherwise: peers that know another data directory under this number take nothing from this node, and cannot tell
    /// it why.
    pub seeds: Vec<String>,
}

impl Announcement {
    fn capabilities() -> BTreeSet<String> {
        CAPABILITIES.iter().map(|&name| name.to_owned()).collect()
    }

    fn register(&self) -> CatalogCommandKind {
        CatalogCommandKind::RegisterNode(RegisterNode {
            node: Some(self.node),
            store: self.store,
            address: self.address.clone(),
            admin_address: self.admin_address.clone(),
            version: self.version,
            capabilities: Self::capabilities(),
        })
    }

    /// Registers as a client would, with whichever node answers first.
    async fn register_by_seed(&self, id: RequestId, actor: &str) -> Result<(), Error> {
        let mut last = Error::definite(Reason::Unavailable, "no other node is configured");
        for seed in &self.seeds {
            let request = v1::RegisterNodeRequest {
                store_id: Bytes::copy_from_slice(&self.store.0),
                grpc_address: self.address.clone(),
                admin_address: self.admin_address.clone(),
                version: Some(v1::SoftwareVersion {
                    major: self.version.major.into(),
                    minor: self.version.minor.into(),
                }),
                capabilities: Self::capabilities().into_iter().collect(),
                request_id: Bytes::copy_from_slice(&id.0),
                actor: actor.to_owned(),
                timeout_ms: u32::try_from(SEED.as_millis()).unwrap_or(u32::MAX),
                node_id: self.node.0,
                cluster_id: self.cluster.to_string(),
            };
            let asked = async {
                let mut client = ClusterClient::new(net::connect_to(seed).await.ok()?);
                Some(client.register_node(request).await.map(drop).map_err(|status| status_to_error(&status)))
            };
            match tokio::time::timeout(SEED, asked).await {
                Ok(Some(Ok(()))) => return Ok(()),
                Ok(Some(Err(error))) if judge(false, Some(&error)) == Next::Stop => return Err(error),
                Ok(Some(Err(error))) => last = error,
                Ok(None) | Err(_) => {}
            }
        }
        Err(last)
    }

    fn heartbeat(&self, serving: bool) -> CatalogCommandKind {
        CatalogCommandKind::Heartbeat(Heartbeat {
            node: self.node,
            store: self.store,
            version: self.version,
            capabilities: Self::capabilities(),
            serving,
        })
    }
}

/// What to do after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Say it again after the interval.
    Renew,
    /// The same again, soon.
    Again,
    /// The catalog does not know this node any more: register.
    Register,
    /// The cluster does not want this node. It must not go on.
    Stop,
}

/// Judges an attempt: `registered` tells whether it was a heartbeat.
fn judge(registered: bool, error: Option<&Error>) -> Next {
    match error {
        None => Next::Renew,
        Some(error) if error.is_unknown() || error.is_transient() => Next::Again,
        Some(error) => match error.reason {
            Reason::Timeout => Next::Again,
            _ if registered => Next::Register,
            Reason::WrongNode
            | Reason::WrongCluster
            | Reason::UnknownNode
            | Reason::FailedPrecondition
            | Reason::InvalidArgument => Next::Stop,
            _ => Next::Again,
        },
    }
}

/// Announces a node, and says in `known` when the cluster has taken it, until `stop`, or until the cluster refuses it for good; then the reason.
pub async fn announce(
    me: Announcement,
    coordinator: Arc<Coordinator>,
    readiness: impl Readiness,
    known: watch::Sender<bool>,
    stop: CancellationToken,
) -> Option<Error> {
    let mut registered = false;
    let actor = format!("node {}", me.node);
    loop {
        let kind = match registered {
            true => me.heartbeat(readiness.checks().iter().all(|check| check.ok)),
            false => me.register(),
        };
        let id = RequestId(rand::rng().random());
        let deadline = Instant::now() + ATTEMPT;
        let answer = tokio::select! {
            () = stop.cancelled() => return None,
            answer = coordinator.catalog(id, actor.clone(), kind, deadline) => answer.map(drop),
        };
        let answer = match judge(registered, answer.as_ref().err()) {
            Next::Again if !registered => tokio::select! {
                () = stop.cancelled() => return None,
                answer = me.register_by_seed(id, &actor) => answer,
            },
            _ => answer,
        };
        let pause = match judge(registered, answer.as_ref().err()) {
            Next::Renew => {
                registered = true;
                known.send_if_modified(|known| !std::mem::replace(known, true));
                INTERVAL
            }
            Next::Again => PAUSE,
            Next::Register => {
                registered = false;
                Duration::ZERO
            }
            Next::Stop => return answer.err(),
        };
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(pause.mul_f64(rand::rng().random_range(0.8..1.2))) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_goes_on_trying_registers_again_or_stops_by_what_it_is_told() {
        let definite = |reason| Some(Error::definite(reason, ""));
        let table = [
            (false, None, Next::Renew),
            (true, None, Next::Renew),
            (false, definite(Reason::Unavailable), Next::Again),
            (true, definite(Reason::Timeout), Next::Again),
            (false, Some(Error::unknown(Reason::WrongNode, "")), Next::Again),
            (true, definite(Reason::FailedPrecondition), Next::Register),
            (true, definite(Reason::UnknownNode), Next::Register),
            (false, definite(Reason::FailedPrecondition), Next::Stop),
            (false, definite(Reason::WrongNode), Next::Stop),
            (false, definite(Reason::WrongCluster), Next::Stop),
            (false, definite(Reason::UnknownNode), Next::Stop),
        ];
        for (registered, error, next) in table {
            assert_eq!(judge(registered, error.as_ref()), next, "{registered} {error:?}");
        }
    }
}
