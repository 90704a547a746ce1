//! How a node tells the catalog that it is there: it registers when it starts, and again and again says that it serves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drover_catalog::{CHANGES_REPLICAS, CatalogCommandKind, Heartbeat, RegisterNode, RequestId, Version};
use drover_coordinator::Coordinator;
use drover_keys::{NodeId, StoreId};
use drover_kv::{Error, Reason};
use rand::Rng;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;

/// What this build can do, for commands that need all nodes to be able to.
pub const CAPABILITIES: &[&str] = &["catalog", "split", CHANGES_REPLICAS];

/// How often a node says that it is there; a tenth of the time after which it counts as gone.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
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
            Reason::WrongNode | Reason::UnknownNode | Reason::FailedPrecondition | Reason::InvalidArgument => {
                Next::Stop
            }
            _ => Next::Again,
        },
    }
}

/// Announces a node until `stop`, or until the cluster refuses it for good; then the reason.
pub async fn announce(
    me: Announcement,
    coordinator: Arc<Coordinator>,
    readiness: impl Readiness,
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
            answer = coordinator.catalog(id, actor.clone(), kind, deadline) => answer,
        };
        let pause = match judge(registered, answer.as_ref().err()) {
            Next::Renew => {
                registered = true;
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
            (false, definite(Reason::UnknownNode), Next::Stop),
        ];
        for (registered, error, next) in table {
            assert_eq!(judge(registered, error.as_ref()), next, "{registered} {error:?}");
        }
    }
}
