//! One key at a time, and the removal of many.

use super::delete_span::{Outcome, delete_span};
use super::process::stop_signal;
use super::{client, resolve};
use crate::args::{Delete, Global};
use crate::failure::{CONDITION, Failure, NOT_FOUND, UNEXPECTED};
use crate::output::{self, Format};
use crate::text::At;
use isotherm_types::KeyRange;
use serde_json::{Map, Value, json};
use std::io::{BufRead, IsTerminal};

pub async fn put(global: &Global, key: &str, value: &str) -> Result<(), Failure> {
    let encoding = global.encoding();
    let ts = client(global)?.put(encoding.parse(key)?, encoding.parse(value)?).await?;
    match global.plain() {
        Format::Json => output::json(&json!({"ts": ts.get()})),
        Format::Table => Ok(()),
    }
}

pub async fn get(global: &Global, key: &str, at: Option<At>) -> Result<(), Failure> {
    let encoding = global.encoding();
    let bytes = encoding.parse(key)?;
    let client = client(global)?;
    let row = match resolve(&client, at).await? {
        None => client.get(bytes.clone()).await?,
        Some(at) => client.get_at(bytes.clone(), at).await?,
    };
    let Some(row) = row else {
        return Err(Failure::new(NOT_FOUND, format!("{key}: no such key")));
    };
    match global.plain() {
        Format::Json => {
            let mut object = Map::new();
            encoding.field(&mut object, "key", &bytes);
            encoding.field(&mut object, "value", &row.value);
            object.insert("ts".to_owned(), row.ts.get().into());
            output::json(&Value::from(object))
        }
        Format::Table => output::line(&encoding.show(&row.value)),
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
            object.insert("ts".to_owned(), outcome.ts.get().into());
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
                output::line(&encoding.show(current))?;
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
        Format::Json => output::json(&json!({"value": done.value, "ts": done.ts.get()})),
        Format::Table => output::line(&done.value.to_string()),
    }
}

pub async fn delete(global: &Global, delete: Delete) -> Result<(), Failure> {
    let client = client(global)?;
    if let Some(prefix) = &delete.prefix {
        let span = KeyRange::prefix(&global.encoding().parse(prefix)?);
        confirm(&format!("remove every key that begins with {prefix:?}"), delete.yes)?;
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
        Format::Json => output::json(&json!({"existed": done.existed, "ts": done.ts.get()})),
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
    eprint!("This will {what}. Go on? [y/N] ");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(UNEXPECTED, "nothing was removed")),
    }
}
