//! Nodes over copied directories, beside a cluster.

use isotherm_testkit::{ProcessCluster, isotherm_binary};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Copies a directory with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A process beside the cluster; dropping it kills it.
pub struct Beside {
    pub child: Child,
    /// What it says.
    pub log: PathBuf,
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a node over `dir` at another address; its log is beside the directory.
pub fn start_beside(cluster: &ProcessCluster, dir: &Path) -> Beside {
    let log = dir.with_extension("log");
    let output = std::fs::File::create(&log).unwrap();
    let child = Command::new(isotherm_binary().unwrap())
        .args(["node", "--listen", "127.0.0.1:0", "--data-dir", dir.to_str().unwrap()])
        .args(["--meta", &cluster.meta_addresses().join(",")])
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    Beside { child, log }
}
