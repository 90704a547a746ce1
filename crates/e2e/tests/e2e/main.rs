//! Tests over real processes, and the decoders' seeds. One binary: each file by itself would link everything once more.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod bad_start;
mod bench_move;
mod catch_up;
mod cli;
mod connect;
mod crashes;
mod damage;
mod decoders;
mod determinism;
mod disk_full;
mod drain;
mod examples;
mod interrupted_snapshot;
mod jobs_bad_input;
mod large_answers;
mod linearizable;
mod membership;
mod move_courses;
mod move_crashes;
mod move_partitions;
mod move_shapes;
mod moves;
mod moves_serializable;
mod raised_limits;
mod replicas;
mod routes;
mod serializable;
mod shell;
mod transactions;
mod transactions_bad_input;
mod txn_crashes;
mod txn_probes;
mod upgrade;
