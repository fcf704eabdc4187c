//! What a crash leaves of a directory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Copies a directory as a crash would leave it. Flushes and compactions add and remove files of a
/// running database: a copy counts only if none did while it was made, and if no log was written meanwhile:
/// of a file that is overwritten a copy could have what came later and lack what came before it.
pub fn copy_at_one_moment(from: &Path, to: &Path) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (files, logs) = (files_in(from), logs_in(from));
        std::fs::create_dir_all(to).unwrap();
        if copy_files(from, to, &files).is_ok() && files_in(from) == files && logs_in(from) == logs
        {
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

/// The write-ahead files below a directory, how large they are and when they were written.
fn logs_in(dir: &Path) -> Vec<(PathBuf, u64, SystemTime)> {
    let logs =
        files_in(dir).into_iter().filter(|file| file.extension().is_some_and(|e| e == "log"));
    let state = |file: PathBuf| {
        let metadata = std::fs::metadata(dir.join(&file)).ok()?;
        Some((file, metadata.len(), metadata.modified().ok()?))
    };
    logs.filter_map(state).collect()
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
