//! Finds the release binary that the processes are started from.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, bail};

/// Environment variable that names the binary to test.
pub const BINARY_ENV: &str = "ISOTHERM_BIN";

/// Path of the `isotherm` binary: `ISOTHERM_BIN` if set, otherwise the one that was built into the
/// same target directory as the running test.
pub fn isotherm_binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY_ENV) {
        let path = PathBuf::from(path);
        if !path.is_file() {
            bail!("{BINARY_ENV} names {}, which is not a file", path.display());
        }
        return Ok(path);
    }
    let exe = env::current_exe().context("find the path of this test")?;
    // A test lies in <target>/release/deps, a binary in <target>/release.
    let found =
        exe.ancestors().skip(1).take(3).map(|dir| dir.join("isotherm")).find(|p| p.is_file());
    found.with_context(|| {
        format!("no `isotherm` binary beside {}: build it, or set {BINARY_ENV}", exe.display())
    })
}
