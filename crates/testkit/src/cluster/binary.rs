use std::path::{Path, PathBuf};
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

/// Copies the server into `dir` and writes another compatibility version over the stamp of the copy: another build, as far as
/// versions go.
///
/// # Errors
/// If there is no server, its stamp is not found exactly once, or the copy cannot be written.
pub fn build_with_version(version: &str, dir: &Path) -> Result<PathBuf, ClusterError> {
    const LABEL: &[u8] = b"drover compatibility version: ";
    const VERSION_BYTES: usize = 16;
    let original = drover_binary()?;
    let mut bytes = std::fs::read(&original).map_err(ClusterError::io(format!("reading {}", original.display())))?;
    let found: Vec<usize> = bytes
        .windows(LABEL.len() + 1)
        .enumerate()
        // The label also stands in the code that looks for it, without a version behind it.
        .filter(|(_, window)| window.starts_with(LABEL) && window[LABEL.len()].is_ascii_digit())
        .map(|(at, _)| at + LABEL.len())
        .collect();
    let (1, true) = (found.len(), version.len() <= VERSION_BYTES) else {
        let why = format!("{} has {} version stamps, and {version:?} has to fit in", original.display(), found.len());
        return Err(ClusterError::Binary(why));
    };
    bytes[found[0]..found[0] + VERSION_BYTES].fill(b' ');
    bytes[found[0]..found[0] + version.len()].copy_from_slice(version.as_bytes());
    let copy = dir.join(format!("drover-{version}"));
    std::fs::write(&copy, bytes).map_err(ClusterError::io(format!("writing {}", copy.display())))?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&copy, executable).map_err(ClusterError::io(format!("changing {}", copy.display())))?;
    Ok(copy)
}
