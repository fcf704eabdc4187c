//! A variable for every flag: `--value-size` is `ISOTHERM_VALUE_SIZE` too.
//!
//! A variable counts as if its flag had been typed before all others, unless it is empty, or a switch that
//! is off. A typed flag wins, also over the variable of a flag that it conflicts with. Flags that allow a
//! destructive command, or select what it removes, have no variable.

use clap::builder::Resettable;
use clap::{Arg, ArgAction, Command};
use std::ffi::{OsStr, OsString};

/// Variables of flags that belong to one process: whoever starts others keeps them to itself.
pub const OF_ONE_PROCESS: [&str; 8] = [
    "ISOTHERM_CONFIG",
    "ISOTHERM_ID",
    "ISOTHERM_LISTEN",
    "ISOTHERM_HTTP",
    "ISOTHERM_ADVERTISE",
    "ISOTHERM_DATA_DIR",
    "ISOTHERM_CLEAR_DAMAGE",
    "ISOTHERM_JOIN",
];

/// Flags that are typed or not given, by command.
const TYPED_ONLY: [(&str, &str); 3] = [("delete", "yes"), ("delete", "all"), ("delete", "prefix")];

/// Whether a flag of a command counts only if it is typed.
pub fn is_typed_only(command: &str, flag: &str) -> bool {
    TYPED_ONLY.contains(&(command, flag))
}

/// Gives every flag that has none its variable.
pub fn complete(command: Command) -> Command {
    let name = command.get_name().to_owned();
    command.mut_args(|arg| with_variable(&name, arg)).mut_subcommands(complete)
}

fn with_variable(command: &str, arg: Arg) -> Arg {
    match (arg.get_long(), arg.get_env()) {
        (Some(name), None)
            if !matches!(name, "help" | "version") && !is_typed_only(command, name) =>
        {
            let name = format!("ISOTHERM_{}", name.to_uppercase().replace('-', "_"));
            // Once for each flag of the process: clap keeps names that live as long as it does.
            arg.env(&*Box::leak(name.into_boxed_str()))
        }
        _ => arg,
    }
}

/// The same command with its variables in its help alone: [`given`] has looked at them.
pub fn named_in_help(command: Command) -> Command {
    let name = |arg: Arg| match arg.get_env().map(|name| name.to_string_lossy().into_owned()) {
        None => arg,
        Some(name) => {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            arg.help(format!("{help} [env: {name}]")).env(Resettable::Reset)
        }
    };
    command.mut_args(name).mut_subcommands(named_in_help)
}

/// What a variable says for a flag: nothing, or the argument that it stands for.
pub fn argument(arg: &Arg, value: Option<OsString>) -> Option<OsString> {
    let value = value.filter(|value| !value.is_empty())?;
    let long = arg.get_long()?;
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        let off = ["0", "false", "no", "off", "n", "f"];
        let is_off =
            value.to_str().is_some_and(|v| off.contains(&v.trim().to_lowercase().as_str()));
        return (!is_off).then(|| format!("--{long}").into());
    }
    let mut argument = OsString::from(format!("--{long}="));
    argument.push(value);
    Some(argument)
}

/// Adds what the environment says to what was typed.
pub fn given(mut command: Command, typed: Vec<OsString>) -> Vec<OsString> {
    command.build();
    with_variables(&command, typed, |name| std::env::var_os(name))
}

fn with_variables(
    command: &Command,
    typed: Vec<OsString>,
    variable: impl Fn(&OsStr) -> Option<OsString>,
) -> Vec<OsString> {
    let (at, sub) = subcommand(command, &typed);
    let is_given = |arg: &Arg| is_typed(&typed, arg);
    let excludes = |one: &Arg, other: &Arg| {
        sub.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    let mut added = Vec::new();
    for arg in sub.get_arguments().filter(|arg| !is_given(arg)) {
        let Some(argument) = arg.get_env().and_then(|name| argument(arg, variable(name))) else {
            continue;
        };
        let mut typed = sub.get_arguments().filter(|other| is_given(other));
        if !typed.any(|other| excludes(arg, other) || excludes(other, arg)) {
            added.push(argument);
        }
    }
    let mut all = typed;
    // Before the flags that were typed: the last one counts.
    all.splice(at..at, added);
    all
}

/// Whether a flag stands on the command line, before or after the command.
pub fn is_typed(given: &[OsString], argument: &Arg) -> bool {
    let long = argument.get_long().map(|name| format!("--{name}"));
    let short = argument.get_short().map(|letter| format!("-{letter}"));
    given.iter().skip(1).take_while(|typed| *typed != "--").any(|typed| {
        let typed = typed.to_string_lossy();
        let name = typed.split_once('=').map_or(&*typed, |(name, _)| name);
        long.as_deref() == Some(name)
            || short.as_deref().is_some_and(|s| typed.starts_with(s) && !typed.starts_with("--"))
    })
}

/// The command that `given` runs, and where its flags begin.
pub fn subcommand<'a>(root: &'a Command, given: &[OsString]) -> (usize, &'a Command) {
    let (mut at, mut command) = (1, root);
    for (position, arg) in given.iter().enumerate().skip(1) {
        if let Some(found) = command.find_subcommand(arg) {
            (at, command) = (position + 1, found);
        }
    }
    (at, command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn flags_without_variable(command: &Command) -> Vec<String> {
        let named = command.get_arguments().filter_map(|a| Some((a, a.get_long()?)));
        let is_typed_only = |long| TYPED_ONLY.contains(&(command.get_name(), long));
        let missing = named
            .filter(|(a, long)| a.get_env().is_none() && *long != "help" && !is_typed_only(long));
        let mut found: Vec<_> =
            missing.map(|(_, long)| format!("{} --{long}", command.get_name())).collect();
        found.extend(command.get_subcommands().flat_map(flags_without_variable));
        found
    }

    #[test]
    fn every_flag_has_a_variable() {
        let command = complete(crate::args::Args::command());
        command.clone().debug_assert();
        assert_eq!(flags_without_variable(&command), Vec::<String>::new());
    }

    fn completed(variables: &[(&str, &str)], typed: &[&str]) -> Vec<String> {
        let mut command = complete(crate::args::Args::command());
        command.build();
        let typed = typed.iter().map(OsString::from).collect();
        let all = with_variables(&command, typed, |asked| {
            let found = variables.iter().find(|(name, _)| *name == asked);
            found.map(|(_, value)| OsString::from(value))
        });
        all.iter().map(|arg| arg.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn what_is_typed_wins_over_variables_and_excludes_them() {
        let get = ["isotherm", "get", "k"];
        assert_eq!(completed(&[("ISOTHERM_HEX", "1")], &get), ["isotherm", "get", "--hex", "k"]);
        for off in ["0", "false", "", "No"] {
            assert_eq!(completed(&[("ISOTHERM_HEX", off)], &get), get, "{off:?}");
        }
        let typed = ["isotherm", "get", "k", "--base64"];
        assert_eq!(completed(&[("ISOTHERM_HEX", "1")], &typed), typed, "they exclude each other");
        let typed = ["isotherm", "--timeout", "1s", "get", "k"];
        assert_eq!(completed(&[("ISOTHERM_TIMEOUT", "9s")], &typed), typed);
        let scan = ["isotherm", "scan", "--from", "a"];
        assert_eq!(completed(&[("ISOTHERM_PREFIX", "p/")], &scan), scan);
        let found = completed(&[("ISOTHERM_TIMEOUT", ""), ("ISOTHERM_OUTPUT", "json")], &get);
        assert_eq!(found, ["isotherm", "get", "--output=json", "k"]);
    }

    #[test]
    fn nothing_is_destroyed_by_a_variable() {
        let all = [("ISOTHERM_PREFIX", "p/"), ("ISOTHERM_YES", "1"), ("ISOTHERM_ALL", "1")];
        assert_eq!(completed(&all, &["isotherm", "delete"]), ["isotherm", "delete"]);
    }
}
