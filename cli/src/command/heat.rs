//! What is hot, and why the scheduler does what it does.

use super::client;
use crate::args::Global;
use crate::failure::Failure;
use crate::output::{self, Format};
use isotherm_client::{Client, Decision, HotRange, RangeLoad, Rates};
use isotherm_types::RangeId;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Between two pictures of the live view.
const EVERY: Duration = Duration::from_secs(1);
/// Keys of a range that are shown.
const KEYS_MAX: usize = 3;
/// Keys with less of the heat of their range are not worth a place.
const SHARE_MIN: f64 = 0.05;

/// Cores as people read them.
pub fn cores(cores: f64) -> String {
    if cores < 0.005 { "-".to_owned() } else { format!("{cores:.2}") }
}

fn rates_json(rates: &Rates) -> Value {
    json!({
        "reads": rates.reads,
        "writes": rates.writes,
        "bytes": rates.bytes,
        "appends": rates.appends,
        "cores": rates.cores,
    })
}

/// The load of a range: its rates over a second, and those over ten.
pub fn load_json(load: &RangeLoad) -> Value {
    let mut object = rates_json(&load.fast);
    object["over_10s"] = rates_json(&load.slow);
    object
}

fn decision_json(decision: &Decision) -> Value {
    json!({
        "rule": decision.rule,
        "action": decision.action,
        "reason": decision.reason,
        "age_ms": decision.age.as_millis() as u64,
        "outcome": decision.outcome,
    })
}

fn decision_text(decision: &Decision) -> String {
    match &decision.action {
        None => decision.reason.clone(),
        Some(action) => {
            let outcome = decision.outcome.as_deref().unwrap_or("under way");
            format!("{action} ({outcome}): {}", decision.reason)
        }
    }
}

fn keys_json(global: &Global, load: &RangeLoad) -> Value {
    let key = |sample: &isotherm_client::KeySample| {
        let mut object = Map::new();
        global.encoding().field(&mut object, "key", &sample.key);
        object.insert("share".to_owned(), sample.share.into());
        Value::from(object)
    };
    load.keys.iter().filter(|k| k.share >= SHARE_MIN).map(key).collect()
}

fn keys_text(global: &Global, load: &RangeLoad) -> String {
    let hot = load.keys.iter().take(KEYS_MAX).filter(|k| k.share >= SHARE_MIN);
    let key = |sample: &isotherm_client::KeySample| {
        format!("{} {:.0} %", global.encoding().show(&sample.key), sample.share * 100.0)
    };
    hot.map(key).collect::<Vec<_>>().join(", ")
}

/// Whether the span from `start` to `end` holds one key only: there is none between a key and the same
/// key with a zero behind it. Such a range cannot be cut any more.
fn is_one_key(start: &[u8], end: &[u8]) -> bool {
    end.split_last().is_some_and(|(last, rest)| *last == 0 && rest == start)
}

fn hot_json(global: &Global, range: &HotRange) -> Value {
    let mut object = Map::new();
    object.insert("id".to_owned(), range.range.get().into());
    global.encoding().field(&mut object, "start", &range.start);
    global.encoding().field(&mut object, "end", &range.end);
    object.insert("one_key".to_owned(), is_one_key(&range.start, &range.end).into());
    object.insert("leader".to_owned(), range.leader.map(|n| n.get()).into());
    object.insert("load".to_owned(), load_json(&range.load));
    object.insert("keys".to_owned(), keys_json(global, &range.load));
    object.insert("decision".to_owned(), range.decision.as_ref().map(decision_json).into());
    object.into()
}

fn hot_row(global: &Global, range: &HotRange) -> Vec<String> {
    let fast = &range.load.fast;
    let start = if range.start.is_empty() {
        "-inf".to_owned()
    } else {
        global.encoding().show(&range.start)
    };
    let mark = if is_one_key(&range.start, &range.end) { " (one key)" } else { "" };
    vec![
        range.range.to_string(),
        format!("{start}{mark}"),
        range.leader.map_or("-".to_owned(), |n| n.to_string()),
        cores(fast.cores),
        cores(range.load.slow.cores),
        format!("{:.0}", fast.reads),
        format!("{:.0}", fast.writes),
        keys_text(global, &range.load),
        range.decision.as_ref().map(decision_text).unwrap_or_default(),
    ]
}

const HOT_HEADER: [&str; 9] = [
    "RANGE",
    "START",
    "LEADER",
    "CORES",
    "OVER 10 s",
    "READS/s",
    "WRITES/s",
    "HOTTEST KEYS",
    "LAST DECISION",
];

/// The hottest ranges: once, or again every second until it is interrupted.
pub async fn hot(global: &Global, once: bool, limit: u32) -> Result<(), Failure> {
    let client = client(global)?;
    let is_live = !once;
    loop {
        let hot = client.admin().hot(limit).await?;
        match global.format() {
            Format::Json => output::json(&hot.iter().map(|r| hot_json(global, r)).collect())?,
            Format::Table => {
                if is_live {
                    // Clears the screen and goes to its first line.
                    output::line("\x1b[2J\x1b[H")?;
                }
                if hot.is_empty() {
                    output::line("nothing is warm")?;
                }
                output::table(&HOT_HEADER, hot.iter().map(|r| hot_row(global, r)).collect())?;
            }
        }
        if once {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// What was decided about a range lately, and why.
pub async fn explain(global: &Global, client: &Client, range: RangeId) -> Result<(), Failure> {
    let explanation = client.admin().explain(range).await?;
    match global.format() {
        Format::Json => output::json(&json!({
            "range": range.get(),
            "load": load_json(&explanation.load),
            "keys": keys_json(global, &explanation.load),
            "decisions": explanation.decisions.iter().map(decision_json).collect::<Vec<_>>(),
        })),
        Format::Table => {
            let load = &explanation.load;
            output::line(&format!(
                "{range}: {:.2} cores over a second, {:.2} over ten; {:.0} reads/s, {:.0} writes/s",
                load.fast.cores, load.slow.cores, load.fast.reads, load.fast.writes
            ))?;
            let keys = keys_text(global, load);
            if !keys.is_empty() {
                output::line(&format!("hottest keys: {keys}"))?;
            }
            for decision in &explanation.decisions {
                let age = match decision.age {
                    Duration::ZERO => "now".to_owned(),
                    age => format!("{:.0} s ago", age.as_secs_f64()),
                };
                let rule = decision.rule.to_lowercase();
                output::line(&format!("  {age:>10}  {rule}: {}", decision_text(decision)))?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_one_key_is_told_from_others() {
        assert!(is_one_key(b"k", b"k\0"));
        for (start, end) in [(&b"k"[..], &b"l"[..]), (b"k", b"k\x01"), (b"k", b""), (b"", b"k\0")] {
            assert!(!is_one_key(start, end), "{start:?} {end:?}");
        }
    }
}
