//! Disks of their own: each node stores in an ext4 of its own in a file, which can lose its power or be full without the machine
//! noticing.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::ioctl::{Opcode, Setter, ioctl};

use crate::net::sh;

/// How large each is, in bytes. Only what is written takes space.
const DISK_BYTES: u64 = 1 << 30;
/// `EXT4_IOC_SHUTDOWN`: `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: Opcode = 0x8004_587D;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: nothing more is written, not even the journal.
const NO_LOG_FLUSH: u32 = 2;
/// What fills a disk.
const FILLER: &str = "filler";

/// The disks of all nodes. Dropping them unmounts them.
#[derive(Debug)]
pub struct Disks {
    dir: PathBuf,
    nodes: u64,
}

impl Disks {
    /// Makes and mounts a disk for each node, at `dir/nN`.
    ///
    /// # Errors
    /// If that is not permitted.
    pub fn new(dir: &Path, nodes: u64) -> Result<Self> {
        let disks = Disks { dir: dir.to_owned(), nodes };
        for node in 1..=nodes {
            std::fs::create_dir_all(disks.mount_point(node))?;
            let image = disks.image(node);
            File::create(&image)
                .and_then(|file| file.set_len(DISK_BYTES))
                .with_context(|| image.display().to_string())?;
            sh("mkfs.ext4", &["-q", "-F", &image.display().to_string()])?;
            disks.mount(node)?;
        }
        Ok(disks)
    }

    fn image(&self, node: u64) -> PathBuf {
        self.dir.join(format!("disk{node}"))
    }

    fn mount_point(&self, node: u64) -> PathBuf {
        self.dir.join(format!("n{node}"))
    }

    fn mount(&self, node: u64) -> Result<()> {
        let (image, point) = (self.image(node).display().to_string(), self.mount_point(node).display().to_string());
        sh("mount", &["-o", "loop", &image, &point])
    }

    /// From now on nothing reaches the disk; what was not synced is lost. To be mended by [`Disks::replug`].
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn cut_power(&self, node: u64) -> Result<()> {
        let root = File::open(self.mount_point(node))?;
        // SAFETY: the opcode is that of ext4's shutdown, which reads one u32.
        let done = unsafe { ioctl(&root, Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
        done.map_err(|error| anyhow!("the file system of node {node} does not shut down: {error}"))
    }

    /// Mounts the disk again, as a machine does that gets its power back. The node must be down.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn replug(&self, node: u64) -> Result<()> {
        sh("umount", &[&self.mount_point(node).display().to_string()])?;
        self.mount(node)
    }

    /// Leaves no space.
    ///
    /// # Errors
    /// If it cannot be filled.
    pub fn fill(&self, node: u64) -> Result<()> {
        let path = self.mount_point(node).join(FILLER);
        let filler = File::create(&path).with_context(|| path.display().to_string())?;
        let mut step = DISK_BYTES / 2;
        let mut size = 0;
        while step >= 1 << 16 {
            match rustix::fs::fallocate(&filler, rustix::fs::FallocateFlags::empty(), size, step) {
                Ok(()) => size += step,
                Err(_) => step /= 2,
            }
        }
        Ok(())
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// If it cannot be given back.
    pub fn free(&self, node: u64) -> Result<()> {
        let path = self.mount_point(node).join(FILLER);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context(path.display().to_string())
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for node in 1..=self.nodes {
            let _ = sh("umount", &["-l", &self.mount_point(node).display().to_string()]);
        }
    }
}

/// Unmounts everything below a folder.
pub fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    for point in points_below(&mounts, dir) {
        let _ = sh("umount", &["-l", &point]);
    }
}

fn points_below(mounts: &str, dir: &Path) -> Vec<String> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| Path::new(point).starts_with(dir)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_below_a_folder_is_found() {
        let mounts = "/dev/loop0 /tmp/drover-jepsen-7/n1 ext4 rw 0 0\n/dev/vda / ext4 rw 0 0\n\
                      /dev/loop1 /tmp/drover-jepsen-77/n1 ext4 rw 0 0\n";
        assert_eq!(points_below(mounts, Path::new("/tmp/drover-jepsen-7")), ["/tmp/drover-jepsen-7/n1"]);
    }
}
