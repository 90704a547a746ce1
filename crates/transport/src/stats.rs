use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What went to and came from one peer since this node started. Counters only rise.
        #[derive(Debug, Default)]
        pub struct PeerStats {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// [`PeerStats`] at one moment.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct PeerStatsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl PeerStats {
            /// The counters now.
            pub fn snapshot(&self) -> PeerStatsSnapshot {
                PeerStatsSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }

        impl PeerStatsSnapshot {
            /// Names and values, for an exporter.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Link frames sent, in both roles.
    frames_sent,
    /// Messages in them.
    messages_sent,
    /// Bytes of these messages.
    bytes_sent,
    /// Link frames received.
    frames_received,
    /// Messages in them.
    messages_received,
    /// Bytes of these messages.
    bytes_received,
    /// Connections that were established to the peer.
    connects,
    /// Attempts to connect that failed.
    connect_failures,
    /// Connections to the peer that were lost.
    disconnects,
    /// Calls that failed before they were sent.
    calls_not_sent,
    /// Calls that were sent and have no answer.
    calls_unknown,
    /// Messages from the peer that made no sense.
    protocol_errors,
    /// Bytes of snapshot content sent.
    snapshot_bytes_sent,
    /// Bytes of snapshot content received.
    snapshot_bytes_received,
    /// Snapshots sent and installed by the peer.
    snapshots_sent,
    /// Snapshots received from the peer and installed.
    snapshots_received,
}

impl PeerStats {
    pub(crate) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn inc(counter: &AtomicU64) {
        Self::add(counter, 1);
    }
}
