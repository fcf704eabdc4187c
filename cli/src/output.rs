//! Tables for people, JSON for scripts.

use crate::failure::Failure;
use crate::text::Encoding;
use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde_json::Value;
use std::io::{IsTerminal, Write};

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For scripts.
    Json,
}

impl Format {
    /// Where nobody asked for one: a person is at a terminal, anything else is a script.
    pub fn of_stdout() -> Self {
        if std::io::stdout().is_terminal() { Self::Table } else { Self::Json }
    }
}

/// A timestamp or an id of 64 bits in JSON: a string of digits, since common parsers take numbers above 2⁵³
/// for others.
pub fn digits(number: u64) -> Value {
    number.to_string().into()
}

/// Prints one JSON value on a line.
pub fn json(value: &Value) -> Result<(), Failure> {
    line(&value.to_string())
}

/// Prints one line.
pub fn line(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    Ok(writeln!(out, "{text}")?)
}

/// Prints a key, a value, or some of them separated by tabs.
pub fn values(encoding: Encoding, values: &[&[u8]]) -> Result<(), Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    let shown: Vec<_> = values.iter().map(|value| encoding.plain(value, is_terminal)).collect();
    line(&shown.join("\t"))
}

/// Says something on stderr. Nobody may listen there any more, which is nobody's failure.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a table.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    let text = table.to_string();
    text.lines().try_for_each(|row| line(row.trim_end()))
}

/// Bytes as people read them.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// So many of them, in words: `1 node`, `3 nodes`.
pub fn count(n: usize, what: &str) -> String {
    let plural = if what.ends_with('s') { "es" } else { "s" };
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}{plural}") }
}

/// Talk for people on stderr, if it is a terminal.
pub fn is_talkative() -> bool {
    std::io::stderr().is_terminal()
}
