//! The tour of the README, typed as it stands: what each command prints is what the README shows.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use isotherm_testkit::{PortBlock, isotherm_binary};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The tour's first port.
const BASE_PORT: u16 = 7400;
/// Where the person of the tour is.
const HOME: &str = "/home/me";
/// Ranges that a new cluster begins with; which ids later ones get is not said.
const FIRST_RANGES: u32 = 8;

/// A command of the tour, with what it is shown to print.
struct Step {
    command: String,
    shown: Vec<String>,
}

fn readme() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    fs::read_to_string(path).unwrap()
}

fn steps(readme: &str) -> Vec<Step> {
    let tour = readme.split_once("\n## A tour\n").unwrap().1;
    let tour = tour.split_once("\n## ").unwrap().0;
    let mut steps: Vec<Step> = Vec::new();
    // Every other part stands between fences.
    for block in tour.split("```").skip(1).step_by(2) {
        for line in block.lines().skip(1) {
            match line.strip_prefix("$ ") {
                Some(command) => {
                    steps.push(Step { command: command.to_owned(), shown: Vec::new() });
                }
                None => steps.last_mut().unwrap().shown.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Where the tour is taken: an empty directory, with the binary and a list of packages that is always the
/// same on its path, and ports of its own.
struct Place {
    root: TempDir,
    base_port: u16,
    _ports: PortBlock,
}

impl Place {
    fn new() -> Self {
        let mut ports = PortBlock::take().unwrap();
        let base_port = ports.next_address().unwrap().port();
        let root = tempfile::tempdir().unwrap();
        let place = Self { root, base_port, _ports: ports };
        fs::create_dir(place.root.path().join("bin")).unwrap();
        fs::create_dir(place.home()).unwrap();
        symlink(isotherm_binary().unwrap(), place.root.path().join("bin/isotherm")).unwrap();
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readme_tour/packages.tsv");
        let list = place.root.path().join("bin/dpkg-query");
        fs::write(&list, format!("#!/bin/sh\ncat '{}'\n", packages.display())).unwrap();
        fs::set_permissions(&list, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }

    fn home(&self) -> PathBuf {
        self.root.path().canonicalize().unwrap().join("home")
    }

    fn run(&self, command: &str) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", self.root.path().join("bin").display());
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(self.home()).env("PATH", path);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ISOTHERM_")) {
            shell.env_remove(name);
        }
        // As on a terminal, and on ports that no other test has.
        shell.env("ISOTHERM_OUTPUT", "table").env("ISOTHERM_BASE_PORT", self.base_port.to_string());
        shell.env("ISOTHERM_META", format!("127.0.0.1:{}", self.base_port));
        shell.output().unwrap()
    }

    /// What was printed, as it would have been in the tour.
    fn printed(&self, output: &Output) -> Vec<String> {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let text = text.replace(self.home().to_str().unwrap(), HOME);
        let mut lines = text.lines().map(str::to_owned).collect::<Vec<_>>();
        for line in &mut lines {
            let ports = |word: &str| {
                let port: u16 =
                    word.strip_prefix("127.0.0.1:")?.trim_end_matches(';').parse().ok()?;
                let shown = BASE_PORT + (port - self.base_port);
                Some(word.replace(&port.to_string(), &shown.to_string()))
            };
            for word in line.clone().split_whitespace() {
                if let Some(shown) = ports(word) {
                    *line = line.replace(word, &shown);
                }
            }
        }
        lines
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.run("isotherm down");
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// The words of a line, without what is another one every time: what was measured, and ids.
fn lasting(line: &str) -> Vec<String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let is_node = words.get(1).is_some_and(|word| word.starts_with("127.0.0.1:"));
    let lasting = |(at, word): (usize, &&str)| {
        let next = words.get(at + 1).map_or("", |word| word.trim_end_matches([',', ':', ';']));
        let before = at.checked_sub(1).map_or("", |at| words[at]);
        let units = ["s", "B", "KiB", "MiB", "GiB", "TiB", "cores", "over", "of", "rows/s"];
        // A share of the processors of this machine.
        let is_measured = units.contains(&next) || before == "of";
        let id = word.strip_prefix('r').and_then(|id| id.parse::<u32>().ok());
        let is_unit =
            ["B", "KiB", "MiB", "GiB", "TiB"].contains(&word.trim_end_matches([',', ';']));
        match *word {
            _ if is_unit => "bytes".to_owned(),
            // Which node leads how many is decided by the first elections.
            _ if is_node && at == 4 => "#".to_owned(),
            word if is_number(word.trim_end_matches([',', ':'])) && is_measured => "#".to_owned(),
            _ if id.is_some_and(|id| id > FIRST_RANGES) => "r#".to_owned(),
            word => word.to_owned(),
        }
    };
    words.iter().enumerate().map(lasting).collect()
}

fn is_line_as_shown(shown: &str, printed: &str) -> bool {
    let (shown, printed) = (lasting(shown), lasting(printed));
    let is_same = |(shown, printed): (&String, &String)| shown == "…" || shown == printed;
    shown.len() == printed.len() && shown.iter().zip(&printed).all(is_same)
}

/// Whether a command printed what is shown; a line of `…` stands for any lines, a word of it for any word.
fn is_as_shown(shown: &[String], printed: &[String]) -> bool {
    let (Some(first), rest) = (shown.first(), shown.get(1..).unwrap_or_default()) else {
        return printed.is_empty();
    };
    if first.trim() == "…" {
        return (0..=printed.len()).any(|skipped| is_as_shown(rest, &printed[skipped..]));
    }
    let Some(line) = printed.first() else { return false };
    is_line_as_shown(first, line) && is_as_shown(rest, &printed[1..])
}

#[test]
fn the_tour_of_the_readme_shows_what_its_commands_print() {
    let steps = steps(&readme());
    assert!(steps.len() > 15, "{} commands", steps.len());
    let place = Place::new();
    let mut wrong = Vec::new();
    for Step { command, shown } in &steps {
        let output = place.run(command);
        let printed = place.printed(&output);
        println!("$ {command}\n{}", printed.join("\n"));
        if !output.status.success() || !is_as_shown(shown, &printed) {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            wrong.push(format!(
                "$ {command}\nshould print\n{}\nprinted ({})\n{}\n{said}",
                shown.join("\n"),
                output.status,
                printed.join("\n"),
            ));
        }
    }
    assert!(wrong.is_empty(), "{} commands of the tour:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn only_what_was_measured_may_differ() {
    let is_same = |a: &str, b: &str| lasting(a) == lasting(b);
    assert!(is_same("720 rows in 0.0 s, 70746 rows/s", "720 rows in 12.5 s, 1 rows/s"));
    assert!(!is_same("720 rows in 0.0 s, 70746 rows/s", "721 rows in 0.0 s, 70746 rows/s"));
    assert!(!is_same(" p99  114730.17592041554", " p99  114730.17592041555"));
    assert!(!is_same("healthy", "well") && is_line_as_shown("p50 … max", "p50 30.70 max"));
    let node = " n1 127.0.0.1:7410 up 11 3 0.08 of 2.0 68.5 GiB 0.2 s ago";
    assert!(is_same(node, " n1 127.0.0.1:7410 up 11 6 0.8 of 8.0 1 TiB 0.1 s ago"));
    assert!(!is_same(node, " n1 127.0.0.1:7410 up 12 3 0.08 of 2.0 68.5 GiB 0.2 s ago"));
    assert!(is_same("r18 -> r7", "r20 -> r7") && !is_same("r18 -> r7", "r18 -> r6"));
    let lines = |lines: &[&str]| lines.iter().map(|l| l.to_string()).collect::<Vec<_>>();
    assert!(is_as_shown(&lines(&["a", "…", "d"]), &lines(&["a", "b", "c", "d"])));
    assert!(!is_as_shown(&lines(&["a", "…"]), &lines(&["b"])) && !is_as_shown(&[], &lines(&["b"])));
}
