//! A variable for every flag: `--value-size` is `ISOTHERM_VALUE_SIZE` too.

use clap::builder::FalseyValueParser;
use clap::{Arg, ArgAction, Command};

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

/// Gives every flag that has none its variable. A switch is on by `1`, `true`, `yes`, `on`, and off by
/// `0`, `false`, `no`, `off` or nothing.
pub fn complete(command: Command) -> Command {
    command.mut_args(with_variable).mut_subcommands(complete)
}

fn with_variable(arg: Arg) -> Arg {
    let arg = match arg.get_action() {
        ArgAction::SetTrue => arg.value_parser(FalseyValueParser::new()),
        _ => arg,
    };
    match (arg.get_long(), arg.get_env()) {
        (Some(name), None) if !matches!(name, "help" | "version") => {
            let name = format!("ISOTHERM_{}", name.to_uppercase().replace('-', "_"));
            // Once for each flag of the process: clap keeps names that live as long as it does.
            arg.env(&*Box::leak(name.into_boxed_str()))
        }
        _ => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn flags_without_variable(command: &Command) -> Vec<String> {
        let named = command.get_arguments().filter_map(|a| Some((a, a.get_long()?)));
        let missing = named.filter(|(a, long)| a.get_env().is_none() && *long != "help");
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
}
