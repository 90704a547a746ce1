//! What measurements of moves have in common: rows that tell who wrote them when, clients that write and read them as fast as
//! they can, and what those clients saw. `drover bench move`, the demonstration, and the same measurement on another
//! system share it.
//!
//! # Model
//!
//! - [`Rows`]: numbered keys and the values that belong to them. Of each key there is one writer; a value carries the number of its
//!   write, so whoever reads it can tell whether an acknowledged write is missing.
//! - [`Traffic`]: closed loops of writers and readers over a [`Store`].
//! - [`Stage`]: what is going on: warm-up, baseline, a move, the time between two moves. Each request takes down at which stage it began
//!   and at which it ended, so it is known which moves it overlaps.
//! - [`Seen`]: latencies by stage, and the *pause* of each move: the longest latency of a request that overlaps it.
//! - [`move_range`]: asks for a move and follows it to its end.
//!
//! # Invariants
//!
//! - Only what clients saw counts: nothing is taken from what nodes say of their pauses.
//! - A request that failed counts with its latency, and as an error.

mod load;
mod mover;
mod rows;
mod seen;
mod stage;
mod store;
mod traffic;

pub use load::{fill, load};
pub use mover::{MoveError, MoveTerms, Moved, has_left_backfill, move_range, route_over};
pub use rows::{Flaw, Flaws, Rows, verify};
pub use seen::{Latencies, Seen, at_rank};
pub use stage::Stage;
pub use store::Store;
pub use traffic::{Clients, Traffic};
