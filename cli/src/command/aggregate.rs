//! One answer over all keys of a span.

use super::past::Past;
use super::{client, span};
use crate::args::{Aggregate, Global};
use crate::failure::{Failure, UNEXPECTED};
use crate::output::{self, Format};
use indicatif::{ProgressBar, ProgressStyle};
use isotherm_client::aggregate::{Figure, Function, GroupAnswer, QueryText};
use isotherm_client::{AggregateOptions, AggregateProgress, Aggregated};
use isotherm_types::{KeyRange, limits};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Answers that take less show no progress.
const PROGRESS_AFTER: Duration = Duration::from_millis(500);

pub async fn run(global: &Global, mut args: Aggregate) -> Result<(), Failure> {
    let client = client(global)?;
    let span = span(global, &args.span)?;
    let past = Past::find(&client, args.at.take()).await?;
    let options = AggregateOptions {
        // A span that begins and ends at one key has no rows, as one behind the longest key that sorts there.
        span: match span {
            Some(span) => span,
            None => KeyRange::point(&vec![0xff; limits::KEY_BYTES_MAX + 1]),
        },
        query: QueryText {
            functions: args.functions.clone(),
            value: args.value.clone(),
            filter: args.filter.clone().unwrap_or_default(),
            group_by: args.group_by.clone().unwrap_or_default(),
            groups_max: args.max_groups,
        },
        at: past.at(),
    };
    let started = Instant::now();
    let mut bar = None;
    let done =
        client.aggregate_with(options, |progress| show_progress(&mut bar, started, progress)).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let done = match done {
        Ok(done) => done,
        Err(error) => return Err(past.failure(&client, error).await),
    };
    let took = started.elapsed();
    match global.format() {
        Format::Json => json(global, &args, &done, took),
        Format::Table => table(global, &args, &done, took),
    }
}

fn show_progress(bar: &mut Option<ProgressBar>, started: Instant, progress: AggregateProgress) {
    if !output::is_talkative() || started.elapsed() < PROGRESS_AFTER {
        return;
    }
    let bar = bar.get_or_insert_with(|| {
        let style = "{wide_bar} {pos}/{len} ranges, {msg}";
        let style = ProgressStyle::with_template(style).expect("a valid template");
        ProgressBar::new(progress.ranges_all).with_style(style)
    });
    bar.set_length(progress.ranges_all);
    bar.set_position(progress.ranges);
    bar.set_message(format!("{} rows, {}", progress.rows, output::bytes(progress.bytes)));
}

/// A JSON object in the order of its fields, whose numbers keep all of their digits.
#[derive(Default)]
struct Object {
    fields: Vec<(String, Box<RawValue>)>,
    /// Figures are strings of their digits.
    has_number_strings: bool,
}

impl Object {
    fn set(&mut self, name: &str, value: impl Serialize) -> Result<(), Failure> {
        let value = to_raw_value(&value).map_err(|e| Failure::new(UNEXPECTED, e))?;
        self.fields.push((name.to_owned(), value));
        Ok(())
    }

    fn set_figure(&mut self, function: Function, figure: &Figure) -> Result<(), Failure> {
        let name = function.to_string();
        match figure {
            Figure::None => self.set(&name, ()),
            // JSON has no name for these.
            Figure::Special(special) => self.set(&name, special),
            Figure::Number(digits) if self.has_number_strings => self.set(&name, digits),
            Figure::Number(digits) => {
                let digits = RawValue::from_string(digits.clone());
                self.set(&name, digits.map_err(|e| Failure::new(UNEXPECTED, e))?)
            }
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn json(
    global: &Global,
    args: &Aggregate,
    done: &Aggregated,
    took: Duration,
) -> Result<(), Failure> {
    let new = || Object { has_number_strings: args.number_strings, ..Object::default() };
    let mut object = new();
    object.set("at", output::digits(done.at.get()))?;
    object.set("ranges", done.ranges())?;
    object.set("rows", done.answer.rows)?;
    object.set("skipped", done.answer.skipped)?;
    let is_grouped = args.group_by.is_some();
    if let (false, Some(only)) = (is_grouped, done.answer.groups.first()) {
        for (function, figure) in &only.figures {
            object.set_figure(*function, figure)?;
        }
    }
    let groups = done.answer.groups.iter().map(|group| {
        let mut object = new();
        match &group.name {
            Some(name) => {
                let mut field = serde_json::Map::new();
                global.encoding().field(&mut field, "key", name);
                for (name, value) in field {
                    object.set(&name, value)?;
                }
            }
            None => object.set("key", ())?,
        }
        object.set("rows", group.rows)?;
        object.set("skipped", group.skipped)?;
        for (function, figure) in &group.figures {
            object.set_figure(*function, figure)?;
        }
        Ok(object)
    });
    object.set("groups", groups.collect::<Result<Vec<_>, Failure>>()?)?;
    if args.explain {
        let work = done.work.iter().map(|work| {
            serde_json::json!({
                "range": work.range.get(),
                "leader": work.node.get(),
                "rows": work.rows,
                "bytes": work.bytes,
                "ms": work.took.as_secs_f64() * 1000.0,
            })
        });
        let explain = serde_json::json!({
            "ms": took.as_secs_f64() * 1000.0,
            "repeated": done.repeated,
            "ranges": work.collect::<Vec<_>>(),
        });
        object.set("explain", explain)?;
    }
    let line = serde_json::to_string(&object).map_err(|e| Failure::new(UNEXPECTED, e))?;
    output::line(&line)
}

fn table(
    global: &Global,
    args: &Aggregate,
    done: &Aggregated,
    took: Duration,
) -> Result<(), Failure> {
    let shown = |figure: &Figure| match figure {
        Figure::None => "-".to_owned(),
        Figure::Number(digits) => digits.clone(),
        Figure::Special(special) => (*special).to_owned(),
    };
    // What was left out of the numbers stands beside them.
    let has_skipped = done.answer.skipped > 0;
    let skipped = |count: u64| has_skipped.then(|| count.to_string());
    if args.group_by.is_some() {
        let functions: Vec<String> = match done.answer.groups.first() {
            Some(group) => {
                group.figures.iter().map(|(f, _)| f.to_string().to_uppercase()).collect()
            }
            None => Vec::new(),
        };
        let header = ["GROUP"].into_iter().chain(functions.iter().map(String::as_str));
        let header: Vec<&str> = header.chain(has_skipped.then_some("SKIPPED")).collect();
        let row = |group: &GroupAnswer| {
            let name = group.name.as_ref();
            let name = name.map_or_else(|| "null".to_owned(), |name| global.encoding().show(name));
            let figures = group.figures.iter().map(|(_, figure)| shown(figure));
            [name].into_iter().chain(figures).chain(skipped(group.skipped)).collect()
        };
        output::table(&header, done.answer.groups.iter().map(row).collect())?;
    } else if let Some(only) = done.answer.groups.first() {
        let row =
            |(function, figure): &(Function, Figure)| vec![function.to_string(), shown(figure)];
        let skipped = skipped(only.skipped).map(|count| vec!["skipped".to_owned(), count]);
        let rows = only.figures.iter().map(row).chain(skipped).collect();
        output::table(&["FUNCTION", "VALUE"], rows)?;
    }
    if done.answer.skipped > 0 {
        output::say(&format!(
            "{} of {} rows have no value of the kind {} and were left out of the numbers",
            done.answer.skipped, done.answer.rows, args.value
        ));
    }
    if args.explain {
        let row = |work: &isotherm_client::RangeWork| {
            vec![
                work.range.to_string(),
                work.node.to_string(),
                work.rows.to_string(),
                output::bytes(work.bytes),
                format!("{:.1}", work.took.as_secs_f64() * 1000.0),
            ]
        };
        output::line("")?;
        let header = ["RANGE", "LEADER", "ROWS", "READ", "MS"];
        output::table(&header, done.work.iter().map(row).collect())?;
        let nodes: BTreeSet<_> = done.work.iter().map(|w| w.node).collect();
        output::line(&format!(
            "as of {}: {} on {}, {} rows, {} read, {:.1} ms, {} asked again",
            done.at.get(),
            output::count(done.ranges() as usize, "range"),
            output::count(nodes.len(), "node"),
            done.work.iter().map(|w| w.rows).sum::<u64>(),
            output::bytes(done.work.iter().map(|w| w.bytes).sum()),
            took.as_secs_f64() * 1000.0,
            done.repeated,
        ))?;
    }
    Ok(())
}
