//! The data directory of one process.
//!
//! ```text
//! FORMAT           "isotherm node format 1": which kind of process, which layout
//! LOCK             locked by the process that uses the directory
//! identity.json    cluster, node, timing: written once, when the cluster admits the process
//! last-start.json  a node's last start, by which it may start without the meta service
//! DAMAGE           what of it is damaged: the process stays out while it is there
//! raft/            the log engine
//! data/            the data engine
//! snapshots/       snapshots on their way in or out
//! ```
//!
//! The snapshots directory is not emptied here: an install that a crash interrupted still needs
//! its staged files. Its owner empties it once such installs are done.

use super::damage::Damage;
use super::identity::Identity;
use super::last_start::{self, LastStart};
use crate::sizes::{DAMAGE_BYTES_MAX, FORMAT_BYTES_MAX, IDENTITY_BYTES_MAX, LAST_START_BYTES_MAX};
use crate::{Result, StorageError};
use parking_lot::Mutex;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The layout that this software writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// An open data directory: this process alone uses it until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    raft_dir: PathBuf,
    data_dir: PathBuf,
    snapshots_dir: PathBuf,
    identity: Mutex<Option<Identity>>,
    /// Holds the lock; the kernel releases it when the process ends, however it ends.
    _lock: File,
}

impl DataDir {
    /// Opens the directory, creating it if there is none, and locks it. `kind` is `node` or `meta`:
    /// neither opens the other's.
    ///
    /// Refused with [`StorageError::InUse`] while another process has it, and with
    /// [`StorageError::Incompatible`] if it is of another kind, of newer software, or holds
    /// something that is not ours.
    pub fn open(path: impl Into<PathBuf>, kind: &str) -> Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path).map_err(StorageError::at(&path))?;
        // Before anything is put there: a directory of something else stays as it is.
        let format = path.join("FORMAT");
        let is_ours = || format.try_exists().map_err(StorageError::at(&format));
        // Another process may be filling it at this moment: then it is in use, not foreign.
        if !is_ours()? && !is_ours_to_fill(&path)? && !is_ours()? {
            return Err(foreign(&path));
        }
        let lock_path = path.join("LOCK");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(StorageError::at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StorageError::InUse { path }),
            Err(TryLockError::Error(e)) => return Err(StorageError::at(lock_path)(e)),
        }
        let (raft_dir, data_dir) = (path.join("raft"), path.join("data"));
        let snapshots_dir = path.join("snapshots");
        let identity = Mutex::default();
        let dir = Self { path, raft_dir, data_dir, snapshots_dir, identity, _lock: lock };
        dir.check_format(kind)?;
        for sub in [&dir.raft_dir, &dir.data_dir, &dir.snapshots_dir] {
            fs::create_dir_all(sub).map_err(StorageError::at(sub))?;
        }
        *dir.identity.lock() = dir.read_identity()?;
        Ok(dir)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Of the log engine.
    pub fn raft_dir(&self) -> &Path {
        &self.raft_dir
    }

    /// Of the data engine.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Of snapshots on their way in or out.
    pub fn snapshots_dir(&self) -> &Path {
        &self.snapshots_dir
    }

    /// Who owns the directory; none before the cluster admitted it.
    pub fn identity(&self) -> Option<Identity> {
        *self.identity.lock()
    }

    fn read_identity(&self) -> Result<Option<Identity>> {
        let path = self.identity_path();
        let Some(text) = read_bounded(&path, IDENTITY_BYTES_MAX)? else { return Ok(None) };
        let identity = serde_json::from_slice(&text)
            .map_err(|e| StorageError::corrupt("identity.json", e.to_string()))?;
        Ok(Some(identity))
    }

    /// Remembers who owns the directory. On disk when it returns.
    pub fn set_identity(&self, identity: Identity) -> Result<()> {
        let mut text = serde_json::to_vec_pretty(&identity).expect("ids and numbers are JSON");
        text.push(b'\n');
        self.replace(&self.identity_path(), &text)?;
        *self.identity.lock() = Some(identity);
        Ok(())
    }

    /// The last start that was noted here; none if there was none, or if this software cannot read
    /// what was noted.
    pub fn last_start(&self) -> Result<Option<LastStart>> {
        let path = self.last_start_path();
        let read = match read_bounded(&path, LAST_START_BYTES_MAX) {
            Err(StorageError::Corrupt { why, .. }) => Err(why),
            Err(error) => return Err(error),
            Ok(None) => return Ok(None),
            Ok(Some(text)) => last_start::decode(&text),
        };
        match read {
            Ok(start) => Ok(Some(start)),
            Err(why) => {
                tracing::warn!(path = %path.display(), why, "the note of the last start is ignored");
                Ok(None)
            }
        }
    }

    /// Notes the start of a node. On disk when it returns.
    pub fn set_last_start(&self, start: &LastStart) -> Result<()> {
        self.replace(&self.last_start_path(), &last_start::encode(start))
    }

    fn last_start_path(&self) -> PathBuf {
        self.path.join("last-start.json")
    }

    /// What is known to be damaged here; none if nothing is.
    pub fn damage(&self) -> Result<Option<Damage>> {
        match read_bounded(&self.damage_path(), DAMAGE_BYTES_MAX) {
            Ok(text) => Ok(text.map(|text| Damage::read(&text))),
            Err(StorageError::Corrupt { .. }) => Ok(Some(Damage::read(&[]))),
            Err(error) => Err(error),
        }
    }

    /// Notes that something here is damaged, unless that is known already. On disk when it returns.
    pub fn note_damage(&self, what: &str) -> Result<()> {
        if self.damage()?.is_some() {
            return Ok(());
        }
        self.replace(&self.damage_path(), &Damage::new(what).write())
    }

    /// Takes the note back. On disk when it returns.
    pub fn clear_damage(&self) -> Result<()> {
        let path = self.damage_path();
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(StorageError::at(path)(e)),
        }
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(StorageError::at(path))
    }

    fn damage_path(&self) -> PathBuf {
        self.path.join("DAMAGE")
    }

    fn identity_path(&self) -> PathBuf {
        self.path.join("identity.json")
    }

    fn check_format(&self, kind: &str) -> Result<()> {
        let path = self.path.join("FORMAT");
        let refuse = |why: String| StorageError::Incompatible { path: self.path.clone(), why };
        let text = match read_bounded(&path, FORMAT_BYTES_MAX) {
            Ok(Some(text)) => String::from_utf8_lossy(&text).into_owned(),
            Err(StorageError::Corrupt { .. }) => {
                return Err(refuse("its FORMAT file is not one of ours".to_owned()));
            }
            Ok(None) => {
                if !is_ours_to_fill(&self.path)? {
                    return Err(foreign(&self.path));
                }
                let text = format!("isotherm {kind} format {FORMAT}\n");
                return self.replace(&path, text.as_bytes());
            }
            Err(error) => return Err(error),
        };
        let words: Vec<_> = text.split_whitespace().collect();
        let ["isotherm", found, "format", format] = words[..] else {
            return Err(refuse("its FORMAT file is not one of ours".to_owned()));
        };
        if found != kind {
            let why = format!("it belongs to a {found} process, not to a {kind}");
            return Err(refuse(why));
        }
        match format.parse::<u32>() {
            Ok(format) if format <= FORMAT => Ok(()),
            Ok(format) => Err(refuse(format!(
                "it has format {format}, this software knows {FORMAT} at most: use a newer release"
            ))),
            Err(_) => Err(refuse(format!("its FORMAT file names the format {format:?}"))),
        }
    }

    /// Writes a file so that a crash leaves the old or the new content, never a part.
    fn replace(&self, path: &Path, content: &[u8]) -> Result<()> {
        let replace = || {
            let tmp = path.with_extension(match path.extension() {
                Some(extension) => format!("{}.tmp", extension.display()),
                None => "tmp".to_owned(),
            });
            let mut file = File::create(&tmp)?;
            file.write_all(content)?;
            file.sync_all()?;
            fs::rename(&tmp, path)?;
            // The rename itself is on disk once the directory is.
            File::open(&self.path)?.sync_all()
        };
        replace().map_err(StorageError::at(path))
    }
}

/// What is in a file that has `max` bytes at most; none if there is no such file.
fn read_bounded(path: &Path, max: usize) -> Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(StorageError::at(path)(e)),
    };
    let read = file.take(max as u64 + 1).read_to_end(&mut text);
    read.map_err(StorageError::at(path))?;
    if text.len() > max {
        let why = format!("{} has more than {max} bytes", path.display());
        return Err(StorageError::corrupt("a file of the data directory", why));
    }
    Ok(Some(text))
}

/// Whether nothing is in the directory but what a start that was cut short leaves.
fn is_ours_to_fill(path: &Path) -> Result<bool> {
    for entry in fs::read_dir(path).map_err(StorageError::at(path))? {
        let name = entry.map_err(StorageError::at(path))?.file_name();
        if name != "LOCK" && name != "FORMAT.tmp" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn foreign(path: &Path) -> StorageError {
    let why = "it is neither empty nor a data directory (it has no FORMAT file)".to_owned();
    StorageError::Incompatible { path: path.to_owned(), why }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::dir::{KnownPeer, Place};
    use isotherm_types::limits::{ADDRESS_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX};
    use isotherm_types::{ClusterId, Incarnation, NodeId, RaftTiming};

    fn why(result: Result<DataDir>) -> String {
        match result {
            Err(StorageError::Incompatible { why, .. }) => why,
            other => panic!("not refused as incompatible: {other:?}"),
        }
    }

    #[test]
    fn a_directory_in_use_is_refused_until_it_is_released() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("n1");
        let first = DataDir::open(&path, "node").unwrap();
        let second = DataDir::open(&path, "node");
        assert!(matches!(second, Err(StorageError::InUse { .. })));
        drop(first);
        DataDir::open(&path, "node").unwrap();
    }

    #[test]
    fn another_kind_a_newer_format_and_foreign_files_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        drop(DataDir::open(tmp.path(), "meta").unwrap());
        assert!(why(DataDir::open(tmp.path(), "node")).contains("meta"));
        fs::write(tmp.path().join("FORMAT"), "isotherm node format 2\n").unwrap();
        assert!(why(DataDir::open(tmp.path(), "node")).contains("newer"));
        fs::write(tmp.path().join("FORMAT"), "hello\n").unwrap();
        assert!(why(DataDir::open(tmp.path(), "node")).contains("not one of ours"));
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("photo.jpg"), "x").unwrap();
        assert!(why(DataDir::open(other.path(), "node")).contains("neither empty"));
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1, "nothing was put there");
    }

    #[test]
    fn a_note_of_damage_stays_until_it_is_cleared() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        assert_eq!(dir.damage().unwrap(), None);
        dir.note_damage("block 7 of file 12").unwrap();
        dir.note_damage("what came of it").unwrap();
        drop(dir);
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        assert_eq!(dir.damage().unwrap().unwrap().what, "block 7 of file 12");
        // It says what it says even if it cannot be read.
        fs::write(tmp.path().join("DAMAGE"), "\0\0").unwrap();
        assert!(dir.damage().unwrap().is_some());
        // The largest note, in bytes that JSON writes as six each, and what would have been one byte more.
        dir.clear_damage().unwrap();
        dir.note_damage(&"\u{1}".repeat(TEXT_BYTES_MAX)).unwrap();
        let what = dir.damage().unwrap().unwrap().what;
        assert_eq!(what, "\u{1}".repeat(TEXT_BYTES_MAX));
        dir.clear_damage().unwrap();
        dir.note_damage(&"\u{1}".repeat(TEXT_BYTES_MAX + 1)).unwrap();
        assert!(dir.damage().unwrap().unwrap().what.ends_with('…'));
        let file = fs::File::create(tmp.path().join("DAMAGE")).unwrap();
        file.set_len(DAMAGE_BYTES_MAX as u64 + 1).unwrap();
        assert!(dir.damage().unwrap().unwrap().what.contains("cannot be read"));
        dir.clear_damage().unwrap();
        dir.clear_damage().unwrap();
        assert_eq!(dir.damage().unwrap(), None);
    }

    #[test]
    fn the_identity_survives_a_reopen_and_garbage_in_it_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        assert_eq!(dir.identity(), None);
        let identity =
            Identity { cluster: ClusterId(9), node: NodeId(3), timing: RaftTiming::FAST };
        dir.set_identity(identity).unwrap();
        drop(dir);
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        assert_eq!(dir.identity(), Some(identity));
        fs::write(tmp.path().join("identity.json"), "{}").unwrap();
        drop(dir);
        let again = DataDir::open(tmp.path(), "node");
        assert!(matches!(again, Err(StorageError::Corrupt { .. })));
    }

    #[test]
    fn the_last_start_survives_a_reopen_and_what_cannot_be_read_counts_as_none() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        assert_eq!(dir.last_start().unwrap(), None);
        let peer = KnownPeer {
            node: NodeId(2),
            address: "b:7410".to_owned(),
            incarnation: Incarnation(4),
        };
        let place = Place::of(tmp.path()).unwrap();
        let start =
            LastStart { incarnation: Incarnation(7), cluster_version: 0, place, peers: vec![peer] };
        dir.set_last_start(&start).unwrap();
        drop(dir);
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        assert_eq!(dir.last_start().unwrap(), Some(start));
        let path = tmp.path().join("last-start.json");
        for useless in ["{\"format\": 2, \"incarnation\": \"seven\"}", "{\"format\": 1}", "", "\0"]
        {
            fs::write(&path, useless).unwrap();
            assert_eq!(dir.last_start().unwrap(), None, "{useless:?}");
        }
    }

    #[test]
    fn a_file_of_one_byte_more_than_it_can_have_is_refused_or_counts_as_none() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        let identity = Identity {
            cluster: ClusterId(u64::MAX),
            node: NodeId(u64::MAX),
            timing: RaftTiming {
                heartbeat_ms: u64::MAX,
                election_min_ms: u64::MAX,
                election_max_ms: u64::MAX,
            },
        };
        dir.set_identity(identity).unwrap();
        let place = Place { machine: "m".repeat(256), device: u64::MAX, inode: u64::MAX };
        // What JSON writes at its longest: control characters.
        let peer = KnownPeer {
            node: NodeId(u64::MAX),
            address: "\u{1}".repeat(ADDRESS_BYTES_MAX),
            incarnation: Incarnation(u64::MAX),
        };
        let start = LastStart {
            incarnation: Incarnation(u64::MAX),
            cluster_version: u32::MAX,
            place,
            peers: vec![peer; NODES_MAX],
        };
        dir.set_last_start(&start).unwrap();
        drop(dir);
        let dir = DataDir::open(tmp.path(), "node").unwrap();
        assert_eq!(dir.identity(), Some(identity), "the largest");
        assert_eq!(dir.last_start().unwrap(), Some(start), "the largest");
        let pad = |name: &str, to: usize| {
            let path = tmp.path().join(name);
            let mut text = fs::read(&path).unwrap();
            assert!(text.len() <= to, "{name} has {} bytes", text.len());
            text.resize(to, b' ');
            fs::write(path, text).unwrap();
        };
        pad("last-start.json", LAST_START_BYTES_MAX);
        assert!(dir.last_start().unwrap().is_some());
        pad("last-start.json", LAST_START_BYTES_MAX + 1);
        assert_eq!(dir.last_start().unwrap(), None);
        drop(dir);
        for (name, max) in [("identity.json", IDENTITY_BYTES_MAX), ("FORMAT", FORMAT_BYTES_MAX)] {
            pad(name, max);
            drop(DataDir::open(tmp.path(), "node").unwrap());
            let good = fs::read(tmp.path().join(name)).unwrap();
            pad(name, max + 1);
            assert!(DataDir::open(tmp.path(), "node").is_err(), "{name}");
            fs::write(tmp.path().join(name), good).unwrap();
        }
    }

    #[test]
    fn a_copy_of_a_directory_is_in_another_place() {
        let tmp = tempfile::tempdir().unwrap();
        let (here, there) = (tmp.path().join("here"), tmp.path().join("there"));
        fs::create_dir_all(&here).unwrap();
        fs::create_dir_all(&there).unwrap();
        assert_eq!(Place::of(&here).unwrap(), Place::of(&here).unwrap());
        assert_ne!(Place::of(&here).unwrap(), Place::of(&there).unwrap());
        let moved = tmp.path().join("moved");
        let before = Place::of(&here).unwrap();
        fs::rename(&here, &moved).unwrap();
        assert_eq!(Place::of(&moved).unwrap(), before, "a new name is not a new place");
    }
}
