//! Listing rows.

use super::past::Past;
use super::{client, span};
use crate::args::{Global, Scan};
use crate::failure::Failure;
use crate::output::{self, Format};
use isotherm_client::{Row, ScanOptions};
use serde_json::{Map, Value};

pub async fn run(global: &Global, args: Scan) -> Result<(), Failure> {
    let client = client(global)?;
    let span = span(global, &args.span)?;
    let past = Past::find(&client, args.at).await?;
    let Some(span) = span else { return Ok(()) };
    let options = ScanOptions {
        span,
        limit: args.limit,
        reverse: args.reverse,
        keys_only: args.keys_only,
        at: past.at(),
        ..ScanOptions::default()
    };
    let mut scan = client.scan(options);
    loop {
        let page = match scan.next_page().await {
            Ok(Some(page)) => page,
            Ok(None) => return Ok(()),
            Err(error) => return Err(past.failure(&client, error).await),
        };
        for (key, row) in page.rows {
            print(global, &key, &row, args.keys_only)?;
        }
    }
}

fn print(global: &Global, key: &[u8], row: &Row, keys_only: bool) -> Result<(), Failure> {
    let encoding = global.encoding();
    match global.plain() {
        Format::Json => {
            let mut object = Map::new();
            encoding.field(&mut object, "key", key);
            if !keys_only {
                encoding.field(&mut object, "value", &row.value);
            }
            object.insert("ts".to_owned(), output::digits(row.ts.get()));
            output::json(&Value::from(object))
        }
        Format::Table if keys_only => output::values(encoding, &[key]),
        Format::Table => output::values(encoding, &[key, &row.value]),
    }
}
