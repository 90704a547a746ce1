//! raft-engine's files, with errors that tell what the operating system said.
//!
//! raft-engine names the call that failed and keeps no more of the system's error than its kind; most numbers, EIO among them, have none
//! of their own. The number is still there when the call returns.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

type DefaultHandle = <DefaultFileSystem as FileSystem>::Handle;
type DefaultReader = <DefaultFileSystem as FileSystem>::Reader;
type DefaultWriter = <DefaultFileSystem as FileSystem>::Writer;

/// raft-engine's own file system, whose errors are complete.
pub struct ToldFiles;

/// A file of it, or a reader or writer of one.
pub struct Told<T>(T);

/// Adds what the operating system said to an error that was made of it just now.
fn told<T>(result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| {
        let system = io::Error::last_os_error();
        match error.raw_os_error().is_none() && error.kind() == system.kind() {
            true => io::Error::new(error.kind(), format!("{error}: {system}")),
            false => error,
        }
    })
}

impl FileSystem for ToldFiles {
    type Handle = Told<Arc<DefaultHandle>>;
    type Reader = Told<DefaultReader>;
    type Writer = Told<DefaultWriter>;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        told(DefaultFileSystem.create(path)).map(|handle| Told(Arc::new(handle)))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        told(DefaultFileSystem.open(path, permission)).map(|handle| Told(Arc::new(handle)))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(Arc::clone(&handle.0)).map(Told)
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(Arc::clone(&handle.0)).map(Told)
    }
}

impl Handle for Told<Arc<DefaultHandle>> {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        told(self.0.truncate(offset))
    }

    fn file_size(&self) -> io::Result<usize> {
        told(self.0.file_size())
    }

    fn sync(&self) -> io::Result<()> {
        told(self.0.sync())
    }
}

impl<T: Read> Read for Told<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        told(self.0.read(buf))
    }
}

impl<T: Write> Write for Told<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        told(self.0.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        told(self.0.flush())
    }
}

impl<T: Seek> Seek for Told<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        told(self.0.seek(to))
    }
}

impl<T: WriteExt> WriteExt for Told<T> {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        told(self.0.truncate(offset))
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        told(self.0.allocate(offset, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, permission: Permission) -> io::Error {
        let handle = Arc::new(ToldFiles.open(path, permission).unwrap());
        ToldFiles.new_writer(handle).unwrap().write_all(b"x").unwrap_err()
    }

    #[test]
    fn a_failed_call_tells_what_the_operating_system_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let missing = file.path().with_extension("missing");
        let handle = ToldFiles.open(Path::new("/dev/null"), Permission::ReadWrite).unwrap();
        let table = [
            // This number has no kind of its own.
            (write(file.path(), Permission::ReadOnly), "pwrite: Bad file descriptor (os error 9)"),
            // By its first word raft-engine knows that it may try another file.
            (write(Path::new("/dev/full"), Permission::ReadWrite), "nospace: No space left on device (os error 28)"),
            (
                ToldFiles.open(&missing, Permission::ReadOnly).err().unwrap(),
                "open: No such file or directory (os error 2)",
            ),
            (handle.truncate(1).unwrap_err(), "ftruncate: Invalid argument (os error 22)"),
            (ToldFiles.delete(&missing).unwrap_err(), "No such file or directory (os error 2)"),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
        let full = write(Path::new("/dev/full"), Permission::ReadWrite);
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn what_did_not_come_from_the_operating_system_stays_as_it_is() {
        let error = told::<()>(Err(io::Error::new(io::ErrorKind::InvalidData, "odd"))).unwrap_err();
        assert_eq!(error.to_string(), "odd");
        assert!(told(Ok(7)).is_ok());
    }
}
