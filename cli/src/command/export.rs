//! Reading many rows into a file, all at one instant.

use super::past::Past;
use super::{client, span};
use crate::args::{Export, FileFormat, Global};
use crate::failure::{Failure, UNEXPECTED};
use crate::output;
use crate::text::Encoding;
use isotherm_client::ScanOptions;
use serde_json::{Map, Value};
use std::io::Write;

pub async fn run(global: &Global, args: Export) -> Result<(), Failure> {
    let client = client(global)?;
    let span = span(global, &args.span)?;
    // A given timestamp is registered before the first page: whoever reads the output may be slow.
    let past = Past::find(&client, args.at).await?;
    let at = match past.at() {
        Some(at) => at,
        None => client.timestamp().await?,
    };
    let options = |span| ScanOptions { span, at: Some(at), ..ScanOptions::default() };
    let mut scan = span.map(|span| client.scan(options(span)));
    let mut rows = Rows::new(std::io::stdout(), args.format, global.encoding());
    rows.begin()?;
    let mut count = 0u64;
    while let Some(scan) = &mut scan {
        let page = match scan.next_page().await {
            Ok(Some(page)) => page,
            Ok(None) => break,
            Err(error) => return Err(past.failure(&client, error).await),
        };
        for (key, row) in page.rows {
            rows.row(&key, &row.value, row.ts.get())?;
            count += 1;
        }
    }
    rows.end()?;
    if output::is_talkative() {
        output::say(&format!("{count} rows as of {at}"));
    }
    Ok(())
}

/// Rows in one of the formats that `import` reads back.
struct Rows<W: Write> {
    format: FileFormat,
    encoding: Encoding,
    out: csv::Writer<std::io::BufWriter<W>>,
}

impl<W: Write> Rows<W> {
    fn new(out: W, format: FileFormat, encoding: Encoding) -> Self {
        let out = csv::WriterBuilder::new()
            .delimiter(if format == FileFormat::Csv { b',' } else { b'\t' })
            // Only csv has quotes: in tsv one stands for itself.
            .quote_style(match format {
                FileFormat::Csv => csv::QuoteStyle::Necessary,
                FileFormat::Tsv | FileFormat::Jsonl => csv::QuoteStyle::Never,
            })
            .from_writer(std::io::BufWriter::new(out));
        Self { format, encoding, out }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        match self.format {
            FileFormat::Csv => self.record(["key", "value"]),
            FileFormat::Tsv | FileFormat::Jsonl => Ok(()),
        }
    }

    fn row(&mut self, key: &[u8], value: &[u8], ts: u64) -> Result<(), Failure> {
        if self.format == FileFormat::Jsonl {
            let mut object = Map::new();
            self.encoding.field(&mut object, "key", key);
            self.encoding.field(&mut object, "value", value);
            object.insert("ts".to_owned(), output::digits(ts));
            return self.record([Value::from(object).to_string()]);
        }
        let record = [self.field(key, key)?, self.field(key, value)?];
        self.record(record)
    }

    /// A field of the row of `key`; what the format cannot hold is refused, since `import` would read
    /// something else.
    fn field(&self, key: &[u8], bytes: &[u8]) -> Result<String, Failure> {
        let refuse = |what: &str| {
            let key = key.escape_ascii();
            Failure::new(UNEXPECTED, format!("the row of {key} {what}"))
        };
        if self.encoding == Encoding::Text && std::str::from_utf8(bytes).is_err() {
            return Err(refuse("is not UTF-8: use --base64, --hex or --format jsonl"));
        }
        let text = self.encoding.exact(bytes);
        if self.format == FileFormat::Tsv && text.contains(['\t', '\n', '\r']) {
            return Err(refuse("holds a tab or the end of a line: use csv, jsonl or --base64"));
        }
        if self.format == FileFormat::Tsv && text.starts_with('\u{feff}') {
            // At the beginning of a file it would be a byte order mark.
            return Err(refuse("begins with a byte order mark: use csv, jsonl or --base64"));
        }
        Ok(text)
    }

    fn record<const N: usize>(&mut self, fields: [impl AsRef<[u8]>; N]) -> Result<(), Failure> {
        Ok(self.out.write_record(fields)?)
    }

    fn end(mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::command::import::lines::{Columns, Line, read};
    use tokio::sync::mpsc;

    /// Keys and values.
    type Pairs<'a> = &'a [(&'a [u8], &'a [u8])];

    fn exported(
        format: FileFormat,
        encoding: Encoding,
        rows: Pairs<'_>,
    ) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let mut writer = Rows::new(&mut out, format, encoding);
        writer.begin().unwrap();
        for (key, value) in rows {
            writer.row(key, value, 7).map_err(|failure| failure.message)?;
        }
        writer.end().unwrap();
        Ok(out)
    }

    fn imported(format: FileFormat, encoding: Encoding, text: Vec<u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let columns =
            Columns { format, key: None, value: None, prefix: bytes::Bytes::new(), encoding };
        let (sender, mut queue) = mpsc::channel(100);
        read(Box::new(std::io::Cursor::new(text)), &columns, &sender).unwrap();
        drop(sender);
        std::iter::from_fn(|| queue.try_recv().ok())
            .map(|line| match line {
                Line::Row(_, key, value) => (key.to_vec(), value.to_vec()),
                Line::Bad(number, why) => panic!("line {number}: {why}"),
            })
            .collect()
    }

    #[test]
    fn what_is_exported_is_what_is_imported() {
        let plain: [(&[u8], &[u8]); 4] =
            [(b"a", b"{\"a\":1}"), (b"b\"", b"x, y"), (b"c\\", b""), ("\u{e4}".as_bytes(), b" ")];
        let lines: [(&[u8], &[u8]); 1] = [(b"k", b"two\nlines\tand a tab")];
        let bytes: [(&[u8], &[u8]); 1] = [(b"\xff\x00", b"\xfe\n")];
        let (csv, tsv, jsonl) = (FileFormat::Csv, FileFormat::Tsv, FileFormat::Jsonl);
        let (text, base64) = (Encoding::Text, Encoding::Base64);
        let cases: [(FileFormat, Encoding, Pairs<'_>); 8] = [
            (tsv, text, &plain),
            (csv, text, &plain),
            (jsonl, text, &plain),
            (csv, text, &lines),
            (jsonl, text, &lines),
            (jsonl, text, &bytes),
            (tsv, base64, &bytes),
            (csv, Encoding::Hex, &bytes),
        ];
        for (format, encoding, rows) in cases {
            let back = imported(format, encoding, exported(format, encoding, rows).unwrap());
            let expected: Vec<_> = rows.iter().map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
            assert_eq!(back, expected, "{format:?} {encoding:?}");
        }
    }

    #[test]
    fn what_a_format_cannot_hold_is_refused() {
        let refused = |format, key: &[u8], value: &[u8]| {
            exported(format, Encoding::Text, &[(key, value)]).unwrap_err()
        };
        assert!(refused(FileFormat::Tsv, b"k", b"a\tb").contains("of k holds a tab"));
        assert!(refused(FileFormat::Csv, b"k", b"\xff").contains("is not UTF-8"));
    }
}
