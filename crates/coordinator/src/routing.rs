//! Routing decisions, and what is waited for between two of them.

use std::time::{Duration, Instant};

use drover_catalog::Route;
use drover_keys::CatalogVersion;
use drover_kv::Error;
use drover_wire::{GroupAnswer, GroupOp};
use rand::Rng;

use crate::coordinator::Coordinator;
use crate::dispatch::{Attempts, CallError};
use crate::retry::Repeat;
use crate::txn::Resolution;

impl Coordinator {
    /// Runs an operation on the group that owns its key, by a new routing decision after each refusal for its route.
    /// `operation` makes it from the map and the route of the decision.
    pub(crate) async fn routed(
        &self,
        key: &[u8],
        repeat: Repeat,
        deadline: Instant,
        operation: impl Fn(CatalogVersion, &Route) -> GroupOp + Send + Sync,
    ) -> Result<GroupAnswer, Error> {
        let mut attempts = Attempts::default();
        let mut patience = Patience::default();
        loop {
            let (group, version, op) = {
                let routes = self.routes().current();
                let route = routes.route_of(key);
                (route.group, routes.version(), operation(routes.version(), route))
            };
            let call = self.dispatcher().call_routed(group, op, repeat, &mut attempts, deadline);
            match call.await {
                Ok(answer) => return Ok(answer),
                Err(CallError::Failed(error)) => return Err(error),
                Err(CallError::Misrouted(_)) => self.newer_routes(version, &mut patience, &attempts, deadline).await?,
                Err(CallError::Blocked(error)) => self.unblock(&error, &mut patience, &attempts, deadline).await?,
            }
        }
    }

    /// Sees to the lock that `error` names. If its holder may still be at work, waits a little.
    pub(crate) async fn unblock(
        &self,
        error: &Error,
        patience: &mut Patience,
        attempts: &Attempts,
        deadline: Instant,
    ) -> Result<(), Error> {
        let resolution = match &error.lock {
            Some(lock) => self.resolve_lock(lock, false, deadline).await,
            None => Err(error.clone()),
        };
        match resolution {
            Ok(Resolution::Resolved(_)) => {}
            // If nobody can tell now, somebody may soon.
            Ok(Resolution::Pending(_)) | Err(_) => {
                let wake = Instant::now() + patience.next();
                tokio::time::sleep_until(wake.min(deadline).into()).await;
            }
        }
        if Instant::now() >= deadline { Err(attempts.at_deadline()) } else { Ok(()) }
    }

    /// Waits for a map newer than `version`, for a while: the refusal may have come from a replica that lags, so that the
    /// same map is right the next time.
    pub(crate) async fn newer_routes(
        &self,
        version: CatalogVersion,
        patience: &mut Patience,
        attempts: &Attempts,
        deadline: Instant,
    ) -> Result<(), Error> {
        let until = deadline.min(Instant::now() + patience.next());
        self.routes().newer_than(version, until).await;
        if Instant::now() >= deadline { Err(attempts.at_deadline()) } else { Ok(()) }
    }
}

/// Pauses between routing decisions, which grow, so that coordinators do not come back in step.
#[derive(Debug)]
pub(crate) struct Patience {
    pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pause: Duration::from_millis(5) }
    }
}

impl Patience {
    const LONGEST: Duration = Duration::from_millis(200);

    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..1.5));
        self.pause = (self.pause * 2).min(Self::LONGEST);
        pause
    }
}
