//! Waiting for a condition, with a bound.

use std::time::{Duration, Instant};

/// Between two looks.
const POLL: Duration = Duration::from_millis(10);

/// What was waited for did not come.
#[derive(Debug, thiserror::Error)]
#[error("waited {waited:?} for {what}; last seen: {last}")]
pub struct WaitError {
    /// The condition, as a noun phrase.
    pub what: String,
    /// The bound.
    pub waited: Duration,
    /// What the last look showed instead.
    pub last: String,
}

/// Looks until `look` gives a value; an `Err` of a look says what was seen instead.
///
/// # Errors
/// After `bound`, with what the last look showed. A look that hangs counts as well.
pub async fn wait_until<T, E: std::fmt::Display>(
    what: &str,
    bound: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, WaitError> {
    let deadline = Instant::now() + bound;
    let mut last = "nothing yet".to_owned();
    while let Some(left) = deadline.checked_duration_since(Instant::now()) {
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(seen)) => last = seen.to_string(),
            Err(_) => break,
        }
        tokio::time::sleep(POLL).await;
    }
    Err(WaitError { what: what.to_owned(), waited: bound, last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_error_tells_what_was_seen_last() {
        let mut looks = 0;
        let error = wait_until("the end", Duration::from_millis(50), async || {
            looks += 1;
            Err::<(), _>(format!("look {looks}"))
        })
        .await
        .unwrap_err();
        assert!(error.last.starts_with("look "), "{error}");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlast_the_bound() {
        let bound = Duration::from_millis(50);
        let look = async || std::future::pending::<Result<(), String>>().await;
        assert!(wait_until("nothing", bound, look).await.is_err());
    }
}
