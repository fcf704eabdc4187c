//! Every flag of the command that takes a number, with every number that people type by mistake: a clear
//! answer, soon, and no panic.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use isotherm_testkit::isotherm_binary;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:1";

fn run(args: &[&str]) -> Output {
    let mut command = Command::new(isotherm_binary().unwrap());
    command.args(args).env("ISOTHERM_META", NOWHERE).stdin(Stdio::null());
    command.output().unwrap()
}

/// Commands with what they need beside their flags.
fn commands() -> Vec<Vec<&'static str>> {
    vec![
        vec!["get", "k"],
        vec!["import", "-"],
        vec!["hot", "--once"],
        vec!["range", "list"],
        vec!["range", "move", "r1", "--from", "1", "--to", "2"],
        vec!["range", "merge", "r1"],
        vec!["bench", "put", "--seconds", "1", "--clients", "1"],
        // These would start something if their numbers were taken: no directory lets them.
        vec!["up", "--dir", "/proc/nothing"],
        vec!["meta", "--data-dir", "/proc/nothing"],
        vec!["node", "--data-dir", "/proc/nothing"],
    ]
}

/// The flags of a command whose help names bounds: `from A to B`.
fn bounded_flags(help: &str) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let (mut flag, mut text) = (String::new(), String::new());
    for line in help.lines().map(str::trim).chain(["--end"]) {
        if let Some(at) = line.find("--").filter(|_| line.starts_with('-')) {
            let words: Vec<_> = text.split_whitespace().collect();
            let bounds = words.windows(4).find(|w| {
                let is_number = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
                w[0].eq_ignore_ascii_case("from")
                    && w[2] == "to"
                    && is_number(w[1])
                    && is_number(w[3])
            });
            if let Some(w) = bounds {
                let end = |word: &str| word.trim_end_matches(['.', ',', ';', ':']).to_owned();
                found.push((flag.clone(), end(w[1]), end(w[3])));
            }
            flag = line[at..].split([' ', '=']).next().unwrap().to_owned();
            text.clear();
        }
        text.push_str(line);
        text.push(' ');
    }
    found
}

fn is_clear(args: &[&str], output: &Output, took: Duration) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(code.is_some_and(|code| code <= 8), "{args:?} ended with {:?}: {said}", output.status);
    assert!(!said.contains("panicked"), "{args:?}: {said}");
    assert!(code == Some(0) || !said.trim().is_empty(), "{args:?} says nothing");
    assert!(took < Duration::from_secs(5), "{args:?} took {took:?}");
}

#[test]
fn numbers_out_of_bounds_are_refused_and_the_help_names_the_bounds() {
    let mut checked = 0;
    for command in commands() {
        let help = run(&[command.as_slice(), &["--help"]].concat());
        let help = String::from_utf8(help.stdout).unwrap();
        let flags = bounded_flags(&help);
        assert!(!flags.is_empty(), "{command:?}: {help}");
        for (flag, least, most) in flags {
            // The same for every command.
            if flag == "--timeout" && command[0] != "get" {
                continue;
            }
            let is_duration = least.ends_with(char::is_alphabetic);
            let beyond = match is_duration {
                true => vec!["0ns".to_owned(), "2days".to_owned(), "500000000000y".to_owned()],
                false => {
                    let over = most.parse::<f64>().unwrap() + 1.0;
                    let under = least.parse::<f64>().unwrap() - 1.0;
                    vec![over.to_string(), under.to_string()]
                }
            };
            let wrong = ["-1", "18446744073709551616", "1e300", "nan", "x", "--"];
            for value in beyond.iter().map(String::as_str).chain(wrong) {
                let given = format!("{flag}={value}");
                let args = [command.as_slice(), &[given.as_str(), "--timeout=1s"]].concat();
                // The last one counts.
                let args = match flag.as_str() {
                    "--timeout" => [command.as_slice(), &[given.as_str()]].concat(),
                    _ => args,
                };
                let begun = Instant::now();
                let output = run(&args);
                is_clear(&args, &output, begun.elapsed());
                assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(said.contains(&flag), "{args:?}: {said}");
                checked += 1;
            }
            // The bounds themselves are taken: what follows is another failure, or none.
            for value in [&least, &most] {
                // So long would it then try, or run.
                if matches!(&*flag, "--timeout" | "--seconds") && *value == most {
                    continue;
                }
                let given = format!("{flag}={value}");
                let mut args = [command.as_slice(), &[given.as_str()]].concat();
                if flag != "--timeout" {
                    args.push("--timeout=1s");
                }
                let begun = Instant::now();
                let output = run(&args);
                is_clear(&args, &output, begun.elapsed());
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(!said.contains("invalid value"), "{args:?}: {said}");
                checked += 1;
            }
        }
    }
    println!("{checked} calls");
    assert!(checked > 150, "{checked}");
}
