//! Flags from a file: `--config FILE.toml`.
//!
//! Every key of the file is the name of a flag of the command that runs. A flag given wins over its
//! environment variable, that over the file, and the file over the default. A key that is no flag
//! is an error, not ignored: a setting that silently does nothing is worse.

use crate::environment::{is_typed, is_typed_only, subcommand};
use crate::failure::Failure;
use clap::Command;
use std::ffi::OsString;

/// Adds the flags of the file that `given` names.
pub fn complete(mut command: Command, given: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let Some(path) = config_path(&given) else { return Ok(given) };
    let shown = path.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(&path)
        .map_err(|e| Failure::usage(format!("cannot read the configuration {shown}: {e}")))?;
    let file: toml::Table =
        text.parse().map_err(|e| Failure::usage(format!("{shown} is not TOML: {e}")))?;
    command.build();
    let (at, sub) = subcommand(&command, &given);
    let mut added = Vec::new();
    for (key, value) in file {
        let known = |c: &Command| c.get_arguments().find(|a| a.get_long() == Some(&key)).cloned();
        let Some(found) = known(sub) else {
            let name = sub.get_name();
            return Err(Failure::usage(format!(
                "{shown}: {key:?} is not a setting of `isotherm {name}`; see `isotherm {name} --help`"
            )));
        };
        if is_typed_only(sub.get_name(), &key) {
            let why =
                format!("{shown}: {key:?} destroys something: it counts only where it is typed");
            return Err(Failure::usage(why));
        }
        let is_set = known_by_variable(&found);
        if is_set || is_typed(&given, &found) {
            continue;
        }
        for value in values(&key, value).map_err(|e| Failure::usage(format!("{shown}: {e}")))? {
            match value {
                Some(value) => added.push(OsString::from(format!("--{key}={value}"))),
                None => added.push(OsString::from(format!("--{key}"))),
            }
        }
    }
    let mut all = given;
    // Before the flags that were typed: the last one counts.
    all.splice(at..at, added);
    Ok(all)
}

/// Whether a variable decides, be it that a switch is off.
fn known_by_variable(flag: &clap::Arg) -> bool {
    flag.get_env().and_then(std::env::var_os).is_some_and(|value| !value.is_empty())
}

fn config_path(given: &[OsString]) -> Option<OsString> {
    let mut rest = given.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_string_lossy();
        if text == "--config" {
            return rest.next().cloned();
        }
        if let Some(path) = text.strip_prefix("--config=") {
            return Some(path.into());
        }
    }
    std::env::var_os("ISOTHERM_CONFIG").filter(|path| !path.is_empty())
}

fn values(key: &str, value: toml::Value) -> Result<Vec<Option<String>>, String> {
    Ok(match value {
        toml::Value::String(s) => vec![Some(s)],
        toml::Value::Integer(n) => vec![Some(n.to_string())],
        toml::Value::Float(n) => vec![Some(n.to_string())],
        toml::Value::Boolean(true) => vec![None],
        toml::Value::Boolean(false) => vec![],
        toml::Value::Array(items) => {
            let nested: Result<Vec<_>, _> = items.into_iter().map(|v| values(key, v)).collect();
            nested?.into_iter().flatten().collect()
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => {
            return Err(format!("{key:?} must be text, a number, true, false, or a list of these"));
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    fn completed(file: &str, given: &[&str]) -> Result<Vec<String>, String> {
        let tmp = std::env::temp_dir().join(format!("isotherm-config-{}", fastrand::u64(..)));
        std::fs::write(&tmp, file).unwrap();
        let mut all: Vec<OsString> = given.iter().map(OsString::from).collect();
        all.extend(["--config".into(), tmp.clone().into_os_string()]);
        let done = complete(crate::args::Args::command(), all);
        std::fs::remove_file(tmp).unwrap();
        let done = done.map_err(|failure| failure.message)?;
        Ok(done.iter().map(|a| a.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn what_was_typed_replaces_what_the_file_says() {
        let file = "listen = \"127.0.0.1:1\"\nlabel = [\"zone=a\", \"rack=1\"]";
        let all = completed(file, &["isotherm", "node", "--listen=x"]).unwrap();
        assert_eq!(
            &all[..5],
            ["isotherm", "node", "--label=zone=a", "--label=rack=1", "--listen=x"]
        );
        let all = completed("meta = \"a:1\"", &["isotherm", "--meta", "b:2", "status"]).unwrap();
        assert_eq!(&all[..4], ["isotherm", "--meta", "b:2", "status"]);
        let all = completed("output = \"table\"", &["isotherm", "-ojson", "status"]).unwrap();
        assert_eq!(&all[..3], ["isotherm", "-ojson", "status"]);
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = completed("lissten = \"x\"", &["isotherm", "node"]).unwrap_err();
        assert!(error.contains("lissten") && error.contains("isotherm node"), "{error}");
        let error = completed("yes = true", &["isotherm", "delete", "k"]).unwrap_err();
        assert!(error.contains("where it is typed"), "{error}");
    }
}
