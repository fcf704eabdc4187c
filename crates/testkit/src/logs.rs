//! Reads the processes' logs for what no run may contain.

use std::fs;
use std::io;
use std::path::Path;

/// Why a log line is alarming.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogAlarmKind {
    /// A thread panicked: a defect, whatever was done to the process.
    Panic,
    /// A line of level ERROR: a person must look.
    Error,
}

/// One alarming line of a process's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogAlarm {
    /// What makes it alarming.
    pub kind: LogAlarmKind,
    /// The line as it stands in the log.
    pub line: String,
}

/// The alarming lines of the log at `path`, in order.
pub fn alarms_in(path: &Path) -> io::Result<Vec<LogAlarm>> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).lines().filter_map(alarm).collect())
}

/// The last `lines` lines of the log at `path`; what cannot be read is said in their place.
pub fn tail(path: &Path, lines: usize) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("(no log at {}: {error})", path.display()),
    }
}

fn alarm(line: &str) -> Option<LogAlarm> {
    let kind = if line.contains("panicked at") {
        LogAlarmKind::Panic
    } else if is_error(line) {
        LogAlarmKind::Error
    } else {
        return None;
    };
    Some(LogAlarm { kind, line: line.to_owned() })
}

/// The level is the second word of a text line (after the time) or a field of a JSON line.
fn is_error(line: &str) -> bool {
    line.contains(r#""level":"ERROR""#) || line.split_whitespace().take(2).any(|w| w == "ERROR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_are_seen_and_words_in_messages_are_not() {
        let kind = |line: &str| alarm(line).map(|a| a.kind);
        let error = Some(LogAlarmKind::Error);
        assert_eq!(kind("2026-01-01T00:00:00Z ERROR isotherm: log sync failed"), error);
        assert_eq!(kind(r#"{"timestamp":"x","level":"ERROR","fields":{}}"#), error);
        assert_eq!(kind("thread 'x' panicked at src/a.rs:1:1:"), Some(LogAlarmKind::Panic));
        assert_eq!(kind("2026-01-01T00:00:00Z  INFO isotherm: counted one ERROR"), None);
    }
}
