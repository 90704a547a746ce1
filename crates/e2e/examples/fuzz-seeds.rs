//! Writes the seeds of every decoder as files for `cargo fuzz`: `fuzz-seeds <folder>` makes `<folder>/<decoder>/<n>`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "fuzz/corpus-local".into()));
    for decoder in drover_e2e::decoders::ALL {
        let folder = folder.join(decoder.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (decoder.seeds)().iter().enumerate() {
            std::fs::write(folder.join(number.to_string()), seed)?;
        }
    }
    Ok(())
}
