//! One row of the contract: a command line, and how it ends.

use super::script::{Ended, Script};
use serde_json::Value;
use std::fmt;
use std::path::Path;

/// What a command line comes to. In what is printed `…` stands for any text and `#` for digits; nothing
/// stands for nothing.
#[derive(Clone, Copy)]
pub struct Row {
    /// As it is typed behind `isotherm`, with words in single quotes; `$DIR` is a directory of the test.
    pub line: &'static str,
    /// What it reads.
    pub stdin: &'static str,
    /// Its exit code.
    pub code: i32,
    /// What it prints for its caller.
    pub out: &'static str,
    /// What it says beside that.
    pub err: &'static str,
}

/// A row whose command reads nothing.
pub const fn row(line: &'static str, code: i32, out: &'static str, err: &'static str) -> Row {
    Row { line, stdin: "", code, out, err }
}

impl Row {
    /// The same row, whose command reads `stdin`.
    pub const fn reads(self, stdin: &'static str) -> Row {
        Row { stdin, ..self }
    }

    /// The words of its command line.
    pub fn words(&self, dir: &Path) -> Vec<String> {
        let line = self.line.replace("$DIR", dir.to_str().unwrap());
        let mut words = Vec::new();
        // Every second part stands in quotes.
        for (n, part) in line.split('\'').enumerate() {
            match n % 2 {
                0 => words.extend(part.split_whitespace().map(str::to_owned)),
                _ => words.push(part.to_owned()),
            }
        }
        words
    }

    /// Calls the command; what is not as it should be, if anything.
    pub fn check(&self, script: &Script, dir: &Path, more: &[&str]) -> Option<Mismatch> {
        let words = self.words(dir);
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.extend(more);
        let mut command = script.command(&args);
        if !self.stdin.is_empty() {
            // A file, so that no task has to write while the command runs.
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), self.stdin).unwrap();
            command.stdin(std::fs::File::open(file.path()).unwrap());
        }
        let ended = Ended::from(command.output().unwrap());
        self.compare(ended, dir)
    }

    /// What is not as it should be, if anything.
    pub fn compare(&self, ended: Ended, dir: &Path) -> Option<Mismatch> {
        let place = |pattern: &str| pattern.replace("$DIR", dir.to_str().unwrap());
        let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
        let has_json = self.line.contains("-o json") || self.out.starts_with(['{', '[']);
        let is_right = ended.code == self.code
            && matches(&place(self.out), &ended.out)
            && matches(&place(self.err), &ended.err)
            && (!has_json || ended.out.lines().all(is_json));
        (!is_right).then_some(Mismatch { row: *self, ended })
    }
}

/// A row that does not hold.
pub struct Mismatch {
    row: Row,
    ended: Ended,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, ended } = self;
        let short = |text: &str| text.chars().take(1500).collect::<String>();
        writeln!(f, "isotherm {}", row.line)?;
        writeln!(f, "  should end with {} and print {:?}, and {:?}", row.code, row.out, row.err)?;
        write!(
            f,
            "  ended with {}: {:?}, and {:?}",
            ended.code,
            short(&ended.out),
            short(&ended.err)
        )
    }
}

/// Whether `text` is as `pattern` has it.
pub fn matches(pattern: &str, text: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').collect();
    let Some(mut rest) = after(parts[0], text) else { return false };
    let [_, middle @ .., last] = &parts[..] else { return rest.is_empty() };
    for part in middle {
        let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        match starts.clone().find_map(|at| after(part, &rest[at..])) {
            Some(found) => rest = found,
            None => return false,
        }
    }
    let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.any(|at| after(last, &rest[at..]) == Some(""))
}

/// What comes behind `part` at the beginning of `text`.
fn after<'a>(part: &str, text: &'a str) -> Option<&'a str> {
    let mut rest = text;
    for c in part.chars() {
        rest = match c {
            '#' => {
                let none = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                (none.len() < rest.len()).then_some(none)?
            }
            c => rest.strip_prefix(c)?,
        };
    }
    Some(rest)
}
