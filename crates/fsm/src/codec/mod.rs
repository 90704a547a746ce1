//! One file for each persisted format, with golden bytes and a property test beside it.

pub mod applied;
pub mod catalog;
pub mod command;
pub mod export;
pub mod moving;
pub mod record;
pub mod state;
pub mod txn;
