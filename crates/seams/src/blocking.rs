//! Work that blocks the thread it runs on.

use futures::future::{Either, Ready, ready};
use tokio::task::{JoinError, JoinHandle};

use crate::is_simulated;

/// The end of work that was begun [`aside`].
pub type Aside<T> = Either<JoinHandle<T>, Ready<Result<T, JoinError>>>;

/// Does `work` on this thread, and lets others take over what else the thread would have done. See
/// [`tokio::task::block_in_place`].
pub fn here<T>(work: impl FnOnce() -> T) -> T {
    if is_simulated() { work() } else { tokio::task::block_in_place(work) }
}

/// Begins `work` on a thread that may block. Dropping what is returned does not end it. See [`tokio::task::spawn_blocking`].
pub fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Aside<T> {
    if is_simulated() { Either::Right(ready(Ok(work()))) } else { Either::Left(tokio::task::spawn_blocking(work)) }
}
