use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::ClusterError;

/// The server binary: `DROVER_BIN` if set, else the one in the folder this test was built into, brought up to date by
/// `cargo build -p drover`.
///
/// # Errors
/// If it cannot be built.
pub fn drover_binary() -> Result<PathBuf, ClusterError> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(locate).clone().map_err(ClusterError::Binary)
}

fn locate() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("DROVER_BIN") {
        let path = PathBuf::from(path);
        return if path.is_file() { Ok(path) } else { Err(format!("DROVER_BIN={} is no file", path.display())) };
    }
    let exe = std::env::current_exe().map_err(|e| e.to_string())?;
    // Tests lie in `<target>/<profile>/deps/`, programs in `<target>/<profile>/`.
    let folder = exe.parent().ok_or("the test binary has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().ok_or("`deps` has no parent")? } else { folder };
    let release = folder.file_name().is_some_and(|name| name == "release");
    let target = folder.parent().ok_or("the profile's folder has no parent")?;
    // Cargo leaves this file in its target folder; a binary that was moved elsewhere must be told where the server is.
    if !target.join("CACHEDIR.TAG").is_file() {
        return Err(format!("{} is no target folder of cargo; set DROVER_BIN", target.display()));
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "drover"]).arg("--target-dir").arg(target);
    cargo.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml"));
    if release {
        cargo.arg("--release");
    }
    let status = cargo.status().map_err(|e| format!("running cargo: {e}"))?;
    let binary = folder.join("drover");
    if status.success() && binary.is_file() {
        Ok(binary)
    } else {
        Err(format!("cargo build --package drover ended with {status}, looking for {}", binary.display()))
    }
}
