//! The rows of `docs/sizes.md`: how large a message or a record can be, and why. The crates that define
//! them list them, and a test of each compares its list with its part of the document.

use std::fmt::Write;

/// One message or record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeRow {
    /// Its type.
    pub name: String,
    /// Its largest size in bytes, encoded.
    pub bytes_max: usize,
    /// Which limits make it so.
    pub why: String,
}

/// `document` with the rows of `part` as they are in `rows`; `None` if it has no such part. A part stands
/// between the lines `<!-- rows: PART -->` and `<!-- end -->`.
pub fn with_rows(document: &str, part: &str, rows: &[SizeRow]) -> Option<String> {
    let begin = format!("<!-- rows: {part} -->\n");
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once("<!-- end -->")?;
    let mut table = "\n| type | bytes at most | why |\n|---|---:|---|\n".to_owned();
    for SizeRow { name, bytes_max, why } in rows {
        // Writing to a string does not fail.
        let _ = writeln!(table, "| `{name}` | {} | {why} |", grouped(*bytes_max));
    }
    Some(format!("{before}{begin}{table}\n<!-- end -->{after}"))
}

/// The parts of `document`, in order.
pub fn parts(document: &str) -> impl Iterator<Item = &str> {
    let part = |line: &'_ str| line.strip_prefix("<!-- rows: ")?.strip_suffix(" -->").map(str::len);
    document.lines().filter_map(move |line| {
        let len = part(line)?;
        line.get("<!-- rows: ".len()..)?.get(..len)
    })
}

/// Digits in groups of three.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rows_replace_what_their_part_holds() {
        let row = |name: &str, bytes_max| SizeRow {
            name: name.to_owned(),
            bytes_max,
            why: "a test".to_owned(),
        };
        let document = "# Sizes\n<!-- rows: a -->\nold\n<!-- end -->\nand so on\n";
        assert_eq!(parts(document).collect::<Vec<_>>(), ["a"]);
        let new = with_rows(document, "a", &[row("One", 7), row("Two", 1_234_567)]).unwrap();
        assert!(new.contains("| `Two` | 1,234,567 | a test |\n"), "{new}");
        assert!(new.ends_with("<!-- end -->\nand so on\n") && !new.contains("old"));
        assert_eq!(with_rows(&new, "a", &[row("One", 7), row("Two", 1_234_567)]).unwrap(), new);
        assert_ne!(with_rows(&new, "a", &[row("One", 8), row("Two", 1_234_567)]).unwrap(), new);
        assert!(with_rows(document, "b", &[]).is_none());
    }
}
