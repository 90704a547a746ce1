//! Routing decisions, and what is waited for between two of them.

use std::time::{Duration, Instant};

use drover_catalog::Route;
use drover_keys::CatalogVersion;
use drover_kv::{Error, LockInfo, Reason, TxnRef, WriteKind};
use drover_wire::{GroupAnswer, GroupOp};
use rand::Rng;

use crate::coordinator::Coordinator;
use crate::dispatch::{Attempts, CallError};
use crate::parking::{Interest, Stay, Turned, Woken, is_fenced};
use crate::retry::Repeat;
use crate::txn::{Held, Resolution};

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
        let (mut attempts, mut patience, mut stay) = (Attempts::default(), Patience::default(), Stay::default());
        let mut woken = Woken::News;
        loop {
            let routes = self.routes().current();
            let (route, version) = (routes.route_of(key), routes.version());
            let op = operation(version, route);
            let parks = new_write_bytes(&op);
            let interest = || Interest::new([key], &routes);
            if let Some(bytes) = parks
                && is_fenced(route)
                && woken == Woken::News
            {
                attempts.held();
                woken = self.park(interest(), bytes, &mut stay, &attempts, deadline).await?;
                continue;
            }
            let call = self.dispatcher().call_routed(route.group, op, repeat, &mut attempts, deadline);
            match call.await {
                Ok(answer) => return Ok(answer),
                Err(CallError::Failed(error)) => return Err(error),
                Err(CallError::Misrouted(_)) => self.newer_routes(version, &mut patience, &attempts, deadline).await?,
                Err(CallError::Blocked(error)) => self.unblock(&error, &mut patience, &attempts, deadline).await?,
                Err(CallError::Fenced(_)) => match parks {
                    Some(bytes) => woken = self.park(interest(), bytes, &mut stay, &attempts, deadline).await?,
                    None => self.newer_routes(version, &mut patience, &attempts, deadline).await?,
                },
            }
        }
    }

    /// Holds a new write of `bytes`, of a transaction that holds no lock, until the routes of `interest` have changed or it is time
    /// to ask the group again.
    pub(crate) async fn park(
        &self,
        interest: Interest,
        bytes: usize,
        stay: &mut Stay,
        attempts: &Attempts,
        deadline: Instant,
    ) -> Result<Woken, Error> {
        let waited = self.parking().wait(self.routes(), interest, bytes, stay, deadline).await;
        waited.map_err(|turned| match turned {
            Turned::Late => attempts.at_deadline(),
            Turned::Full => {
                let (requests, _) = self.parking().size();
                let message = format!(
                    "writes to the range are held back while it changes hands, and this node holds {requests} of them \
                     already; nothing happened, try again later"
                );
                attempts.turned_away(Error::definite(Reason::Unavailable, message).retry_after_ms(RETRY_AFTER_MS))
            }
            Turned::Closed => {
                let message = "writes to the range are held back while it changes hands, and this node is stopping; \
                               nothing happened, ask another node";
                attempts.turned_away(Error::definite(Reason::ShuttingDown, message))
            }
        })
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
            // Whoever comes upon the same attempt again may have thousands of its locks before him.
            Some(lock) if patience.met == Some(lock.txn) => self.resolve_around(lock, deadline).await,
            Some(lock) => self.resolve_held(Held::one(LockInfo::clone(lock)), false, deadline).await,
            None => Err(error.clone()),
        };
        match resolution {
            Ok(Resolution::Resolved(_)) => patience.met = error.lock.as_ref().map(|lock| lock.txn),
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

/// When to try again where too much is parked: a fence stands for some ten milliseconds.
const RETRY_AFTER_MS: u64 = 50;

/// The payload of an operation that a fence holds back for as long as it stands; `None` for all others. A fence waits for the steps
/// that end transactions, so they are sent whatever the map says.
fn new_write_bytes(op: &GroupOp) -> Option<usize> {
    match op {
        GroupOp::Write(op) => match &op.kind {
            WriteKind::Txn(step) if step.ends_a_transaction() => None,
            kind => Some(kind.payload_bytes()),
        },
        GroupOp::Read { .. }
        | GroupOp::Digest { .. }
        | GroupOp::Describe { .. }
        | GroupOp::ReadCatalog { .. }
        | GroupOp::Catalog { .. }
        | GroupOp::JudgeCatalog { .. }
        | GroupOp::JobProgress { .. }
        | GroupOp::MoveStep { .. }
        | GroupOp::ObserveMove { .. }
        | GroupOp::SumRange { .. }
        | GroupOp::ForgetJobs { .. }
        | GroupOp::SlowWriters { .. } => None,
    }
}

/// Pauses between routing decisions, which grow, so that coordinators do not come back in step.
#[derive(Debug)]
pub(crate) struct Patience {
    pause: Duration,
    /// Whose lock was the last that stood in the way and was resolved.
    met: Option<TxnRef>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pause: Duration::from_millis(5), met: None }
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

#[cfg(test)]
mod tests {
    use drover_keys::Interval;
    use drover_kv::{
        ReadOp, RollbackCause, TxnFinish, TxnHeartbeat, TxnId, TxnPrepare, TxnRef, TxnRollback, TxnWrite, WriteOp,
    };

    use super::*;

    #[test]
    fn what_a_fence_waits_for_is_never_parked() {
        let txn = TxnRef { id: TxnId([1; 16]), attempt: drover_kv::Attempt::default() };
        let (start_ts, primary) = (drover_hlc::Timestamp::from_raw(1), bytes::Bytes::from_static(b"k"));
        let rollback = TxnRollback { txn, start_ts, primary: primary.clone(), cause: RollbackCause::Asked };
        let prepare = TxnPrepare {
            txn,
            start_ts,
            primary: primary.clone(),
            fingerprint: 0,
            ttl_ms: 1,
            supersedes: false,
            mutations: Vec::new(),
        };
        let step = |step| WriteKind::Txn(Box::new(step));
        let table = [
            (WriteKind::Put { key: "k".into(), value: "value".into(), ttl_ms: None }, Some(6)),
            (WriteKind::DeleteRange { interval: Interval::point("k"), resume: None }, Some(3)),
            (WriteKind::Settle { key: "k".into() }, Some(1)),
            (step(TxnWrite::Prepare(prepare)), Some(1)),
            (step(TxnWrite::Rollback(rollback)), None),
            (step(TxnWrite::Heartbeat(TxnHeartbeat { txn, primary: primary.clone(), ttl_ms: 1 })), None),
            (step(TxnWrite::Finish(TxnFinish { txn, primary })), None),
        ];
        for (kind, expect) in table {
            let op = WriteOp { kind, observed_version: None, idempotency: None };
            assert_eq!(new_write_bytes(&GroupOp::Write(op.clone())), expect, "{op:?}");
        }
        let op = ReadOp::Get { key: "k".into(), read_ts: None };
        assert_eq!(new_write_bytes(&GroupOp::Read { op, observed_version: None }), None);
    }
}
