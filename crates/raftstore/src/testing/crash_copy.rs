//! What a crash leaves of a directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Copies a directory as a crash would leave it. Flushes and compactions add and remove files of a
/// running database: a copy counts only if none did while it was made.
pub fn copy_at_one_moment(from: &Path, to: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let files = files_in(from);
        std::fs::create_dir_all(to).unwrap();
        if copy_files(from, to, &files).is_ok() && files_in(from) == files {
            return;
        }
        assert!(Instant::now() < deadline, "the files of {} never rest", from.display());
        std::fs::remove_dir_all(to).unwrap();
    }
}

fn copy_files(from: &Path, to: &Path, files: &[PathBuf]) -> std::io::Result<()> {
    for file in files {
        let target = to.join(file);
        std::fs::create_dir_all(target.parent().unwrap())?;
        std::fs::copy(from.join(file), target)?;
    }
    Ok(())
}

/// The files below a directory, sorted: tables come before the manifest that names them.
fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        // Staged snapshots have directories of their own, which go with them.
        let Ok(entries) = std::fs::read_dir(next) else { continue };
        for entry in entries.flatten() {
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else if entry.file_name() != "LOCK" {
                files.push(entry.path().strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    files.sort();
    files
}
