//! A disk that can lose power: an ext4 image on a loop device.
//!
//! `FS_IOC_SHUTDOWN` without a log flush makes the file system forget, at once, everything that
//! was not forced to the device: dirty pages and the journal's open transaction alike. What an
//! `fsync` returned for before that moment is there after the next mount, and little else is.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::Duration;

use rustix::ioctl::{Setter, ioctl};

/// `FS_IOC_SHUTDOWN`, which ext4 and xfs share: `_IOR('X', 125, __u32)`.
const FS_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
/// Stop without writing the journal: what a power cut does.
const GOING_FLAGS_NOLOGFLUSH: u32 = 2;
/// Directories of disks start with this and go on with the pid of their owner.
const DIR_PREFIX: &str = "isotherm-disk-";

/// Why a disk could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// This machine or user cannot mount loop devices: the check is skipped, not passed.
    #[error("power loss cannot be simulated here: {reason}")]
    Unsupported {
        /// What is missing.
        reason: String,
    },
    /// A command about the disk failed.
    #[error("{command}: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// A file operation failed.
    #[error("disk image: {0}")]
    Io(#[from] io::Error),
}

/// An ext4 file system of its own. Unmounted and deleted when dropped.
#[derive(Debug)]
pub struct PowerLossDisk {
    dir: PathBuf,
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
}

impl PowerLossDisk {
    /// Makes and mounts a disk of `size_mib` MiB (sparse: it takes the room of what is written).
    /// `name` tells the disks of one test apart.
    pub fn create(name: &str, size_mib: u64) -> Result<Self, DiskError> {
        probe()?;
        let dir = env::temp_dir().join(format!("{DIR_PREFIX}{}-{name}", process::id()));
        fs::create_dir(&dir)?;
        let mut disk =
            Self { image: dir.join("image"), mount_point: dir.join("mnt"), dir, mounted: false };
        fs::create_dir(&disk.mount_point)?;
        File::create(&disk.image)?.set_len(size_mib << 20)?;
        let image = disk.image.clone();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-J", "size=16"], &[image.as_os_str()])?;
        disk.mount().map_err(|error| DiskError::Unsupported { reason: error.to_string() })?;
        Ok(disk)
    }

    /// Where the disk is mounted.
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Cuts the power: everything not yet forced to the device is lost, and every later write
    /// fails. An `fsync` that is under way at this moment may return success wrongly (about one
    /// cut in a hundred, in a tight loop of them), so whoever trusts it must be gone.
    pub fn shutdown(&self) -> Result<(), DiskError> {
        let root = File::open(&self.mount_point)?;
        shut_down_file_system(&root)?;
        Ok(())
    }

    /// Unmounts the disk and mounts it again, which replays the journal, as after a reboot. Nobody
    /// may use it meanwhile.
    pub fn remount(&mut self) -> Result<(), DiskError> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<(), DiskError> {
        // A commit interval this long leaves the journal's own timer no chance to save what the
        // store forgot to sync.
        let options = ["-t", "ext4", "-o", "loop,noatime,commit=300"];
        run("mount", &options, &[self.image.as_os_str(), self.mount_point.as_os_str()])?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), DiskError> {
        if !self.mounted {
            return Ok(());
        }
        // A process killed a moment ago may hold its files for an instant longer.
        const ATTEMPTS: u32 = 50;
        for attempt in 1..=ATTEMPTS {
            match run("umount", &[], &[self.mount_point.as_os_str()]) {
                Ok(()) => break,
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for PowerLossDisk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            let _ = run("umount", &["-l"], &[self.mount_point.as_os_str()]);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Unmounts and deletes the disks of tests that were killed before they could do it themselves.
pub fn sweep_stale_disks() -> io::Result<()> {
    for entry in fs::read_dir(env::temp_dir())? {
        let path = entry?.path();
        let owner = path
            .file_name()
            .and_then(OsStr::to_str)
            .and_then(|name| name.strip_prefix(DIR_PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Not mounted is fine; what cannot be removed is left for a person.
            let _ = run("umount", &["-l"], &[path.join("mnt").as_os_str()]);
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}

fn probe() -> Result<(), DiskError> {
    let unsupported = |reason: &str| DiskError::Unsupported { reason: reason.to_owned() };
    if !rustix::process::geteuid().is_root() {
        return Err(unsupported("mounting needs root"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err(unsupported("the kernel has no loop devices"));
    }
    if !on_path("mkfs.ext4") {
        return Err(unsupported("mkfs.ext4 is not installed"));
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn run(program: &str, options: &[&str], paths: &[&OsStr]) -> Result<(), DiskError> {
    let output = Command::new(program).args(options).args(paths).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let command =
        format!("{program} {} {}", options.join(" "), paths.join(OsStr::new(" ")).display());
    Err(DiskError::Command { command, output: format!("{} {said}", output.status) })
}

#[allow(unsafe_code)]
fn shut_down_file_system(root: &File) -> io::Result<()> {
    // SAFETY: the opcode is FS_IOC_SHUTDOWN, whose argument is a pointer to a u32 that the kernel
    // only reads; the file descriptor is open for the whole call.
    unsafe {
        let request = Setter::<FS_IOC_SHUTDOWN, u32>::new(GOING_FLAGS_NOLOGFLUSH);
        ioctl(root, request)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use super::*;
    use std::io::Write;

    /// The method must tell a program that syncs from one that does not.
    #[test]
    fn a_power_cut_keeps_synced_data_and_loses_the_rest() {
        let mut disk = match PowerLossDisk::create("unit", 64) {
            Ok(disk) => disk,
            Err(DiskError::Unsupported { reason }) => {
                println!("skipped: {reason}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let mut kept = File::create(disk.path().join("kept")).unwrap();
        kept.write_all(b"synced").unwrap();
        kept.sync_all().unwrap();
        File::open(disk.path()).unwrap().sync_all().unwrap();
        let lost = disk.path().join("lost");
        let mut file = File::create(&lost).unwrap();
        file.write_all(b"not synced").unwrap();
        disk.shutdown().unwrap();
        assert!(kept.write_all(b"more").is_err() || kept.sync_all().is_err());
        drop((kept, file));
        disk.remount().unwrap();
        assert_eq!(fs::read(disk.path().join("kept")).unwrap(), b"synced");
        assert!(!lost.exists() || fs::read(&lost).unwrap().is_empty());
        let mount_point = disk.path().to_owned();
        drop(disk);
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(mount_point.to_str().unwrap()));
    }
}
