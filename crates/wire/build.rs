//! Compiles `proto/` in pure Rust, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Asked for at run time: a build folder may serve several checkouts.
    let root = std::path::PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let files = [
        "drover/v1/kv.proto",
        "drover/v1/cluster.proto",
        "drover/v1/compat.proto",
        "drover/v1/distribution.proto",
        "drover/v1/internal.proto",
        "drover/v1/txn.proto",
        "drover/storage/v1/raft.proto",
        "drover/storage/v1/catalog.proto",
        "drover/storage/v1/command.proto",
        "drover/storage/v1/state.proto",
    ];
    let descriptors = protox::compile(files, [&root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
