//! Files that are there completely or not at all, whatever happens to the machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The name under which [`write`] prepares `path`. A crash may leave it behind; it means nothing.
pub fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Replaces the content of `path`. When it returns, the new content survives a crash; if it fails or the machine stops before,
/// the old content, or the absence of the file, is left as it was.
///
/// # Errors
/// If the operating system refuses.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_name(path);
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Makes sure that what was created, renamed or removed in a directory stays so.
///
/// # Errors
/// If the operating system refuses.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir)?.sync_all()
}

/// Creates a directory and those above it, durably.
///
/// # Errors
/// If the operating system refuses.
pub fn create_dir_all(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new("."));
    if !parent.as_os_str().is_empty() {
        create_dir_all(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent)
}
