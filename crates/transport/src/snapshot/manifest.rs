use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drover_wire::proto::v1;
use xxhash_rust::xxh3::Xxh3;

/// Longest path below a snapshot's folder, in bytes.
const NAME_BYTES: usize = 512;
/// Folders a file may be below the snapshot's.
const DEPTH: usize = 4;
/// Files a snapshot may have.
const FILES: usize = 1_000_000;

/// The content of a file: what it is known by, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Content {
    /// XXH3-128.
    pub(super) checksum: u128,
    pub(super) bytes: u64,
}

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ManifestFile {
    /// Below the snapshot's folder; plain names only.
    pub(super) name: PathBuf,
    pub(super) content: Content,
}

/// Reads an offer's list of files, which is not trusted.
///
/// # Errors
/// A sentence, if a name could lead out of the folder, occurs twice, or a field is malformed.
pub(super) fn decode(files: Vec<v1::SnapshotFile>) -> Result<Vec<ManifestFile>, String> {
    if files.len() > FILES {
        return Err(format!("a snapshot of {} files; the limit is {FILES}", files.len()));
    }
    let mut names = BTreeSet::new();
    let mut total: u64 = 0;
    let mut decoded = Vec::with_capacity(files.len());
    for file in files {
        let name = plain_path(&file.name)?;
        if !names.insert(name.clone()) {
            return Err(format!("the file {:?} is listed twice", file.name));
        }
        let checksum: [u8; 16] =
            file.checksum.as_ref().try_into().map_err(|_| format!("the checksum of {:?} is malformed", file.name))?;
        total = total.checked_add(file.bytes).ok_or("the sizes do not fit into 64 bits")?;
        let content = Content { checksum: u128::from_be_bytes(checksum), bytes: file.bytes };
        decoded.push(ManifestFile { name, content });
    }
    Ok(decoded)
}

/// A list of files as it is offered.
pub(super) fn encode(files: &[ManifestFile]) -> Vec<v1::SnapshotFile> {
    let file = |file: &ManifestFile| v1::SnapshotFile {
        name: file.name.to_string_lossy().into_owned(),
        bytes: file.content.bytes,
        checksum: bytes::Bytes::copy_from_slice(&file.content.checksum.to_be_bytes()),
    };
    files.iter().map(file).collect()
}

/// A path of plain names, or a sentence why it is none.
fn plain_path(name: &str) -> Result<PathBuf, String> {
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && part.len() <= 255 && !part.contains(['\\', '\0'])
    };
    if name.len() > NAME_BYTES || name.split('/').count() > DEPTH || !name.split('/').all(plain) {
        return Err(format!("{:?} is not a plain name of a file", &name[..name.floor_char_boundary(NAME_BYTES)]));
    }
    Ok(name.split('/').collect())
}

/// How fast a snapshot that is to be sent is read through, in bytes per second.
const READ_RATE: u64 = 256 << 20;

/// Lists the files below `dir` with their checksums, in the order of their names. Reads all of them, at a pace that leaves
/// disk and processor to others.
///
/// # Errors
/// If a file cannot be read, or is none: links and devices are not part of a snapshot.
pub(super) fn read(dir: &Path) -> io::Result<Vec<ManifestFile>> {
    let mut files = Vec::new();
    walk(dir, Path::new(""), &mut files)?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn walk(root: &Path, below: &Path, files: &mut Vec<ManifestFile>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(root, &name, files)?;
        } else if kind.is_file() && name.to_str().is_some_and(|name| plain_path(name).is_ok()) {
            let began = Instant::now();
            let content = checksum(&root.join(&name))?;
            let due = Duration::from_secs_f64(content.bytes as f64 / READ_RATE as f64);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            files.push(ManifestFile { name, content });
        } else {
            return Err(io::Error::other(format!("{} cannot be part of a snapshot", name.display())));
        }
    }
    Ok(())
}

/// Reads a file through.
pub(super) fn checksum(path: &Path) -> io::Result<Content> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Content { checksum: hasher.digest128(), bytes }),
            n => {
                hasher.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str) -> v1::SnapshotFile {
        v1::SnapshotFile { name: name.to_owned(), bytes: 1, checksum: vec![0; 16].into() }
    }

    #[test]
    fn names_that_could_lead_out_of_the_folder_are_refused() {
        for good in ["a", "000012.sst", "db/CURRENT", "a b/ü", "...", "a/b/c/d"] {
            assert!(decode(vec![file(good)]).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        let bad = [
            "",
            "/",
            "/etc/passwd",
            "..",
            ".",
            "../x",
            "a/../../x",
            "a/./b",
            "a//b",
            "a/",
            "a\\..\\b",
            "a\0b",
            "a/b/c/d/e",
            &long,
        ];
        for bad in bad {
            assert!(decode(vec![file(bad)]).is_err(), "{bad:?}");
        }
        assert!(decode(vec![file("a"), file("a")]).is_err());
        assert!(decode(vec![v1::SnapshotFile { checksum: vec![0; 15].into(), ..file("a") }]).is_err());
        let huge = |name| v1::SnapshotFile { bytes: u64::MAX, ..file(name) };
        assert!(decode(vec![huge("a"), huge("b")]).is_err());
    }

    #[test]
    fn a_folder_is_listed_by_name_with_the_checksums_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        fs::write(dir.path().join("b/x"), "").unwrap();
        fs::write(dir.path().join("a"), "content").unwrap();
        let files = read(dir.path()).unwrap();
        let known = Content { checksum: xxhash_rust::xxh3::xxh3_128(b"content"), bytes: 7 };
        assert_eq!(files[0], ManifestFile { name: "a".into(), content: known });
        assert_eq!((files[1].name.as_path(), files[1].content.bytes), (Path::new("b/x"), 0));
        assert_eq!(decode(encode(&files)), Ok(files));
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(read(dir.path()).is_err(), "a link is not followed");
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_the_folder(name in "[a./\\\\]{0,8}|.{0,20}") {
            if let Ok(path) = plain_path(&name) {
                let plain = |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
                prop_assert!(path.components().all(plain) && path.components().count() >= 1);
            }
        }
    }
}
