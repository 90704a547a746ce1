//! Fuzz targets for everything that reads foreign bytes: one for each entry of [`decoders::ALL`](drover_e2e::decoders::ALL).
//!
//! `scripts/fuzz` builds and runs them; `docs/fuzzing.md` says how, and what to do with a finding. `scripts/test` runs the same
//! functions on the seeds and on mutations of them, and checks that the targets compile.
//!
//! A target names its decoder in a constant, so that the linker keeps that decoder alone: the counters of everything in a program
//! are looked through after each input.

use std::path::Path;

pub use drover_e2e::decoders::{Decoder, named};

/// The variable that names the folder to which a target writes its decoder's seeds before it starts. A target does this itself
/// because the seeds are made by the encoders, and another program that links them would be another build of everything.
pub const SEEDS: &str = "DROVER_FUZZ_SEEDS";

/// The body of a fuzz target: runs the decoder of that name.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        const DECODER: $crate::Decoder = $crate::named($name);

        ::libfuzzer_sys::fuzz_target!(init: $crate::write_seeds(&DECODER), |data: &[u8]| {
            (DECODER.run)(data);
        });
    };
}

/// Writes the seeds of a decoder, if [`SEEDS`] says where.
///
/// # Panics
/// If they cannot be written.
pub fn write_seeds(decoder: &Decoder) {
    let Some(folder) = std::env::var_os(SEEDS) else { return };
    for (number, seed) in (decoder.seeds)().iter().enumerate() {
        let file = Path::new(&folder).join(format!("seed-{number}"));
        std::fs::write(&file, seed).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    }
}
