//! Fuzz targets for everything that reads foreign bytes: one for each entry of `drover_e2e::decoders::ALL`.
//!
//! ```sh
//! rustup toolchain install nightly && cargo install cargo-fuzz
//! cargo run --package drover-e2e --example fuzz-seeds -- fuzz/corpus-local
//! cargo +nightly fuzz run data_key fuzz/corpus-local/data_key -- -max_total_time=60
//! ```
//!
//! `scripts/test` runs the same functions on the seeds and on mutations of them, without the nightly compiler.

/// Runs the decoder called `name`.
///
/// # Panics
/// If there is none, or if it is broken: that is what a fuzzer looks for.
pub fn run(name: &str, data: &[u8]) {
    let decoder = drover_e2e::decoders::find(name).expect("every target is named after a decoder");
    (decoder.run)(data);
}
