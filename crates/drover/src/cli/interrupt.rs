//! Ctrl-C and SIGTERM while something is under way that changes the cluster.
//!
//! A process that changes nothing just now ends at these signals as any other does. One that has sent something, or is about to,
//! goes on for as long as it takes to say that the outcome is unknown and how to find it out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use drover_client::{Error, Reason};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::register_conditional_default;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::settle::Settle;

/// Something was interrupted that may have been sent.
pub fn unanswered() -> Error {
    Error::unknown(
        Reason::TimeoutIndefinite,
        "interrupted before the answer came; it may have happened or may still happen",
    )
}

/// Whether something is under way that may change the cluster.
#[derive(Debug, Clone, Copy)]
pub struct Flight(&'static AtomicBool);

impl Flight {
    /// From here on the signals end the process only through [`Signals`].
    pub fn take_off(self) {
        self.0.store(false, Ordering::SeqCst);
    }

    /// Nothing is under way any more: the signals end the process as they do by default.
    pub fn land(self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The signals that come while a [`Flight`] is in the air.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Begins to listen. The flight, of which the process has one, is on the ground.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn listen() -> std::io::Result<(Flight, Self)> {
        static LANDED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
        let landed = match LANDED.get() {
            Some(landed) => landed,
            None => {
                let landed = LANDED.get_or_init(|| Arc::new(AtomicBool::new(true)));
                register_conditional_default(SIGINT, Arc::clone(landed))?;
                register_conditional_default(SIGTERM, Arc::clone(landed))?;
                landed
            }
        };
        let this = Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? };
        Ok((Flight(landed), this))
    }

    /// Drives `work` to its end, or gives it up at a signal.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            _ = self.interrupt.recv() => None,
            _ = self.terminate.recv() => None,
        }
    }
}

/// Drives a request that may change something to its end. A signal ends it as well, with an unknown outcome.
///
/// # Errors
/// Those of the request, and its interruption. With an unknown outcome they say how to find out.
pub async fn change<T>(settle: Settle, request: impl Future<Output = Result<T, Error>>) -> anyhow::Result<T> {
    unless_interrupted(request).await?.map_err(|error| settle.add_to(error))
}

/// As [`change`], for callers that look at the error first.
///
/// # Errors
/// If the system does not let it listen for signals; nothing was sent then.
pub async fn unless_interrupted<T>(
    request: impl Future<Output = Result<T, Error>>,
) -> std::io::Result<Result<T, Error>> {
    let (flight, mut signals) = Signals::listen()?;
    flight.take_off();
    let done = signals.unless(request).await.unwrap_or_else(|| Err(unanswered()));
    flight.land();
    Ok(done)
}
