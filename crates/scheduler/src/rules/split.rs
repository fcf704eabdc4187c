//! A hot or large range is cut.
//!
//! *Hot*: the one-second average is above the threshold, and so is the ten-second one; or it is
//! above twice the threshold and the ten-second one above half of it; or it was above without a
//! break for `hot_after_ms`. The latter two are for heat that has just begun: the ten-second average
//! needs seven seconds to believe in it.
//!
//! *Bounded*: a range is not cut below the `hot_pieces_per_node`-th part of what the average node
//! carries (at most four thresholds): smaller pieces do not even nodes out any better. So at most
//! that many ranges per node are cut at any time, and heat makes a bounded number of them.
//!
//! *Appends* heat the end of a range wherever it is cut: the end is cut off once, so that the rest is
//! rid of it, and then left alone. *One key* is cut out, and then left alone.

use crate::figures::{Bytes, Percent, Seconds};
use crate::memory::{Piece, threshold};
use crate::pass::{Pass, describe_move};
use crate::rules::split_keys::{self, Cut};
use crate::{Action, Intent, Rule};
use isotherm_types::Key;

/// What one write costs, in reads, about: it is replicated, synced and applied.
const WRITE_IN_READS: f64 = 8.0;
/// Above this many thresholds a range is always worth a cut.
const CROWD_MAX: f64 = 4.0;
/// A key in a reason is cut off after this many bytes.
const KEY_SHOWN: usize = 48;

/// Cuts what is hot, then what is large.
pub(crate) fn run(pass: &mut Pass<'_>) {
    let nodes = pass.nodes.iter().filter(|stand| stand.may_lead).count();
    let cores: f64 = pass.cores.iter().sum();
    let mean = cores / nodes.max(1) as f64;
    let mut under_way =
        pass.memory.orders().filter(|(_, o)| matches!(o.action, Action::Split { .. })).count();
    let most = nodes.max(1).saturating_mul(pass.settings.splits_per_node);
    // The hottest first: they get the places if there are more than may be cut at once.
    let is_due = |&i: &usize| {
        let range = pass.range(i);
        let hot = threshold(range, pass.view, pass.settings);
        range.load.fast.cores.max(range.load.slow.cores) > hot
            || range.size_bytes > pass.settings.split_bytes
    };
    let mut due: Vec<usize> = (0..pass.view.ranges.len()).filter(is_due).collect();
    due.sort_by(|&a, &b| {
        let heat = |i: usize| pass.range(i).load.fast.cores;
        heat(b).total_cmp(&heat(a)).then(a.cmp(&b))
    });
    for i in due {
        let plan = match heat(pass, i, nodes, mean) {
            Err(Some(why)) if pass.range(i).size_bytes <= pass.settings.split_bytes => Err(why),
            Err(_) => size(pass, i),
            Ok(plan) => Ok(plan),
        };
        match plan {
            Ok(plan) => under_way += usize::from(carry_out(pass, i, plan, under_way, most)),
            Err(why) => pass.decline(i, Rule::Split, |_| why),
        }
    }
}

/// A cut that is worth it.
struct Plan {
    keys: Vec<Key>,
    pieces: Vec<Piece>,
    is_heat: bool,
    why: String,
}

fn carry_out(pass: &mut Pass<'_>, i: usize, plan: Plan, under_way: usize, most: usize) -> bool {
    if let Some(pending) = pass.pending(i).filter(|_| {
        pass.memory.order(pass.id(i)).is_none_or(|o| !matches!(o.action, Action::CancelMove { .. }))
    }) {
        let now = pass.view.now_ms;
        let source = pending.from.and_then(|from| pass.view.nodes.get(&from));
        let must = source.is_none_or(|node| {
            node.liveness != crate::Liveness::Up || node.intent == Intent::Decommissioning
        });
        let moving = describe_move(pending, now);
        if must || !plan.is_heat {
            pass.decline(i, Rule::Split, |_| format!("{}; {moving}: that goes first", plan.why));
            return false;
        }
        let range = pass.id(i);
        let reason = format!("{}; {moving}: given up, the cut is more urgent", plan.why);
        pass.order(i, Rule::Split, Action::CancelMove { range }, reason);
        return false;
    }
    if !pass.is_free[i] {
        pass.decline(i, Rule::Split, |pass| format!("{}; {}", plan.why, pass.why_not_free(i)));
        return false;
    }
    if !pass.range(i).may_split {
        pass.decline(i, Rule::Split, |pass| {
            let range = pass.range(i);
            format!(
                "{}; but not all of its {} live replicas have applied the last split of its lineage \
                 yet: it is cut when they have",
                plan.why,
                range.live.len()
            )
        });
        return false;
    }
    if under_way >= most {
        pass.decline(i, Rule::Split, |_| {
            format!(
                "{}; {under_way} splits of hotter ranges are under way, {most} may be",
                plan.why
            )
        });
        return false;
    }
    let (range, keys) = (pass.id(i), plan.keys);
    pass.order_with(i, Rule::Split, Action::Split { range, keys }, plan.why, |order| {
        order.pieces = plan.pieces;
    });
    true
}

/// The cut that heat asks for; or why none, if heat has anything to say.
fn heat(pass: &Pass<'_>, i: usize, nodes: usize, mean: f64) -> Result<Plan, Option<String>> {
    let (range, past, now) = (pass.range(i), pass.past(i), pass.view.now_ms);
    let (fast, slow) = (range.load.fast, range.load.slow);
    let hot = threshold(range, pass.view, pass.settings);
    if fast.cores.max(slow.cores) <= hot {
        return Err(None);
    }
    let figures = format!(
        "{:.2} cores over 1 s and {:.2} over 10 s, hot is {hot:.2}",
        fast.cores, slow.cores
    );
    if fast.cores <= hot {
        return Err(Some(format!("{figures}: cooling down")));
    }
    let lasts =
        past.and_then(|past| past.hot_since_ms).map_or(0, |since| now.saturating_sub(since));
    let is_hot = slow.cores > hot
        || (fast.cores > 2.0 * hot && slow.cores > hot / 2.0)
        || lasts >= pass.settings.hot_after_ms;
    if !is_hot {
        let (lasts, after) = (Seconds(lasts), Seconds(pass.settings.hot_after_ms));
        return Err(Some(format!("{figures}: hot for {lasts} only, a burst may last {after}")));
    }
    let crowd = (mean / pass.settings.hot_pieces_per_node).clamp(hot, CROWD_MAX * hot);
    if fast.cores <= crowd {
        return Err(Some(format!(
            "{figures}, but nodes carry {mean:.2} cores on average: pieces below {crowd:.2} do not \
             even them out any better"
        )));
    }
    if let Some(past) = past.filter(|past| past.is_settling(now)) {
        let wait = Seconds(past.settle_until_ms.saturating_sub(now));
        let what =
            if past.split_ms.is_some_and(|at| now.saturating_sub(at) < pass.settings.settle_ms) {
                "its bounds"
            } else {
                "its leader"
            };
        return Err(Some(format!(
            "{figures}, but {what} changed lately: settling for another {wait}"
        )));
    }
    let span = &range.descriptor.span;
    let appends = if fast.writes > 0.0 { fast.appends / fast.writes } else { 0.0 };
    if appends > 0.5 && fast.writes * WRITE_IN_READS > fast.reads {
        return growing_end(pass, i, &figures, appends);
    }
    // As many as it takes for each to be what a node should carry.
    let fair = mean.clamp(hot, CROWD_MAX * hot);
    let pieces = ((fast.cores / fair).round() as usize).clamp(2, nodes.max(2));
    match split_keys::choose(span, &range.load.sample, pieces) {
        Cut::FewRows(rows) => Err(Some(format!(
            "{figures}, but scans and totals of {rows} rows cause it: wherever it is cut, they read both \
             sides"
        ))),
        Cut::NoSample => Err(Some(format!("{figures}, but no key was sampled yet to cut at"))),
        Cut::OneKey { key, share, keys, .. } if keys.is_empty() => Err(Some(format!(
            "{figures}, but one key carries {}: {} is its own range already, and one key cannot be \
             cut",
            Percent(share),
            show(&key)
        ))),
        Cut::OneKey { key, share, keys, shares } => {
            let why = format!(
                "{figures}; one key carries {}: {} gets its own range",
                Percent(share),
                show(&key)
            );
            Ok(plan(span.start(), keys, &shares, why))
        }
        Cut::At { keys, shares } => {
            let parts: Vec<_> = shares.iter().map(|&share| Percent(share).to_string()).collect();
            let why = format!("{figures}; pieces with {} of the heat", parts.join(", "));
            Ok(plan(span.start(), keys, &shares, why))
        }
    }
}

fn plan(start: &Key, keys: Vec<Key>, shares: &[f64], why: String) -> Plan {
    let starts = Some(start).into_iter().chain(&keys).cloned();
    let piece = |(start, &share): (Key, &f64)| Piece { start, share, is_growing: false };
    let pieces = starts.zip(shares).map(piece).collect();
    Plan { keys, pieces, is_heat: true, why }
}

fn growing_end(
    pass: &Pass<'_>,
    i: usize,
    figures: &str,
    appends: f64,
) -> Result<Plan, Option<String>> {
    let range = pass.range(i);
    let what = format!("{figures}, {} of its writes are appends", Percent(appends));
    if pass.past(i).is_some_and(|past| past.is_growing) {
        return Err(Some(format!(
            "{what}: the growing end is its own range already, and wherever it is cut the heat goes \
             on at its end"
        )));
    }
    let span = &range.descriptor.span;
    match split_keys::highest(span, &range.load.sample) {
        Some(key) => {
            let why = format!("{what}: the growing end, above {}, gets its own range", show(&key));
            let mut plan = plan(span.start(), vec![key], &[1.0 - appends, appends], why);
            plan.pieces[1].is_growing = true;
            Ok(plan)
        }
        None => Err(Some(format!("{what}, but no key was sampled yet to cut the growing end off"))),
    }
}

fn size(pass: &Pass<'_>, i: usize) -> Result<Plan, String> {
    let (range, past, now) = (pass.range(i), pass.past(i), pass.view.now_ms);
    let figures =
        format!("{}, large is {}", Bytes(range.size_bytes), Bytes(pass.settings.split_bytes));
    let settle = pass.settings.settle_ms.saturating_mul(3);
    let age = past.and_then(|past| past.split_ms).map(|at| now.saturating_sub(at));
    if let Some(age) = age.filter(|&age| age < settle) {
        let (age, wait) = (Seconds(age), Seconds(settle.saturating_sub(age)));
        return Err(format!("{figures}, but it was cut {age} ago: its size is believed in {wait}"));
    }
    let span = &range.descriptor.span;
    let inside = |key: &Key| span.contains(key) && key != span.start();
    let middle = range.middle.clone().filter(inside);
    let (key, how) = match middle {
        Some(key) => (Some(key), "half of its bytes lie below"),
        None => {
            (split_keys::median(span, &range.load.sample), "half of its sampled heat lies below")
        }
    };
    let Some(key) = key else {
        return Err(format!("{figures}, but no key in its middle is known to cut at"));
    };
    let why = format!("{figures}; {how} {}", show(&key));
    let mut plan = plan(span.start(), vec![key], &[0.5, 0.5], why);
    plan.pieces[1].is_growing = past.is_some_and(|past| past.is_growing);
    plan.is_heat = false;
    Ok(plan)
}

/// A key in a reason.
fn show(key: &Key) -> String {
    let dots = if key.len() > KEY_SHOWN { "…" } else { "" };
    format!("\"{}\"{dots}", key[..key.len().min(KEY_SHOWN)].escape_ascii())
}
