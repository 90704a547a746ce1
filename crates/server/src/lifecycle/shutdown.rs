use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::future::BoxFuture;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::FORCED_EXIT_STATUS;
use super::drain::{Event, Phase, step};

/// A node that can be asked to finish. Implemented by the node.
pub trait Drain: Send + Sync {
    /// Takes no new requests, hands leadership over, finishes what was begun, and completes. Called once; dropped if the
    /// time for it is over.
    fn drain(&self) -> BoxFuture<'_, ()>;
}

/// How a node came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended<E> {
    /// It was asked to stop and finished everything.
    Drained,
    /// It was asked to stop; something did not finish in time.
    TimedOut,
    /// It was asked a second time.
    Forced,
    /// It failed.
    Failed(E),
}

/// Asks a node to stop, from inside the process.
#[derive(Debug, Clone)]
pub struct ShutdownTrigger {
    requests: Arc<watch::Sender<u32>>,
}

impl ShutdownTrigger {
    /// Asks. The second time, the node does not finish what it has begun.
    pub fn request(&self) {
        self.requests.send_modify(|count| *count = count.saturating_add(1));
    }
}

/// Knows when the node is to stop, and for how long it may drain.
#[derive(Debug)]
pub struct Shutdown {
    requests: watch::Receiver<u32>,
    trigger: ShutdownTrigger,
    drain_timeout: Duration,
}

impl Shutdown {
    /// Stops only by its trigger.
    pub fn new(drain_timeout: Duration) -> Self {
        let (sender, requests) = watch::channel(0);
        Self { requests, trigger: ShutdownTrigger { requests: Arc::new(sender) }, drain_timeout }
    }

    /// Stops by SIGTERM, SIGINT or its trigger. A second signal ends the process at once with [`FORCED_EXIT_STATUS`], in the
    /// signal handler, so that it works whatever the process is stuck in. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn on_signals(drain_timeout: Duration) -> io::Result<Self> {
        let shutdown = Self::new(drain_timeout);
        let signalled = Arc::new(AtomicBool::new(false));
        for number in [SIGTERM, SIGINT] {
            // In this order: the first looks at what earlier signals left, the second leaves it.
            flag::register_conditional_shutdown(number, FORCED_EXIT_STATUS, signalled.clone())?;
            flag::register(number, signalled.clone())?;
        }
        for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
            let (mut signals, trigger) = (signal(kind)?, shutdown.trigger());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    tracing::info!(signal = name, "asked to stop; a second signal stops without drain");
                    trigger.request();
                }
            });
        }
        Ok(shutdown)
    }

    /// Asks for the same end from inside the process.
    pub fn trigger(&self) -> ShutdownTrigger {
        self.trigger.clone()
    }

    /// Completes when the node is to stop: for work that comes before [`Shutdown::run`].
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        let requests = self.requests.clone();
        async move { at_least(requests, 1).await }
    }

    /// Waits until the node is asked to stop, drains it, and tells how it ended. `failure` completes if the node cannot go on.
    pub async fn run<E>(self, node: &dyn Drain, failure: impl Future<Output = E>) -> Ended<E> {
        let mut failure = pin!(failure);
        let first = tokio::select! {
            biased;
            error = &mut failure => Err(error),
            () = at_least(self.requests.clone(), 1) => Ok(Event::StopRequested),
        };
        let phase = match first {
            Ok(event) => step(Phase::Running, event),
            Err(error) => return Ended::Failed(error),
        };
        debug_assert_eq!(phase, Phase::Draining);
        tracing::info!(timeout_ms = self.drain_timeout.as_millis() as u64, "draining");
        let last = tokio::select! {
            biased;
            () = at_least(self.requests.clone(), 2) => Ok(Event::StopRequested),
            () = node.drain() => Ok(Event::DrainComplete),
            error = &mut failure => Err(error),
            () = tokio::time::sleep(self.drain_timeout) => Ok(Event::DrainTimeout),
        };
        let end = last.map(|event| step(phase, event));
        match end {
            Ok(Phase::Forced) => Ended::Forced,
            Ok(Phase::TimedOut) => {
                tracing::warn!("the time to drain is over; what was not finished is cut off");
                Ended::TimedOut
            }
            Ok(_) => Ended::Drained,
            Err(error) => Ended::Failed(error),
        }
    }
}

async fn at_least(mut requests: watch::Receiver<u32>, count: u32) {
    if requests.wait_for(|&found| found >= count).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::FutureExt;

    use super::*;

    struct Quick;

    impl Drain for Quick {
        fn drain(&self) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }

    struct Stuck(ShutdownTrigger, u32);

    impl Drain for Stuck {
        fn drain(&self) -> BoxFuture<'_, ()> {
            (0..self.1).for_each(|_| self.0.request());
            pending().boxed()
        }
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_node_that_is_asked_to_stop_drains() {
        let shutdown = Shutdown::new(LONG);
        shutdown.trigger().request();
        shutdown.requested().await;
        assert_eq!(shutdown.run(&Quick, pending::<()>()).await, Ended::Drained);
    }

    #[tokio::test]
    async fn nothing_drains_before_someone_asks() {
        let shutdown = Shutdown::new(LONG);
        assert!(shutdown.requested().now_or_never().is_none());
        assert_eq!(shutdown.run(&Quick, pending::<()>()).now_or_never(), None);
    }

    #[tokio::test]
    async fn a_second_request_ends_a_drain_that_is_stuck() {
        let shutdown = Shutdown::new(LONG);
        let trigger = shutdown.trigger();
        trigger.request();
        assert_eq!(shutdown.run(&Stuck(trigger, 1), pending::<()>()).await, Ended::Forced);
    }

    #[tokio::test]
    async fn a_drain_that_is_stuck_ends_with_its_time() {
        let shutdown = Shutdown::new(Duration::from_millis(1));
        let trigger = shutdown.trigger();
        trigger.request();
        assert_eq!(shutdown.run(&Stuck(trigger, 0), pending::<()>()).await, Ended::TimedOut);
    }

    #[tokio::test]
    async fn a_node_that_fails_ends_with_its_error_while_running_and_while_draining() {
        assert_eq!(Shutdown::new(LONG).run(&Quick, async { 7 }).await, Ended::Failed(7));
        let shutdown = Shutdown::new(LONG);
        let trigger = shutdown.trigger();
        trigger.request();
        let failure = async {
            tokio::task::yield_now().await;
            8
        };
        assert_eq!(shutdown.run(&Stuck(trigger, 0), failure).await, Ended::Failed(8));
    }
}
