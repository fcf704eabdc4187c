//! Reading many rows into a file, all at one instant.

use super::{client, resolve, span};
use crate::args::{Export, FileFormat, Global};
use crate::failure::{Failure, UNEXPECTED};
use crate::output;
use isotherm_client::ScanOptions;
use serde_json::{Map, Value};
use std::io::Write;

pub async fn run(global: &Global, args: Export) -> Result<(), Failure> {
    let client = client(global)?;
    // A given timestamp is registered before the first page: whoever reads the output may be slow.
    let at = match resolve(&client, args.at).await? {
        Some(at) => at,
        None => client.timestamp().await?,
    };
    let span = span(global, &args.span)?;
    let options = ScanOptions { span, at: Some(at), ..ScanOptions::default() };
    let mut scan = client.scan(options);
    let encoding = global.encoding();
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let delimiter = if args.format == FileFormat::Tsv { b'\t' } else { b',' };
    let mut rows = 0u64;
    let failed = |e: csv::Error| Failure::new(UNEXPECTED, e);
    while let Some(page) = scan.next_page().await? {
        let mut part = csv::WriterBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .from_writer(Vec::new());
        if rows == 0 && args.format == FileFormat::Csv {
            part.write_record(["key", "value"]).map_err(failed)?;
        }
        rows += page.rows.len() as u64;
        let mut lines = Vec::new();
        for (key, row) in page.rows {
            if args.format == FileFormat::Jsonl {
                let mut object = Map::new();
                encoding.field(&mut object, "key", &key);
                encoding.field(&mut object, "value", &row.value);
                object.insert("ts".to_owned(), row.ts.get().into());
                writeln!(lines, "{}", Value::from(object))?;
            } else {
                part.write_record([encoding.show(&key), encoding.show(&row.value)])
                    .map_err(failed)?;
            }
        }
        let text = part.into_inner().map_err(|e| Failure::new(UNEXPECTED, e))?;
        out.write_all(if args.format == FileFormat::Jsonl { &lines } else { &text })?;
    }
    out.flush()?;
    if output::is_talkative() {
        eprintln!("{rows} rows as of {at}");
    }
    Ok(())
}
