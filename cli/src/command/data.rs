//! One key at a time, and the removal of many.

use super::client;
use super::delete_span::{Outcome, delete_span};
use super::past::Past;
use super::process::stop_signal;
use crate::args::{Delete, Global};
use crate::failure::{CONDITION, Failure, NOT_FOUND, REFUSED, UNEXPECTED};
use crate::output::{self, Format};
use crate::text::At;
use isotherm_types::{KeyRange, limits};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::Path;

pub async fn put(
    global: &Global,
    key: &str,
    value: Option<&str>,
    file: Option<&Path>,
) -> Result<(), Failure> {
    let encoding = global.encoding();
    let value = match (value, file) {
        (Some("-"), _) => whole(&mut std::io::stdin().lock())?,
        (Some(value), _) => encoding.parse(value)?,
        (None, Some(file)) => {
            let shown = file.display();
            let unreadable = |error| Failure::usage(format!("cannot read {shown}: {error}"));
            whole(&mut File::open(file).map_err(unreadable)?)?
        }
        (None, None) => return Err(Failure::usage("put takes KEY VALUE, KEY - or KEY --file F")),
    };
    let ts = client(global)?.put(encoding.parse(key)?, value).await?;
    match global.plain() {
        Format::Json => output::json(&json!({"ts": output::digits(ts.get())})),
        Format::Table => Ok(()),
    }
}

/// A value as it stands in a file; what is longer than a value can be is not read to its end.
fn whole(input: &mut dyn Read) -> Result<bytes::Bytes, Failure> {
    let mut value = Vec::new();
    input.take(limits::VALUE_BYTES_MAX as u64 + 1).read_to_end(&mut value)?;
    if value.len() > limits::VALUE_BYTES_MAX {
        let why = format!("the value has more than {} bytes, the limit", limits::VALUE_BYTES_MAX);
        return Err(Failure::new(REFUSED, why));
    }
    Ok(value.into())
}

pub async fn get(
    global: &Global,
    key: &str,
    at: Option<At>,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let encoding = global.encoding();
    let bytes = encoding.parse(key)?;
    let client = client(global)?;
    let past = Past::find(&client, at).await?;
    let row = match past.at() {
        None => client.get(bytes.clone()).await,
        Some(at) => client.get_at(bytes.clone(), at).await,
    };
    let row = match row {
        Ok(row) => row,
        Err(error) => return Err(past.failure(&client, error).await),
    };
    let Some(row) = row else {
        return Err(Failure::new(NOT_FOUND, format!("{key}: no such key")));
    };
    if let Some(out) = out {
        let shown = out.display();
        return std::fs::write(out, &row.value)
            .map_err(|error| Failure::usage(format!("cannot write {shown}: {error}")));
    }
    match global.plain() {
        Format::Json => {
            let mut object = Map::new();
            encoding.field(&mut object, "key", &bytes);
            encoding.field(&mut object, "value", &row.value);
            object.insert("ts".to_owned(), output::digits(row.ts.get()));
            output::json(&Value::from(object))
        }
        Format::Table => output::values(encoding, &[&row.value]),
    }
}

pub async fn cas(
    global: &Global,
    key: &str,
    expected_or_new: &str,
    new: Option<&str>,
    absent: bool,
) -> Result<(), Failure> {
    let encoding = global.encoding();
    let (expected, new) = match (absent, new) {
        (true, None) => (None, expected_or_new),
        (false, Some(new)) => (Some(encoding.parse(expected_or_new)?), new),
        (true, Some(_)) => {
            return Err(Failure::usage("with --absent nothing is expected: cas KEY NEW --absent"));
        }
        (false, None) => {
            return Err(Failure::usage("cas takes KEY EXPECTED NEW, or KEY NEW --absent"));
        }
    };
    let outcome = client(global)?.cas(encoding.parse(key)?, expected, encoding.parse(new)?).await?;
    match global.plain() {
        Format::Json => {
            let mut object = Map::new();
            object.insert("applied".to_owned(), outcome.applied.into());
            object.insert("ts".to_owned(), output::digits(outcome.ts.get()));
            if let Some(current) = &outcome.current {
                encoding.field(&mut object, "current", current);
            }
            if outcome.current_forgotten {
                object.insert("current_forgotten".to_owned(), true.into());
            }
            output::json(&Value::from(object))?;
        }
        Format::Table => {
            if let Some(current) = &outcome.current {
                output::values(encoding, &[current])?;
            }
        }
    }
    match outcome.applied {
        true => Ok(()),
        false if outcome.current_forgotten => Err(Failure::new(
            CONDITION,
            format!(
                "{key}: held another value, nothing was set. The first answer was lost, and which value \
                 it was is not remembered"
            ),
        )),
        false if outcome.current.is_none() => {
            Err(Failure::new(CONDITION, format!("{key}: no such key, nothing was set")))
        }
        false => {
            Err(Failure::new(CONDITION, format!("{key}: holds another value, nothing was set")))
        }
    }
}

pub async fn incr(global: &Global, key: &str, by: i64) -> Result<(), Failure> {
    let done = client(global)?.incr(global.encoding().parse(key)?, by).await?;
    match global.plain() {
        Format::Json => {
            output::json(&json!({"value": done.value, "ts": output::digits(done.ts.get())}))
        }
        Format::Table => output::line(&done.value.to_string()),
    }
}

pub async fn delete(global: &Global, delete: Delete) -> Result<(), Failure> {
    let client = client(global)?;
    if delete.prefix.is_some() || delete.all {
        let (span, what) = match &delete.prefix {
            Some(prefix) if prefix.is_empty() => {
                let why =
                    "an empty prefix is the beginning of every key: to remove them all, say --all";
                return Err(Failure::usage(why));
            }
            Some(prefix) => {
                let span = KeyRange::prefix(&global.encoding().parse(prefix)?);
                (span, format!("remove every key that begins with {prefix:?}"))
            }
            None => (KeyRange::all(), "remove every key of the cluster".to_owned()),
        };
        confirm(&what, delete.yes)?;
        let Outcome { removed, ended } = delete_span(&client, span, &stop_signal()?).await;
        match global.plain() {
            Format::Json => output::json(&json!({"deleted": removed, "all": ended.is_none()}))?,
            Format::Table => output::line(&format!("{removed} keys removed"))?,
        }
        return ended.map_or(Ok(()), Err);
    }
    let key = delete.key.unwrap_or_default();
    let done = client.delete(global.encoding().parse(&key)?).await?;
    match global.plain() {
        Format::Json => {
            output::json(&json!({"existed": done.existed, "ts": output::digits(done.ts.get())}))
        }
        Format::Table => Ok(()),
    }
}

/// Asks before something is destroyed. Without a terminal to ask on, `--yes` is needed.
fn confirm(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage(format!("this would {what}: say --yes")));
    }
    // Who cannot be asked does not answer.
    let _ = write!(std::io::stderr(), "This will {what}. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(UNEXPECTED, "nothing was removed")),
    }
}
