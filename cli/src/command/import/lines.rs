//! The rows of a file, checked: what is imported is what stands in the file, byte for byte, or the line
//! is reported with its number.

use super::file_lines::FileLines;
use super::{jsonl, separated};
use crate::args::FileFormat;
use crate::text::Encoding;
use bytes::Bytes;
use isotherm_types::{Key, limits};
use std::io::{BufReader, Read};
use std::path::Path;
use tokio::sync::mpsc;

/// One row, or what is wrong with it; with the number of the line where it begins, from 1.
#[derive(Debug)]
pub enum Line {
    Row(u64, Key, Bytes),
    Bad(u64, String),
}

/// Which columns hold what.
pub struct Columns {
    pub format: FileFormat,
    pub key: Option<String>,
    pub value: Option<String>,
    pub prefix: Bytes,
    pub encoding: Encoding,
}

/// The format that a file's name promises.
pub fn by_name(file: &Path) -> FileFormat {
    let extension = file.extension().and_then(|e| e.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "csv" => FileFormat::Csv,
        "jsonl" | "ndjson" | "json" => FileFormat::Jsonl,
        _ => FileFormat::Tsv,
    }
}

/// Sends every line, until the receiver is gone.
pub fn read(
    input: Box<dyn Read + Send>,
    columns: &Columns,
    lines: &mpsc::Sender<Line>,
) -> std::io::Result<()> {
    let file = FileLines::new(BufReader::new(input));
    let send = |line| lines.blocking_send(line).is_ok();
    match columns.format {
        FileFormat::Jsonl => jsonl::read(file, columns, send),
        FileFormat::Csv => separated::read_csv(file, columns, send),
        FileFormat::Tsv => separated::read_tsv(file, columns, send),
    }
}

impl Columns {
    /// A row of text as it stands in a file.
    pub fn row(&self, number: u64, key: &[u8], value: &[u8]) -> Line {
        let parsed = || {
            let text = |bytes| {
                std::str::from_utf8(bytes)
                    .map_err(|_| "it is not UTF-8: use --hex or --base64".to_owned())
            };
            let parse = |bytes| self.encoding.parse(text(bytes)?).map_err(|f| f.message);
            Ok::<_, String>((parse(key)?, parse(value)?))
        };
        match parsed() {
            Ok((key, value)) => self.checked(number, &key, value),
            Err(why) => Line::Bad(number, why),
        }
    }

    /// A row whose key and value are known.
    pub fn checked(&self, number: u64, key: &[u8], value: Bytes) -> Line {
        let key = Key::from([&self.prefix[..], key].concat());
        let (key_max, value_max) = (limits::KEY_BYTES_MAX, limits::VALUE_BYTES_MAX);
        if key.is_empty() {
            return Line::Bad(number, "the key is empty".to_owned());
        }
        if key.len() > key_max {
            let n = key.len();
            return Line::Bad(number, format!("the key has {n} bytes, the limit is {key_max}"));
        }
        if value.len() > value_max {
            let n = value.len();
            return Line::Bad(number, format!("the value has {n} bytes, the limit is {value_max}"));
        }
        Line::Row(number, key, value)
    }
}

#[cfg(test)]
pub mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is read from `text`: rows as `key=value` with bytes escaped, bad lines with their number.
    pub fn lines_of(
        format: FileFormat,
        key: Option<&str>,
        value: Option<&str>,
        text: &[u8],
    ) -> Vec<Result<String, (u64, String)>> {
        let columns = Columns {
            format,
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
            prefix: bytes::Bytes::from_static(b"p/"),
            encoding: Encoding::Text,
        };
        let (sender, mut queue) = mpsc::channel(2 << 20);
        let text = std::io::Cursor::new(text.to_vec());
        read(Box::new(text), &columns, &sender).unwrap();
        drop(sender);
        std::iter::from_fn(|| queue.try_recv().ok())
            .map(|line| match line {
                Line::Row(_, k, v) => Ok(format!("{}={}", k.escape_ascii(), v.escape_ascii())),
                Line::Bad(number, why) => Err((number, why)),
            })
            .collect()
    }

    /// The same with the numbers of the bad lines alone.
    pub fn numbers_of(format: FileFormat, text: &str) -> Vec<Result<String, u64>> {
        let lines = lines_of(format, None, None, text.as_bytes());
        lines.into_iter().map(|line| line.map_err(|(number, _)| number)).collect()
    }

    #[test]
    fn the_format_goes_by_the_name_in_any_case() {
        for (name, format) in [
            ("X.CSV", FileFormat::Csv),
            ("x.csv", FileFormat::Csv),
            ("a.b.NDJSON", FileFormat::Jsonl),
            ("x.Json", FileFormat::Jsonl),
            ("x.tsv", FileFormat::Tsv),
            ("csv", FileFormat::Tsv),
        ] {
            assert_eq!(by_name(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line() {
        for (format, text) in [
            (FileFormat::Tsv, "\u{feff}a\t1\n"),
            (FileFormat::Csv, "\u{feff}key,value\na,1\n"),
            (FileFormat::Csv, "\u{feff}\"key\",value\na,1\n"),
            (FileFormat::Jsonl, "\u{feff}{\"key\":\"a\",\"value\":\"1\"}\n"),
        ] {
            assert_eq!(numbers_of(format, text), [Ok("p/a=1".into())], "{text}");
        }
        let inside = "a\t\u{feff}1\n";
        let found = numbers_of(FileFormat::Tsv, inside);
        assert_eq!(found, [Ok("p/a=\\xef\\xbb\\xbf1".into())], "elsewhere it is text");
    }

    #[test]
    fn what_is_too_long_is_reported_and_the_rest_goes_on() {
        let long = "x".repeat(limits::VALUE_BYTES_MAX + 1);
        let endless = "y".repeat(super::super::file_lines::LINE_BYTES_MAX + 7);
        let text = format!("a\t1\nb\t{long}\nc\t{endless}\nd\t4\n");
        let found = numbers_of(FileFormat::Tsv, &text);
        assert_eq!(found, [Ok("p/a=1".into()), Err(2), Err(3), Ok("p/d=4".into())]);
    }
}
