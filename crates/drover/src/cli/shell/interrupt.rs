//! Ctrl-C while something is under way, and in a script SIGTERM.

use std::task::{Context, Waker};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// A read was interrupted.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what was interrupted changes nothing")]
pub struct Interrupted;

/// Listens for Ctrl-C, and where nobody sits at the terminal for SIGTERM. From its making on they no longer end the process.
pub struct Interrupts {
    interrupt: Signal,
    terminate: Option<Signal>,
}

impl Interrupts {
    /// Begins to listen.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn listen(attended: bool) -> std::io::Result<Self> {
        let terminate = if attended { None } else { Some(signal(SignalKind::terminate())?) };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate })
    }

    /// Forgets what came while nothing was under way.
    pub fn forget(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while self.interrupt.poll_recv(&mut nobody).is_ready() {}
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        match &mut self.terminate {
            None => drop(self.interrupt.recv().await),
            Some(terminate) => tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = terminate.recv() => {}
            },
        }
    }

    /// Drives `work` to its end, or gives it up at a signal.
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
        let mut interrupts = Interrupts::listen(true).unwrap();
        assert_eq!(interrupts.unless(async { 1 }).await, Some(1));
        kill_process(getpid(), Signal::INT).unwrap();
        assert_eq!(interrupts.unless(std::future::pending::<()>()).await, None);
        let mut other = Interrupts::listen(true).unwrap();
        kill_process(getpid(), Signal::INT).unwrap();
        // Both have it now.
        other.next().await;
        interrupts.forget();
        assert_eq!(interrupts.unless(tokio::task::yield_now()).await, Some(()));
    }
}
