//! The lines of a file, checked.

use crate::args::FileFormat;
use crate::text::Encoding;
use bytes::Bytes;
use isotherm_types::{Key, limits};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use tokio::sync::mpsc;

/// One line of the file.
pub enum Line {
    Row(Key, Bytes),
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
    match file.extension().and_then(|e| e.to_str()) {
        Some("csv") => FileFormat::Csv,
        Some("jsonl" | "ndjson" | "json") => FileFormat::Jsonl,
        _ => FileFormat::Tsv,
    }
}

/// Sends every line until nobody takes them any more.
pub fn read(
    input: Box<dyn Read + Send>,
    columns: &Columns,
    lines: &mpsc::Sender<Line>,
) -> std::io::Result<()> {
    match columns.format {
        FileFormat::Jsonl => read_jsonl(input, columns, lines),
        FileFormat::Csv | FileFormat::Tsv => read_separated(input, columns, lines),
    }
}

fn send(lines: &mpsc::Sender<Line>, line: Line) -> bool {
    lines.blocking_send(line).is_ok()
}

/// A row as people type it.
fn typed(columns: &Columns, number: u64, key: &str, value: &str) -> Line {
    let parsed =
        columns.encoding.parse(key).and_then(|key| Ok((key, columns.encoding.parse(value)?)));
    match parsed {
        Ok((key, value)) => checked(columns, number, &key, value),
        Err(failure) => Line::Bad(number, failure.message),
    }
}

fn checked(columns: &Columns, number: u64, key: &[u8], value: Bytes) -> Line {
    let key = Key::from([&columns.prefix[..], key].concat());
    let (key_max, value_max) = (limits::KEY_BYTES_MAX, limits::VALUE_BYTES_MAX);
    if key.is_empty() {
        return Line::Bad(number, "the key is empty".to_owned());
    }
    if key.len() > key_max {
        return Line::Bad(
            number,
            format!("the key has {} bytes, the limit is {key_max}", key.len()),
        );
    }
    if value.len() > value_max {
        let n = value.len();
        return Line::Bad(number, format!("the value has {n} bytes, the limit is {value_max}"));
    }
    Line::Row(key, value)
}

fn read_jsonl(
    input: Box<dyn Read + Send>,
    columns: &Columns,
    lines: &mpsc::Sender<Line>,
) -> std::io::Result<()> {
    let (key, value) =
        (columns.key.as_deref().unwrap_or("key"), columns.value.as_deref().unwrap_or("value"));
    for (number, text) in (1..).zip(BufReader::new(input).split(b'\n')) {
        let text = text?;
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let field = |object: &Value, name: &str| match object.get(name) {
            Some(Value::String(s)) => columns.encoding.parse(s).map_err(|f| f.message),
            Some(Value::Null) | None => match object.get(format!("{name}_base64")) {
                Some(Value::String(s)) => Encoding::Base64.parse(s).map_err(|f| f.message),
                _ => Err(format!("there is no field {name:?}")),
            },
            Some(other) => Ok(other.to_string().into()),
        };
        let line = match serde_json::from_slice::<Value>(&text) {
            Err(error) => Line::Bad(number, format!("not JSON: {error}")),
            Ok(object) => match (field(&object, key), field(&object, value)) {
                (Ok(key), Ok(value)) => checked(columns, number, &key, value),
                (Err(why), _) | (_, Err(why)) => Line::Bad(number, why),
            },
        };
        if !send(lines, line) {
            return Ok(());
        }
    }
    Ok(())
}

fn read_separated(
    input: Box<dyn Read + Send>,
    columns: &Columns,
    lines: &mpsc::Sender<Line>,
) -> std::io::Result<()> {
    let is_csv = columns.format == FileFormat::Csv;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if is_csv { b',' } else { b'\t' })
        .has_headers(false)
        .flexible(true)
        .quoting(is_csv)
        .from_reader(BufReader::new(input));
    let mut record = csv::ByteRecord::new();
    let mut positions = match is_csv {
        true => None,
        false => Some(numbered(columns, &[])),
    };
    loop {
        let number = reader.position().line();
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => {
                if !send(lines, Line::Bad(number, error.to_string())) {
                    return Ok(());
                }
                if matches!(error.kind(), csv::ErrorKind::Io(_)) {
                    return Err(std::io::Error::other(error));
                }
                continue;
            }
        }
        let Some(found) = &positions else {
            let header: Vec<_> =
                record.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect();
            positions = Some(numbered(columns, &header));
            continue;
        };
        let line = match found {
            Err(why) => Line::Bad(number, why.clone()),
            Ok((key, value)) => match (record.get(*key), record.get(*value)) {
                (Some(key), Some(value)) => {
                    match (std::str::from_utf8(key), std::str::from_utf8(value)) {
                        (Ok(key), Ok(value)) => typed(columns, number, key, value),
                        _ => Line::Bad(number, "not UTF-8; use --hex or --base64".to_owned()),
                    }
                }
                _ => Line::Bad(
                    number,
                    format!(
                        "it has {} columns, column {} is needed",
                        record.len(),
                        key.max(value) + 1
                    ),
                ),
            },
        };
        let stop = found.is_err();
        if !send(lines, line) || stop {
            return Ok(());
        }
    }
}

/// The positions of the key's and the value's column.
fn numbered(columns: &Columns, header: &[String]) -> Result<(usize, usize), String> {
    let find = |asked: &Option<String>, default: usize| match asked {
        None => Ok(default),
        Some(asked) => match asked.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number - 1),
            _ => header.iter().position(|name| name == asked).ok_or_else(|| {
                if header.is_empty() {
                    format!("{asked:?} is not a column number, and the file has no header")
                } else {
                    format!("there is no column {asked:?}; there are {}", header.join(", "))
                }
            }),
        },
    };
    Ok((find(&columns.key, 0)?, find(&columns.value, 1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(
        format: FileFormat,
        key: Option<&str>,
        text: &'static str,
    ) -> Vec<Result<String, u64>> {
        let columns = Columns {
            format,
            key: key.map(str::to_owned),
            value: None,
            prefix: bytes::Bytes::from_static(b"p/"),
            encoding: Encoding::Text,
        };
        let (sender, mut queue) = mpsc::channel(100);
        read(Box::new(text.as_bytes()), &columns, &sender).expect("readable");
        drop(sender);
        std::iter::from_fn(|| queue.try_recv().ok())
            .map(|line| match line {
                Line::Row(k, v) => Ok(format!("{}={}", k.escape_ascii(), v.escape_ascii())),
                Line::Bad(number, _) => Err(number),
            })
            .collect()
    }

    #[test]
    fn bad_lines_are_reported_by_number_and_the_rest_goes_on() {
        let found = lines(FileFormat::Tsv, None, "a\t1\nb\n\t3\nc\t4\n");
        assert_eq!(found, [Ok("p/a=1".into()), Err(2), Ok("p/=3".into()), Ok("p/c=4".into())]);
        let found =
            lines(FileFormat::Jsonl, None, "{\"key\":\"a\",\"value\":1}\n{\"key\":2\n\n{}\n");
        assert_eq!(found, [Ok("p/a=1".into()), Err(2), Err(4)]);
    }

    #[test]
    fn csv_columns_go_by_name_or_number() {
        let text = "size,name\n10,vim\n20,git\n";
        assert_eq!(lines(FileFormat::Csv, Some("name"), text)[0], Ok("p/vim=vim".into()));
        assert_eq!(lines(FileFormat::Csv, Some("1"), text)[1], Ok("p/20=git".into()));
        assert_eq!(lines(FileFormat::Csv, Some("nothing"), text), [Err(2)]);
    }
}
