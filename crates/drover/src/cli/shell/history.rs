//! The file of the lines that were typed: where it is, and that only its owner can read it.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Values stand in it.
const OWNER_ONLY: u32 = 0o600;

/// Where the file is if nobody says: `drover/history` in the folder for state of the XDG rules. Nothing if there is no home.
pub fn default_path(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // A path that is not absolute is to be ignored, say the rules.
    let absolute = |path: OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let folder = state_home.and_then(absolute).or_else(|| Some(home.and_then(absolute)?.join(".local/state")))?;
    Some(folder.join("drover/history"))
}

/// Makes the folder of the file, and the file its owner's alone if it is there.
///
/// # Errors
/// If the folder cannot be made, or the file is there and is none, or belongs to somebody else.
pub fn prepare(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match fs::metadata(path) {
        // Its mode is about to be set: not that of a device.
        Ok(found) if !found.is_file() => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
        Ok(_) => fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lies_where_the_xdg_rules_say() {
        let table = [
            (Some("/state"), Some("/home/a"), Some("/state/drover/history")),
            (None, Some("/home/a"), Some("/home/a/.local/state/drover/history")),
            (Some(""), Some("/home/a"), Some("/home/a/.local/state/drover/history")),
            (Some("relative"), Some("/home/a"), Some("/home/a/.local/state/drover/history")),
            (None, Some("relative"), None),
            (None, None, None),
        ];
        for (state, home, expect) in table {
            let path = default_path(state.map(OsString::from), home.map(OsString::from));
            assert_eq!(path, expect.map(PathBuf::from), "{state:?} {home:?}");
        }
    }

    #[test]
    fn a_file_that_others_could_read_becomes_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/on/the/way/history");
        prepare(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(!path.exists());
        fs::write(&path, "put secret 1\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        prepare(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        // A device keeps its mode.
        assert_eq!(prepare(dir.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let before = mode(Path::new("/dev/null"));
        assert!(prepare(Path::new("/dev/null")).is_err());
        assert_eq!(mode(Path::new("/dev/null")), before);
    }
}
