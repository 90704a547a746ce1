//! Ctrl-C while something is under way.

use std::task::{Context, Waker};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A read was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was interrupted changes nothing")]
pub struct Interrupted;

/// Listens for Ctrl-C. From its making on Ctrl-C no longer ends the process.
pub struct Interrupts {
    signal: Signal,
}

impl Interrupts {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self { signal: signal(SignalKind::interrupt())? })
    }

    /// Forgets what came while nothing was under way.
    pub fn forget(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while self.signal.poll_recv(&mut nobody).is_ready() {}
    }

    /// Waits for the next Ctrl-C.
    pub async fn next(&mut self) {
        self.signal.recv().await;
    }

    /// Drives `work` to its end, or gives it up at Ctrl-C.
    pub async fn unless<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.next() => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn work_is_given_up_at_the_signal_unless_it_came_before_it_began() {
        let mut interrupts = Interrupts::listen().unwrap();
        assert_eq!(interrupts.unless(async { 1 }).await, Some(1));
        kill_process(getpid(), Signal::INT).unwrap();
        assert_eq!(interrupts.unless(std::future::pending::<()>()).await, None);
        let mut other = Interrupts::listen().unwrap();
        kill_process(getpid(), Signal::INT).unwrap();
        // Both have it now.
        other.next().await;
        interrupts.forget();
        assert_eq!(interrupts.unless(tokio::task::yield_now()).await, Some(()));
    }
}
