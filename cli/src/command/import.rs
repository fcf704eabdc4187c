//! Writing many rows from a file.
//!
//! Lines are read by one thread and written in batches, several at a time. A bad line is reported
//! with its number; the rest goes on, and the command fails at the end.

use super::client;
use crate::args::{FileFormat, Global, Import};
use crate::failure::{Failure, UNEXPECTED};
use crate::output::{self, Format};
use crate::text::Encoding;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isotherm_client::{Client, Write};
use isotherm_types::{Key, limits};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const BATCH_ROWS: usize = 500;
const BATCH_BYTES: usize = 512 << 10;
const BATCHES_AT_ONCE: usize = 16;
/// Rows that the presplit looks at.
const SAMPLE_ROWS: usize = 20_000;
/// Bad lines that are reported one by one.
const REPORTED_MAX: u64 = 20;

/// A progress bar on stderr; nothing if that is no terminal.
pub fn bar(total: Option<u64>, what: &'static str) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let template = match total {
        Some(_) => "{bar:30} {percent}% {msg} ({per_sec})",
        None => "{spinner} {human_pos} {msg} ({per_sec})",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// One line of the file.
enum Line {
    Row(Key, bytes::Bytes),
    Bad(u64, String),
}

/// Which columns hold what.
struct Columns {
    format: FileFormat,
    key: Option<String>,
    value: Option<String>,
    prefix: bytes::Bytes,
    encoding: Encoding,
}

pub async fn run(global: &Global, args: Import) -> Result<(), Failure> {
    let client = client(global)?;
    let columns = Columns {
        format: args.format.unwrap_or_else(|| by_name(&args.file)),
        key: args.key,
        value: args.value,
        prefix: global.encoding().parse(&args.prefix)?,
        encoding: global.encoding(),
    };
    let input: Box<dyn Read + Send> = if args.file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        let shown = args.file.display();
        let open = File::open(&args.file);
        Box::new(open.map_err(|e| Failure::usage(format!("cannot read {shown}: {e}")))?)
    };
    let (lines, mut queue) = mpsc::channel(4 * BATCH_ROWS);
    let reader = std::thread::spawn(move || read(input, &columns, &lines));
    let mut sample = Vec::new();
    if let Some(pieces) = args.presplit {
        while sample.len() < SAMPLE_ROWS
            && let Some(line) = queue.recv().await
        {
            sample.push(line);
        }
        let keys = sample.iter().filter_map(|line| match line {
            Line::Row(key, _) => Some(key.clone()),
            Line::Bad(..) => None,
        });
        presplit(&client, keys.collect(), pieces).await?;
    }
    let (rows, bad, elapsed) = write_all(&client, sample, &mut queue).await?;
    let read = reader.join().map_err(|_| Failure::new(UNEXPECTED, "reading the file failed"))?;
    read.map_err(|e| Failure::new(UNEXPECTED, format!("reading the file failed: {e}")))?;
    let per_s = rows as f64 / elapsed.as_secs_f64().max(1e-6);
    match global.format() {
        Format::Json => output::json(&json!({
            "rows": rows, "bad_lines": bad, "seconds": elapsed.as_secs_f64(), "rows_per_s": per_s,
        }))?,
        Format::Table => {
            output::line(&format!(
                "{rows} rows in {:.1} s, {per_s:.0} rows/s",
                elapsed.as_secs_f64()
            ))?;
        }
    }
    if bad > 0 {
        return Err(Failure::new(UNEXPECTED, format!("{bad} bad lines were left out")));
    }
    Ok(())
}

async fn write_all(
    client: &Client,
    first: Vec<Line>,
    queue: &mut mpsc::Receiver<Line>,
) -> Result<(u64, u64, Duration), Failure> {
    let started = Instant::now();
    let bar = bar(None, "rows");
    let (mut rows, mut bad) = (0, 0);
    let mut running = FuturesUnordered::new();
    let mut first = first.into_iter();
    let mut open = true;
    while open {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            let line = match first.next() {
                Some(line) => Some(line),
                None => queue.recv().await,
            };
            match line {
                Some(Line::Row(key, value)) => {
                    bytes += key.len() + value.len();
                    batch.push(Write::Put { key, value });
                }
                Some(Line::Bad(number, why)) => {
                    bad += 1;
                    if bad <= REPORTED_MAX {
                        bar.suspend(|| eprintln!("line {number}: {why}"));
                    }
                }
                None => {
                    open = false;
                    break;
                }
            }
        }
        if !batch.is_empty() {
            let client = client.clone();
            running.push(async move {
                let count = batch.len() as u64;
                client.batch(batch).await.map(|_| count)
            });
        }
        while running.len() >= BATCHES_AT_ONCE || (!open && !running.is_empty()) {
            if let Some(written) = running.next().await {
                rows += written?;
                bar.set_position(rows);
            }
        }
    }
    bar.finish_and_clear();
    Ok((rows, bad, started.elapsed()))
}

/// Splits so that about as many of `keys` lie in each of `pieces`.
pub async fn presplit(client: &Client, mut keys: Vec<Key>, pieces: usize) -> Result<(), Failure> {
    keys.sort_unstable();
    keys.dedup();
    let mut cuts: Vec<Key> =
        (1..pieces).filter_map(|i| keys.get(i * keys.len() / pieces.max(1)).cloned()).collect();
    cuts.dedup();
    for cut in cuts {
        match client.admin().split(cut).await {
            Ok(_) => {}
            // A range begins there already.
            Err(error) if error.kind == isotherm_client::ErrorKind::Condition => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn by_name(file: &Path) -> FileFormat {
    match file.extension().and_then(|e| e.to_str()) {
        Some("csv") => FileFormat::Csv,
        Some("jsonl" | "ndjson" | "json") => FileFormat::Jsonl,
        _ => FileFormat::Tsv,
    }
}

fn read(
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

fn checked(columns: &Columns, number: u64, key: &str, value: &str) -> Line {
    let parsed =
        columns.encoding.parse(key).and_then(|key| Ok((key, columns.encoding.parse(value)?)));
    let (key, value) = match parsed {
        Ok(parsed) => parsed,
        Err(failure) => return Line::Bad(number, failure.message),
    };
    let key = Key::from([&columns.prefix[..], &key].concat());
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
            Some(Value::String(s)) => Ok(s.clone()),
            Some(Value::Null) | None => Err(format!("there is no field {name:?}")),
            Some(other) => Ok(other.to_string()),
        };
        let line = match serde_json::from_slice::<Value>(&text) {
            Err(error) => Line::Bad(number, format!("not JSON: {error}")),
            Ok(object) => match (field(&object, key), field(&object, value)) {
                (Ok(key), Ok(value)) => checked(columns, number, &key, &value),
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
                        (Ok(key), Ok(value)) => checked(columns, number, key, value),
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
