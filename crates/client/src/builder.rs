use std::time::Duration;

use drover_kv::{Error, Limits};

use crate::{Client, RetryPolicy};

/// Whether writes that may be retried name their intention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdempotencyKeys {
    /// Every write that the retry policy allows to be sent twice carries a key.
    #[default]
    On,
    /// No write carries a key. A write whose outcome is unknown after an attempt ends there, and cannot be settled.
    Off,
}

/// How a [`Client`] is set up. Every setting has a default.
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    pub(crate) endpoints: Vec<String>,
    pub(crate) only_endpoints: bool,
    pub(crate) deadline: Duration,
    pub(crate) retry: RetryPolicy,
    pub(crate) max_in_flight: usize,
    pub(crate) idempotency: IdempotencyKeys,
    pub(crate) settle_window: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) limits: Option<Limits>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            only_endpoints: false,
            deadline: Duration::from_secs(10),
            retry: RetryPolicy::default(),
            max_in_flight: 8_192,
            idempotency: IdempotencyKeys::On,
            settle_window: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(5),
            limits: None,
        }
    }
}

impl ClientBuilder {
    /// Nodes to start from, as `host:port` or `http://host:port`. One that answers is enough; naming several lets the
    /// client start while some are down.
    #[must_use]
    pub fn endpoints<I: IntoIterator<Item = S>, S: Into<String>>(mut self, endpoints: I) -> Self {
        self.endpoints = endpoints.into_iter().map(Into::into).collect();
        self
    }

    /// Sends to the endpoints alone and learns of no other node: every request enters the cluster through one of them,
    /// whoever leads. This costs a hop, and the client stands still when they do. Default: off.
    #[must_use]
    pub fn only_these_endpoints(mut self) -> Self {
        self.only_endpoints = true;
        self
    }

    /// How long a call waits in all, retries included. Default: 10 s.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How failed attempts are retried. Default: until the deadline.
    #[must_use]
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// Calls that may be under way at once; more wait their turn. Default: 8,192.
    #[must_use]
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Whether writes carry idempotency keys. Default: on.
    #[must_use]
    pub fn idempotency_keys(mut self, keys: IdempotencyKeys) -> Self {
        self.idempotency = keys;
        self
    }

    /// How long past its deadline an unknown write can be settled, and how far the local clock may lag behind the
    /// cluster's before the cluster's time is known. Default: 2 minutes.
    #[must_use]
    pub fn settle_window(mut self, window: Duration) -> Self {
        self.settle_window = window;
        self
    }

    /// How long [`connect`](Self::connect) and later connections to a node may take. Default: 5 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sizes above which requests are refused before they are sent. Default: none. The servers refuse what exceeds the limits
    /// that they are configured with, and name them; what no message can hold is refused here in any case.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// Connects, and learns the routes.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for an endpoint that is no address, `UNAVAILABLE` if none answers in time. Definite.
    pub async fn connect(self) -> Result<Client, Error> {
        Client::start(self).await
    }
}
