//! Timestamps and the hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014).
//!
//! # Model
//!
//! A [`Timestamp`] is 48 bits of Unix milliseconds over 16 bits of counter. Every read and commit timestamp comes from
//! the cluster's one oracle; the [`Hlc`] of a node only observes what it sees, for diagnostics and retention
//! arithmetic.
//!
//! # Invariants
//!
//! - [`PhysicalMs`] (the millisecond half) and [`Timestamp`] (both halves) are different types without conversion by
//!   `From`: mixing them up does not compile.
//! - No clock is read here. Time comes in through [`WallClock`].

mod clock;
mod timestamp;

pub use clock::{Hlc, HlcError, ManualClock, WallClock};
pub use timestamp::{PhysicalMs, Timestamp, TimestampError};
